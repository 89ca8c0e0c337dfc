//! Figures that people understand at a glance.

pub mod orders;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    books::{Outcomes, Totals},
    load::Latencies,
    sale::Record,
};

/// Columns of a picture.
const WIDTH: usize = 56;

/// A sale and what came of it.
#[derive(Debug)]
pub struct Report<'a> {
    /// As the customers saw it.
    pub record: &'a Record,
    /// As the database has it.
    pub outcomes: &'a Outcomes,
    /// When it opened.
    pub opened_at: DateTime<Utc>,
    /// Connections for clicking; there are as many for polling.
    pub connections: usize,
}

impl Report<'_> {
    /// What was offered and how it went, in a sentence.
    #[must_use]
    pub fn of_coupons(&self, users: usize, coupons: usize) -> String {
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
    pub fn speed(&self) -> Vec<String> {
        let mut lines = self.rates();
        lines.extend(self.latencies());
        lines
    }

    /// How the jobs ended, and when.
    #[must_use]
    pub fn pictures(&self) -> Vec<String> {
        let mut lines = self.outcomes();
        lines.extend(self.timeline());
        lines
    }

    /// How the settling kept up with the accepting.
    #[must_use]
    pub fn pace(&self) -> Pace {
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
        for told in &self.record.told {
            settling.record(elapsed(told.submitted_at, told.ended.settled_at));
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
/// violations those of both acts.
#[must_use]
pub fn last_line(drop: Totals, violations: usize) -> String {
    format!("demo: {} {} violations={violations}", verdict(violations), figures(drop))
}

/// The line before it: the figures of the product sale, and its pace.
#[must_use]
pub fn second_act_line(sale: Totals, pace: Pace, violations: usize) -> String {
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
pub struct Pace {
    /// What was settled in a second ÷ what was accepted in a second, both counted in jobs from the
    /// opening to the last one. Below 1 the line grew, and its last ones waited after the sale.
    pub settled_per_accepted: f64,
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

/// With separators: 12,345.
#[must_use]
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With separators and sign: −12,345.
#[must_use]
pub fn amount(number: i64) -> String {
    let digits = count(usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX));
    if number < 0 { format!("−{digits}") } else { digits }
}

/// With three digits or so.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1e3),
    }
}

/// How many there are in a second; 0 if no time passed.
#[must_use]
pub fn per_second(how_many: usize, took: Duration) -> usize {
    let micros = took.as_micros();
    let scaled = u128::try_from(how_many).unwrap_or_default() * 1_000_000;
    scaled.checked_div(micros).and_then(|rate| usize::try_from(rate).ok()).unwrap_or_default()
}

/// One character per number, as high as its share of `full`; what is there at all is seen.
#[must_use]
pub fn sparkline(numbers: &[usize], full: usize) -> String {
    const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let level = |number: &usize| (number * 8).div_ceil(full.max(1)).min(8);
    numbers.iter().filter_map(|number| LEVELS.get(level(number))).collect()
}

/// A horizontal bar, as long as the number's share of `full`; what is there at all is seen.
fn bar(number: usize, full: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (number * WIDTH / 2 * 8).div_ceil(full.max(1));
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS.get(eighths % 8).unwrap_or(&""))
}

/// How many of the instants fall into each of the columns from 0 to `end`.
fn histogram(instants: &[Duration], end: Duration) -> Vec<usize> {
    let mut columns: BTreeMap<u128, usize> = BTreeMap::new();
    let width = u128::try_from(WIDTH).unwrap_or(1);
    for instant in instants {
        let column = (instant.as_micros() * width).checked_div(end.as_micros()).unwrap_or_default();
        *columns.entry(column.min(width - 1)).or_default() += 1;
    }
    (0..width).map(|column| columns.get(&column).copied().unwrap_or_default()).collect()
}

/// How many are in at the end of each column and not out yet. The two come from two clocks, so never
/// negative.
fn depth(into: &[usize], out: &[usize]) -> Vec<usize> {
    let step = |(total_in, total_out): &mut (usize, usize),
                (more_in, more_out): (&usize, &usize)| {
        *total_in += more_in;
        *total_out += more_out;
        Some(total_in.saturating_sub(*total_out))
    };
    into.iter().zip(out).scan((0, 0), step).collect()
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
    use crate::answers::{Accepted, Detail, Ended};
    use chrono::TimeDelta;

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
    }

    /// Four jobs accepted within 2 s, the last of them twice; settled by 4 s.
    #[test]
    fn the_pace_and_the_depth_are_those_of_jobs() {
        let opened_at = DateTime::UNIX_EPOCH;
        let job = |number: usize| Uuid::from_u128(number as u128);
        let accepted =
            [(1, 500), (2, 1_000), (3, 1_500), (4, 2_000), (4, 3_900)].map(|(wish, at)| Accepted {
                wish,
                job: job(wish),
                user: 1,
                at: Duration::from_millis(at),
            });
        let record = Record { accepted: accepted.to_vec(), ..Record::default() };
        let outcomes = [(1, 1_000), (2, 4_000), (3, 4_000), (4, 4_000)].map(|(number, at)| {
            let settled_at = opened_at + TimeDelta::milliseconds(at);
            let (status, detail) = ("rejected".to_owned(), Detail::default());
            (job(number), Ended { status, code: None, detail, gain: None, settled_at })
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

    #[test]
    fn a_depth_is_never_negative() {
        assert_eq!(depth(&[2, 0, 3, 0], &[0, 3, 1, 1]), [2, 0, 1, 0]);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1_000, -1_234].map(amount), ["0", "1,000", "−1,234"]);
        let durations =
            [12, 3_460, 34_600, 3_456_000].map(|micros| duration(Duration::from_micros(micros)));
        assert_eq!(durations, ["0.0 ms", "3.5 ms", "35 ms", "3.46 s"]);
        assert_eq!(per_second(1_000, Duration::from_millis(250)), 4_000);
        assert_eq!(per_second(1_000, Duration::ZERO), 0);
    }

    #[test]
    fn pictures_show_whatever_is_there() {
        assert_eq!(sparkline(&[0, 1, 4_000, 7_999, 8_000], 8_000), " ▁▄██");
        assert_eq!(sparkline(&[0, 0], 0), "  ");
        assert_eq!(bar(0, 100), "");
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(100, 100), "█".repeat(WIDTH / 2));
    }

    #[test]
    fn the_last_instant_falls_into_the_last_column() {
        let instants = [0, 1, 500, 999, 1_000].map(Duration::from_millis);
        let columns = histogram(&instants, Duration::from_secs(1));
        assert_eq!(columns.len(), WIDTH);
        assert_eq!((columns[0], columns[WIDTH / 2], columns[WIDTH - 1]), (2, 1, 2));
        assert_eq!(histogram(&[], Duration::ZERO), vec![0; WIDTH]);
    }
}
