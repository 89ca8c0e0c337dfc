//! Figures that people understand at a glance.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    books::{Books, Totals},
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
    pub books: &'a Books,
    /// When it opened.
    pub opened_at: DateTime<Utc>,
    /// How many took part.
    pub users: usize,
    /// How many coupons there were.
    pub coupons: usize,
    /// Connections for clicking; there are as many for polling.
    pub connections: usize,
    /// Submission to answer of one job, with nothing else going on.
    pub at_rest: Duration,
}

impl Report<'_> {
    /// The lines to print.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.rates();
        lines.extend(self.latencies());
        lines.extend(self.outcomes());
        lines.extend(self.timeline());
        lines
    }

    fn rates(&self) -> Vec<String> {
        let record = self.record;
        let (last_settled, last_issued) = self.books.ends();
        let since_opening =
            |at: Option<DateTime<Utc>>| at.map_or(Duration::ZERO, |at| elapsed(self.opened_at, at));
        let last_accepted =
            record.accepted.iter().map(|accepted| accepted.at).max().unwrap_or_default();
        let last_answered =
            record.turned_away.iter().copied().max().unwrap_or_default().max(last_accepted);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (accepted, settled, all) = (
            record.accepted.len(),
            self.books.outcomes.len(),
            record.accepted.len() + record.turned_away.len(),
        );
        let row = |what: &str, how_many: usize, took: Duration, meaning: &str| {
            format!(
                "  {what:<10}{:>9} {:>8}/s  {meaning}",
                count(how_many),
                count(per_second(how_many, took))
            )
        };
        vec![
            format!(
                "{} customers clicked {} times on {} coupons: the last one was issued after {}, the last click answered after {}.",
                count(self.users),
                count(record.clicks),
                count(self.coupons),
                duration(since_opening(last_issued)),
                duration(last_answered),
            ),
            format!("Customers, API, worker, database and broker share {cores} CPU cores here."),
            String::new(),
            row(
                "accepted",
                accepted,
                last_accepted,
                "202s from the opening to the last one: each one a job on the disk of a queue",
            ),
            row(
                "settled",
                settled,
                since_opening(last_settled),
                "outcomes in PostgreSQL, from the opening to the last one",
            ),
            row(
                "answered",
                all,
                last_answered,
                "clicks from the opening to the last one: 202s and 409s (turned away early)",
            ),
            format!(
                "  {} connections clicking and as many polling; repeated after a 503: {} clicks, {} polls",
                count(self.connections),
                count(record.retries),
                count(record.poll_retries)
            ),
            String::new(),
        ]
    }

    fn latencies(&self) -> Vec<String> {
        let mut settling = Latencies::default();
        for told in &self.record.told {
            settling.record(elapsed(told.submitted_at, told.settled_at));
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
            format!(
                "  one job on the idle system, from the click to the outcome at the client: {}",
                duration(self.at_rest)
            ),
            String::new(),
        ]
    }

    fn outcomes(&self) -> Vec<String> {
        let mut rows: Vec<(String, usize)> = self.books.tally().into_iter().collect();
        rows.push(("turned away early".to_owned(), self.record.turned_away.len()));
        let full = rows.iter().map(|(_, times)| *times).max().unwrap_or_default();
        let row = |(outcome, times): &(String, usize)| {
            format!("  {outcome:<22}{:>9}  {}", count(*times), bar(*times, full))
        };
        let heading = "  outcomes (rejections are answers too; turned away early: 409 before the line, no job)";
        std::iter::once(heading.to_owned())
            .chain(rows.iter().map(row))
            .chain([String::new()])
            .collect()
    }

    fn timeline(&self) -> Vec<String> {
        let accepted: Vec<Duration> =
            self.record.accepted.iter().map(|accepted| accepted.at).collect();
        let outcomes = self.books.outcomes.values();
        let settled: Vec<Duration> =
            outcomes.map(|outcome| elapsed(self.opened_at, outcome.settled_at)).collect();
        let events = [
            ("accepted", accepted),
            ("settled", settled),
            ("turned away", self.record.turned_away.clone()),
        ];
        let end = events.iter().flat_map(|(_, times)| times).max().copied().unwrap_or_default();
        let columns: Vec<(&str, Vec<usize>)> =
            events.iter().map(|(name, times)| (*name, histogram(times, end))).collect();
        let width = end / u32::try_from(WIDTH).unwrap_or(1);
        let heading = format!(
            "  over time (a column is {}; each row has a scale of its own)",
            duration(width)
        );
        let row = |(name, column): &(&str, Vec<usize>)| {
            let full = column.iter().max().copied().unwrap_or_default();
            format!("  {name:<12}│{}│ up to {} a column", sparkline(column, full), count(full))
        };
        std::iter::once(heading).chain(columns.iter().map(row)).chain([String::new()]).collect()
    }
}

/// The last line: for people and for scripts.
#[must_use]
pub fn last_line(totals: Totals, violations: usize) -> String {
    let Totals { accepted, settled, succeeded, rejected } = totals;
    let verdict = if violations == 0 { "PASS" } else { "FAIL" };
    format!(
        "demo: {verdict} accepted={accepted} settled={settled} succeeded={succeeded} rejected={rejected} violations={violations}"
    )
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
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
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
