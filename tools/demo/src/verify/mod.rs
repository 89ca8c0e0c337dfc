//! The audit: what the customers were told against what the database holds and the data platform
//! got.

pub(crate) mod coupons;
pub(crate) mod orders;
pub(crate) mod returns;

use std::collections::{HashMap, HashSet};

use firstcome_contract::{job::Status, rejection::Rejection};
use firstcome_rig::{answers::SettledJob, figures::count};
use firstcome_workers::commands::audit;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    load::Record,
    stored::{self, Outcomes},
};

/// One thing that must hold.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) what: &'static str,
    /// What was found, for people.
    pub(crate) figures: String,
    /// How often it does not hold.
    pub(crate) violations: usize,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.violations == 0 { "ok  " } else { "FAIL" };
        write!(f, "{verdict} {}: {}", self.what, self.figures)
    }
}

/// How often anything of it does not hold.
#[must_use]
pub(crate) fn violations(checks: &[Check]) -> usize {
    checks.iter().fold(0, |sum, check| sum.saturating_add(check.violations))
}

/// The invariants that hold on every database of this system, and no job and no event is left that
/// could not be processed.
pub(crate) async fn invariants(pool: &PgPool) -> Result<Vec<Check>, sqlx::Error> {
    let findings = audit::audit(pool).await?;
    let check = |finding: audit::Finding| Check {
        what: finding.invariant,
        figures: format!("{} checked", count(usize::try_from(finding.checked).unwrap_or_default())),
        violations: usize::try_from(finding.violations).unwrap_or(usize::MAX),
    };
    let dead_letters = stored::dead_letters(pool).await?;
    let nothing_dead = Check {
        what: "nothing was dead-lettered",
        figures: format!("{dead_letters} dead letters"),
        violations: usize::try_from(dead_letters).unwrap_or_default(),
    };
    Ok(findings.into_iter().map(check).chain([nothing_dead]).collect())
}

/// Every click got an answer, and one that was promised.
fn clicks(record: &Record, clicks: usize) -> Vec<Check> {
    let lost: usize = record.lost.values().sum();
    let open = clicks.saturating_sub(record.clicks);
    let (accepted, away) = (record.accepted.len(), record.turned_away.len());
    let mut figures = format!(
        "{} clicks, {} accepted, {} turned away",
        count(clicks),
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
    let unexpected: Vec<String> =
        record.unexpected.iter().map(|(what, times)| format!("{times}× {what}")).collect();
    let retries = format!(
        "{} repeated after a 503 or no answer",
        count(record.retries + record.poll_retries)
    );
    vec![
        Check { what: "every click was answered", figures, violations: lost + open },
        Check {
            what: "every answer was one of the API's promises (no 5xx but a 503 with Retry-After)",
            figures: if unexpected.is_empty() {
                retries
            } else {
                format!("{retries}, {}", unexpected.join(", "))
            },
            violations: record.unexpected.values().sum(),
        },
    ]
}

/// Every 202 has its outcome, the one that the polls told. `foreseen` are the rejections that may
/// happen in such a sale.
fn jobs(record: &Record, outcomes: &Outcomes, foreseen: &[Rejection]) -> Vec<Check> {
    let mut accepted: HashMap<Uuid, usize> = HashMap::new();
    let given_twice = |intent: usize, first: &mut usize| *first != intent;
    let repeated = record
        .accepted
        .iter()
        .filter(|job| given_twice(job.intent, accepted.entry(job.job).or_insert(job.intent)))
        .count();
    let missing = accepted.keys().filter(|job| !outcomes.0.contains_key(job)).count();
    let foreign = outcomes.0.keys().filter(|job| !accepted.contains_key(job)).count();

    let told: HashSet<Uuid> = record.settled.iter().map(|told| told.job).collect();
    let untold = accepted.keys().filter(|job| !told.contains(job)).count();
    let differs = |told: &&SettledJob| outcomes.0.get(&told.job) != Some(&told.outcome);
    let mismatched = record.settled.iter().filter(differs).count();

    let foreseen: Vec<&str> = foreseen.iter().map(|rejection| rejection.code()).collect();
    let odd: Vec<(String, usize)> = outcomes
        .tally()
        .into_iter()
        .filter(|(outcome, _)| {
            outcome != Status::Succeeded.as_str() && !foreseen.contains(&outcome.as_str())
        })
        .collect();
    let oddities: Vec<String> =
        odd.iter().map(|(outcome, times)| format!("{times}× {outcome}")).collect();
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
            figures: format!("{} outcomes, {} of others", count(outcomes.0.len()), count(foreign)),
            violations: foreign.saturating_sub(unknown(record)),
        },
        Check {
            what: "what the polls told is what is stored",
            figures: format!(
                "{} told, {} false, {} not told",
                count(told.len()),
                count(mismatched),
                count(untold)
            ),
            violations: mismatched + untold,
        },
        Check {
            what: "no job ended in any other way than succeeded or with a foreseen rejection",
            figures: if odd.is_empty() { "none".to_owned() } else { oddities.join(", ") },
            violations: odd.iter().map(|(_, times)| times).sum(),
        },
    ]
}

/// Clicks that ended without an answer, or in a 503, and may have become a job all the same.
fn unknown(record: &Record) -> usize {
    record.lost.values().sum::<usize>() + record.retries + record.refused
}
