//! How the lines fared lately, so that an operator who comes late sees what came before.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use firstcome_contract::line::Line;
use tokio::time::{MissedTickBehavior, interval};

use super::{Known, Lines};

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// As many as there are in the last 15 minutes.
const SAMPLES: usize = 180;

/// Samples of all lines, oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Sample>);

/// How the lines fared at an instant.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was.
    pub at: DateTime<Utc>,
    /// Those of which the database told then.
    pub lines: Vec<(Line, Figures)>,
}

/// How a line fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Jobs that waited.
    pub waiting: u64,
    /// Jobs that were settled since the line was opened.
    pub settled: u64,
    /// How long the job at the head had waited, in seconds.
    pub oldest: i64,
}

impl Figures {
    fn of(known: &Known, now: DateTime<Utc>) -> Self {
        Self {
            waiting: known.waiting_jobs(),
            settled: known.settled_jobs(),
            oldest: known.oldest(now).num_seconds(),
        }
    }
}

impl History {
    fn note(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// Those of the last 15 minutes.
    pub(super) fn lately(&self, now: DateTime<Utc>) -> Vec<Sample> {
        let longest = INTERVAL * u32::try_from(SAMPLES).unwrap_or(u32::MAX);
        let since = now - TimeDelta::from_std(longest).unwrap_or(TimeDelta::zero());
        self.0.iter().filter(|sample| sample.at > since).cloned().collect()
    }
}

/// Takes samples for ever.
pub(super) async fn keep(lines: Arc<Lines>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let at = Utc::now();
        let figures = {
            let known = lines.known();
            let told = known.iter().filter(|(_, known)| known.is_told_by_database());
            told.map(|(line, known)| (*line, Figures::of(known, at))).collect()
        };
        super::lock(&lines.history).note(Sample { at, lines: figures });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_fifteen_minutes_is_forgotten() {
        let mut history = History::default();
        let begun = Utc::now();
        let after = |samples: i32| begun + TimeDelta::seconds(5) * samples;
        for number in 0..400 {
            history.note(Sample { at: after(number), lines: Vec::new() });
        }
        assert_eq!(history.0.len(), SAMPLES);
        let kept = history.lately(after(399));
        assert_eq!((kept.len(), kept[0].at), (180, after(220)));
        // While nothing was noted it went on all the same.
        assert_eq!(history.lately(after(399 + 100)).len(), 80);
        assert!(history.lately(after(1_000)).is_empty());
    }
}
