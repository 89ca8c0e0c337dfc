//! Events: each arrives, and counts once.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use uuid::Uuid;

use super::case::Case;
use crate::{history::Request, report::Verdict, stored::Stored};

/// What was sold: quantities by day and product, amounts by day.
type Sold = (BTreeMap<(NaiveDate, i64), i64>, BTreeMap<NaiveDate, i64>);

fn counted(stored: &Stored) -> Sold {
    let mut sold = Sold::default();
    for row in &stored.statistics {
        *sold.0.entry((row.day, row.product)).or_default() += row.quantity;
        *sold.1.entry(row.day).or_default() += row.amount;
    }
    sold
}

fn completed(stored: &Stored) -> Sold {
    let mut sold = Sold::default();
    for (id, order) in &stored.orders {
        // What is cancelled is taken out of the day on which it was sold.
        let times = i64::from(!stored.cancellations.contains_key(id));
        for item in &order.items {
            *sold.0.entry((order.day, item.product)).or_default() += item.quantity * times;
        }
        *sold.1.entry(order.day).or_default() += order.items_amount * times;
    }
    sold
}

/// Keys whose amounts changed differently.
fn differing<K: Ord + Copy>(sides: [[&BTreeMap<K, i64>; 2]; 2]) -> Vec<(K, i64, i64)> {
    let keys: BTreeSet<K> = sides.iter().flatten().flat_map(|side| side.keys().copied()).collect();
    let change = |[before, after]: [&BTreeMap<K, i64>; 2], key: &K| {
        after.get(key).copied().unwrap_or_default() - before.get(key).copied().unwrap_or_default()
    };
    let [told, true_one] = sides;
    let changes = keys.into_iter().map(|key| (key, change(told, &key), change(true_one, &key)));
    changes.filter(|(_, told, true_one)| told != true_one).collect()
}

/// What the sale added to the statistics; what they were before does not matter.
pub(super) fn statistics(case: &Case<'_>) -> Verdict {
    let counted = [counted(case.opening), counted(case.stored)];
    let completed = [completed(case.opening), completed(case.stored)];
    let checked = completed[1].0.len();
    let [told, true_one] = [&counted, &completed].map(|[before, after]| [&before.0, &after.0]);
    let quantities = differing([told, true_one]).into_iter();
    let quantities = quantities.map(|((day, product), told, true_one)| {
        format!("product {product} on {day}: {told} counted, {true_one} sold")
    });
    let [told, true_one] = [&counted, &completed].map(|[before, after]| [&before.1, &after.1]);
    let amounts = differing([told, true_one]).into_iter();
    let amounts =
        amounts.map(|(day, told, true_one)| format!("{day}: {told} counted, sold for {true_one}"));
    let rule = "the statistics are what was completed less what was cancelled, each once";
    Verdict::new(rule, checked, quantities.chain(amounts).collect())
}

/// The data platform gets orders and cancellations; coupons too, if it got any (it is a setting). Of what is sold out no
/// row tells the id.
pub(super) fn delivered(case: &Case<'_>) -> Verdict {
    let is_coupon = |request: &Request| matches!(request, Request::IssueCoupon { .. });
    let got = |job: Option<Uuid>| job.is_some_and(|job| case.delivered.contains(&job));
    let coupons_too = case.effects.iter().any(|effect| is_coupon(&effect.what) && got(effect.job));
    let expected = case.effects.iter().filter(|effect| effect.job.is_some());
    let expected = expected.filter(|effect| coupons_too || !is_coupon(&effect.what));
    let missing = expected.clone().filter(|effect| !got(effect.job));
    let mut violations: Vec<String> =
        missing.map(|effect| format!("{} was not delivered", effect.name)).collect();
    let did: BTreeSet<Uuid> = case.effects.iter().filter_map(|effect| effect.job).collect();
    let false_ones = case.decided().filter(|(id, _)| !did.contains(id) && got(Some(*id)));
    violations.extend(false_ones.map(|(id, _)| format!("an event of job {id}, which did nothing")));
    Verdict::new("each event is delivered", expected.count(), violations)
}
