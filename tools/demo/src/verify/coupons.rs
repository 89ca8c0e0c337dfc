//! The audit of the coupon drop.

use std::collections::HashSet;

use firstcome_contract::rejection::Rejection;
use firstcome_rig::figures::count;

use super::{Check, clicks, jobs, unknown};
use crate::{load::Record, stored::StoredDrop};

/// What should have come of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) clicks: usize,
    pub(crate) issued: usize,
}

/// The checks of this very sale.
#[must_use]
pub(crate) fn checks(record: &Record, stored: &StoredDrop, expected: Expected) -> Vec<Check> {
    let foreseen = [Rejection::CouponAlreadyIssued, Rejection::CouponSoldOut];
    let mut checks = clicks(record, expected.clicks);
    checks.extend(jobs(record, &stored.outcomes, &foreseen));
    checks.extend(coupons(record, stored, expected));
    checks
}

fn coupons(record: &Record, stored: &StoredDrop, expected: Expected) -> Vec<Check> {
    let held = stored.holders.len();
    let issued = usize::try_from(stored.issued).unwrap_or_default();
    let numbers: HashSet<i64> = stored.holders.iter().map(|(_, number, _)| *number).collect();
    let gaps = (1..=i64::try_from(expected.issued).unwrap_or(i64::MAX))
        .filter(|number| !numbers.contains(number))
        .count();
    let users: HashSet<i64> = stored.holders.iter().map(|(user, ..)| *user).collect();

    let holders: HashSet<(i64, i64, i64)> = stored.holders.iter().copied().collect();
    let winners: HashSet<(i64, i64, i64)> = record
        .settled
        .iter()
        .filter_map(|told| {
            let coupon = told.outcome.coupon()?;
            Some((told.user, coupon.issue_number, coupon.user_coupon_id.get()))
        })
        .collect();
    let without = winners.difference(&holders).count();
    let secret = holders.difference(&winners).count();
    vec![
        Check {
            what: "all coupons are issued, and not one more",
            figures: format!(
                "{} issued, {} in users' hands, {} expected",
                count(issued),
                count(held),
                count(expected.issued)
            ),
            violations: issued.abs_diff(expected.issued).max(held.abs_diff(expected.issued)),
        },
        Check {
            what: "issue numbers run from 1 to the last, each once",
            figures: format!("{} numbers, {} gaps", count(numbers.len()), count(gaps)),
            violations: gaps + (held - numbers.len()),
        },
        Check {
            what: "nobody has two",
            figures: format!("{} users hold {} coupons", count(users.len()), count(held)),
            violations: held - users.len(),
        },
        Check {
            what: "those who were told that they won hold that very coupon, and nobody else holds one",
            figures: format!(
                "{} winners, {} without it, {} others",
                count(winners.len()),
                count(without),
                count(secret)
            ),
            violations: without + secret.saturating_sub(unknown(record)),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Totals;
    use chrono::Utc;
    use firstcome_contract::{
        ids::{CouponId, UserCouponId},
        job::issue_coupon::CouponIssued,
    };
    use firstcome_rig::answers::{Accepted, Detail, Outcome, SettledJob, Success};
    use std::time::Duration;
    use uuid::Uuid;

    /// Two users click, one coupon: user 1 gets it.
    fn right() -> (Record, StoredDrop, Expected) {
        let (mut record, mut stored) =
            (Record { clicks: 2, ..Record::default() }, StoredDrop::default());
        let now = Utc::now();
        for (user, job) in [(1, Uuid::from_u128(1)), (2, Uuid::from_u128(2))] {
            let result = (user == 1).then(|| {
                Success::Coupon(CouponIssued {
                    user_coupon_id: UserCouponId::new(70),
                    coupon_id: CouponId::new(5),
                    issue_number: 1,
                })
            });
            let status = if user == 1 { "succeeded" } else { "rejected" }.to_owned();
            let code = (user == 2).then(|| "coupon-sold-out".to_owned());
            let outcome =
                Outcome { status, code, detail: Detail::default(), result, settled_at: now };
            let intent = usize::try_from(user).unwrap();
            record.accepted.push(Accepted { intent, job, user, at: Duration::ZERO });
            stored.outcomes.0.insert(job, outcome.clone());
            record.settled.push(SettledJob { intent, job, user, submitted_at: now, outcome });
        }
        stored.issued = 1;
        stored.holders.push((1, 1, 70));
        (record, stored, Expected { clicks: 2, issued: 1 })
    }

    fn failing(record: &Record, stored: &StoredDrop, expected: Expected) -> Vec<&'static str> {
        checks(record, stored, expected)
            .into_iter()
            .filter(|check| check.violations > 0)
            .map(|check| check.what)
            .collect()
    }

    #[test]
    fn a_right_sale_passes() {
        let (record, stored, expected) = right();
        assert_eq!(failing(&record, &stored, expected), [""; 0]);
        assert_eq!(
            stored.outcomes.totals(&record),
            Totals { accepted: 2, settled: 2, succeeded: 1, rejected: 1 }
        );
    }

    #[test]
    fn a_forgotten_job_is_noticed() {
        let (record, mut stored, expected) = right();
        stored.outcomes.0.remove(&Uuid::from_u128(2));
        let found = failing(&record, &stored, expected);
        assert_eq!(
            found,
            ["every 202 has exactly one outcome", "what the polls told is what is stored"]
        );
        assert_eq!(stored.outcomes.totals(&record).settled, 1);
    }

    #[test]
    fn a_job_that_nobody_was_told_of_is_noticed_unless_a_click_was_lost() {
        let (mut record, mut stored, expected) = right();
        record.accepted.pop();
        record.settled.pop();
        record.clicks = 2;
        assert_eq!(failing(&record, &stored, expected), ["every outcome belongs to a 202"]);
        record.retries = 1;
        assert_eq!(failing(&record, &stored, expected), [""; 0]);
        let copy = stored.outcomes.0[&Uuid::from_u128(2)].clone();
        stored.outcomes.0.insert(Uuid::from_u128(3), copy);
        assert_eq!(failing(&record, &stored, expected), ["every outcome belongs to a 202"]);
    }

    #[test]
    fn an_oversold_coupon_is_noticed() {
        let (record, mut stored, expected) = right();
        stored.issued = 2;
        stored.holders.push((2, 1, 71));
        let found = failing(&record, &stored, expected);
        assert_eq!(
            found,
            [
                "all coupons are issued, and not one more",
                "issue numbers run from 1 to the last, each once",
                "those who were told that they won hold that very coupon, and nobody else holds one",
            ]
        );
    }

    #[test]
    fn an_outcome_that_was_told_otherwise_is_noticed() {
        let (mut record, mut stored, expected) = right();
        record.settled[1].outcome.code = Some("coupon-already-issued".to_owned());
        assert_eq!(failing(&record, &stored, expected), ["what the polls told is what is stored"]);
        stored.outcomes.0.get_mut(&Uuid::from_u128(2)).unwrap().code =
            Some("user-not-found".to_owned());
        assert_eq!(failing(&record, &stored, expected).len(), 2);
    }
}
