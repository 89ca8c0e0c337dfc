//! Campaigns: as many coupons as there are, in order, one for each.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::case::{CLOCKS, Case, Change};
use crate::{report::Verdict, stored::Holder};

/// The lowest and the highest total that a campaign may have had between these.
pub(super) fn totals(
    case: &Case<'_>,
    coupon: i64,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Option<(i64, i64)> {
    let edits = case.edits.get(&coupon).map_or(&[][..], Vec::as_slice);
    let is_replaced = |done: Option<DateTime<Utc>>| {
        done.is_some_and(|done| {
            let is_over = |later: &Change| later.done.is_some_and(|end| end + CLOCKS < from);
            edits.iter().any(|later| done < later.invoked && is_over(later))
        })
    };
    let opening = case.opening.coupons.get(&coupon).map(|coupon| coupon.total);
    let opening = opening.filter(|_| !is_replaced(Some(DateTime::<Utc>::MIN_UTC)));
    let edited = edits.iter().filter(|edit| edit.invoked <= until + CLOCKS);
    let edited = edited.filter(|edit| !is_replaced(edit.done)).map(|edit| edit.amount);
    let possible = opening.into_iter().chain(edited);
    possible.fold(None, |range, total| {
        let (lowest, highest) = range.unwrap_or((total, total));
        Some((lowest.min(total), highest.max(total)))
    })
}

/// The total in the end is one that was set; campaigns that are no longer there, or were made in the sale, are not looked
/// at for that.
pub(super) fn issued(case: &Case<'_>) -> Verdict {
    let mut held: BTreeMap<i64, Vec<&Holder>> = BTreeMap::new();
    for holder in &case.stored.holders {
        held.entry(holder.coupon).or_default().push(holder);
    }
    let mut violations = Vec::new();
    for (id, coupon) in &case.stored.coupons {
        let holders = held.get(id).map_or(&[][..], Vec::as_slice);
        let count = i64::try_from(holders.len()).unwrap_or(i64::MAX);
        if count > coupon.total || coupon.issued != count {
            let (total, issued) = (coupon.total, coupon.issued);
            violations.push(format!("coupon {id}: {count} held, {issued} counted, of {total}"));
        }
        let end = DateTime::<Utc>::MAX_UTC - CLOCKS;
        let possible = totals(case, *id, end, end);
        let is_set = |(lowest, highest)| (lowest..=highest).contains(&coupon.total);
        if case.opening.coupons.contains_key(id) && !possible.is_some_and(is_set) {
            violations.push(format!("coupon {id}: nobody set its total to {}", coupon.total));
        }
        let numbers: BTreeSet<i64> = holders.iter().map(|holder| holder.number).collect();
        if !numbers.iter().copied().eq(1..=count) {
            violations
                .push(format!("coupon {id}: the numbers of {count} do not run from 1 to there"));
        }
        let users: BTreeSet<i64> = holders.iter().map(|holder| holder.user).collect();
        if users.len() < holders.len() {
            violations.push(format!("coupon {id}: {count} held by {} users", users.len()));
        }
    }
    let rule = "no coupon is oversold, numbers run from 1 without a gap, nobody has two";
    Verdict::new(rule, case.stored.coupons.len(), violations)
}
