//! What is known of one line, and what that says about the jobs in it.
//!
//! How many wait is what came and is not settled: facts in PostgreSQL, and what this process has accepted
//! since it last told it. So it is true also while the line's worker hangs, while nobody serves the line, and
//! while the database is away, when nothing is settled.

use chrono::{DateTime, TimeDelta, Utc};
use firstcome_broker::{depth::Depth, topology::PREFETCH};
use firstcome_contract::job::envelope::MAX_PARCEL;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    LOOK_INTERVAL, LOOK_TTL,
    arrivals::{Arrivals, Bucket},
    position::Position,
};

/// A worker tells every second how its lines fare; one that has not for so long has stopped.
const SILENT_SECONDS: f64 = 3.0;
/// What the first batch of a line takes, for all we know: a short wait.
const FIRST_BATCH_SECONDS: f64 = 0.1;
/// Messages whose size is remembered, half of them at least.
const PARCELS: f64 = 128.0;
/// Weight of the time between two looks in the rate.
const RATE_WEIGHT: f64 = 0.3;

/// What this process knows of a line, from the database, the broker and its own publishing.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// How many partitions its generation has.
    pub(super) partitions: u16,
    /// The most messages that its queue takes; `None` before the database told.
    capacity: Option<u32>,
    /// Whether workers may consume from it: the lines before it have drained.
    pub is_open: bool,
    /// Whether it takes no new jobs any more, since a newer routing replaced it.
    pub is_closed: bool,
    /// Whether the last message of a closed line has come out.
    pub is_drained: bool,
    /// Whether an operator has halted its family.
    pub is_halted: bool,
    /// What was put into it up to then is settled.
    pub(super) passed: Option<DateTime<Utc>>,
    /// The worker that serves it, or did until its lease ran out.
    pub owner: Option<String>,
    /// How it fares, as its owner said last.
    pub report: Option<Report>,
    /// How much waits in its queue, as the broker said last.
    pub depth: Option<Depth>,
    /// When the broker said so; `None` before its first answer.
    depth_told: Option<Instant>,
    /// Whether the broker has such a queue; `None` before it was asked.
    pub(super) is_there: Option<bool>,
    /// When the database last told of it.
    read: Option<Instant>,
    /// How many came that are folded: all of them are settled. Negative where too many were told since.
    folded: i64,
    /// Jobs that are settled, of all that ever came.
    settled: u64,
    /// What came since, as all APIs told the database.
    stored: Arrivals,
    /// When the first of them came that is not settled, at the last look.
    head_at: Option<DateTime<Utc>>,
    /// What this process has accepted and not yet told.
    pending: Arrivals,
    /// Messages that this process put into it lately, and the jobs in them.
    parcels: (f64, f64),
    /// When it was seen that more are settled.
    progressed: Option<Instant>,
    /// Jobs settled per second, smoothed.
    rate: f64,
}

/// How a line fares, as its owner sees it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Messages that it works on.
    pub in_hand: i32,
    /// Jobs in the messages that it works on.
    pub jobs_in_hand: i32,
    /// How long it had worked on them when it reported, in seconds.
    pub in_hand_seconds: Option<f64>,
    /// The most jobs that it takes at once.
    pub batch_limit: i32,
    /// What a batch takes in any case, in seconds.
    pub batch_seconds: f64,
    /// What each job adds to a batch, in seconds.
    pub job_seconds: f64,
    /// How many jobs a message holds, as its owner measures it.
    pub jobs_per_message: f64,
    /// When it last settled something or saw its canary.
    pub progress_at: DateTime<Utc>,
    /// The busiest keys and their jobs per second, as JSON for `/api/admin/queues`.
    pub hottest: Value,
    /// How old it was when it was read, in seconds, by the database's clock.
    pub age: f64,
}

/// A row of what the database knows of a line; the fields are those of [`Known`].
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) partitions: u16,
    pub(super) capacity: u32,
    pub(super) is_open: bool,
    pub(super) is_closed: bool,
    pub(super) is_drained: bool,
    pub(super) is_halted: bool,
    pub(super) passed: Option<DateTime<Utc>>,
    pub(super) owner: Option<String>,
    pub(super) report: Option<Report>,
    pub(super) folded: i64,
    pub(super) settled: u64,
    pub(super) arrivals: Arrivals,
}

/// A batch that the line's worker works on.
#[derive(Debug, Default)]
struct InHand {
    jobs: u64,
    /// For how many seconds, if it still is.
    elapsed: f64,
    /// For how many of them that is known.
    seen: f64,
}

impl Known {
    /// Jobs that wait: came, and are not settled.
    #[must_use]
    pub fn waiting_jobs(&self) -> u64 {
        if self.is_drained {
            return 0;
        }
        let waiting = self.came().saturating_sub(self.settled);
        // What APIs had not told when they were killed, or told twice, is put right when the line is next
        // empty. Until then the broker knows better where it contradicts: a message holds a job at least.
        match self.depth.filter(|_| self.is_told_by_broker()) {
            Some(depth) => {
                let ready = u64::from(depth.ready);
                let most = (ready + 2 * u64::from(PREFETCH)) * (MAX_PARCEL as u64);
                waiting.max(ready).min(most + self.pending.jobs())
            }
            None => waiting,
        }
    }

    /// Whether its queue may have refused a message for want of room. What is known is some moments old, hence half
    /// of it.
    pub(super) fn may_be_full(&self) -> bool {
        self.capacity.is_none_or(|capacity| self.waiting_jobs() >= u64::from(capacity).div_ceil(2))
    }

    /// Messages that its consumer holds, about.
    #[must_use]
    pub fn unacked(&self) -> u64 {
        let ready = self.depth.map_or(0, |depth| u64::from(depth.ready));
        #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
        let messages = whole((self.waiting_jobs() as f64 / self.jobs_per_message()).ceil());
        messages.saturating_sub(ready).min(PREFETCH.into())
    }

    /// Jobs settled since the line was opened, as the database told last.
    #[must_use]
    pub const fn settled_jobs(&self) -> u64 {
        self.settled
    }

    /// Jobs settled per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.is_told_by_database() && self.rate >= 0.05 { self.rate } else { 0.0 }
    }

    /// How long the job at the head has waited.
    #[must_use]
    pub fn oldest(&self, now: DateTime<Utc>) -> TimeDelta {
        let oldest = self.head_at().map_or(TimeDelta::zero(), |at| now - at);
        oldest.max(TimeDelta::zero())
    }

    /// Whether workers share it among them: consuming is allowed, and something may come.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_open && !self.is_drained
    }

    /// Whether nobody is to serve it now, although it is shared.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.is_shared() && self.is_halted
    }

    /// Whether the database has told of the line within the last 3 s.
    #[must_use]
    pub fn is_told_by_database(&self) -> bool {
        self.read.is_some_and(|read| read.elapsed() < LOOK_TTL)
    }

    /// Whether nobody serves it, although it should be consumed from: its owner is gone, or has stopped
    /// telling how it fares.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        let silent = self.report.as_ref().is_none_or(|report| report.age > SILENT_SECONDS);
        self.is_shared() && !self.is_halted && (self.owner.is_none() || silent)
    }

    /// Whether the broker has told the depth within the last 3 s.
    #[must_use]
    pub fn is_told_by_broker(&self) -> bool {
        self.depth_told.is_some_and(|told| told.elapsed() < LOOK_TTL)
    }

    /// Whether it took jobs when this one was submitted.
    pub(super) fn took(&self, submitted_at: DateTime<Utc>) -> bool {
        self.pending.took(submitted_at) || self.stored.took(submitted_at)
    }

    /// Where a job submitted then stands, and how long it will take.
    pub(super) fn position(&self, submitted_at: DateTime<Utc>) -> Position {
        let waiting = self.waiting_jobs().max(1);
        let came = whole(self.came_by(submitted_at));
        let position = came.saturating_sub(self.settled).clamp(1, waiting);
        Position { position, seconds: self.seconds_to(position, waiting) }
    }

    /// How long it takes until so many are settled; unknown while the line does not move.
    pub(super) fn seconds_to(&self, position: u64, waiting: u64) -> Option<f64> {
        let moves = self.is_told_by_database() && !self.is_stalled() && !self.is_halted;
        let report = self.report.as_ref().filter(|_| moves)?;
        let is_known = report.batch_seconds + report.job_seconds > 0.0;
        let batch_seconds = if is_known { report.batch_seconds } else { FIRST_BATCH_SECONDS };
        #[expect(clippy::cast_precision_loss, reason = "some thousands at most")]
        let takes = |jobs: u64| batch_seconds + report.job_seconds * jobs as f64;
        let InHand { jobs, elapsed, seen } = self.in_hand(report);
        let in_hand = jobs.min(waiting);
        // Seen to take longer than expected: as long again, for all we know.
        let rest = if in_hand > 0 {
            let expected = takes(in_hand);
            let total = if seen > expected { seen * 2.0 } else { expected };
            (total - elapsed).max(0.0)
        } else {
            // A line that has just moved to another worker, and whose broker has not noticed.
            let expected = takes(waiting.min(self.batch_limit(report))) + 1.0;
            let waited = self.head_seconds();
            if waited > expected { (waited - self.since_read()).max(0.0) } else { 0.0 }
        };
        if position <= in_hand {
            return Some(rest);
        }
        // Whatever waits goes into the next batch, up to its bound.
        let (ahead, behind) = (position - in_hand, waiting - in_hand);
        let limit = self.batch_limit(report);
        let full = (ahead - 1) / limit;
        #[expect(clippy::cast_precision_loss, reason = "some thousands at most")]
        let before = takes(limit) * full as f64;
        Some(rest + before + takes((behind - full * limit).min(limit)))
    }

    /// The most jobs in a batch: its worker's bound, and of what the broker gives ahead the half that is not in
    /// the batch before.
    fn batch_limit(&self, report: &Report) -> u64 {
        let given = whole(f64::from(PREFETCH / 2) * self.jobs_per_message());
        given.min(report.batch_limit.unsigned_abs().into()).max(1)
    }

    /// The batch in hand.
    fn in_hand(&self, report: &Report) -> InHand {
        let Some(seconds) = report.in_hand_seconds else { return InHand::default() };
        let since_read = self.since_read();
        let told = seconds + report.age;
        let elapsed = told + since_read;
        // It is settled since it was told: what came meanwhile is the next one.
        let progressed = self.progressed.map(|at| at.elapsed());
        if let Some(progressed) = progressed
            && (progressed + LOOK_INTERVAL).as_secs_f64() < elapsed
        {
            let then = Utc::now() - TimeDelta::from_std(progressed).unwrap_or_default();
            let waited = whole(self.came_by(then)).saturating_sub(self.settled);
            let elapsed = progressed.as_secs_f64();
            let jobs = waited.min(self.batch_limit(report));
            return InHand { jobs, elapsed, seen: (elapsed - since_read).max(0.0) };
        }
        // What the last look found settled may have been it. And nothing is in hand for longer than the first that is
        // not settled waits.
        let seen = if self.progressed == self.read { seconds } else { told };
        let jobs = report.jobs_in_hand.unsigned_abs().into();
        InHand { jobs, elapsed, seen: seen.min(self.head_seconds()) }
    }

    /// Seconds since the last look at the database.
    fn since_read(&self) -> f64 {
        self.read.map_or(0.0, |read| read.elapsed().as_secs_f64())
    }

    /// How long the job at the head had waited at the last look.
    fn head_seconds(&self) -> f64 {
        let waited = self.head_at.map(|at| (Utc::now() - at).as_seconds_f64() - self.since_read());
        waited.unwrap_or(0.0).max(0.0)
    }

    /// Remembers a message that was put into the line.
    pub(super) fn note_accepted(&mut self, jobs: Bucket) {
        let head_at = self.head_at.or_else(|| self.pending.first_at());
        let oldest = head_at.map_or(TimeDelta::zero(), |head_at| jobs.last_at - head_at);
        self.pending.note(jobs, oldest);
        #[expect(clippy::cast_precision_loss, reason = "128 at most")]
        let (parcels, all) = (self.parcels.0 + 1.0, self.parcels.1 + jobs.jobs as f64);
        let is_enough = parcels >= PARCELS;
        self.parcels = if is_enough { (parcels / 2.0, all / 2.0) } else { (parcels, all) };
    }

    /// What is to be told to the database.
    pub(super) fn pending(&self) -> &Arrivals {
        &self.pending
    }

    /// Whether the database says of less than before that it is settled: it went back to an earlier moment.
    pub(super) fn is_more_than(&self, row: &Row) -> bool {
        self.read.is_some() && self.settled > row.settled
    }

    /// Remembers what the database says, which knows of these by now.
    pub(super) fn note_row(&mut self, row: Row, told: &Arrivals) {
        for (begins, bucket) in told.iter() {
            self.pending.remove(begins, bucket.jobs);
        }
        let now = Instant::now();
        if let Some(read) = self.read.replace(now) {
            let seconds = (now - read).as_secs_f64().max(0.001);
            #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
            let settled = row.settled.saturating_sub(self.settled) as f64;
            self.rate += (settled / seconds - self.rate) * RATE_WEIGHT;
            if row.settled != self.settled {
                self.progressed = Some(now);
            }
        }
        self.partitions = row.partitions;
        self.capacity = Some(row.capacity);
        (self.is_open, self.is_closed, self.is_drained) =
            (row.is_open, row.is_closed, row.is_drained);
        self.is_halted = row.is_halted;
        (self.passed, self.owner, self.report) = (row.passed, row.owner, row.report);
        (self.folded, self.settled, self.stored) = (row.folded, row.settled, row.arrivals);
        self.head_at = self.head_at();
    }

    /// Remembers what the broker says.
    pub(super) fn note_depth(&mut self, depth: Option<Depth>) {
        self.is_there = Some(depth.is_some());
        // "No messages, no consumers" is also what a broker says that cannot tell; of a line that is served
        // it is not true.
        let is_served = self.owner.is_some() && !self.is_stalled() && !self.is_halted;
        let is_told = |depth: &Depth| !is_served || (depth.ready, depth.consumers) != (0, 0);
        if let Some(depth) = depth.filter(is_told) {
            self.depth = Some(depth);
            self.depth_told = Some(Instant::now());
        }
    }

    fn came(&self) -> u64 {
        (self.stored.jobs() + self.pending.jobs()).saturating_add_signed(self.folded)
    }

    fn came_by(&self, then: DateTime<Utc>) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "some billions at most")]
        let folded = self.folded as f64;
        folded + self.stored.by(then) + self.pending.by(then)
    }

    /// When the first job that is not settled came.
    fn head_at(&self) -> Option<DateTime<Utc>> {
        if self.is_drained || self.came() <= self.settled {
            return None;
        }
        let all = [&self.stored, &self.pending];
        let mut before = all.iter().filter_map(|arrivals| arrivals.first_at()).min()?;
        let mut after = all.iter().filter_map(|arrivals| arrivals.last_at()).max()?;
        #[expect(clippy::cast_precision_loss, reason = "some billions at most")]
        let settled = self.settled as f64;
        // Of whom it is the first that more came than are settled.
        if self.came_by(before) > settled {
            return Some(before);
        }
        while after - before > TimeDelta::milliseconds(1) {
            let middle = before + (after - before) / 2;
            if self.came_by(middle) > settled {
                after = middle;
            } else {
                before = middle;
            }
        }
        Some(after)
    }

    fn jobs_per_message(&self) -> f64 {
        let jobs_per_message = match (self.parcels, &self.report) {
            ((parcels, jobs), _) if parcels > 0.0 => jobs / parcels,
            (_, Some(report)) => report.jobs_per_message,
            _ => 1.0,
        };
        jobs_per_message.max(1.0)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts of floats saturate"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests;
