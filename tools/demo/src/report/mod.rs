//! What came of an act, at a glance.

mod chart;
pub(crate) mod orders;
pub(crate) mod returns;

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use firstcome_rig::{
    figures::{count, duration, per_second},
    latencies::Latencies,
};
use uuid::Uuid;

use crate::{
    load::Record,
    stored::{Outcomes, Totals},
};
use chart::{WIDTH, bar, depth, histogram, sparkline};

/// A sale and what came of it.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// As the customers saw it.
    pub(crate) record: &'a Record,
    /// As the database has it.
    pub(crate) outcomes: &'a Outcomes,
    /// When the first request was sent.
    pub(crate) opened_at: DateTime<Utc>,
    /// Connections for clicking; there are as many for polling.
    pub(crate) connections: usize,
}

impl Report<'_> {
    /// What was offered and how it went, in a sentence.
    #[must_use]
    pub(crate) fn of_coupons(&self, users: usize, coupons: usize) -> String {
        let (_, last_issued) = self.outcomes.ends();
        format!(
            "{} customers clicked {} times on {} coupons: the last one was issued after {}, the last click answered after {}.",
            count(users),
            count(self.record.clicks),
            count(coupons),
            duration(self.since_opening(last_issued)),
            duration(self.last_answered()),
        )
    }

    /// How fast it went.
    #[must_use]
    pub(crate) fn speed(&self) -> Vec<String> {
        let mut lines = self.rates();
        lines.extend(self.latencies());
        lines
    }

    /// How the jobs ended, and when.
    #[must_use]
    pub(crate) fn pictures(&self) -> Vec<String> {
        let mut lines = self.outcomes();
        lines.extend(self.timeline());
        lines
    }

    /// How the settling kept up with the accepting.
    #[must_use]
    pub(crate) fn pace(&self) -> Pace {
        let accepted = self.accepted_at();
        let (last_settled, _) = self.outcomes.ends();
        let rate = |jobs: usize, took: Duration| {
            #[expect(clippy::cast_precision_loss, reason = "some million at most")]
            let jobs = jobs as f64;
            if took.is_zero() { 0.0 } else { jobs / took.as_secs_f64() }
        };
        let accepting = rate(accepted.len(), last(&accepted));
        let settling = rate(self.outcomes.0.len(), self.since_opening(last_settled));
        Pace {
            settled_per_accepted: if accepting > 0.0 { settling / accepting } else { 0.0 },
            settled_p99: self.settling().percentile(99.0),
        }
    }

    /// From the submission to the transaction that decided the job, from the polls.
    fn settling(&self) -> Latencies {
        let mut settling = Latencies::default();
        for job in &self.record.settled {
            settling.record(elapsed(job.submitted_at, job.outcome.settled_at));
        }
        settling
    }

    /// When each job was accepted; one that was asked for twice under one key, the first time.
    fn accepted_at(&self) -> HashMap<Uuid, Duration> {
        let mut jobs: HashMap<Uuid, Duration> = HashMap::new();
        for accepted in &self.record.accepted {
            let first = jobs.entry(accepted.job).or_insert(accepted.at);
            *first = accepted.at.min(*first);
        }
        jobs
    }

    fn since_opening(&self, at: Option<DateTime<Utc>>) -> Duration {
        at.map_or(Duration::ZERO, |at| elapsed(self.opened_at, at))
    }

    fn last_accepted(&self) -> Duration {
        self.record.accepted.iter().map(|accepted| accepted.at).max().unwrap_or_default()
    }

    fn last_answered(&self) -> Duration {
        let turned_away = self.record.turned_away.iter().copied().max().unwrap_or_default();
        turned_away.max(self.last_accepted())
    }

    fn rates(&self) -> Vec<String> {
        let record = self.record;
        let (last_settled, _) = self.outcomes.ends();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let accepted = self.accepted_at();
        let (settled, all) =
            (self.outcomes.0.len(), record.accepted.len() + record.turned_away.len());
        let row = |what: &str, how_many: usize, took: Duration, meaning: &str| {
            format!(
                "  {what:<10}{:>9} {:>8}/s  {meaning}",
                count(how_many),
                count(per_second(how_many, took))
            )
        };
        let mut lines = vec![
            format!("Customers, API, workers, database and broker share {cores} CPU cores here."),
            String::new(),
            row(
                "accepted",
                accepted.len(),
                last(&accepted),
                &format!(
                    "jobs, each on the disk of a queue, from the opening to the last one ({} 202s)",
                    count(record.accepted.len())
                ),
            ),
            row(
                "settled",
                settled,
                self.since_opening(last_settled),
                "outcomes in PostgreSQL, from the opening to the last one",
            ),
            format!(
                "  {:<10}{:>20.2}  settled per second ÷ accepted per second",
                "ratio",
                self.pace().settled_per_accepted
            ),
        ];
        if !record.turned_away.is_empty() {
            lines.push(row(
                "answered",
                all,
                self.last_answered(),
                "clicks from the opening to the last one: 202s and 409s (turned away early)",
            ));
        }
        lines.push(format!(
            "  {} connections clicking and as many polling; repeated after a 503 or no answer: {} clicks, {} polls",
            count(self.connections),
            count(record.retries),
            count(record.poll_retries)
        ));
        lines.push(String::new());
        lines
    }

    fn latencies(&self) -> Vec<String> {
        let row = |what: &str, latencies: &Latencies, meaning: &str| {
            let [p50, p90, p99] =
                [50.0, 90.0, 99.0].map(|percent| duration(latencies.percentile(percent)));
            format!(
                "  {what:<18}{p50:>9}{p90:>9}{p99:>9}{:>9}  {meaning}",
                duration(latencies.max())
            )
        };
        vec![
            format!("  {:<18}{:>9}{:>9}{:>9}{:>9}", "latency", "p50", "p90", "p99", "max"),
            row("submit → 202", &self.record.click_latency, "as the clients saw it"),
            row(
                "submit → settled",
                &self.settling(),
                "from the polls: submission to the transaction that decided the job",
            ),
            String::new(),
        ]
    }

    fn outcomes(&self) -> Vec<String> {
        let mut rows: Vec<(String, usize)> = self.outcomes.tally().into_iter().collect();
        let away = self.record.turned_away.len();
        rows.extend((away > 0).then(|| ("turned away early".to_owned(), away)));
        let full = rows.iter().map(|(_, times)| *times).max().unwrap_or_default();
        let row = |(outcome, times): &(String, usize)| {
            format!("  {outcome:<22}{:>9}  {}", count(*times), bar(*times, full))
        };
        let heading = match away {
            0 => "  outcomes (rejections are answers too)",
            _ => {
                "  outcomes (rejections are answers too; turned away early: 409 before the line, no job)"
            }
        };
        std::iter::once(heading.to_owned())
            .chain(rows.iter().map(row))
            .chain([String::new()])
            .collect()
    }

    fn timeline(&self) -> Vec<String> {
        let accepted: Vec<Duration> = self.accepted_at().into_values().collect();
        let outcomes = self.outcomes.0.values();
        let settled: Vec<Duration> =
            outcomes.map(|outcome| elapsed(self.opened_at, outcome.settled_at)).collect();
        let turned_away = &self.record.turned_away;
        let all = [&accepted, &settled, turned_away];
        let end = all.into_iter().flatten().max().copied().unwrap_or_default();
        let [accepted, settled, turned_away] = all.map(|times| histogram(times, end));
        let waiting = depth(&accepted, &settled);
        let rows = [
            ("accepted", accepted, "a column"),
            ("settled", settled, "a column"),
            ("waiting", waiting, "at a column's end: accepted, not settled"),
            ("turned away", turned_away, "a column"),
        ];
        let width = end / u32::try_from(WIDTH).unwrap_or(1);
        let heading = format!(
            "  over time (a column is {}; each row has a scale of its own)",
            duration(width)
        );
        let rows = rows.into_iter().filter(|(_, column, _)| column.iter().any(|times| *times > 0));
        let row = |(name, column, when): (&str, Vec<usize>, &str)| {
            let full = column.iter().max().copied().unwrap_or_default();
            format!("  {name:<12}│{}│ up to {} {when}", sparkline(&column, full), count(full))
        };
        std::iter::once(heading).chain(rows.map(row)).chain([String::new()]).collect()
    }
}

/// The last line: for people and for scripts. The figures are those of the coupon drop, the
/// violations those of all acts.
#[must_use]
pub(crate) fn last_line(drop: Totals, violations: usize) -> String {
    format!("demo: {} {} violations={violations}", verdict(violations), figures(drop))
}

/// The line before it: the figures of the returns.
#[must_use]
pub(crate) fn third_act_line(returns: Totals, violations: usize) -> String {
    format!("demo: act 3 {} {}", verdict(violations), figures(returns))
}

/// The line before that: the figures of the product sale, and its pace.
#[must_use]
pub(crate) fn second_act_line(sale: Totals, pace: Pace, violations: usize) -> String {
    let Pace { settled_per_accepted, settled_p99 } = pace;
    format!(
        "demo: act 2 {} {} settled_per_accepted={settled_per_accepted:.2} settled_p99_ms={}",
        verdict(violations),
        figures(sale),
        settled_p99.as_millis(),
    )
}

/// How the settling kept up with the accepting.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// What was settled in a second ÷ what was accepted in a second, both counted in jobs from the
    /// opening to the last one. Below 1 the line grew, and its last ones waited after the sale.
    pub(crate) settled_per_accepted: f64,
    /// From the submission to the transaction that decided the job, of 99 in 100 at most.
    pub settled_p99: Duration,
}

const fn verdict(violations: usize) -> &'static str {
    if violations == 0 { "PASS" } else { "FAIL" }
}

fn figures(totals: Totals) -> String {
    let Totals { accepted, settled, succeeded, rejected } = totals;
    format!("accepted={accepted} settled={settled} succeeded={succeeded} rejected={rejected}")
}

fn last(jobs: &HashMap<Uuid, Duration>) -> Duration {
    jobs.values().max().copied().unwrap_or_default()
}

/// From one instant to a later one. The two clocks may be two machines', so never negative.
fn elapsed(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    (to - from).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use firstcome_rig::answers::{Accepted, Detail, Outcome};

    #[test]
    fn the_last_line_never_changes() {
        let totals = Totals { accepted: 8_000, settled: 8_000, succeeded: 1_000, rejected: 7_000 };
        assert_eq!(
            last_line(totals, 0),
            "demo: PASS accepted=8000 settled=8000 succeeded=1000 rejected=7000 violations=0"
        );
        assert_eq!(
            last_line(Totals::default(), 3),
            "demo: FAIL accepted=0 settled=0 succeeded=0 rejected=0 violations=3"
        );
        let pace = Pace { settled_per_accepted: 0.8749, settled_p99: Duration::from_millis(1_234) };
        assert_eq!(
            second_act_line(totals, pace, 0),
            "demo: act 2 PASS accepted=8000 settled=8000 succeeded=1000 rejected=7000 \
             settled_per_accepted=0.87 settled_p99_ms=1234"
        );
        assert_eq!(
            third_act_line(totals, 1),
            "demo: act 3 FAIL accepted=8000 settled=8000 succeeded=1000 rejected=7000"
        );
    }

    /// Four jobs accepted within 2 s, the last of them twice; settled by 4 s.
    #[test]
    fn the_pace_and_the_depth_are_those_of_jobs() {
        let opened_at = DateTime::UNIX_EPOCH;
        let job = |number: usize| Uuid::from_u128(number as u128);
        let accepted =
            [(1, 500), (2, 1_000), (3, 1_500), (4, 2_000), (4, 3_900)].map(|(intent, at)| {
                Accepted { intent, job: job(intent), user: 1, at: Duration::from_millis(at) }
            });
        let record = Record { accepted: accepted.to_vec(), ..Record::default() };
        let outcomes = [(1, 1_000), (2, 4_000), (3, 4_000), (4, 4_000)].map(|(number, at)| {
            let settled_at = opened_at + TimeDelta::milliseconds(at);
            let (status, detail) = ("rejected".to_owned(), Detail::default());
            (job(number), Outcome { status, code: None, detail, result: None, settled_at })
        });
        let outcomes = Outcomes(HashMap::from(outcomes));
        let report = Report { record: &record, outcomes: &outcomes, opened_at, connections: 1 };
        assert!((report.pace().settled_per_accepted - 0.5).abs() < 1e-9, "{:?}", report.pace());

        let rows = report.timeline();
        let row = |name: &str| rows.iter().find(|row| row.contains(name)).unwrap();
        assert!(row("accepted").ends_with("up to 1 a column"), "{rows:#?}");
        assert!(row("waiting").contains("up to 3 at a column's end"), "{rows:#?}");
        let columns: Vec<char> = row("waiting").chars().skip_while(|at| *at != '│').collect();
        assert_eq!((columns[1], columns[WIDTH / 2 + 1], columns[WIDTH]), (' ', '█', ' '));
        assert!(rows.iter().all(|row| !row.contains("turned away")), "{rows:#?}");
    }
}
