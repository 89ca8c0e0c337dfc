//! What came of the returns: who gave back what, and who got it.

use std::collections::HashSet;

use firstcome_rig::{
    answers::SettledJob,
    figures::{amount, count, duration},
};

use super::{Report, orders::after_the_last_outcome};
use crate::{
    consumers::CaughtUp,
    mix::{Product, Role},
    returns::{Plan, Return},
};

#[must_use]
pub(crate) fn lines(report: &Report<'_>, plan: &Plan, caught_up: CaughtUp) -> Vec<String> {
    let mut lines = headline(report, plan);
    lines.extend(report.speed());
    lines.extend(report.pictures());
    lines.push(after_the_last_outcome(caught_up));
    lines
}

fn headline(report: &Report<'_>, plan: &Plan) -> Vec<String> {
    let settled = &report.record.settled;
    let is_cancelled = |told: &&SettledJob| told.outcome.cancelled().is_some();
    let returns = settled.iter().filter(is_cancelled);
    let returned: HashSet<usize> =
        returns.filter_map(|told| Some(plan.return_of(told.intent)?.0)).collect();
    let returned: Vec<&Return> =
        returned.iter().filter_map(|index| plan.returns.get(*index)).collect();
    let consoles = plan.offer.products.iter().find(|product| product.role == Role::Console);
    let (console, stock) = consoles.map_or((0, 0), |Product { id, stock, .. }| (*id, *stock));
    let items = returned.iter().flat_map(|order| &order.items);
    let back: i64 =
        items.filter(|item| item.product_id.get() == console).map(|item| item.quantity).sum();
    // Each of the orders is for one.
    let bought = report.record.orders().len();
    let first = settled.iter().filter(is_cancelled).map(|told| told.outcome.settled_at).min();
    let waited = settled.iter().filter(|told| {
        let is_order = plan.return_of(told.intent).is_none();
        is_order && first.is_some_and(|at| told.submitted_at < at && told.outcome.settled_at >= at)
    });
    let waited: HashSet<usize> = waited.map(|told| told.intent).collect();
    let (last_settled, _) = report.outcomes.ends();
    vec![format!(
        "{} orders were cancelled, {} won and {} coupons came back; {} customers waited for a console when the first one did: \
         {} + {} consoles were there and {} were sold, the last job was settled after {}.",
        count(returned.len()),
        amount(returned.iter().map(|order| order.paid).sum()),
        count(returned.iter().filter(|order| order.with_coupon).count()),
        count(waited.len()),
        amount(stock),
        amount(back),
        count(bought),
        duration(report.since_opening(last_settled)),
    )]
}
