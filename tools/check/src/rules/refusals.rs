//! A "no" was right: what it was about is put together again as of the moment at which it was said.
//!
//! A batch is one transaction: what it did counts from its beginning, what others did from when they were decided, and what
//! clients did from when they were told, so that every bound is the one at which the "no" is most likely right. What depends
//! on windows, pauses, deletions and edits of prices and limits is not decided here.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::{
    case::{Asked, CLOCKS, Case, Change, Sums, additions, charges, merged},
    coupons::totals,
    products::limit,
};
use crate::{
    history::{End, Item, Request},
    report::Verdict,
    stored::Job,
};

const RULES: [&str; 6] = [
    "sold out is said only when as many were issued",
    "already issued is said only to who has one",
    "out of stock is said, and items are dropped, only where there were too few",
    "a limit is said to be exceeded only where it would be",
    "a balance is said to be too low only where it was",
    "every other no was right, and none that depends on the user came early",
];
const SOLD_OUT: usize = 0;
const ISSUED: usize = 1;
const STOCK: usize = 2;
const LIMIT: usize = 3;
const BALANCE: usize = 4;
const OTHER: usize = 5;

/// By user and campaign.
type Coupons<T> = BTreeMap<(i64, i64), T>;
/// From when, and from when else.
type Times = (DateTime<Utc>, Option<DateTime<Utc>>);

/// A "no", and between when it was decided.
struct No<'a> {
    user: i64,
    request: &'a Request,
    /// When the request was sent.
    invoked: DateTime<Utc>,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

/// The sequential shop, as sums up to any moment.
struct Shop<'a> {
    case: &'a Case<'a>,
    issued: BTreeMap<i64, Sums>,
    /// When each user got a coupon of a campaign; and whether they knew, and when.
    held: Coupons<Times>,
    /// By product.
    sold: BTreeMap<i64, Sums>,
    returned: BTreeMap<i64, Sums>,
    additions: BTreeMap<i64, Vec<Change>>,
    /// By user and product, also of before the sale.
    bought: BTreeMap<(i64, i64), Sums>,
    unbought: BTreeMap<(i64, i64), Sums>,
    /// By user.
    paid: BTreeMap<i64, Sums>,
    refunded: BTreeMap<i64, Sums>,
    charges: BTreeMap<i64, Vec<Change>>,
    /// From when to when a user's coupon was used.
    used: Coupons<Vec<Times>>,
}

fn until<K: Ord>(sums: &BTreeMap<K, Sums>, key: &K, at: DateTime<Utc>) -> i64 {
    sums.get(key).map_or(0, |sums| sums.until(at))
}

fn before<K: Ord>(sums: &BTreeMap<K, Sums>, key: &K, at: DateTime<Utc>) -> i64 {
    sums.get(key).map_or(0, |sums| sums.before(at))
}

impl<'a> Shop<'a> {
    fn new(case: &'a Case<'a>) -> Self {
        let (opening, stored) = (case.opening, case.stored);
        let given = stored.jobs.iter().filter_map(|(id, job)| {
            Some((job.outcome.coupon()?.user_coupon_id.get(), case.told.get(id).copied()?))
        });
        let given: BTreeMap<i64, DateTime<Utc>> = given.collect();
        let known: BTreeSet<i64> = opening.holders.iter().map(|holder| holder.id).collect();
        let held = stored.holders.iter().map(|holder| {
            let told = given.get(&holder.id).copied();
            let told = if known.contains(&holder.id) { Some(holder.issued_at) } else { told };
            ((holder.user, holder.coupon), (holder.issued_at, told))
        });
        let orders = || stored.orders.iter().map(|(id, order)| (*id, order, case.cancelled(*id)));
        let placed = || orders().filter(|(id, ..)| !opening.orders.contains_key(id));
        let undone = || {
            let undone = orders().filter(|(id, ..)| !opening.cancellations.contains_key(id));
            undone.filter_map(|(_, order, at)| Some((order, at?)))
        };
        let mut used: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (_, order, cancelled) in orders() {
            let Some(coupon) = order.coupon else { continue };
            used.entry((order.user, coupon)).or_default().push((order.completed_at, cancelled));
        }
        let issued = stored.holders.iter().map(|holder| (holder.coupon, holder.issued_at, 1));
        let sold = placed().flat_map(|(_, order, _)| {
            order.items.iter().map(|item| (item.product, order.completed_at, item.quantity))
        });
        let returned = undone().flat_map(|(order, at)| {
            order.items.iter().map(move |item| (item.product, at, item.quantity))
        });
        let bought = orders().flat_map(|(_, order, _)| {
            let whose = move |item: &Item| (order.user, item.product);
            order.items.iter().map(move |item| (whose(item), order.completed_at, item.quantity))
        });
        let unbought = orders().filter_map(|(_, order, at)| Some((order, at?)));
        let unbought = unbought.flat_map(|(order, at)| {
            order.items.iter().map(move |item| ((order.user, item.product), at, item.quantity))
        });
        Self {
            case,
            issued: Sums::by(issued),
            held: held.collect(),
            sold: Sums::by(sold),
            returned: Sums::by(returned),
            additions: additions(case.history),
            bought: Sums::by(bought),
            unbought: Sums::by(unbought),
            paid: Sums::by(
                placed().map(|(_, order, _)| (order.user, order.completed_at, order.paid)),
            ),
            refunded: Sums::by(undone().map(|(order, at)| (order.user, at, order.paid))),
            charges: charges(case.history),
            used,
        }
    }

    /// The fewest units of a product that there may have been at the end of a batch.
    fn stock(&self, product: i64, no: &No<'_>) -> Option<i64> {
        let opening = self.case.opening.products.get(&product)?.stock;
        let additions = self.additions.get(&product).into_iter().flatten().filter(|change| {
            let is_certain = change.done.is_some_and(|done| done + CLOCKS < no.from);
            let is_possible = change.invoked <= no.until + CLOCKS;
            if change.amount < 0 { is_possible } else { is_certain }
        });
        let additions: i64 = additions.map(|change| change.amount).sum();
        let sold = until(&self.sold, &product, no.until);
        Some(opening + additions - sold + before(&self.returned, &product, no.from))
    }

    /// The most of a product that a user may have had at the end of a batch.
    fn bought(&self, product: i64, no: &No<'_>) -> i64 {
        let whose = (no.user, product);
        until(&self.bought, &whose, no.until) - before(&self.unbought, &whose, no.from)
    }

    /// The least that a user may have had at the end of a batch.
    fn balance(&self, no: &No<'_>) -> Option<i64> {
        let opening = self.case.opening.balances.get(&no.user)?;
        let charges = self.charges.get(&no.user).into_iter().flatten();
        let charges = charges.filter(|change| change.done.is_some_and(|done| done < no.invoked));
        let charges: i64 = charges.map(|change| change.amount).sum();
        let paid = until(&self.paid, &no.user, no.until);
        Some(opening + charges - paid + before(&self.refunded, &no.user, no.from))
    }

    /// What these items cost before any discount, if no price was edited.
    fn price(&self, items: &[Item]) -> Option<i64> {
        let prices = items.iter().map(|item| {
            let before = self.case.opening.products.get(&item.product)?.price;
            let now = self.case.stored.products.get(&item.product)?.price;
            (before == now).then_some(before * item.quantity)
        });
        prices.sum()
    }

    /// Why as many coupons as there were cannot have been issued.
    fn not_sold_out(&self, coupon: i64, no: &No<'_>) -> Option<String> {
        let issued = until(&self.issued, &coupon, no.until);
        let (lowest, _) = totals(self.case, coupon, no.from, no.until)?;
        (issued < lowest).then(|| format!("{issued} of {lowest} were issued"))
    }

    fn not_issued(&self, coupon: i64, no: &No<'_>) -> Option<String> {
        let held = self.held.get(&(no.user, coupon));
        let has = held.is_some_and(|(issued_at, _)| *issued_at <= no.until);
        (!has).then(|| format!("the user had no coupon {coupon}"))
    }

    /// Why none of the items can have been short.
    fn not_short(&self, job: &Job, no: &No<'_>) -> Option<String> {
        let short = &job.outcome.detail.items;
        if short.is_empty() {
            return Some("no item is named".to_owned());
        }
        short.iter().find_map(|item| {
            let (product, requested) = (item.product_id.get(), item.requested);
            let stock = self.stock(product, no).filter(|stock| *stock >= requested);
            if item.available < requested && stock.is_none() {
                return None;
            }
            let (told, most) = (item.available, stock.unwrap_or(item.available));
            Some(format!("of product {product}, {told} were told and {most} there for {requested}"))
        })
    }

    fn not_limited(&self, job: &Job, no: &No<'_>) -> Option<String> {
        let limited = &job.outcome.detail.limited;
        if limited.is_empty() {
            return Some("no item is named".to_owned());
        }
        limited.iter().find_map(|item| {
            let (product, requested) = (item.product_id.get(), item.requested);
            let limit = limit(self.case, product)?;
            let bought = self.bought(product, no);
            let is_over = item.bought + requested > item.limit && bought + requested > limit;
            (!is_over).then(|| format!("{bought} of product {product} and {requested} of {limit}"))
        })
    }

    fn not_poor(&self, items: &[Item], no: &No<'_>) -> Option<String> {
        let (balance, price) = (self.balance(no)?, self.price(items)?);
        (balance >= price).then(|| format!("the user had {balance} for {price}"))
    }

    /// Why a user must have known better.
    fn not_another(&self, code: &str, no: &No<'_>) -> Option<String> {
        let (opening, stored) = (self.case.opening, self.case.stored);
        let is_false = match (code, no.request) {
            ("user-not-found", _) => opening.balances.contains_key(&no.user),
            ("coupon-not-found", Request::IssueCoupon { coupon }) => {
                opening.coupons.contains_key(coupon)
            }
            ("product-not-found", Request::PlaceOrder { items, .. }) => {
                items.iter().all(|item| opening.products.contains_key(&item.product))
            }
            ("coupon-not-owned", Request::PlaceOrder { coupon: Some(coupon), .. }) => {
                let held = self.held.get(&(no.user, *coupon));
                held.and_then(|(_, told)| *told).is_some_and(|told| told < no.invoked)
            }
            ("coupon-already-used", Request::PlaceOrder { coupon: Some(coupon), .. }) => {
                let used = self.used.get(&(no.user, *coupon)).into_iter().flatten();
                let mut used = used.filter(|(from, _)| *from <= no.until);
                used.all(|(_, until)| until.is_some_and(|until| until < no.from))
            }
            ("order-not-found", Request::CancelOrder { order }) => {
                stored.orders.get(order).filter(|order| order.user == no.user).is_some_and(
                    |found| {
                        let told = self.case.told.get(&found.job);
                        opening.orders.contains_key(order)
                            || told.is_some_and(|told| *told < no.invoked)
                    },
                )
            }
            ("order-already-cancelled", Request::CancelOrder { order }) => {
                let cancelled = stored.cancellations.get(order);
                cancelled.is_none_or(|cancelled| cancelled.cancelled_at > no.until)
            }
            _ => false,
        };
        is_false.then(|| "it was not so".to_owned())
    }
}

/// All rules of this file.
pub(super) fn all(case: &Case<'_>) -> Vec<Verdict> {
    let shop = Shop::new(case);
    let mut found: [(usize, Vec<String>); RULES.len()] = Default::default();
    let mut note = |rule: usize, name: &dyn Fn() -> String, why: Option<String>| {
        if let Some((checked, violations)) = found.get_mut(rule) {
            *checked += 1;
            violations.extend(why.map(|why| format!("{}: {why}", name())));
        }
    };
    for (id, job) in case.decided() {
        let Some(asked) = case.asked.get(&id).filter(|_| job.replay_of.is_none()) else { continue };
        let no = no(asked, job);
        let name = || format!("job {id} of user {}, {}", job.user, job.outcome.name());
        match (job.outcome.name(), asked.request) {
            ("succeeded", Request::PlaceOrder { .. }) => {
                let dropped = job.outcome.order().map_or(&[][..], |order| &order.dropped);
                for item in dropped {
                    let (product, quantity) = (item.product_id.get(), item.quantity);
                    // It may be over the limit instead.
                    let is_limited = limit(case, product).is_some();
                    let stock =
                        shop.stock(product, &no).filter(|stock| *stock >= quantity && !is_limited);
                    let why = stock.map(|stock| format!("{stock} of product {product} were there"));
                    note(STOCK, &name, why);
                }
            }
            ("coupon-sold-out", Request::IssueCoupon { coupon }) => {
                note(SOLD_OUT, &name, shop.not_sold_out(*coupon, &no));
            }
            ("coupon-already-issued", Request::IssueCoupon { coupon }) => {
                note(ISSUED, &name, shop.not_issued(*coupon, &no));
            }
            ("out-of-stock", _) => note(STOCK, &name, shop.not_short(job, &no)),
            ("limit-exceeded", _) => note(LIMIT, &name, shop.not_limited(job, &no)),
            ("insufficient-balance", Request::PlaceOrder { items, .. }) => {
                note(BALANCE, &name, shop.not_poor(&merged(items.iter().copied()), &no));
            }
            ("succeeded", _) => {}
            (code, _) => note(OTHER, &name, shop.not_another(code, &no)),
        }
    }
    for operation in case.history.operations.values() {
        let End::Rejected(status, Some(code)) = &operation.end else { continue };
        let name =
            || format!("operation {} of user {}, {code} at once", operation.id, operation.user);
        let (invoked, until) = (operation.invoked, operation.ended + CLOCKS);
        let from = case.known_since(operation);
        let (user, request) = (operation.user, &operation.request);
        let no = No { user, request, invoked, from, until };
        match (code.as_str(), request) {
            ("coupon-sold-out", Request::IssueCoupon { coupon }) => {
                note(SOLD_OUT, &name, shop.not_sold_out(*coupon, &no));
            }
            (
                "coupon-already-issued"
                | "out-of-stock"
                | "limit-exceeded"
                | "coupon-not-owned"
                | "coupon-already-used"
                | "insufficient-balance"
                | "order-already-cancelled",
                _,
            ) => note(OTHER, &name, Some(format!("{status} before the line"))),
            (code, _) => note(OTHER, &name, shop.not_another(code, &no)),
        }
    }
    let verdicts = RULES.into_iter().zip(found);
    verdicts.map(|(rule, (checked, violations))| Verdict::new(rule, checked, violations)).collect()
}

fn no<'a>(asked: &Asked<'a>, job: &Job) -> No<'a> {
    let (user, request, invoked) = (asked.user, asked.request, asked.invoked);
    // A transaction that is not known began whenever.
    let from = job.taken_up_at.unwrap_or(DateTime::<Utc>::MIN_UTC);
    No { user, request, invoked, from, until: job.outcome.settled_at }
}
