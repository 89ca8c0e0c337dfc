//! Claims of keys, many at a time: a key on every request must not cost every request round trips of its own.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use firstcome_shared::job::JobId;
use redis::Pipeline;
use sqlx::{PgConnection, PgPool};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::Claim;
use crate::{batched::bounded, cache::Cache, job};

/// How long a claim outlives the process that made it.
const PENDING_SECONDS: u64 = 10;
/// How long Redis answers replays; later ones, PostgreSQL does.
const ACCEPTED_SECONDS: u64 = 24 * 3600;
/// How long after its acceptance Redis is told that a job is in its line. Most are settled by then, and
/// PostgreSQL knows their keys; until then a repeat finds the claim.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// The most at once.
const MAX_CLAIMS: usize = 1_000;
/// What may wait; beyond it nobody is asked and nothing told.
const BACKLOG: usize = 16_384;
/// With so many the round trips cost little for each of them.
const ENOUGH: usize = 32;
/// How long after the last ones a few leave. Who comes after a quiet moment leaves at once.
const PACE: Duration = Duration::from_millis(2);
/// How long requests wait for PostgreSQL to tell whether their keys are known.
const TIMEOUT: Duration = Duration::from_millis(500);

/// What became of a claim.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    /// The entry that has the key in Redis, if it is not ours.
    pub(super) held: Option<String>,
    /// The settled job that has the key, and its fingerprint.
    pub(super) settled: Option<(JobId, String)>,
}

enum Ask {
    /// Take the key for this entry, if it is free.
    Claim { claim: Claim, key: String, entry: String, answer: oneshot::Sender<Claimed> },
    /// The job is in its line.
    Accepted { job: JobId, key: String, entry: String },
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Claims(mpsc::Sender<Ask>);

impl Claims {
    /// Starts the task that asks. It ends when the handle is dropped.
    pub(super) fn start(cache: Cache, pool: &PgPool, jobs: Arc<job::Board>) -> Self {
        let (sender, inbox) = mpsc::channel(BACKLOG);
        let asking = Asking { cache, pool: pool.clone(), jobs, untold: VecDeque::new() };
        tokio::spawn(asking.run(inbox));
        Self(sender)
    }

    /// Claims a key for this entry. Where neither Redis nor PostgreSQL can tell, it is ours: the worker
    /// will decide.
    pub(super) async fn claim(&self, claim: &Claim, key: String, entry: String) -> Claimed {
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Claim { claim: claim.clone(), key, entry, answer };
        if self.0.try_send(ask).is_err() {
            return Claimed::default();
        }
        answered.await.unwrap_or_default()
    }

    /// Notes that the entry's job is in its line. Nobody waits for it: the job is as good without.
    pub(super) fn accepted(&self, job: JobId, key: String, entry: String) {
        let _ = self.0.try_send(Ask::Accepted { job, key, entry });
    }
}

/// A key to take, and who wants it.
struct Wanted {
    claim: Claim,
    key: String,
    entry: String,
    answer: oneshot::Sender<Claimed>,
}

/// A job of which Redis is not told that it is in its line, and when it is.
struct Untold {
    due: Instant,
    job: JobId,
    key: String,
    entry: String,
}

struct Asking {
    cache: Cache,
    pool: PgPool,
    jobs: Arc<job::Board>,
    untold: VecDeque<Untold>,
}

impl Asking {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        let mut asked = Vec::new();
        loop {
            let receiving = inbox.recv_many(&mut asked, MAX_CLAIMS);
            let due = self.untold.front().map(|untold| untold.due);
            let received = match due {
                Some(due) => timeout_at(due, receiving).await,
                None => Ok(receiving.await),
            };
            if received == Ok(0) {
                return;
            }
            let now = Instant::now();
            let mut wanted = Vec::with_capacity(asked.len());
            for ask in asked.drain(..) {
                match ask {
                    Ask::Claim { claim, key, entry, answer } => {
                        wanted.push(Wanted { claim, key, entry, answer });
                    }
                    Ask::Accepted { job, key, entry } => {
                        self.untold.push_back(Untold { due: now + TOLD_AFTER, job, key, entry });
                    }
                }
            }
            self.tell(now).await;
            let asked_now = wanted.len();
            if asked_now == 0 {
                continue;
            }
            let (held, mut settled) = tokio::join!(self.claim(&wanted), self.settled(&wanted));
            for (position, (wanted, held)) in wanted.into_iter().zip(held).enumerate() {
                let settled = settled.remove(&position);
                let _ = wanted.answer.send(Claimed { held, settled });
            }
            if asked_now < ENOUGH && inbox.len() < ENOUGH {
                sleep_until(now + PACE).await;
            }
        }
    }

    /// Tells Redis of jobs that are in their lines for a while, and not settled.
    async fn tell(&mut self, now: Instant) {
        let mut all = redis::pipe();
        while self.untold.front().is_some_and(|untold| untold.due <= now) {
            let Some(Untold { job, key, entry, .. }) = self.untold.pop_front() else { break };
            if !self.jobs.has_outcome(job) {
                set(&mut all, &key, &entry, ACCEPTED_SECONDS).ignore();
            }
        }
        if !all.is_empty() {
            self.cache.ask(async |mut redis| all.query_async::<()>(&mut redis).await).await;
        }
    }

    /// Claims the keys in Redis; who else has them, in order. Where Redis cannot tell, nobody.
    async fn claim(&self, wanted: &[Wanted]) -> Vec<Option<String>> {
        let nobody = || wanted.iter().map(|_| None).collect();
        let mut all = redis::pipe();
        for Wanted { key, entry, .. } in wanted {
            set(&mut all, key, entry, PENDING_SECONDS).arg("NX");
        }
        let set = self.cache.ask(async |mut redis| all.query_async(&mut redis).await).await;
        let Some(set): Option<Vec<Option<String>>> = set else { return nobody() };
        let mut all = redis::pipe();
        for (Wanted { key, .. }, _) in wanted.iter().zip(&set).filter(|(_, set)| set.is_none()) {
            all.get(key);
        }
        if all.is_empty() {
            return nobody();
        }
        let held = self.cache.ask(async |mut redis| all.query_async(&mut redis).await).await;
        let held: Vec<Option<String>> = held.unwrap_or_default();
        let mut held = held.into_iter();
        let holder = |set: Option<String>| if set.is_none() { held.next().flatten() } else { None };
        set.into_iter().map(holder).collect()
    }

    /// The settled jobs that have these keys, by position. Where PostgreSQL cannot tell, none.
    async fn settled(&self, wanted: &[Wanted]) -> HashMap<usize, (JobId, String)> {
        let users: Vec<i64> = wanted.iter().map(|wanted| wanted.claim.user_id.get()).collect();
        let kinds: Vec<&'static str> = wanted.iter().map(|wanted| wanted.claim.kind).collect();
        let keys = wanted.iter().map(|wanted| wanted.claim.idempotency.key.clone());
        let keys: Vec<String> = keys.collect();
        let looking =
            bounded(&self.pool, |connection| Box::pin(settled(connection, users, kinds, keys)));
        match timeout(TIMEOUT, looking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(settled) => settled,
            Err(error) => {
                tracing::warn!(%error, "keys not looked up; the worker decides");
                HashMap::new()
            }
        }
    }
}

fn set<'a>(all: &'a mut Pipeline, key: &str, entry: &str, seconds: u64) -> &'a mut Pipeline {
    all.cmd("SET").arg(key).arg(entry).arg("EX").arg(seconds)
}

async fn settled(
    connection: &mut PgConnection,
    users: Vec<i64>,
    kinds: Vec<&'static str>,
    keys: Vec<String>,
) -> Result<HashMap<usize, (JobId, String)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT position AS "position!", job_id AS "job_id!", fingerprint AS "fingerprint!"
           FROM UNNEST($1::bigint[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (asker, what, key, position)
           CROSS JOIN LATERAL (
               SELECT job_id, fingerprint FROM job_outcomes
               WHERE (user_id, kind, idempotency_key) BETWEEN (asker, what, key) AND (asker, what, key)
                 AND idempotency_key IS NOT NULL
               LIMIT 1
           ) AS owner"#,
        &users,
        &kinds as &[&str],
        &keys,
    )
    .fetch_all(connection)
    .await?;
    let owners = rows.into_iter().filter_map(|row| {
        let position = usize::try_from(row.position).ok()?.checked_sub(1)?;
        Some((position, (JobId::from(row.job_id), row.fingerprint)))
    });
    Ok(owners.collect())
}
