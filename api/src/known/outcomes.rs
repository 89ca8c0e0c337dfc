//! Where polls wait for outcomes.
//!
//! Workers announce every settled batch over Redis; the announcements feed a bounded memory of
//! recent outcomes and wake the polls that wait. Redis is a hint: whatever it lost, one query per
//! second asks PostgreSQL for all waiting polls of this process at once, and no poll says "queued"
//! before PostgreSQL said so.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use firstcome_contract::{
    ids::UserId,
    job::{JobId, Settled, Status},
};
use firstcome_process::database::Pool;
use futures_util::future::join_all;
use quick_cache::sync::Cache;
use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Json};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::batched::{Batched, Unavailable};

/// How many recent outcomes are kept in memory, some 400 bytes each.
const RECENT: usize = 50_000;
/// How often PostgreSQL is asked for all that wait.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How old a job must be before a waiting poll asks PostgreSQL at once instead of trusting that
/// its announcement is still to come.
const YOUNG: TimeDelta = TimeDelta::seconds(1);

/// A poll's place: the sender and how many polls wait on it.
type Places = HashMap<JobId, (watch::Sender<Option<Arc<Settled>>>, usize)>;

/// An outcome that this process heard of, or read, lately.
#[derive(Debug, Clone)]
enum Recent {
    /// As it was announced: the JSON of a [`Settled`].
    Heard(Arc<[u8]>),
    Read(Arc<Settled>),
}

/// Outcomes that are known, and the polls that wait for one.
#[derive(Debug)]
pub struct Outcomes {
    recent: Cache<JobId, Recent>,
    places: Mutex<Places>,
    stored: Batched<JobId, Arc<Settled>>,
    announced: AtomicBool,
    stop: CancellationToken,
}

impl Outcomes {
    /// Starts the tasks behind it; they end with `stop`.
    #[must_use]
    pub fn start(pool: &Pool, rewound: watch::Receiver<()>, stop: CancellationToken) -> Arc<Self> {
        let board = Arc::new(Self {
            recent: Cache::new(RECENT),
            places: Mutex::default(),
            stored: Batched::start(pool, |connection, ids| Box::pin(stored(connection, ids))),
            announced: AtomicBool::new(false),
            stop: stop.clone(),
        });
        tokio::spawn(stop.clone().run_until_cancelled_owned(forget(Arc::clone(&board), rewound)));
        tokio::spawn(stop.run_until_cancelled_owned(sweep(Arc::clone(&board))));
        board
    }

    /// The outcome of a job, waiting for it up to `wait`; `None` while it has none.
    ///
    /// # Errors
    /// [`Unavailable`] if PostgreSQL could not say whether there is one.
    pub async fn outcome(
        &self,
        id: JobId,
        wait: Option<Duration>,
    ) -> Result<Option<Arc<Settled>>, Unavailable> {
        let Some(wait) = wait else {
            return self.look(id).await;
        };
        let deadline = Instant::now() + wait;
        // Take the place before looking: what is settled in between wakes it.
        let mut place = Place::take(self, id);
        if let Some(settled) = self.remembered(id) {
            return Ok(Some(settled));
        }
        let expected =
            self.announced.load(Ordering::Relaxed) && Utc::now() - id.submitted_at() < YOUNG;
        if !expected && let Ok(Some(settled)) = self.look(id).await {
            return Ok(Some(settled));
        }
        tokio::select! {
            settled = place.settled(deadline) => if settled.is_some() {
                return Ok(settled);
            },
            () = self.stop.cancelled() => {}
        }
        self.look(id).await
    }

    /// Whether it was heard or read lately that the job has an outcome.
    #[must_use]
    pub fn has_outcome(&self, id: JobId) -> bool {
        self.recent.contains_key(&id)
    }

    /// Waits for the outcome of a job from now on; what it was before is to be looked up afterwards.
    #[must_use]
    pub fn watch(self: &Arc<Self>, id: JobId) -> Place<Arc<Self>> {
        Place::take(Arc::clone(self), id)
    }

    /// How many polls and streams wait for an outcome at present.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.places().values().map(|(_, waiting)| waiting).sum()
    }

    async fn look(&self, id: JobId) -> Result<Option<Arc<Settled>>, Unavailable> {
        if let Some(settled) = self.remembered(id) {
            return Ok(Some(settled));
        }
        let settled = self.stored.get(id).await?;
        if let Some(settled) = &settled {
            self.remember(settled);
        }
        Ok(settled)
    }

    fn remembered(&self, id: JobId) -> Option<Arc<Settled>> {
        match self.recent.get(&id)? {
            Recent::Read(settled) => Some(settled),
            Recent::Heard(json) => {
                let settled = read(&json).filter(|settled| is_final(settled))?;
                self.remember(&settled);
                Some(settled)
            }
        }
    }

    fn remember(&self, settled: &Arc<Settled>) {
        if is_final(settled) {
            self.recent.insert(settled.job_id, Recent::Read(Arc::clone(settled)));
        }
    }

    /// Notes whether announcements get here at present.
    pub(super) fn set_announced(&self, announced: bool) {
        self.announced.store(announced, Ordering::Relaxed);
    }

    /// Keeps what was announced, and wakes who waits for it.
    pub(super) fn post(&self, settled: &[(JobId, &[u8])]) {
        for (id, json) in settled {
            self.recent.insert(*id, Recent::Heard(Arc::from(*json)));
        }
        let awaited: Vec<_> = {
            let places = self.places();
            settled.iter().filter(|(id, _)| places.contains_key(id)).collect()
        };
        awaited
            .into_iter()
            .filter_map(|(_, json)| read(json))
            .for_each(|settled| self.wake(settled));
    }

    fn wake(&self, settled: Arc<Settled>) {
        if let Some((sender, _)) = self.places().get(&settled.job_id) {
            sender.send_replace(Some(settled));
        }
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        // Nothing panics while holding it; if it did, the map is still a map.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One poll or stream that waits; leaves the board when it goes, also when its client hung up.
#[derive(Debug)]
pub struct Place<B: Deref<Target = Outcomes>> {
    board: B,
    id: JobId,
    receiver: watch::Receiver<Option<Arc<Settled>>>,
}

impl<B: Deref<Target = Outcomes>> Place<B> {
    fn take(board: B, id: JobId) -> Self {
        let receiver = {
            let mut places = board.places();
            let (sender, waiting) = places.entry(id).or_insert_with(|| (watch::channel(None).0, 0));
            *waiting += 1;
            sender.subscribe()
        };
        Self { board, id, receiver }
    }

    /// The outcome, once it comes.
    pub async fn outcome(&mut self) -> Option<Arc<Settled>> {
        self.receiver.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The outcome, if it comes in time.
    async fn settled(&mut self, deadline: Instant) -> Option<Arc<Settled>> {
        timeout_at(deadline, self.outcome()).await.ok()?
    }
}

impl<B: Deref<Target = Outcomes>> Drop for Place<B> {
    fn drop(&mut self) {
        let mut places = self.board.places();
        if let Some((_, waiting)) = places.get_mut(&self.id) {
            *waiting -= 1;
            if *waiting == 0 {
                places.remove(&self.id);
            }
        }
    }
}

/// Whether it is said for good: a failed job may be given another attempt.
fn is_final(settled: &Settled) -> bool {
    settled.status != Status::Failed
}

/// What was announced; nothing, if it is not understood.
fn read(json: &[u8]) -> Option<Arc<Settled>> {
    serde_json::from_slice(json).map(Arc::new).ok()
}

/// The outcomes of these jobs, of those that have one.
pub(super) async fn stored(
    connection: &mut PgConnection,
    ids: Vec<JobId>,
) -> Result<HashMap<JobId, Arc<Settled>>, sqlx::Error> {
    let ids: Vec<_> = ids.into_iter().map(JobId::get).collect();
    let rows = sqlx::query!(
        r#"SELECT job_id, user_id, status, code, result AS "result: Json<Box<RawValue>>",
                  detail AS "detail: Json<Box<RawValue>>", settled_at
           FROM job_outcomes WHERE job_id = ANY($1)"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let settled = Settled {
                job_id: JobId::from(row.job_id),
                user_id: UserId::new(row.user_id),
                // The check constraint job_outcomes_status admits no other name.
                status: Status::from_name(&row.status).unwrap_or(Status::Failed),
                code: row.code,
                result: row.result.map(|Json(result)| result),
                detail: row.detail.map(|Json(detail)| detail),
                settled_at: row.settled_at,
            };
            (settled.job_id, Arc::new(settled))
        })
        .collect())
}

/// Forgets everything when the database is not the one any more that said it.
async fn forget(board: Arc<Outcomes>, mut rewound: watch::Receiver<()>) {
    while rewound.changed().await.is_ok() {
        board.recent.clear();
    }
}

/// Asks PostgreSQL once per second for every poll that still waits.
async fn sweep(board: Arc<Outcomes>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let ids: Vec<JobId> = board.places().keys().copied().collect();
        let looking = ids.into_iter().map(async |id| {
            if let Ok(Some(settled)) = board.stored.get(id).await {
                board.remember(&settled);
                board.wake(settled);
            }
        });
        join_all(looking).await;
    }
}

#[cfg(test)]
mod tests {
    use firstcome_contract::{
        job::{HeardBatch, JobKind, SettledBatch},
        line::Place,
    };
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    /// Without the tasks that hear and sweep, and with a database that does not answer.
    fn board() -> Outcomes {
        let nowhere = PgPoolOptions::new().acquire_timeout(Duration::from_millis(50));
        let pool = Pool::from(nowhere.connect_lazy("postgres://127.0.0.1:1/nowhere").unwrap());
        Outcomes {
            recent: Cache::new(RECENT),
            places: Mutex::default(),
            stored: Batched::start(&pool, |connection, ids| Box::pin(stored(connection, ids))),
            announced: AtomicBool::new(true),
            stop: CancellationToken::new(),
        }
    }

    fn settled(sequence: u32, status: Status) -> Settled {
        let now = u64::try_from(Utc::now().timestamp_millis()).unwrap();
        Settled {
            job_id: JobId::compose(now, JobKind::IssueCoupon, Place::UNKNOWN, sequence, 0),
            user_id: UserId::new(7),
            status,
            code: (status != Status::Succeeded).then(|| "a-code".to_owned()),
            detail: None,
            result: None,
            settled_at: Utc::now(),
        }
    }

    fn announce(board: &Outcomes, settled: Vec<Settled>) {
        let message =
            SettledBatch { settled, sold_out: Vec::new(), restocked: Vec::new() }.encode().unwrap();
        board.post(&HeardBatch::decode(&message).unwrap().settled);
    }

    #[tokio::test]
    async fn what_was_announced_is_told_without_the_database() {
        let board = board();
        let (won, lost) = (settled(1, Status::Succeeded), settled(2, Status::Rejected));
        let failed = settled(3, Status::Failed);
        announce(&board, vec![won.clone(), lost.clone(), failed.clone()]);
        // Not only the first time.
        for _ in 0..2 {
            for told in [&won, &lost] {
                let outcome = board.outcome(told.job_id, None).await.unwrap().unwrap();
                assert_eq!((outcome.status, &outcome.code), (told.status, &told.code));
            }
            let failed = board.outcome(failed.job_id, None).await;
            assert!(failed.is_err(), "only the database knows whether it has another attempt");
        }
        assert!(board.outcome(settled(4, Status::Succeeded).job_id, None).await.is_err());
    }

    /// After the database lost it.
    #[tokio::test]
    async fn what_is_announced_as_failed_is_not_told_otherwise_any_more() {
        let board = board();
        let told = settled(1, Status::Succeeded);
        announce(&board, vec![told.clone()]);
        assert!(board.outcome(told.job_id, None).await.is_ok());
        announce(&board, vec![Settled::lost(told.job_id, told.user_id, Utc::now())]);
        assert!(board.outcome(told.job_id, None).await.is_err(), "the database is asked");
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_announcement() {
        let board = board();
        let told = settled(1, Status::Succeeded);
        let wait = Some(Duration::from_secs(60));
        let announcing = async {
            while board.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            announce(&board, vec![settled(2, Status::Rejected), told.clone()]);
        };
        let (outcome, ()) = tokio::join!(board.outcome(told.job_id, wait), announcing);
        assert_eq!(outcome.unwrap().unwrap().status, Status::Succeeded);
        assert_eq!(board.waiting(), 0);
    }
}
