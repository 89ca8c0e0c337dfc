//! The audit of act 3: from what act 2 left, what was given back and what was bought since, it follows what there must
//! be, to the unit and the won.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, NaiveDate, Utc};
use firstcome_contract::{
    event::{Data, Event, OrderCancelled, OrderCompleted, SoldItem},
    job::cancel_order,
    order::Item,
    rejection::Rejection,
};
use firstcome_rig::{
    answers::SettledJob,
    figures::{amount, count},
};
use firstcome_workers::commands::mock_data_platform::Received;
use uuid::Uuid;

use super::{
    Check, clicks, jobs,
    orders::{self, Bought, Orders, price, sold, spent},
};
use crate::{
    load::Record,
    mix::{Offer, Product},
    returns::{Plan, Return},
    stored::StoredSale,
};

/// How a job may be rejected in this act.
const FORESEEN: [Rejection; 2] = [Rejection::OutOfStock, Rejection::OrderAlreadyCancelled];

/// A cancelled order, as its customer was told.
struct Cancelled<'a> {
    returned: &'a Return,
    /// Several, if it was sent twice under one key and the second one got a job of its own.
    jobs: Vec<Uuid>,
    told: &'a cancel_order::OrderCancelled,
}

/// By order id.
type Cancellations<'a> = BTreeMap<i64, Cancelled<'a>>;

/// What there is to compare.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Books<'a> {
    /// As act 2 left them.
    pub(crate) before: &'a StoredSale,
    /// As they are now.
    pub(crate) after: &'a StoredSale,
    /// Every event that the data platform got, those of act 2 included.
    pub(crate) received: &'a [Received],
}

/// The checks of this very act.
#[must_use]
pub(crate) fn checks(record: &Record, plan: &Plan, books: Books<'_>) -> Vec<Check> {
    let Books { before, after, .. } = books;
    let bought = orders::bought(record, &plan.offer);
    let cancelled = cancelled(record, plan);
    let is_new = |(order, _): &(&i64, &_)| !before.orders.contains_key(order);
    let new = after.orders.iter().filter(is_new).map(|(order, stored)| (*order, stored.clone()));
    let new = StoredSale { orders: new.collect(), ..StoredSale::default() };
    let mut checks = clicks(record, plan.offer.clicks);
    checks.extend(jobs(record, &after.outcomes, &FORESEEN));
    checks.extend([
        once(record, plan),
        returned(&cancelled),
        marked(books, &cancelled),
        orders::completed(&plan.offer, &bought),
        refused(record, plan, after),
        orders::orders(&new, &bought),
        orders::payments(&new, &bought),
        refunds(after, &cancelled),
        stocks(plan, after, &bought, &cancelled),
        balances(books, &bought, &cancelled),
        coupons(books, &cancelled),
        statistics(plan, books, &bought, &cancelled),
        events(plan, books, &bought, &cancelled),
    ]);
    checks
}

fn cancelled<'a>(record: &'a Record, plan: &'a Plan) -> Cancellations<'a> {
    let mut cancelled = Cancellations::new();
    for told in &record.settled {
        if let (Some(result), Some((_, returned))) =
            (told.outcome.cancelled(), plan.return_of(told.intent))
        {
            let first = Cancelled { returned, jobs: Vec::new(), told: result };
            cancelled.entry(returned.order).or_insert(first).jobs.push(told.job);
        }
    }
    cancelled
}

fn once(record: &Record, plan: &Plan) -> Check {
    let mut successes: HashMap<usize, HashSet<usize>> = HashMap::new();
    let mut refused = HashSet::new();
    for told in &record.settled {
        let Some((index, _)) = plan.return_of(told.intent) else { continue };
        if told.outcome.cancelled().is_some() {
            successes.entry(index).or_default().insert(told.intent);
        } else {
            refused.insert(told.intent);
        }
    }
    let is_once = |index: &usize| successes.get(index).is_some_and(|intents| intents.len() == 1);
    let wrong = (0..plan.returns.len()).filter(|index| !is_once(index)).count();
    Check {
        what: "an order is cancelled once, however often that is asked for",
        figures: format!(
            "{} orders, {} times asked for, {} times told that it was cancelled before; {} wrong",
            count(plan.returns.len()),
            count(plan.asked.len()),
            count(refused.len()),
            count(wrong)
        ),
        violations: wrong,
    }
}

fn returned(cancelled: &Cancellations<'_>) -> Check {
    let right = |order: &&Cancelled<'_>| {
        let Cancelled { returned, told, .. } = order;
        (told.order_id.get(), told.refunded.get(), told.coupon_returned)
            == (returned.order, returned.paid, returned.with_coupon)
    };
    let wrong = cancelled.values().filter(|order| !right(order)).count();
    let coupons = cancelled.values().filter(|order| order.told.coupon_returned).count();
    Check {
        what: "a cancelled order gives back all that was paid, and its coupon",
        figures: format!(
            "{} cancelled, {} won and {} coupons back; {} wrong",
            count(cancelled.len()),
            amount(refunded(cancelled).values().sum()),
            count(coupons),
            count(wrong)
        ),
        violations: wrong,
    }
}

fn marked(books: Books<'_>, cancelled: &Cancellations<'_>) -> Check {
    let Books { before, after, .. } = books;
    let changed = before
        .orders
        .iter()
        .filter(|(order, stored)| after.orders.get(order) != Some(*stored))
        .count();
    let by_its_job = |(order, job): &(&i64, &Uuid)| {
        cancelled.get(order).is_some_and(|told| told.jobs.contains(job))
    };
    let foreign = after.cancelled.iter().filter(|stored| !by_its_job(stored)).count();
    let missing = cancelled.keys().filter(|order| !after.cancelled.contains_key(order)).count();
    Check {
        what: "the cancelled orders are those that their customers were told of, and what they were stays",
        figures: format!(
            "{} cancelled, {} missing, {} others; {} of {} orders changed",
            count(after.cancelled.len()),
            count(missing),
            count(foreign),
            count(changed),
            count(before.orders.len())
        ),
        violations: missing + foreign + changed,
    }
}

/// When the last order was cancelled: from then on stocks only fall.
fn last_cancelled(record: &Record) -> Option<DateTime<Utc>> {
    let cancelled = record.settled.iter().filter(|told| told.outcome.cancelled().is_some());
    cancelled.map(|told| told.outcome.settled_at).max()
}

fn refused(record: &Record, plan: &Plan, after: &StoredSale) -> Check {
    let last_cancelled = last_cancelled(record);
    let is_short = |told: &SettledJob, asked: &[Item]| {
        let short = &told.outcome.detail.items;
        let falls = last_cancelled.is_none_or(|at| at < told.submitted_at);
        !short.is_empty()
            && short.iter().all(|short| {
                let item = Item { product_id: short.product_id, quantity: short.requested };
                let left = after.stocks.get(&short.product_id.get()).copied().unwrap_or_default();
                asked.contains(&item)
                    && short.requested > short.available
                    && short.available >= if falls { left } else { 0 }
            })
    };
    let rejections: HashMap<Uuid, &SettledJob> = record
        .settled
        .iter()
        .filter(|told| told.outcome.name() == Rejection::OutOfStock.code())
        .map(|told| (told.job, told))
        .collect();
    let unjustified = rejections.values().filter(|told| {
        let planned = plan.offer.orders.get(told.intent);
        !planned.is_some_and(|planned| is_short(told, &planned.order.items))
    });
    let unjustified = unjustified.count();
    Check {
        what: "what came back went to who was next: nobody was refused what was there",
        figures: format!(
            "{} orders refused, {} without reason",
            count(rejections.len()),
            count(unjustified)
        ),
        violations: unjustified,
    }
}

fn refunds(after: &StoredSale, cancelled: &Cancellations<'_>) -> Check {
    let told = cancelled.values().filter(|order| order.told.refunded.get() > 0);
    let told: BTreeSet<(i64, i64, i64)> = told
        .map(|order| (order.returned.user, order.returned.order, order.told.refunded.get()))
        .collect();
    let stored: BTreeSet<(i64, i64, i64)> = after.refunds.iter().copied().collect();
    let again = after.refunds.len() - stored.len();
    let different = told.symmetric_difference(&stored).count();
    Check {
        what: "every cancelled order is refunded once, to who paid it, unless it cost nothing",
        figures: format!(
            "{} refunds, {} of them again, {} missing or different",
            count(after.refunds.len()),
            count(again),
            count(different)
        ),
        violations: again + different,
    }
}

fn stocks(
    plan: &Plan,
    after: &StoredSale,
    bought: &Orders<'_>,
    cancelled: &Cancellations<'_>,
) -> Check {
    let (sold, back) = (sold(bought), back(cancelled));
    let mut figures = Vec::new();
    let mut violations = 0;
    for Product { id, name, stock, .. } in &plan.offer.products {
        let of = |units: &HashMap<i64, i64>| units.get(id).copied().unwrap_or_default();
        let (sold, back, left) = (of(&sold), of(&back), after.stocks.get(id).copied());
        violations += usize::from(left != Some(stock + back - sold) || sold > stock + back);
        let left = left.map_or("gone".to_owned(), amount);
        let (stock, back, sold) = (amount(*stock), amount(back), amount(sold));
        figures.push(format!("{name} {stock} + {back} − {sold} = {left}"));
    }
    Check {
        what: "what is left of a product is what there was, plus what came back, less what was bought",
        figures: figures.join(", "),
        violations,
    }
}

fn balances(books: Books<'_>, bought: &Orders<'_>, cancelled: &Cancellations<'_>) -> Check {
    let (spent, refunded) = (spent(bought), refunded(cancelled));
    let right = |(user, before): (&i64, &i64)| {
        let of = |amounts: &HashMap<i64, i64>| amounts.get(user).copied().unwrap_or_default();
        let left = before - of(&spent) + of(&refunded);
        left >= 0 && books.after.balances.get(user) == Some(&left)
    };
    let violations = books.before.balances.iter().filter(|entry| !right(*entry)).count();
    let all = |balances: &HashMap<i64, i64>| balances.values().sum::<i64>();
    Check {
        what: "every balance is what it was, plus what came back, less what its owner paid",
        figures: format!(
            "{} users, {} + {} − {} = {} won; {} wrong",
            count(books.before.balances.len()),
            amount(all(&books.before.balances)),
            amount(all(&refunded)),
            amount(all(&spent)),
            amount(all(&books.after.balances)),
            count(violations)
        ),
        violations,
    }
}

fn coupons(books: Books<'_>, cancelled: &Cancellations<'_>) -> Check {
    let used = |stored: &StoredSale| stored.used.iter().copied().collect::<BTreeSet<_>>();
    let (before, after) = (used(books.before), used(books.after));
    let kept = before.iter().filter(|(_, order)| !cancelled.contains_key(order)).copied();
    let kept: BTreeSet<(i64, i64)> = kept.collect();
    let different = kept.symmetric_difference(&after).count();
    Check {
        what: "the coupons of cancelled orders are unused again, and no others",
        figures: format!(
            "{} were used, {} came back, {} are used; {} different",
            count(before.len()),
            count(before.len() - kept.len()),
            count(after.len()),
            count(different)
        ),
        violations: different,
    }
}

fn statistics(
    plan: &Plan,
    books: Books<'_>,
    bought: &Orders<'_>,
    cancelled: &Cancellations<'_>,
) -> Check {
    let Books { before, after, .. } = books;
    let mut expected = before.statistics.clone();
    let mut add = |day: Option<NaiveDate>, item: &Item, sign: i64| {
        // An order that is not stored is another check's violation.
        let Some(day) = day else { return };
        let sum = expected.entry((day, item.product_id.get())).or_default();
        let won = price(&plan.offer, [item]);
        *sum = (sum.0 + sign * item.quantity, sum.1 + sign * won);
    };
    let day_of = |order: &i64| after.orders.get(order).map(|stored| stored.day);
    for (order, told) in bought {
        told.items().for_each(|item| add(day_of(order), item, 1));
    }
    for (order, told) in cancelled {
        told.returned.items.iter().for_each(|item| add(day_of(order), item, -1));
    }
    let keys: BTreeSet<_> = expected.keys().chain(after.statistics.keys()).copied().collect();
    let of = |sums: &BTreeMap<(NaiveDate, i64), (i64, i64)>, key: &(NaiveDate, i64)| {
        sums.get(key).copied().unwrap_or_default()
    };
    let wrong = keys.iter().filter(|key| of(&expected, key) != of(&after.statistics, key));
    let wrong = wrong.count();
    let units = |sums: &BTreeMap<_, (i64, i64)>| sums.values().map(|(units, _)| units).sum::<i64>();
    Check {
        what: "the sales statistics are the completed orders less the cancelled ones, by product and day",
        figures: format!(
            "{} units before, {} bought, {} back, {} counted; {} wrong",
            amount(units(&before.statistics)),
            amount(sold(bought).values().sum()),
            amount(back(cancelled).values().sum()),
            amount(units(&after.statistics)),
            count(wrong)
        ),
        violations: wrong,
    }
}

fn events(
    plan: &Plan,
    books: Books<'_>,
    bought: &Orders<'_>,
    cancelled: &Cancellations<'_>,
) -> Check {
    let Books { before, received, .. } = books;
    let (mut of_completed, mut of_cancelled, mut wrong) = (HashMap::new(), HashMap::new(), 0);
    for Received { event, .. } in received {
        match &event.data {
            // Those of act 2 are its own audit's.
            Data::OrderCompleted(order) if before.orders.contains_key(&order.order_id.get()) => {}
            Data::OrderCompleted(order) => {
                *of_completed.entry(order.order_id.get()).or_insert(0) += 1;
                let told = bought.get(&order.order_id.get());
                wrong +=
                    usize::from(!told.is_some_and(|told| is_completed(plan, event, order, told)));
            }
            Data::OrderCancelled(order) => {
                *of_cancelled.entry(order.order_id.get()).or_insert(0) += 1;
                let told = cancelled.get(&order.order_id.get());
                wrong +=
                    usize::from(!told.is_some_and(|told| is_cancelled(plan, event, order, told)));
            }
            Data::CouponIssued(_) | Data::CouponSoldOut(_) | Data::ProductSoldOut(_) => wrong += 1,
        }
    }
    let missing = bought.keys().filter(|order| !of_completed.contains_key(*order)).count()
        + cancelled.keys().filter(|order| !of_cancelled.contains_key(*order)).count();
    let again = of_completed.values().chain(of_cancelled.values()).map(|times: &usize| times - 1);
    let again: usize = again.sum();
    Check {
        what: "the data platform got the event of every order that was completed or cancelled, and no other",
        figures: format!(
            "{} completed, {} cancelled; {} missing, {} wrong, {} under a second id",
            count(of_completed.len()),
            count(of_cancelled.len()),
            count(missing),
            count(wrong),
            count(again)
        ),
        violations: missing + wrong + again,
    }
}

fn is_completed(plan: &Plan, event: &Event, order: &OrderCompleted, told: &Bought<'_>) -> bool {
    let items: Vec<Item> = told.items().copied().collect();
    told.jobs.contains(&event.id)
        && order.user_id.get() == told.user
        && order.paid == told.placed.paid
        && are(&plan.offer, &order.items, &items)
}

fn is_cancelled(plan: &Plan, event: &Event, order: &OrderCancelled, told: &Cancelled<'_>) -> bool {
    told.jobs.contains(&event.id)
        && order.user_id.get() == told.returned.user
        && order.refunded == told.told.refunded
        && order.coupon_id.is_some() == told.returned.with_coupon
        && !order.by_operator
        && are(&plan.offer, &order.items, &told.returned.items)
}

/// Whether an event tells of these items, at their prices.
fn are(offer: &Offer, told: &[SoldItem], items: &[Item]) -> bool {
    told.len() == items.len()
        && told.iter().zip(items).all(|(told, item)| {
            let one = Item { quantity: 1, ..*item };
            (told.product_id, told.quantity) == (item.product_id, item.quantity)
                && told.unit_price.get() == price(offer, [&one])
        })
}

/// How many of each product came back.
fn back(cancelled: &Cancellations<'_>) -> HashMap<i64, i64> {
    let mut back = HashMap::new();
    for item in cancelled.values().flat_map(|order| &order.returned.items) {
        *back.entry(item.product_id.get()).or_default() += item.quantity;
    }
    back
}

/// How much each user was told to have back.
fn refunded(cancelled: &Cancellations<'_>) -> HashMap<i64, i64> {
    let mut refunded = HashMap::new();
    for order in cancelled.values() {
        *refunded.entry(order.returned.user).or_default() += order.told.refunded.get();
    }
    refunded
}

#[cfg(test)]
mod tests;
