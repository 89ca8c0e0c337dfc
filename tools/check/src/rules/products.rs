//! Products: what is gone was sold, and to nobody more than the limit.

use std::collections::{BTreeMap, BTreeSet};

use super::case::{Case, Change, additions};
use crate::{report::Verdict, stored::Order};

/// More sums than this are not told apart: any between the least and the most may be.
const MAX_SUMS: usize = 1 << 16;

/// Whether the changes that are certain, with some of the others, make up this amount.
pub(super) fn make_up(changes: &[Change], amount: i64) -> bool {
    let certain = changes.iter().filter(|change| change.done.is_some());
    let certain: i64 = certain.map(|change| change.amount).sum();
    let mut sums = BTreeSet::from([certain]);
    for change in changes.iter().filter(|change| change.done.is_none()) {
        let more: Vec<i64> = sums.iter().map(|sum| sum + change.amount).collect();
        sums.extend(more);
        if sums.len() > MAX_SUMS {
            let amounts =
                changes.iter().filter(|change| change.done.is_none()).map(|one| one.amount);
            let (less, more): (Vec<i64>, Vec<i64>) = amounts.partition(|amount| *amount < 0);
            let (least, most) = (less.iter().sum::<i64>(), more.iter().sum::<i64>());
            return (certain + least..=certain + most).contains(&amount);
        }
    }
    sums.contains(&amount)
}

/// The orders of the sale, and those of before that it undid.
fn moved<'a>(case: &Case<'a>) -> impl Iterator<Item = (&'a Order, i64)> {
    let (opening, stored) = (case.opening, case.stored);
    let placed = stored.orders.iter().filter(|(id, _)| !opening.orders.contains_key(id));
    let undone = stored.cancellations.keys().filter(|id| !opening.cancellations.contains_key(id));
    let undone = undone.filter_map(|id| stored.orders.get(id));
    placed.map(|(_, order)| (order, 1)).chain(undone.map(|order| (order, -1)))
}

/// A product that was made in the sale began with something that is not known. Absolute edits are not in a history.
pub(super) fn stocks(case: &Case<'_>) -> Verdict {
    let changes = additions(case.history);
    let mut sold: BTreeMap<i64, i64> = BTreeMap::new();
    for (order, times) in moved(case) {
        for item in &order.items {
            *sold.entry(item.product).or_default() += item.quantity * times;
        }
    }
    let mut violations = Vec::new();
    for (id, product) in &case.stored.products {
        let Some(opening) = case.opening.products.get(id) else { continue };
        let sold = sold.get(id).copied().unwrap_or_default();
        let changes = changes.get(id).map_or(&[][..], Vec::as_slice);
        if product.stock < 0 || !make_up(changes, product.stock - opening.stock + sold) {
            let (before, now) = (opening.stock, product.stock);
            violations.push(format!("product {id}: {before} before, {sold} sold, {now} now"));
        }
    }
    let rule = "a stock is what it was with additions, less what was sold and not given back";
    Verdict::new(rule, case.stored.products.len(), violations)
}

/// Limits that were edited are not looked at, since when is not known.
pub(super) fn limits(case: &Case<'_>) -> Verdict {
    let mut bought: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    let kept = case.stored.orders.iter();
    for (_, order) in kept.filter(|(id, _)| !case.stored.cancellations.contains_key(id)) {
        for item in &order.items {
            if limit(case, item.product).is_some() {
                *bought.entry((order.user, item.product)).or_default() += item.quantity;
            }
        }
    }
    let mut violations = Vec::new();
    for ((user, product), quantity) in &bought {
        if limit(case, *product).is_some_and(|limit| *quantity > limit) {
            violations.push(format!("user {user} has {quantity} of product {product}"));
        }
    }
    Verdict::new("nobody has more of a product than its limit", bought.len(), violations)
}

/// The limit of a product that has had it all the time.
pub(super) fn limit(case: &Case<'_>, product: i64) -> Option<i64> {
    let now = case.stored.products.get(&product)?.per_customer;
    let before = case.opening.products.get(&product).map_or(now, |product| product.per_customer);
    now.filter(|_| before == now)
}
