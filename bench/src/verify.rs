//! The audit of a sale: what the customers were told against what the database holds.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use firstcome_shared::{
    job::{Status, issue_coupon::CouponIssued},
    rejection::Rejection,
};
use firstcome_workers::audit;
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use crate::{report::count, sale::Record};

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

/// A job's outcome as the database has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// `succeeded`, `rejected` or `failed`.
    pub status: String,
    /// The code, unless it succeeded.
    pub code: Option<String>,
    /// The coupon, if it succeeded.
    pub coupon: Option<CouponIssued>,
    /// When it was settled.
    pub settled_at: DateTime<Utc>,
}

/// What the database holds of a sale.
#[derive(Debug, Default)]
pub struct Books {
    /// Every job's outcome.
    pub outcomes: HashMap<Uuid, Stored>,
    /// Coupons that the campaign has counted as issued.
    pub issued: i64,
    /// Who holds one: user, issue number, id.
    pub holders: Vec<(i64, i64, i64)>,
    /// Jobs that could not be processed.
    pub dead_letters: i64,
}

/// What should have come of it.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Clicks.
    pub clicks: usize,
    /// Coupons issued.
    pub issued: usize,
}

/// The figures of the last line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Jobs that were accepted.
    pub accepted: usize,
    /// Those of them that have an outcome.
    pub settled: usize,
    /// Of these: got a coupon.
    pub succeeded: usize,
    /// Of these: a business "no".
    pub rejected: usize,
}

impl Books {
    /// Reads the books of a coupon; the `trials` are not part of the sale.
    ///
    /// # Errors
    /// The database's.
    pub async fn read(pool: &PgPool, coupon: i64, trials: &[Uuid]) -> Result<Self, sqlx::Error> {
        type Row = (Uuid, String, Option<String>, Option<Json<CouponIssued>>, DateTime<Utc>);
        let rows = sqlx::query_as::<_, Row>(
            "SELECT job_id, status, code, result, settled_at FROM job_outcomes WHERE job_id <> ALL($1)",
        )
        .bind(trials)
        .fetch_all(pool)
        .await?;
        let outcome = |(job, status, code, coupon, settled_at): Row| {
            (job, Stored { status, code, coupon: coupon.map(|Json(coupon)| coupon), settled_at })
        };
        let holders = sqlx::query_as("SELECT user_id, issue_number, id FROM user_coupons WHERE coupon_id = $1");
        let issued = sqlx::query_scalar("SELECT issued FROM coupons WHERE id = $1");
        let dead_letters = sqlx::query_scalar("SELECT count(*) FROM dead_letters");
        Ok(Self {
            outcomes: rows.into_iter().map(outcome).collect(),
            issued: issued.bind(coupon).fetch_one(pool).await?,
            holders: holders.bind(coupon).fetch_all(pool).await?,
            dead_letters: dead_letters.fetch_one(pool).await?,
        })
    }

    /// When the last outcome, and when the last coupon, was settled.
    #[must_use]
    pub fn ends(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        let all = self.outcomes.values();
        let issued = all.clone().filter(|outcome| outcome.coupon.is_some());
        (all.map(|outcome| outcome.settled_at).max(), issued.map(|outcome| outcome.settled_at).max())
    }

    /// How many jobs ended how: by code, `succeeded` if there is none.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for outcome in self.outcomes.values() {
            *tally.entry(outcome.code.clone().unwrap_or_else(|| outcome.status.clone())).or_default() += 1;
        }
        tally
    }
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

/// The figures of the last line.
#[must_use]
pub fn totals(record: &Record, books: &Books) -> Totals {
    let accepted: HashSet<Uuid> = record.accepted.iter().map(|accepted| accepted.job).collect();
    let outcomes: Vec<&Stored> = accepted.iter().filter_map(|job| books.outcomes.get(job)).collect();
    let of = |status: Status| outcomes.iter().filter(|outcome| outcome.status == status.as_str()).count();
    Totals {
        accepted: accepted.len(),
        settled: outcomes.len(),
        succeeded: of(Status::Succeeded),
        rejected: of(Status::Rejected),
    }
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
    let mut figures =
        format!("{} clicks, {} accepted, {} turned away", count(expected.clicks), count(accepted), count(away));
    if record.refused > 0 {
        figures += &format!(", {} refused with 503 to the end", count(record.refused));
    }
    if lost + open > 0 {
        let reasons: Vec<String> = record.lost.iter().map(|(why, times)| format!("{times}× {why}")).collect();
        figures += &format!(", {} without an answer, {} not sent {}", count(lost), count(open), reasons.join(", "));
    }
    let surprises: Vec<String> = record.unexpected.iter().map(|(what, times)| format!("{times}× {what}")).collect();
    let retries = format!("{} repeated after a 503", count(record.retries + record.poll_retries));
    vec![
        Check { what: "every click was answered", figures, violations: lost + open },
        Check {
            what: "every answer was one of the API's promises (no 5xx but a 503 with Retry-After)",
            figures: if surprises.is_empty() { retries } else { format!("{retries}, {}", surprises.join(", ")) },
            violations: record.unexpected.values().sum(),
        },
    ]
}

fn jobs(record: &Record, books: &Books) -> Vec<Check> {
    let accepted: HashSet<Uuid> = record.accepted.iter().map(|accepted| accepted.job).collect();
    let repeated = record.accepted.len() - accepted.len();
    let missing = accepted.iter().filter(|job| !books.outcomes.contains_key(job)).count();
    let foreign = books.outcomes.keys().filter(|job| !accepted.contains(job)).count();
    // A click that ended without an answer, or in a 503, may have been queued all the same.
    let unknown = record.lost.values().sum::<usize>() + record.retries + record.refused;

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
        .filter(|(outcome, _)| outcome != Status::Succeeded.as_str() && !allowed.contains(&Some(outcome.as_str())))
        .map(|(outcome, times)| format!("{times}× {outcome}"))
        .collect();
    vec![
        Check {
            what: "every 202 has exactly one outcome",
            figures: format!("{} jobs, {} without, {} ids given twice", count(accepted.len()), count(missing), count(repeated)),
            violations: missing + repeated,
        },
        Check {
            what: "every outcome belongs to a 202",
            figures: format!("{} outcomes, {} of others", count(books.outcomes.len()), count(foreign)),
            violations: foreign.saturating_sub(unknown),
        },
        Check {
            what: "what the polls told is what is stored",
            figures: format!("{} told, {} false, {} not told", count(told.len()), count(false_tales), count(untold)),
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

fn coupons(record: &Record, books: &Books, expected: Expected) -> Vec<Check> {
    let held = books.holders.len();
    let issued = usize::try_from(books.issued).unwrap_or_default();
    let numbers: HashSet<i64> = books.holders.iter().map(|(_, number, _)| *number).collect();
    let gaps = (1..=i64::try_from(expected.issued).unwrap_or(i64::MAX)).filter(|number| !numbers.contains(number)).count();
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
    vec![
        Check {
            what: "all coupons are issued, and not one more",
            figures: format!("{} issued, {} in users' hands, {} expected", count(issued), count(held), count(expected.issued)),
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
            figures: format!("{} winners", count(winners.len())),
            violations: winners.symmetric_difference(&holders).count(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sale::{Accepted, Told};
    use firstcome_shared::ids::{CouponId, UserCouponId};
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
            books.outcomes.insert(job, Stored { status: status.clone(), code: code.clone(), coupon, settled_at: now });
            record.told.push(Told { job, user, status, code, coupon, submitted_at: now, settled_at: now });
        }
        books.issued = 1;
        books.holders.push((1, 1, 70));
        (record, books, Expected { clicks: 2, issued: 1 })
    }

    fn failing(record: &Record, books: &Books, expected: Expected) -> Vec<&'static str> {
        sale(record, books, expected).into_iter().filter(|check| check.violations > 0).map(|check| check.what).collect()
    }

    #[test]
    fn a_right_sale_passes() {
        let (record, books, expected) = right();
        assert_eq!(failing(&record, &books, expected), [""; 0]);
        assert_eq!(totals(&record, &books), Totals { accepted: 2, settled: 2, succeeded: 1, rejected: 1 });
    }

    #[test]
    fn a_forgotten_job_is_noticed() {
        let (record, mut books, expected) = right();
        books.outcomes.remove(&Uuid::from_u128(2));
        let found = failing(&record, &books, expected);
        assert_eq!(found, ["every 202 has exactly one outcome", "what the polls told is what is stored"]);
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
        books.outcomes.get_mut(&Uuid::from_u128(2)).unwrap().code = Some("user-not-found".to_owned());
        assert_eq!(failing(&record, &books, expected).len(), 2);
    }
}
