//! How a line fares, for operators and for estimates: counted while settling, stored every second.

mod fold;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use firstcome_contract::line::Line;
use serde::Serialize;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    batch::{Batch, MAX_JOBS},
    speed::Speed,
};

/// The most keys that are counted per line; of more, the coldest are forgotten.
const MAX_KEYS: usize = 1_000;
/// The most keys that a report names.
const MAX_HOT_KEYS: usize = 5;
/// Weight of the latest second, or batch, in what is smoothed exponentially.
const SMOOTHING: f64 = 0.3;

/// How long after its submission an API has surely told of a job's arrival: the publisher's deadline, and the
/// time between two of an API's looks. Until then its bucket may still grow.
pub(crate) const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a line counts as alive while nothing comes out of it: it gets canaries.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a line counts as alive with a batch in hand.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);

/// The figures of one line; shared between its consumer and who reports.
#[derive(Debug)]
pub(crate) struct Stats(Mutex<Figures>);

#[derive(Debug)]
struct Figures {
    messages_in_hand: usize,
    jobs_in_hand: usize,
    /// When the batch in hand was taken; `None` without one.
    taken: Option<Instant>,
    speed: Speed,
    /// The most jobs in a batch at present.
    batch_limit: usize,
    /// Nothing came out since this canary, which was sent then: what was in the line before it is settled.
    calm: Option<Instant>,
    /// With the batch in hand comes the canary that was sent then.
    coming: Option<Instant>,
    /// When the last canary that came out was sent: what was in the line before it is settled.
    cleared: Option<Instant>,
    /// How many of the line were settled, and up to which submission, at the last looks.
    marks: VecDeque<Mark>,
    /// Jobs that this worker has settled since it serves the line.
    settled_in_all: u64,
    jobs_per_message: f64,
    keys: HashMap<i64, f64>,
    progress: Instant,
    /// Whether something came out of the line since it is served.
    is_proven: bool,
    /// The canary under way, and when it was sent.
    canary: Option<(Uuid, Instant)>,
    progress_at: DateTime<Utc>,
}

/// How many of a line were settled, and up to which submission.
#[derive(Debug)]
struct Mark {
    at: Instant,
    settled: i64,
    until: DateTime<Utc>,
}

/// How many had come by when, as what is settled says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known {
    /// All that had come so long ago.
    Exactly { settled: i64, ago: Duration },
    /// All but those who overtook each other on their way into the line.
    About { settled: i64, until: DateTime<Utc> },
}

/// A key of the line's jobs (a coupon, a product), and how many jobs a second it has.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct HotKey {
    key: i64,
    per_second: f64,
}

/// The figures of a line that Prometheus scrapes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineFigures {
    pub(crate) in_hand: i32,
    pub(crate) settled: u64,
    pub(crate) idle: Duration,
    pub(crate) canary: Duration,
}

/// The figures at one instant, as they are stored in `line_reports`.
#[derive(Debug)]
struct Report {
    in_hand: i32,
    jobs_in_hand: i32,
    in_hand_seconds: Option<f64>,
    batch_limit: i32,
    batch_seconds: f64,
    job_seconds: f64,
    jobs_per_message: f64,
    progress_at: DateTime<Utc>,
    hottest: Vec<HotKey>,
    /// How long ago the last canary that came out was sent.
    cleared_seconds: Option<f64>,
}

impl Stats {
    pub(crate) fn new() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self(Mutex::new(Figures {
            messages_in_hand: 0,
            jobs_in_hand: 0,
            taken: None,
            speed: Speed::default(),
            batch_limit: MAX_JOBS,
            calm: None,
            coming: None,
            cleared: None,
            marks: VecDeque::new(),
            settled_in_all: 0,
            jobs_per_message: 1.0,
            keys: HashMap::new(),
            progress: now,
            is_proven: false,
            canary: None,
            progress_at: Utc::now(),
        })))
    }

    /// Notes that this batch is in hand.
    pub(crate) fn taken(&self, batch: &Batch) {
        let mut figures = self.lock();
        figures.messages_in_hand = batch.messages;
        figures.jobs_in_hand = batch.jobs.len() + batch.rejects.len();
        figures.taken = Some(Instant::now());
        // Not any: one of an earlier owner may come out long before what came after it.
        let canary = figures.canary.take().filter(|(id, _)| batch.canaries.contains(id));
        figures.coming = canary.map(|(_, sent)| sent);
        let is_canary = figures.jobs_in_hand == 0;
        figures.calm = figures.coming.filter(|_| is_canary);
        figures.progress = Instant::now();
        figures.is_proven = true;
    }

    /// Notes that this batch is settled, and how many jobs the next one may hold; its acknowledgement follows.
    pub(crate) fn settled(&self, batch: &Batch, batch_limit: usize) {
        let jobs = batch.jobs.len();
        let mut figures = self.lock();
        figures.messages_in_hand = 0;
        figures.batch_limit = batch_limit;
        let canary = figures.coming.take();
        figures.cleared = canary.or(figures.cleared);
        let in_hand = std::mem::take(&mut figures.jobs_in_hand);
        if let Some(taken) = figures.taken.take()
            && in_hand > 0
        {
            figures.speed.note(in_hand, taken.elapsed());
        }
        figures.settled_in_all += u64::try_from(jobs).unwrap_or_default();
        if jobs > 0 {
            #[expect(clippy::cast_precision_loss, reason = "some thousands at most")]
            let ratio = jobs as f64 / batch.messages.max(1) as f64;
            figures.jobs_per_message += (ratio - figures.jobs_per_message) * SMOOTHING;
        }
        for key in batch.jobs.iter().filter_map(|job| job.envelope.job.keys().next()) {
            *figures.keys.entry(key).or_default() += 1.0;
        }
        figures.progress = Instant::now();
        figures.progress_at = Utc::now();
    }

    /// How long it has shown no sign of life: `None` while a batch is in hand, which is retried
    /// for as long as the database is away.
    pub(crate) fn idle(&self) -> Option<Duration> {
        let figures = self.lock();
        (figures.messages_in_hand == 0).then(|| figures.progress.elapsed())
    }

    /// Whether the line needs no canary to show that it is alive: `false` until something came out.
    pub(crate) fn is_proven(&self) -> bool {
        self.lock().is_proven
    }

    /// Whether something came out lately. A batch may take long while the database is away, but
    /// not for ever.
    pub(crate) fn is_alive(&self) -> bool {
        let figures = self.lock();
        let timeout = if figures.messages_in_hand > 0 { BATCH_TIMEOUT } else { SILENCE_TIMEOUT };
        figures.is_proven && figures.progress.elapsed() < timeout
    }

    /// Notes the canary that is under way, and when it was sent; `None` if none is.
    pub(crate) fn canary(&self, canary: Option<(Uuid, Instant)>) {
        self.lock().canary = canary;
    }

    /// Remembers how many of the line are settled, and up to which submission; tells what that says of what
    /// had come: so many by then. Of some seconds ago, since what has just come is not told yet; or, where
    /// nothing came out since a canary, of when that was sent.
    pub(crate) fn mark(&self, settled: i64, until: Option<DateTime<Utc>>) -> Option<Known> {
        let mut figures = self.lock();
        if let Some(sent) = figures.calm {
            figures.marks.clear();
            return Some(Known::Exactly { settled, ago: sent.elapsed() + ARRIVAL_TIMEOUT });
        }
        let now = Instant::now();
        if let Some(until) = until {
            figures.marks.push_back(Mark { at: now, settled, until });
        }
        let is_due = |mark: &Mark| now - mark.at > ARRIVAL_TIMEOUT;
        let mut due = None;
        while figures.marks.front().is_some_and(is_due) {
            due = figures.marks.pop_front();
        }
        due.map(|Mark { settled, until, .. }| Known::About { settled, until })
    }

    /// The figures for a scrape.
    pub(crate) fn line(&self) -> LineFigures {
        let figures = self.lock();
        LineFigures {
            in_hand: i32::try_from(figures.messages_in_hand).unwrap_or(i32::MAX),
            settled: figures.settled_in_all,
            idle: figures.progress.elapsed(),
            canary: figures.canary.map(|(_, sent)| sent.elapsed()).unwrap_or_default(),
        }
    }

    fn report(&self) -> Report {
        let mut figures = self.lock();
        // What was counted since the last report weighs like the rate does.
        let mut hottest: Vec<HotKey> = Vec::with_capacity(figures.keys.len());
        figures.keys.retain(|key, count| {
            hottest
                .push(HotKey { key: *key, per_second: (*count * SMOOTHING * 10.0).round() / 10.0 });
            *count *= 1.0 - SMOOTHING;
            *count >= 0.1
        });
        hottest.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
        if figures.keys.len() > MAX_KEYS {
            let kept = hottest.iter().take(MAX_KEYS / 2).map(|hot| hot.key);
            let kept: std::collections::HashSet<i64> = kept.collect();
            figures.keys.retain(|key, _| kept.contains(key));
        }
        hottest.truncate(MAX_HOT_KEYS);
        let (batch_seconds, job_seconds) = figures.speed.per_batch_and_job();
        Report {
            in_hand: i32::try_from(figures.messages_in_hand).unwrap_or(i32::MAX),
            jobs_in_hand: i32::try_from(figures.jobs_in_hand).unwrap_or(i32::MAX),
            in_hand_seconds: figures.taken.map(|taken| taken.elapsed().as_secs_f64()),
            batch_limit: i32::try_from(figures.batch_limit).unwrap_or(i32::MAX),
            batch_seconds,
            job_seconds,
            jobs_per_message: figures.jobs_per_message,
            progress_at: figures.progress_at,
            hottest,
            cleared_seconds: figures.cleared.map(|sent| sent.elapsed().as_secs_f64()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        // Nothing panics while holding it; if it did, figures are still figures.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores how these lines fare, and folds what is settled of them.
pub(crate) async fn store(
    connection: &mut PgConnection,
    lines: impl Iterator<Item = (Line, Arc<Stats>)> + Clone,
) -> Result<(), sqlx::Error> {
    tell(connection, lines.clone()).await?;
    fold::fold(connection, lines).await
}

async fn tell(
    connection: &mut PgConnection,
    lines: impl Iterator<Item = (Line, Arc<Stats>)>,
) -> Result<(), sqlx::Error> {
    let (mut families, mut generations, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let (mut in_hand, mut jobs_in_hand, mut since) = (Vec::new(), Vec::new(), Vec::new());
    let (mut limits, mut ratios) = (Vec::new(), Vec::new());
    let (mut per_batch, mut per_job) = (Vec::new(), Vec::new());
    let (mut progress, mut hottest, mut cleared) = (Vec::new(), Vec::new(), Vec::new());
    for (line, stats) in lines {
        let report = stats.report();
        families.push(line.family.as_str());
        generations.push(line.generation);
        names.push(line.name.to_string());
        in_hand.push(report.in_hand);
        jobs_in_hand.push(report.jobs_in_hand);
        since.push(report.in_hand_seconds);
        limits.push(report.batch_limit);
        per_batch.push(report.batch_seconds);
        per_job.push(report.job_seconds);
        ratios.push(report.jobs_per_message);
        progress.push(report.progress_at);
        hottest.push(Json(report.hottest));
        cleared.push(report.cleared_seconds);
    }
    if families.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO line_reports (family, generation, line, in_hand, jobs_in_hand, in_hand_seconds, batch_limit, batch_seconds, job_seconds, jobs_per_message, progress_at, hottest, cleared_until, reported_at)
         SELECT k, g, l, messages, jobs, since, most, per_batch, per_job, ratio, progress, keys,
                clock_timestamp() - make_interval(secs => cleared), clock_timestamp()
         FROM UNNEST($1::text[], $2::int[], $3::text[], $4::int[], $5::int[], $6::float8[], $7::int[], $8::float8[], $9::float8[], $10::float8[], $11::timestamptz[], $12::jsonb[], $13::float8[])
           AS told (k, g, l, messages, jobs, since, most, per_batch, per_job, ratio, progress, keys, cleared)
         ON CONFLICT ON CONSTRAINT line_reports_pkey DO UPDATE SET
             in_hand = excluded.in_hand, jobs_in_hand = excluded.jobs_in_hand, in_hand_seconds = excluded.in_hand_seconds,
             batch_limit = excluded.batch_limit, batch_seconds = excluded.batch_seconds, job_seconds = excluded.job_seconds, jobs_per_message = excluded.jobs_per_message,
             progress_at = excluded.progress_at, hottest = excluded.hottest,
             cleared_until = GREATEST(line_reports.cleared_until, excluded.cleared_until), reported_at = excluded.reported_at",
        &families as &[&str],
        &generations,
        &names,
        &in_hand,
        &jobs_in_hand,
        &since as &[Option<f64>],
        &limits,
        &per_batch,
        &per_job,
        &ratios,
        &progress,
        &hottest as &[Json<Vec<HotKey>>],
        &cleared as &[Option<f64>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes(stats: &Stats, canaries: &[Uuid]) {
        let mut batch = Batch::of(MAX_JOBS);
        batch.messages = 1;
        batch.canaries.extend(canaries);
        stats.taken(&batch);
        stats.settled(&batch, MAX_JOBS);
    }

    /// One of an earlier owner was at the head of a backlog, say.
    #[test]
    fn only_the_canary_under_way_shows_that_what_was_before_it_is_settled() {
        let (ours, other) = (Uuid::new_v4(), Uuid::new_v4());
        let sent = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        let stats = Stats::new();
        let until = Some(Utc::now());
        for canaries in [&[][..], &[other]] {
            stats.canary(Some((ours, sent)));
            comes(&stats, canaries);
            assert_eq!(stats.report().cleared_seconds, None);
            assert!(!matches!(stats.mark(1, until), Some(Known::Exactly { .. })));
        }
        stats.canary(Some((ours, sent)));
        comes(&stats, &[other, ours]);
        assert!(stats.report().cleared_seconds.is_some_and(|ago| ago >= 100.0));
        assert!(matches!(stats.mark(1, until), Some(Known::Exactly { .. })));
        comes(&stats, &[]);
        assert!(stats.report().cleared_seconds.is_some(), "it is settled for good");
    }

    #[test]
    fn a_canary_that_is_in_hand_with_others_shows_nothing_yet() {
        let ours = Uuid::new_v4();
        let stats = Stats::new();
        stats.canary(Some((ours, Instant::now())));
        let mut batch = Batch::of(MAX_JOBS);
        batch.canaries.push(ours);
        stats.taken(&batch);
        assert_eq!(stats.report().cleared_seconds, None);
        stats.settled(&batch, MAX_JOBS);
        assert!(stats.report().cleared_seconds.is_some());
    }
}
