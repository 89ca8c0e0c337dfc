//! Money: none comes from nowhere, none goes.

use std::collections::BTreeMap;

use super::{
    case::{Case, charges},
    products::make_up,
};
use crate::report::Verdict;

/// A charge that is in doubt may be in the balance or not, but not by half. Who was not there before had nothing.
pub(super) fn balances(case: &Case<'_>) -> Verdict {
    let charges = charges(case.history);
    let mut paid: BTreeMap<i64, i64> = BTreeMap::new();
    for (id, order) in &case.stored.orders {
        let (was, is) = (case.opening.orders.get(id), case.opening.cancellations.get(id));
        let undone = case.stored.cancellations.contains_key(id) && is.is_none();
        let times = i64::from(was.is_none()) - i64::from(undone);
        *paid.entry(order.user).or_default() += order.paid * times;
    }
    let mut violations = Vec::new();
    for (user, balance) in &case.stored.balances {
        let before = case.opening.balances.get(user).copied().unwrap_or_default();
        let paid = paid.get(user).copied().unwrap_or_default();
        let charges = charges.get(user).map_or(&[][..], Vec::as_slice);
        if !make_up(charges, balance - before + paid) {
            let charged: i64 = charges.iter().map(|charge| charge.amount).sum();
            violations.push(format!(
                "user {user}: {before} before, {charged} charged at most, {paid} paid, {balance} now"
            ));
        }
    }
    let rule = "a balance is what it was with charges, less what was paid and not paid back";
    Verdict::new(rule, case.stored.balances.len(), violations)
}
