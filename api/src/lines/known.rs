//! What is known of one line, and what that says about the jobs in it.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use firstcome_shared::broker::{depth::Depth, topology::PREFETCH};
use serde_json::Value;

/// A report that is older than this is its line's past.
const FRESH: TimeDelta = TimeDelta::seconds(5);
/// Looks that are remembered per line.
const ARRIVALS: usize = 600;
/// Messages whose size is remembered, half of them at least.
const PARCELS: f64 = 128.0;

/// A line as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Consumed from.
    pub is_open: bool,
    /// Takes no new jobs any more.
    pub is_closed: bool,
    /// The worker that serves it.
    pub owner: Option<String>,
    /// How it fares, as its owner said last.
    pub report: Option<Report>,
    /// What the broker said last; `None` if it did not.
    pub depth: Option<Depth>,
    /// Since when the broker has seen messages in it.
    pub waiting_since: Option<DateTime<Utc>>,
    /// Jobs put into it since the broker was asked.
    accepted_since: u32,
    /// When the first and the last of them were.
    accepting: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Messages that this process put into it lately, and the jobs in them.
    parcels: (f64, f64),
    /// How many jobs had ever come, by when.
    arrivals: VecDeque<(DateTime<Utc>, u64)>,
}

/// How a line fares, as its owner sees it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Messages in its hands.
    pub in_hand: i32,
    /// Jobs settled since the line was opened.
    pub settled: i64,
    /// Jobs settled per second.
    pub settled_per_second: f64,
    /// Jobs per message.
    pub jobs_per_message: f64,
    /// When the job that it took up last was submitted: who waits came later.
    pub head_at: Option<DateTime<Utc>>,
    /// When it last settled something or saw its canary.
    pub progress_at: DateTime<Utc>,
    /// The busiest keys.
    pub hottest: Value,
    /// When it said so.
    pub reported_at: DateTime<Utc>,
}

/// A job's place in its line: an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// 1 is next.
    pub position: u64,
    /// Until it is settled; unknown while the line does not move.
    pub seconds: Option<u64>,
}

impl Known {
    /// Messages that its consumer holds.
    #[must_use]
    pub fn unacked(&self) -> u64 {
        let in_hand = self.fresh_report().map_or(0, |report| report.in_hand.unsigned_abs().into());
        match self.depth {
            // With messages left in the queue, all of it is used.
            Some(Depth { ready: 1.., consumers: 1.. }) => PREFETCH.into(),
            _ => in_hand,
        }
    }

    /// Jobs that wait, about; without `depth` only those that this process has just put into it.
    #[must_use]
    pub fn waiting_jobs(&self) -> u64 {
        let messages = u64::from(self.depth.map_or(0, |depth| depth.ready)) + self.unacked();
        let jobs_per_message = match (self.parcels, &self.report) {
            ((parcels, jobs), _) if parcels > 0.0 => jobs / parcels,
            (_, Some(report)) => report.jobs_per_message,
            _ => 1.0,
        };
        #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
        let before = whole(messages as f64 * jobs_per_message);
        before + u64::from(self.accepted_since)
    }

    /// Jobs settled per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.fresh_report().map_or(0.0, |report| report.settled_per_second)
    }

    /// How long the job at the head has waited.
    #[must_use]
    pub fn oldest(&self, now: DateTime<Utc>) -> TimeDelta {
        if self.waiting_jobs() == 0 {
            return TimeDelta::zero();
        }
        let head_at = self.report.as_ref().and_then(|report| report.head_at);
        let since = head_at.max(self.waiting_since).unwrap_or(now);
        (now - since).max(TimeDelta::zero())
    }

    fn fresh_report(&self) -> Option<&Report> {
        self.report.as_ref().filter(|report| Utc::now() - report.reported_at < FRESH)
    }

    fn settled(&self) -> u64 {
        self.report.as_ref().map_or(0, |report| report.settled.unsigned_abs())
    }

    /// Those that had come by its submission, without those that are settled.
    pub(super) fn position(&self, submitted_at: DateTime<Utc>) -> Position {
        let waiting = self.waiting_jobs().max(1);
        let before = self.arrived_by(submitted_at).map(|came| came.saturating_sub(self.settled()));
        let position = before.unwrap_or(waiting).clamp(1, waiting);
        #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
        let seconds = (self.rate() >= 0.1).then(|| whole((position as f64 / self.rate()).ceil()));
        Position { position, seconds }
    }

    /// How many jobs had ever come by then, as if they had come evenly between two looks; `None` for
    /// later than the last one.
    fn arrived_by(&self, then: DateTime<Utc>) -> Option<u64> {
        let next = self.arrivals.partition_point(|(at, _)| *at <= then);
        let (after, came_after) = *self.arrivals.get(next)?;
        let last = next.checked_sub(1).and_then(|last| self.arrivals.get(last));
        // Before this process began to look: no later than what it saw first.
        let Some((before, came_before)) = last.copied() else { return Some(came_after) };
        let share = (then - before).as_seconds_f64() / (after - before).as_seconds_f64();
        #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
        let between = (came_after - came_before) as f64 * share;
        Some(came_before + whole(between))
    }

    /// Remembers a message that was put into the line.
    pub(super) fn note_accepted(&mut self, jobs: u32, now: DateTime<Utc>) {
        self.accepting = Some((self.accepting.map_or(now, |(first, _)| first), now));
        self.accepted_since = self.accepted_since.saturating_add(jobs);
        let (parcels, all) = (self.parcels.0 + 1.0, self.parcels.1 + f64::from(jobs));
        let is_enough = parcels >= PARCELS;
        self.parcels = if is_enough { (parcels / 2.0, all / 2.0) } else { (parcels, all) };
    }

    /// Remembers what the broker says.
    pub(super) fn note_depth(&mut self, depth: Option<Depth>, now: DateTime<Utc>) {
        // "No messages, no consumers" is also what a broker says that cannot tell.
        let is_told =
            |depth: &Depth| self.owner.is_none() || (depth.ready, depth.consumers) != (0, 0);
        self.depth = depth.filter(is_told);
        self.accepted_since = 0;
        self.note_arrivals(now);
        let waits = depth.is_some_and(|depth| depth.ready > 0);
        self.waiting_since = self.waiting_since.or(Some(now)).filter(|_| waits);
    }

    /// Remembers how many have come so far.
    fn note_arrivals(&mut self, now: DateTime<Utc>) {
        let came = self.settled() + self.waiting_jobs();
        // The two are not looked at in the same instant; nobody who came goes away.
        let before = self.arrivals.back().map_or(0, |(_, before)| *before);
        let came = came.max(before);
        if self.arrivals.len() >= ARRIVALS {
            // Half as many tell of twice as long.
            let mut is_kept = false;
            self.arrivals.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        // Those of other processes came meanwhile, too: between the same two, for all we know.
        let (first, last) = self.accepting.take().unwrap_or((now, now));
        self.arrivals.extend([(first, before), (last, came)]);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts of floats saturate"
)]
pub(super) fn whole(value: f64) -> u64 {
    value as u64
}
