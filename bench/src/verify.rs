//! The audit of a sale: what the customers were told against what the database holds.

use std::collections::HashSet;

use firstcome_shared::{job::Status, rejection::Rejection};
use firstcome_workers::audit;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    books::{Books, Stored},
    report::count,
    sale::Record,
};

/// One thing that must hold.
#[derive(Debug)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// What was found, for people.
    pub figures: String,
    /// How often it does not hold.
    pub violations: usize,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.violations == 0 { "ok  " } else { "FAIL" };
        write!(f, "{verdict} {}: {}", self.what, self.figures)
    }
}

/// What should have come of it.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Clicks.
    pub clicks: usize,
    /// Coupons issued.
    pub issued: usize,
}

/// The invariants that hold on every database of this system.
///
/// # Errors
/// The database's.
pub async fn invariants(pool: &PgPool) -> Result<Vec<Check>, sqlx::Error> {
    let findings = audit::audit(pool).await?;
    let check = |finding: audit::Finding| Check {
        what: finding.invariant,
        figures: format!("{} checked", count(usize::try_from(finding.checked).unwrap_or_default())),
        violations: usize::try_from(finding.violations).unwrap_or(usize::MAX),
    };
    Ok(findings.into_iter().map(check).collect())
}

/// The checks of this very sale.
#[must_use]
pub fn sale(record: &Record, books: &Books, expected: Expected) -> Vec<Check> {
    let mut checks = clicks(record, expected);
    checks.extend(jobs(record, books));
    checks.extend(coupons(record, books, expected));
    checks
}

fn clicks(record: &Record, expected: Expected) -> Vec<Check> {
    let lost: usize = record.lost.values().sum();
    let open = expected.clicks.saturating_sub(record.clicks);
    let (accepted, away) = (record.accepted.len(), record.turned_away.len());
    let mut figures = format!(
        "{} clicks, {} accepted, {} turned away",
        count(expected.clicks),
        count(accepted),
        count(away)
    );
    if record.refused > 0 {
        figures += &format!(", {} refused with 503 to the end", count(record.refused));
    }
    if lost + open > 0 {
        let reasons: Vec<String> =
            record.lost.iter().map(|(why, times)| format!("{times}× {why}")).collect();
        figures += &format!(
            ", {} without an answer, {} not sent {}",
            count(lost),
            count(open),
            reasons.join(", ")
        );
    }
    let surprises: Vec<String> =
        record.unexpected.iter().map(|(what, times)| format!("{times}× {what}")).collect();
    let retries = format!("{} repeated after a 503", count(record.retries + record.poll_retries));
    vec![
        Check { what: "every click was answered", figures, violations: lost + open },
        Check {
            what: "every answer was one of the API's promises (no 5xx but a 503 with Retry-After)",
            figures: if surprises.is_empty() {
                retries
            } else {
                format!("{retries}, {}", surprises.join(", "))
            },
            violations: record.unexpected.values().sum(),
        },
    ]
}

fn jobs(record: &Record, books: &Books) -> Vec<Check> {
    let accepted: HashSet<Uuid> = record.accepted.iter().map(|accepted| accepted.job).collect();
    let repeated = record.accepted.len() - accepted.len();
    let missing = accepted.iter().filter(|job| !books.outcomes.contains_key(job)).count();
    let foreign = books.outcomes.keys().filter(|job| !accepted.contains(job)).count();

    let told: HashSet<Uuid> = record.told.iter().map(|told| told.job).collect();
    let untold = accepted.difference(&told).count();
    let false_tales = record
        .told
        .iter()
        .filter(|told| {
            let told_as_stored = Stored {
                status: told.status.clone(),
                code: told.code.clone(),
                coupon: told.coupon,
                settled_at: told.settled_at,
            };
            books.outcomes.get(&told.job) != Some(&told_as_stored)
        })
        .count();

    let allowed = [None, Some(Rejection::CouponAlreadyIssued), Some(Rejection::CouponSoldOut)]
        .map(|rejection| rejection.map(Rejection::code));
    let odd: Vec<String> = books
        .tally()
        .into_iter()
        .filter(|(outcome, _)| {
            outcome != Status::Succeeded.as_str() && !allowed.contains(&Some(outcome.as_str()))
        })
        .map(|(outcome, times)| format!("{times}× {outcome}"))
        .collect();
    vec![
        Check {
            what: "every 202 has exactly one outcome",
            figures: format!(
                "{} jobs, {} without, {} ids given twice",
                count(accepted.len()),
                count(missing),
                count(repeated)
            ),
            violations: missing + repeated,
        },
        Check {
            what: "every outcome belongs to a 202",
            figures: format!(
                "{} outcomes, {} of others",
                count(books.outcomes.len()),
                count(foreign)
            ),
            violations: foreign.saturating_sub(unknown(record)),
        },
        Check {
            what: "what the polls told is what is stored",
            figures: format!(
                "{} told, {} false, {} not told",
                count(told.len()),
                count(false_tales),
                count(untold)
            ),
            violations: false_tales + untold,
        },
        Check {
            what: "no job ended in any other way than succeeded, already issued, sold out",
            figures: if odd.is_empty() { "none".to_owned() } else { odd.join(", ") },
            violations: odd.len(),
        },
        Check {
            what: "nothing was dead-lettered",
            figures: format!("{} dead letters", books.dead_letters),
            violations: usize::try_from(books.dead_letters).unwrap_or_default(),
        },
    ]
}

/// Clicks that ended without an answer, or in a 503, and may have become a job all the same.
fn unknown(record: &Record) -> usize {
    record.lost.values().sum::<usize>() + record.retries + record.refused
}

fn coupons(record: &Record, books: &Books, expected: Expected) -> Vec<Check> {
    let held = books.holders.len();
    let issued = usize::try_from(books.issued).unwrap_or_default();
    let numbers: HashSet<i64> = books.holders.iter().map(|(_, number, _)| *number).collect();
    let gaps = (1..=i64::try_from(expected.issued).unwrap_or(i64::MAX))
        .filter(|number| !numbers.contains(number))
        .count();
    let users: HashSet<i64> = books.holders.iter().map(|(user, ..)| *user).collect();

    let holders: HashSet<(i64, i64, i64)> = books.holders.iter().copied().collect();
    let winners: HashSet<(i64, i64, i64)> = record
        .told
        .iter()
        .filter_map(|told| {
            let coupon = told.coupon?;
            Some((told.user, coupon.issue_number, coupon.user_coupon_id.get()))
        })
        .collect();
    let bereft = winners.difference(&holders).count();
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
                count(bereft),
                count(secret)
            ),
            violations: bereft + secret.saturating_sub(unknown(record)),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        answers::{Accepted, Told},
        books::{Totals, totals},
    };
    use chrono::Utc;
    use firstcome_shared::{
        ids::{CouponId, UserCouponId},
        job::issue_coupon::CouponIssued,
    };
    use std::time::Duration;

    /// Two users click, one coupon: user 1 gets it.
    fn right() -> (Record, Books, Expected) {
        let (mut record, mut books) = (Record { clicks: 2, ..Record::default() }, Books::default());
        let now = Utc::now();
        for (user, job) in [(1, Uuid::from_u128(1)), (2, Uuid::from_u128(2))] {
            let coupon = (user == 1).then(|| CouponIssued {
                user_coupon_id: UserCouponId::new(70),
                coupon_id: CouponId::new(5),
                issue_number: 1,
            });
            let status = if user == 1 { "succeeded" } else { "rejected" }.to_owned();
            let code = (user == 2).then(|| "coupon-sold-out".to_owned());
            record.accepted.push(Accepted { job, user, at: Duration::ZERO });
            books.outcomes.insert(
                job,
                Stored { status: status.clone(), code: code.clone(), coupon, settled_at: now },
            );
            record.told.push(Told {
                job,
                user,
                status,
                code,
                coupon,
                submitted_at: now,
                settled_at: now,
            });
        }
        books.issued = 1;
        books.holders.push((1, 1, 70));
        (record, books, Expected { clicks: 2, issued: 1 })
    }

    fn failing(record: &Record, books: &Books, expected: Expected) -> Vec<&'static str> {
        sale(record, books, expected)
            .into_iter()
            .filter(|check| check.violations > 0)
            .map(|check| check.what)
            .collect()
    }

    #[test]
    fn a_right_sale_passes() {
        let (record, books, expected) = right();
        assert_eq!(failing(&record, &books, expected), [""; 0]);
        assert_eq!(
            totals(&record, &books),
            Totals { accepted: 2, settled: 2, succeeded: 1, rejected: 1 }
        );
    }

    #[test]
    fn a_forgotten_job_is_noticed() {
        let (record, mut books, expected) = right();
        books.outcomes.remove(&Uuid::from_u128(2));
        let found = failing(&record, &books, expected);
        assert_eq!(
            found,
            ["every 202 has exactly one outcome", "what the polls told is what is stored"]
        );
        assert_eq!(totals(&record, &books).settled, 1);
    }

    #[test]
    fn a_job_that_nobody_was_told_of_is_noticed_unless_a_click_was_lost() {
        let (mut record, mut books, expected) = right();
        record.accepted.pop();
        record.told.pop();
        record.clicks = 2;
        assert_eq!(failing(&record, &books, expected), ["every outcome belongs to a 202"]);
        record.retries = 1;
        assert_eq!(failing(&record, &books, expected), [""; 0]);
        books.outcomes.insert(Uuid::from_u128(3), books.outcomes[&Uuid::from_u128(2)].clone());
        assert_eq!(failing(&record, &books, expected), ["every outcome belongs to a 202"]);
    }

    #[test]
    fn an_oversold_coupon_is_noticed() {
        let (record, mut books, expected) = right();
        books.issued = 2;
        books.holders.push((2, 1, 71));
        let found = failing(&record, &books, expected);
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
        let (mut record, mut books, expected) = right();
        record.told[1].code = Some("coupon-already-issued".to_owned());
        assert_eq!(failing(&record, &books, expected), ["what the polls told is what is stored"]);
        books.outcomes.get_mut(&Uuid::from_u128(2)).unwrap().code =
            Some("user-not-found".to_owned());
        assert_eq!(failing(&record, &books, expected).len(), 2);
    }
}
