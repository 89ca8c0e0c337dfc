//! Lines: who comes first is first, and none stands still.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::case::{CLOCKS, Case, merged};
use crate::{
    history::{End, Look, Request},
    report::Verdict,
};

/// How long a line may do nothing while jobs wait.
const MAX_IDLE: TimeDelta = TimeDelta::seconds(20);
/// How long after a fault it still excuses.
const GRACE: TimeDelta = TimeDelta::seconds(15);

/// Somebody in a line.
struct Place {
    /// What was so before does not count.
    invoked: DateTime<Utc>,
    accepted: DateTime<Utc>,
    /// When it was decided, and with which number; without one it was told that there are none left.
    settled: DateTime<Utc>,
    number: Option<i64>,
    user: i64,
}

/// What is contended for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    Coupon(i64),
    Product(i64),
}

/// Whose request was sent after another one was accepted comes after it. Of orders, those of one product alone: the numbers
/// of others are given by the line of another product. Jobs that were redriven or repeat another one are left out.
pub(super) fn order(case: &Case<'_>) -> Verdict {
    let mut lines: BTreeMap<Line, Vec<Place>> = BTreeMap::new();
    for (id, asked) in &case.asked {
        let Some(job) = case.stored.jobs.get(id) else { continue };
        if job.redriven || job.replay_of.is_some() {
            continue;
        }
        let outcome = &job.outcome;
        let (line, number) = match asked.request {
            Request::IssueCoupon { coupon } => {
                let number = outcome.coupon().map(|coupon| coupon.issue_number);
                if number.is_none() && outcome.name() != "coupon-sold-out" {
                    continue;
                }
                (Line::Coupon(*coupon), number)
            }
            Request::PlaceOrder { items, .. } => {
                let items = merged(items.iter().copied());
                let ([item], Some(order)) = (items.as_slice(), outcome.order()) else { continue };
                (Line::Product(item.product), Some(order.order_id.get()))
            }
            Request::CancelOrder { .. }
            | Request::Charge { .. }
            | Request::AddStock { .. }
            | Request::SetTotal { .. } => continue,
        };
        let (invoked, accepted, user) = (asked.invoked, asked.accepted, asked.user);
        let place = Place { invoked, accepted, settled: outcome.settled_at, number, user };
        lines.entry(line).or_default().push(place);
    }
    for operation in case.history.operations.values() {
        let (Request::IssueCoupon { coupon }, End::Rejected(_, Some(code))) =
            (&operation.request, &operation.end)
        else {
            continue;
        };
        if code == "coupon-sold-out" {
            let (invoked, ended, user) =
                (case.known_since(operation), operation.ended, operation.user);
            let place = Place { invoked, accepted: ended, settled: ended, number: None, user };
            lines.entry(Line::Coupon(*coupon)).or_default().push(place);
        }
    }
    let checked = lines.values().map(Vec::len).sum();
    let violations = lines.iter().flat_map(|(line, places)| overtaken(case, *line, places));
    Verdict::new("who asks later is served later, key by key", checked, violations.collect())
}

fn overtaken(case: &Case<'_>, line: Line, places: &[Place]) -> Vec<String> {
    let what = match line {
        Line::Coupon(coupon) => format!("coupon {coupon}"),
        Line::Product(product) => format!("product {product}"),
    };
    let mut earlier: Vec<&Place> = places.iter().collect();
    earlier.sort_by_key(|place| place.accepted);
    let mut earlier = earlier.into_iter().peekable();
    let mut later: Vec<&Place> = places.iter().filter(|place| place.number.is_some()).collect();
    later.sort_by_key(|place| place.invoked);
    // Of those that were accepted before: the one with the highest number, and the last that was turned away.
    let (mut highest, mut turned_away): (Option<&Place>, Option<&Place>) = (None, None);
    let mut violations = Vec::new();
    for place in later {
        while let Some(before) = earlier.next_if(|before| before.accepted < place.invoked) {
            if before.number.is_some() {
                highest = highest.filter(|other| other.number >= before.number).or(Some(before));
            } else {
                turned_away =
                    turned_away.filter(|other| other.invoked >= before.invoked).or(Some(before));
            }
        }
        let (user, number) = (place.user, place.number.unwrap_or_default());
        if let Some(before) = highest.filter(|before| before.number > place.number) {
            let (other, theirs) = (before.user, before.number.unwrap_or_default());
            violations.push(format!(
                "{what}: user {user} got {number}, user {other} before only {theirs}"
            ));
        }
        if let Some(before) = turned_away.filter(|before| !is_raised(case, line, before, place)) {
            let other = before.user;
            violations.push(format!("{what}: user {user} got {number}, user {other} before none"));
        }
    }
    violations
}

/// Whether the total may have been raised between the two.
fn is_raised(case: &Case<'_>, line: Line, before: &Place, after: &Place) -> bool {
    let Line::Coupon(coupon) = line else { return false };
    case.edits.get(&coupon).into_iter().flatten().any(|edit| {
        edit.done.is_none_or(|done| done >= before.invoked)
            && edit.invoked <= after.settled + CLOCKS
    })
}

/// What happens between two looks is not seen: a line counts as idle from the first look at which somebody waits.
pub(super) fn liveness(case: &Case<'_>) -> Verdict {
    let checked = case.history.looks.values().map(Vec::len).sum();
    let lines = case.history.looks.iter();
    let violations = lines.flat_map(|(line, looks)| {
        let name = line.as_deref().unwrap_or("all lines");
        stalls(case, looks).into_iter().map(move |(at, waiting, idle)| {
            format!(
                "{name} at {at}: {waiting} jobs wait, none settled for {} s",
                idle.num_seconds()
            )
        })
    });
    let rule = "no line is idle for more than 20 s while jobs wait, but for faults";
    Verdict::new(rule, checked, violations.collect())
}

/// The first look of each time that a line stood still for too long.
fn stalls(case: &Case<'_>, looks: &[Look]) -> Vec<(DateTime<Utc>, u64, TimeDelta)> {
    let mut stalls = Vec::new();
    let (mut settled, mut since, mut is_told) = (None, None, false);
    for look in looks {
        let has_moved = settled.replace(look.settled) != Some(look.settled);
        if has_moved || look.waiting == 0 {
            (since, is_told) = (None, false);
        }
        if look.waiting == 0 {
            continue;
        }
        let start = *since.get_or_insert(look.at);
        let excused = case.history.faults.iter().filter(|(begin, _)| *begin <= look.at);
        let excused = excused.map(|(_, end)| end.checked_add_signed(GRACE).unwrap_or(*end)).max();
        let idle = look.at - excused.map_or(start, |excused| excused.max(start));
        if idle > MAX_IDLE && !is_told {
            stalls.push((look.at, look.waiting, idle));
            is_told = true;
        }
    }
    stalls
}
