//! How a line fares, for operators and for estimates: counted while settling, stored every second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use firstcome_shared::partition::Partition;
use serde::Serialize;
use sqlx::{PgConnection, types::Json};

use super::batch::Batch;

/// Keys that are counted per line; when there are more, the coldest are forgotten.
const MOST_KEYS: usize = 1_000;
/// Keys that are told.
const HOTTEST: usize = 5;
/// Weight of the past second in the rates.
const FRESH: f64 = 0.3;

/// A line that is alive is not silent for longer: it gets canaries.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);
/// How long a batch may be in hand until its line counts as dead.
const LONGEST_BATCH: Duration = Duration::from_secs(60);

/// The figures of one line; shared between its consumer and who reports.
#[derive(Debug)]
pub(crate) struct Stats(Mutex<Figures>);

#[derive(Debug)]
struct Figures {
    messages_in_hand: usize,
    head: Option<DateTime<Utc>>,
    /// Since the last report.
    settled: u32,
    /// Since the line is served.
    settled_in_all: u64,
    jobs_per_message: f64,
    keys: HashMap<i64, f64>,
    progress: Instant,
    /// Something came out of the line since it is served.
    is_proven: bool,
    /// When the canary under way was sent.
    canary: Option<Instant>,
    progress_at: DateTime<Utc>,
    per_second: f64,
    /// When rates were last computed.
    measured: Instant,
}

/// A busy key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct HotKey {
    key: i64,
    per_second: f64,
}

/// What a scrape tells of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineFigures {
    pub(crate) in_hand: i32,
    pub(crate) settled: u64,
    pub(crate) idle: Duration,
    pub(crate) canary: Duration,
}

/// The figures at one instant.
#[derive(Debug)]
struct Report {
    in_hand: i32,
    /// Since the last report.
    settled: i64,
    per_second: f64,
    jobs_per_message: f64,
    head: Option<DateTime<Utc>>,
    progress_at: DateTime<Utc>,
    hottest: Vec<HotKey>,
}

impl Stats {
    pub(crate) fn new() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self(Mutex::new(Figures {
            messages_in_hand: 0,
            head: None,
            settled: 0,
            settled_in_all: 0,
            jobs_per_message: 1.0,
            keys: HashMap::new(),
            progress: now,
            is_proven: false,
            canary: None,
            progress_at: Utc::now(),
            per_second: 0.0,
            measured: now,
        })))
    }

    /// A batch is in hand.
    pub(super) fn taken(&self, batch: &Batch) {
        let mut figures = self.lock();
        figures.messages_in_hand = batch.messages;
        figures.progress = Instant::now();
        figures.is_proven = true;
        figures.canary = None;
        if let Some(first) = batch.jobs.first() {
            figures.head = Some(first.envelope.id.submitted_at());
        }
    }

    /// It is settled; its acknowledgement follows.
    pub(super) fn settled(&self, batch: &Batch) {
        let jobs = batch.jobs.len();
        let mut figures = self.lock();
        figures.messages_in_hand = 0;
        if let Some(last) = batch.jobs.last() {
            figures.head = Some(last.envelope.id.submitted_at());
        }
        figures.settled += u32::try_from(jobs).unwrap_or_default();
        figures.settled_in_all += u64::try_from(jobs).unwrap_or_default();
        if jobs > 0 {
            #[expect(clippy::cast_precision_loss, reason = "some thousands at most")]
            let ratio = jobs as f64 / batch.messages.max(1) as f64;
            figures.jobs_per_message += (ratio - figures.jobs_per_message) * FRESH;
        }
        for key in batch.jobs.iter().filter_map(|job| job.envelope.job.keys().next()) {
            *figures.keys.entry(key).or_default() += 1.0;
        }
        figures.progress = Instant::now();
        figures.progress_at = Utc::now();
    }

    /// How long it has shown no sign of life: `None` while a batch is in hand, which is retried
    /// for as long as the database is away.
    pub(super) fn idle(&self) -> Option<Duration> {
        let figures = self.lock();
        (figures.messages_in_hand == 0).then(|| figures.progress.elapsed())
    }

    /// Whether the line needs no canary to show that it is alive: `false` until something came out.
    pub(super) fn is_proven(&self) -> bool {
        self.lock().is_proven
    }

    /// Whether something came out lately. A batch may take long while the database is away, but
    /// not for ever.
    pub(super) fn is_alive(&self) -> bool {
        let figures = self.lock();
        let patience = if figures.messages_in_hand > 0 { LONGEST_BATCH } else { LONGEST_SILENCE };
        figures.is_proven && figures.progress.elapsed() < patience
    }

    /// A canary is under way since then, or none.
    pub(super) fn canary(&self, sent: Option<Instant>) {
        self.lock().canary = sent;
    }

    /// The figures for a scrape.
    pub(crate) fn line(&self) -> LineFigures {
        let figures = self.lock();
        LineFigures {
            in_hand: i32::try_from(figures.messages_in_hand).unwrap_or(i32::MAX),
            settled: figures.settled_in_all,
            idle: figures.progress.elapsed(),
            canary: figures.canary.map(|sent| sent.elapsed()).unwrap_or_default(),
        }
    }

    fn report(&self) -> Report {
        let mut figures = self.lock();
        let settled = std::mem::take(&mut figures.settled);
        let rate = f64::from(settled) / figures.measured.elapsed().as_secs_f64().max(0.001);
        figures.per_second += (rate - figures.per_second) * FRESH;
        figures.measured = Instant::now();
        // What was counted since the last report weighs like the rate does.
        let mut hottest: Vec<HotKey> = Vec::with_capacity(figures.keys.len());
        figures.keys.retain(|key, count| {
            hottest.push(HotKey { key: *key, per_second: (*count * FRESH * 10.0).round() / 10.0 });
            *count *= 1.0 - FRESH;
            *count >= 0.1
        });
        hottest.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
        if figures.keys.len() > MOST_KEYS {
            let kept = hottest.iter().take(MOST_KEYS / 2).map(|hot| hot.key);
            let kept: std::collections::HashSet<i64> = kept.collect();
            figures.keys.retain(|key, _| kept.contains(key));
        }
        hottest.truncate(HOTTEST);
        Report {
            in_hand: i32::try_from(figures.messages_in_hand).unwrap_or(i32::MAX),
            settled: settled.into(),
            per_second: (figures.per_second * 10.0).round() / 10.0,
            jobs_per_message: figures.jobs_per_message,
            head: figures.head,
            progress_at: figures.progress_at,
            hottest,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        // Nothing panics while holding it; if it did, figures are still figures.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores how these lines fare.
pub(super) async fn store(
    connection: &mut PgConnection,
    lines: impl Iterator<Item = (Partition, Arc<Stats>)>,
) -> Result<(), sqlx::Error> {
    let (mut kinds, mut generations, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let (mut in_hand, mut settled) = (Vec::new(), Vec::new());
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    let (mut heads, mut progress, mut hottest) = (Vec::new(), Vec::new(), Vec::new());
    for (line, stats) in lines {
        let report = stats.report();
        kinds.push(line.kind.as_str());
        generations.push(line.generation);
        names.push(line.line.to_string());
        in_hand.push(report.in_hand);
        settled.push(report.settled);
        rates.push(report.per_second);
        ratios.push(report.jobs_per_message);
        heads.push(report.head);
        progress.push(report.progress_at);
        hottest.push(Json(report.hottest));
    }
    if kinds.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO line_reports (kind, generation, line, in_hand, settled, settled_per_second, jobs_per_message, head_at, progress_at, hottest, reported_at)
         SELECT *, clock_timestamp() FROM UNNEST($1::text[], $2::int[], $3::text[], $4::int[], $5::bigint[], $6::float8[], $7::float8[], $8::timestamptz[], $9::timestamptz[], $10::jsonb[])
         ON CONFLICT (kind, generation, line) DO UPDATE SET
             in_hand = excluded.in_hand, settled = line_reports.settled + excluded.settled, settled_per_second = excluded.settled_per_second,
             jobs_per_message = excluded.jobs_per_message, head_at = excluded.head_at,
             progress_at = excluded.progress_at, hottest = excluded.hottest, reported_at = excluded.reported_at",
        &kinds as &[&str],
        &generations,
        &names,
        &in_hand,
        &settled,
        &rates,
        &ratios,
        &heads as &[Option<DateTime<Utc>>],
        &progress,
        &hottest as &[Json<Vec<HotKey>>],
    )
    .execute(connection)
    .await?;
    Ok(())
}
