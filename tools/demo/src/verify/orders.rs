//! The audit of the product sale: from what was offered and from what the customers were told it
//! follows what the database must hold and what the data platform must have got.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use firstcome_contract::{
    event::{Data, OrderCompleted},
    job::place_order::{OrderPlaced, ShortItem},
    order::{Fulfilment, Item},
    rejection::Rejection,
};
use firstcome_rig::{
    answers::{Outcome, SettledJob},
    figures::{amount, count},
};
use firstcome_workers::commands::mock_data_platform::Received;
use uuid::Uuid;

use super::{Check, clicks, jobs};
use crate::{
    load::Record,
    mix::{Offer, PlannedOrder},
    setup::DISCOUNT,
    stored::StoredSale,
};

/// How an order may be rejected in this sale.
const FORESEEN: [Rejection; 4] = [
    Rejection::OutOfStock,
    Rejection::CouponNotOwned,
    Rejection::CouponAlreadyUsed,
    Rejection::InsufficientBalance,
];

/// A completed order, as its customer was told.
pub(super) struct Bought<'a> {
    planned: &'a PlannedOrder,
    pub(super) user: i64,
    /// Several, if it was sent twice and the second one got a job of its own.
    pub(super) jobs: Vec<Uuid>,
    pub(super) placed: &'a OrderPlaced,
}

impl Bought<'_> {
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.planned.order.items.iter().filter(|item| !self.placed.dropped.contains(item))
    }

    fn amounts(&self) -> (i64, i64, i64) {
        let OrderPlaced { items_amount, discount, paid, .. } = self.placed;
        (items_amount.get(), discount.get(), paid.get())
    }

    fn campaign(&self) -> Option<i64> {
        self.planned.order.coupon_id.map(|campaign| campaign.get())
    }
}

/// By order id.
pub(super) type Orders<'a> = BTreeMap<i64, Bought<'a>>;

/// The checks of this very sale.
#[must_use]
pub(crate) fn checks(
    record: &Record,
    offer: &Offer,
    stored: &StoredSale,
    received: &[Received],
) -> Vec<Check> {
    let bought = bought(record, offer);
    let mut checks = clicks(record, offer.clicks);
    checks.extend(jobs(record, &stored.outcomes, &FORESEEN));
    checks.extend([
        once(record, offer),
        completed(offer, &bought),
        rejected(record, offer, stored, &bought),
        orders(stored, &bought),
        stocks(offer, stored, &bought),
        balances(offer, stored, &bought),
        payments(stored, &bought),
        coupons(offer, stored, &bought),
        statistics(offer, stored, &bought),
        events(received, offer, &bought),
    ]);
    checks
}

pub(super) fn bought<'a>(record: &'a Record, offer: &'a Offer) -> Orders<'a> {
    let mut orders = Orders::new();
    for told in &record.settled {
        if let (Some(placed), Some(planned)) = (told.outcome.order(), offer.orders.get(told.intent))
        {
            let bought = Bought { planned, user: told.user, jobs: Vec::new(), placed };
            orders.entry(placed.order_id.get()).or_insert(bought).jobs.push(told.job);
        }
    }
    orders
}

fn once(record: &Record, offer: &Offer) -> Check {
    let mut endings: HashMap<usize, &Outcome> = HashMap::new();
    let mut owners: HashMap<i64, usize> = HashMap::new();
    let (mut differing, mut shared) = (0, 0);
    for told in &record.settled {
        let first = *endings.entry(told.intent).or_insert(&told.outcome);
        let same = first.name() == told.outcome.name() && first.result == told.outcome.result;
        differing += usize::from(!same);
        if let Some(order) = told.outcome.order() {
            let owner = *owners.entry(order.order_id.get()).or_insert(told.intent);
            shared += usize::from(owner != told.intent);
        }
    }
    let jobs: HashSet<Uuid> = record.settled.iter().map(|told| told.job).collect();
    Check {
        what: "what was sent twice under one key is one order, and no two orders are one",
        figures: format!(
            "{} orders wanted, {} of them sent twice, {} repeats got a job that repeats the outcome; {} ended differently, {} shared",
            count(offer.orders.len()),
            count(offer.clicks.saturating_sub(offer.orders.len())),
            count(jobs.len().saturating_sub(endings.len())),
            count(differing),
            count(shared)
        ),
        violations: differing + shared,
    }
}

pub(super) fn completed(offer: &Offer, bought: &Orders<'_>) -> Check {
    let wrong = bought.values().filter(|order| {
        let asked = &order.planned.order;
        let dropped = &order.placed.dropped;
        let may_drop = asked.fulfilment == Fulfilment::Partial;
        let fits = dropped.iter().all(|item| asked.items.contains(item))
            && (dropped.is_empty() || may_drop)
            && dropped.len() < asked.items.len();
        let price = price(offer, order.items());
        let discount = if asked.coupon_id.is_some() { DISCOUNT.min(price) } else { 0 };
        !fits || order.amounts() != (price, discount, price - discount)
    });
    let wrong = wrong.count();
    let partial = bought.values().filter(|order| !order.placed.dropped.is_empty()).count();
    Check {
        what: "every completed order is what was asked for, at its price, less its coupon",
        figures: format!(
            "{} completed, {} of them without what was short; {} wrong",
            count(bought.len()),
            count(partial),
            count(wrong)
        ),
        violations: wrong,
    }
}

/// Stocks and balances only fall in this sale, so what is there in the end was there all along.
fn rejected(record: &Record, offer: &Offer, stored: &StoredSale, bought: &Orders<'_>) -> Check {
    let spent = spent(bought);
    let used: HashSet<i64> = uses(bought).into_iter().map(|(user, _)| user).collect();
    let is_short = |asked: &[Item], short: &ShortItem| {
        let item = Item { product_id: short.product_id, quantity: short.requested };
        let left = stored.stocks.get(&short.product_id.get()).copied().unwrap_or_default();
        asked.contains(&item) && short.requested > short.available && short.available >= left
    };
    let justified = |user: i64, planned: &PlannedOrder, outcome: &Outcome| {
        let asked = &planned.order;
        match outcome.name() {
            "out-of-stock" => {
                let short = &outcome.detail.items;
                let enough = match asked.fulfilment {
                    Fulfilment::All => !short.is_empty(),
                    Fulfilment::Partial => short.len() == asked.items.len(),
                };
                enough && short.iter().all(|short| is_short(&asked.items, short))
            }
            "coupon-not-owned" => asked.coupon_id.is_some() && !offer.winners.contains(&user),
            "coupon-already-used" => asked.coupon_id.is_some() && used.contains(&user),
            "insufficient-balance" => {
                let before = offer.balances.get(&user).copied().unwrap_or_default();
                let left = before - spent.get(&user).copied().unwrap_or_default();
                let discount = if asked.coupon_id.is_some() { DISCOUNT } else { 0 };
                price(offer, asked.items.iter()) - discount > left
            }
            _ => false,
        }
    };
    // What was sent twice was told twice.
    let rejections = record.settled.iter().filter(|told| told.outcome.order().is_none());
    let rejections: HashMap<Uuid, &SettledJob> = rejections.map(|told| (told.job, told)).collect();
    let mut unjustified = BTreeMap::new();
    for told in rejections.values() {
        let planned = offer.orders.get(told.intent);
        if !planned.is_some_and(|planned| justified(told.user, planned, &told.outcome)) {
            *unjustified.entry(told.outcome.name()).or_insert(0) += 1;
        }
    }
    let violations = unjustified.values().sum();
    let by_code: Vec<String> =
        unjustified.iter().map(|(code, times)| format!(", {times}× {code}")).collect();
    Check {
        what: "every rejection has its reason: what was short, not held, used or unaffordable",
        figures: format!(
            "{} rejected, {violations} without reason{}",
            count(rejections.len()),
            by_code.concat()
        ),
        violations,
    }
}

pub(super) fn orders(stored: &StoredSale, bought: &Orders<'_>) -> Check {
    let same = |(id, told): (&i64, &Bought<'_>)| {
        let Some(order) = stored.orders.get(id) else { return false };
        let items: Vec<(i64, i64)> =
            order.items.iter().map(|(product, _, quantity)| (*product, *quantity)).collect();
        let told_items: Vec<(i64, i64)> =
            told.items().map(|item| (item.product_id.get(), item.quantity)).collect();
        told.jobs.contains(&order.job)
            && order.user == told.user
            && order.campaign == told.campaign()
            && order.amounts == told.amounts()
            && items == told_items
    };
    let wrong = bought.iter().filter(|entry| !same(*entry)).count();
    let untold = stored.orders.keys().filter(|id| !bought.contains_key(id)).count();
    Check {
        what: "the orders are those that the customers were told of",
        figures: format!(
            "{} orders, {} missing or different, {} not told",
            count(stored.orders.len()),
            count(wrong),
            count(untold)
        ),
        violations: wrong + untold,
    }
}

fn stocks(offer: &Offer, stored: &StoredSale, bought: &Orders<'_>) -> Check {
    let sold = sold(bought);
    let mut figures = Vec::new();
    let mut violations = 0;
    for product in &offer.products {
        let sold = sold.get(&product.id).copied().unwrap_or_default();
        let left = stored.stocks.get(&product.id).copied();
        let right = left == Some(product.stock - sold) && sold <= product.stock;
        violations += usize::from(!right);
        let left = left.map_or("gone".to_owned(), amount);
        let (stock, sold) = (amount(product.stock), amount(sold));
        figures.push(format!("{} {stock} − {sold} = {left}", product.name));
    }
    Check {
        what: "nothing is oversold: what is left of a product is its stock less what was bought",
        figures: figures.join(", "),
        violations,
    }
}

fn balances(offer: &Offer, stored: &StoredSale, bought: &Orders<'_>) -> Check {
    let spent = spent(bought);
    let right = |(user, before): (&i64, &i64)| {
        let left = before - spent.get(user).copied().unwrap_or_default();
        left >= 0 && stored.balances.get(user) == Some(&left)
    };
    let violations = offer.balances.iter().filter(|entry| !right(*entry)).count();
    let all = |balances: &HashMap<i64, i64>| balances.values().sum::<i64>();
    Check {
        what: "every balance is what it was less what its owner paid, and never negative",
        figures: format!(
            "{} users, {} − {} = {} won; {} wrong",
            count(offer.balances.len()),
            amount(all(&offer.balances)),
            amount(all(&spent)),
            amount(all(&stored.balances)),
            count(violations)
        ),
        violations,
    }
}

pub(super) fn payments(stored: &StoredSale, bought: &Orders<'_>) -> Check {
    let right = |(id, told): (&i64, &Bought<'_>)| {
        let (.., paid) = told.amounts();
        stored.orders.get(id).is_some_and(|order| order.payments == [paid])
    };
    let violations = bought.iter().filter(|entry| !right(*entry)).count();
    let payments: usize = stored.orders.values().map(|order| order.payments.len()).sum();
    Check {
        what: "every completed order is paid once, with the amount its customer was told",
        figures: format!(
            "{} orders, {} payments, {} wrong",
            count(bought.len()),
            count(payments),
            count(violations)
        ),
        violations,
    }
}

fn coupons(offer: &Offer, stored: &StoredSale, bought: &Orders<'_>) -> Check {
    let told = uses(bought);
    let stored: BTreeSet<(i64, i64)> = stored.used.iter().copied().collect();
    let users: HashSet<i64> = told.iter().map(|(user, _)| *user).collect();
    let again = told.len() - users.len();
    let foreign = users.iter().filter(|user| !offer.winners.contains(user)).count();
    let different = told.symmetric_difference(&stored).count();
    Check {
        what: "a coupon is used at most once, by its holder, for the order that names it",
        figures: format!(
            "{} held, {} used; {} used again, {} by others, {} stored differently",
            count(offer.winners.len()),
            count(told.len()),
            count(again),
            count(foreign),
            count(different)
        ),
        violations: again + foreign + different,
    }
}

fn statistics(offer: &Offer, stored: &StoredSale, bought: &Orders<'_>) -> Check {
    let mut expected = BTreeMap::new();
    for (id, order) in bought {
        // An order that is not stored is another check's violation.
        let Some(day) = stored.orders.get(id).map(|order| order.day) else { continue };
        for item in order.items() {
            let sum = expected.entry((day, item.product_id.get())).or_insert((0, 0));
            *sum = (sum.0 + item.quantity, sum.1 + price(offer, [item]));
        }
    }
    let keys: BTreeSet<_> = expected.keys().chain(stored.statistics.keys()).collect();
    let wrong = keys.iter().filter(|key| expected.get(**key) != stored.statistics.get(**key));
    let wrong = wrong.count();
    let units = |sums: &BTreeMap<_, (i64, i64)>| sums.values().map(|(units, _)| units).sum::<i64>();
    Check {
        what: "the sales statistics are the items of the completed orders, by product and day",
        figures: format!(
            "{} products and days, {} units bought, {} counted; {} wrong",
            count(expected.len()),
            amount(units(&expected)),
            amount(units(&stored.statistics)),
            count(wrong)
        ),
        violations: wrong,
    }
}

fn events(received: &[Received], offer: &Offer, bought: &Orders<'_>) -> Check {
    let as_told = |received: &Received| {
        let Some(order) = completed_order(received) else { return false };
        let Some(told) = bought.get(&order.order_id.get()) else { return false };
        let items: Vec<(i64, i64, i64)> = order
            .items
            .iter()
            .map(|item| (item.product_id.get(), item.quantity, item.unit_price.get()))
            .collect();
        let told_items: Vec<(i64, i64, i64)> = told
            .items()
            .map(|item| {
                let one = Item { quantity: 1, ..*item };
                (item.product_id.get(), item.quantity, price(offer, [&one]))
            })
            .collect();
        told.jobs.contains(&received.event.id)
            && order.user_id.get() == told.user
            && order.coupon_id == told.planned.order.coupon_id
            && (order.items_amount.get(), order.discount.get(), order.paid.get()) == told.amounts()
            && items == told_items
    };
    let wrong = received.iter().filter(|event| !as_told(event)).count();
    let orders: Vec<i64> =
        received.iter().filter_map(completed_order).map(|order| order.order_id.get()).collect();
    let all = orders.len();
    let orders: HashSet<i64> = orders.into_iter().collect();
    let again = all - orders.len();
    let missing = bought.keys().filter(|id| !orders.contains(id)).count();
    let times: usize = received.iter().filter_map(|event| usize::try_from(event.times).ok()).sum();
    Check {
        what: "the data platform got the event of every completed order, and no other",
        figures: format!(
            "{} orders, {} events, {} delivered twice with the same id; {} missing, {} wrong, {} under a second id",
            count(bought.len()),
            count(received.len()),
            count(times.saturating_sub(received.len())),
            count(missing),
            count(wrong),
            count(again)
        ),
        violations: missing + wrong + again,
    }
}

fn completed_order(received: &Received) -> Option<&OrderCompleted> {
    match &received.event.data {
        Data::OrderCompleted(order) => Some(order),
        Data::OrderCancelled(_)
        | Data::CouponIssued(_)
        | Data::CouponSoldOut(_)
        | Data::ProductSoldOut(_) => None,
    }
}

pub(super) fn price<'a>(offer: &Offer, items: impl IntoIterator<Item = &'a Item>) -> i64 {
    let of = |item: &Item| {
        let product = offer.products.iter().find(|product| product.id == item.product_id.get())?;
        Some(product.price * item.quantity)
    };
    items.into_iter().filter_map(of).sum()
}

/// How many of each product.
pub(super) fn sold(bought: &Orders<'_>) -> HashMap<i64, i64> {
    let mut sold = HashMap::new();
    for item in bought.values().flat_map(Bought::items) {
        *sold.entry(item.product_id.get()).or_default() += item.quantity;
    }
    sold
}

/// How much by each user.
pub(super) fn spent(bought: &Orders<'_>) -> HashMap<i64, i64> {
    let mut spent = HashMap::new();
    for order in bought.values() {
        *spent.entry(order.user).or_default() += order.placed.paid.get();
    }
    spent
}

/// Whose coupon was used for which order.
fn uses(bought: &Orders<'_>) -> BTreeSet<(i64, i64)> {
    let uses = bought.iter().filter(|(_, order)| order.planned.order.coupon_id.is_some());
    uses.map(|(id, order)| (order.user, *id)).collect()
}

#[cfg(test)]
mod tests;
