//! Figures that people understand at a glance.

pub mod orders;

use std::{
    collections::{BTreeMap, HashSet},
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
        let (accepted, settled, all) = (
            record.accepted.len(),
            self.outcomes.0.len(),
            record.accepted.len() + record.turned_away.len(),
        );
        let row = |what: &str, how_many: usize, took: Duration, meaning: &str| {
            format!(
                "  {what:<10}{:>9} {:>8}/s  {meaning}",
                count(how_many),
                count(per_second(how_many, took))
            )
        };
        let jobs: HashSet<Uuid> = record.accepted.iter().map(|accepted| accepted.job).collect();
        let mut lines = vec![
            format!("Customers, API, workers, database and broker share {cores} CPU cores here."),
            String::new(),
            row(
                "accepted",
                accepted,
                self.last_accepted(),
                &format!(
                    "202s from the opening to the last one: {} jobs, each on the disk of a queue",
                    count(jobs.len())
                ),
            ),
            row(
                "settled",
                settled,
                self.since_opening(last_settled),
                "outcomes in PostgreSQL, from the opening to the last one",
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
        let mut settling = Latencies::default();
        for told in &self.record.told {
            settling.record(elapsed(told.submitted_at, told.ended.settled_at));
        }
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
                &settling,
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
        let accepted: Vec<Duration> =
            self.record.accepted.iter().map(|accepted| accepted.at).collect();
        let outcomes = self.outcomes.0.values();
        let settled: Vec<Duration> =
            outcomes.map(|outcome| elapsed(self.opened_at, outcome.settled_at)).collect();
        let events = [
            ("accepted", accepted),
            ("settled", settled),
            ("turned away", self.record.turned_away.clone()),
        ];
        let end = events.iter().flat_map(|(_, times)| times).max().copied().unwrap_or_default();
        let columns = events.iter().map(|(name, times)| (*name, histogram(times, end)));
        let width = end / u32::try_from(WIDTH).unwrap_or(1);
        let heading = format!(
            "  over time (a column is {}; each row has a scale of its own)",
            duration(width)
        );
        let columns = columns.filter(|(_, column)| column.iter().any(|times| *times > 0));
        let row = |(name, column): (&str, Vec<usize>)| {
            let full = column.iter().max().copied().unwrap_or_default();
            format!("  {name:<12}│{}│ up to {} a column", sparkline(&column, full), count(full))
        };
        std::iter::once(heading).chain(columns.map(row)).chain([String::new()]).collect()
    }
}

/// The last line: for people and for scripts. The figures are those of the coupon drop, the
/// violations those of both acts.
#[must_use]
pub fn last_line(drop: Totals, violations: usize) -> String {
    format!("demo: {} {} violations={violations}", verdict(violations), figures(drop))
}

/// The line before it: the figures of the product sale.
#[must_use]
pub fn second_act_line(sale: Totals, violations: usize) -> String {
    format!("demo: act 2 {} {}", verdict(violations), figures(sale))
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

/// From one instant to a later one. The two clocks may be two machines', so never negative.
fn elapsed(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    (to - from).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(
            second_act_line(totals, 0),
            "demo: act 2 PASS accepted=8000 settled=8000 succeeded=1000 rejected=7000"
        );
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
