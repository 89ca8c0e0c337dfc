//! Claims of keys, many at a time: a key on every request must not cost every request round trips of its own.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use firstcome_contract::{
    failure::Failure,
    job::{
        Idempotency, JobId, Settled,
        held_key::{self, PENDING, QUEUED, parse},
    },
};
use firstcome_process::database::{Kept, Pool, within};
use futures_util::future::join_all;
use redis::{AsyncTypedCommands, Pipeline};
use sqlx::PgConnection;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, sleep_until, timeout_at},
};

use super::Claim;
use crate::{
    cache::Cache,
    known::{batched::bounded, lost::Lost, outcomes::Outcomes},
    publish::{Enqueuer, Owner, Refusal, Submission},
};

/// How long a claim outlives the process that made it.
const PENDING_TTL_SECONDS: u64 = 10;
/// How long Redis answers replays; PostgreSQL answers later ones.
const QUEUED_TTL_SECONDS: u64 = 24 * 3600;
/// How long after its acceptance Redis is told that a job is in its line. Most are settled by then, and
/// PostgreSQL knows their keys; until then a repeat finds the claim.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// The most claims that one round trip takes along.
const MAX_CLAIMS: usize = 1_000;
/// What may wait; beyond it nobody is asked and nothing told.
const BACKLOG: usize = 16_384;
/// With so many the round trips cost little for each of them.
const ENOUGH: usize = 32;
/// How long after the last ones a few leave. Who comes after a quiet moment leaves at once.
const BATCH_INTERVAL: Duration = Duration::from_millis(2);
/// How long requests wait for PostgreSQL to tell whether their keys are known.
pub(super) const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(500);

enum Ask {
    /// Take the key for this job, and put it into its line.
    Submit(Arc<Claim>, Submission),
    /// Tell which job has the key.
    Owner(Arc<Claim>, oneshot::Sender<Option<Owner>>),
    /// Note in Redis that the job that has the key is in its line.
    Queued(Arc<Claim>),
}

/// Hands claims to the task that asks for all of them.
#[derive(Debug)]
pub(super) struct Claims {
    sender: mpsc::Sender<Ask>,
    redis: Redis,
    enqueuer: Enqueuer,
}

/// The keys in Redis, under the names of [`held_key`].
#[derive(Debug, Clone)]
struct Redis {
    cache: Cache,
    namespace: Arc<str>,
}

impl Claims {
    /// Starts the task that asks. It ends when the handle is dropped.
    pub(super) fn start(
        cache: Cache,
        namespace: &str,
        pool: &Pool,
        jobs: Arc<Outcomes>,
        lost: Arc<Lost>,
        enqueuer: Enqueuer,
        retention: TimeDelta,
    ) -> Self {
        let (sender, inbox) = mpsc::channel(BACKLOG);
        let redis = Redis { cache, namespace: namespace.into() };
        let asking = Asking {
            redis: redis.clone(),
            database: Kept::of(pool),
            jobs,
            lost,
            enqueuer: enqueuer.clone(),
            retention,
            untold: VecDeque::new(),
        };
        tokio::spawn(asking.run(inbox));
        Self { sender, redis, enqueuer }
    }

    /// Claims the key, then puts the job into its line.
    pub(super) fn submit(&self, claim: Arc<Claim>, submission: Submission) {
        let asked = self.sender.try_send(Ask::Submit(claim, submission));
        if let Err(Ask::Submit(_, submission)) = asked.map_err(TrySendError::into_inner) {
            self.enqueuer.send(submission);
        }
    }

    pub(super) async fn owner(&self, claim: Arc<Claim>) -> Option<Owner> {
        let (answer, answered) = oneshot::channel();
        self.sender.try_send(Ask::Owner(claim, answer)).ok()?;
        answered.await.ok()?
    }

    /// Nobody waits for it: the job is as good without.
    pub(super) fn queued(&self, claim: Arc<Claim>) {
        let _ = self.sender.try_send(Ask::Queued(claim));
    }

    /// Gives the key back in Redis, so that a repeat of the request starts anew.
    pub(super) async fn release(&self, claim: &Claim) {
        let (key, ours) = (self.redis.key(claim), entry(PENDING, claim));
        // Only our own claim. A claim that changes hands between the two commands is lost to
        // Redis, not to PostgreSQL.
        let release = self.redis.cache.ask(async |mut redis| {
            if redis.get(&key).await?.as_ref() == Some(&ours) {
                redis.del(&key).await?;
            }
            Ok(())
        });
        release.await;
    }
}

/// A key that is asked for, and what for.
struct Wanted {
    claim: Arc<Claim>,
    purpose: Purpose,
}

enum Purpose {
    Submit(Submission),
    Tell(oneshot::Sender<Option<Owner>>),
}

struct Asking {
    redis: Redis,
    database: Kept,
    jobs: Arc<Outcomes>,
    lost: Arc<Lost>,
    enqueuer: Enqueuer,
    /// How long after its submission a job can be polled.
    retention: TimeDelta,
    /// Jobs of which Redis is not told that they are in their lines, and when it is.
    untold: VecDeque<(Instant, Arc<Claim>)>,
}

impl Asking {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        let mut asked = Vec::new();
        loop {
            if inbox.is_empty() {
                self.database.give_back();
            }
            let receiving = inbox.recv_many(&mut asked, MAX_CLAIMS);
            let due = self.untold.front().map(|(due, _)| *due);
            let received = match due {
                Some(due) => timeout_at(due, receiving).await,
                None => Ok(receiving.await),
            };
            if received == Ok(0) {
                return;
            }
            let now = Instant::now();
            let mut all_wanted = Vec::with_capacity(asked.len());
            for ask in asked.drain(..) {
                let (claim, purpose) = match ask {
                    Ask::Submit(claim, submission) => (claim, Purpose::Submit(submission)),
                    Ask::Owner(claim, answer) => (claim, Purpose::Tell(answer)),
                    Ask::Queued(claim) => {
                        self.untold.push_back((now + TOLD_AFTER, claim));
                        continue;
                    }
                };
                all_wanted.push(Wanted { claim, purpose });
            }
            self.tell(now).await;
            let asked_now = all_wanted.len();
            if asked_now == 0 {
                continue;
            }
            let (mut held, mut settled) = tokio::join!(
                self.redis.claim(&all_wanted),
                all_settled(&mut self.database, &all_wanted)
            );
            self.free_lost(&all_wanted, &mut held, &settled).await;
            for (position, (Wanted { claim, purpose }, held)) in
                all_wanted.into_iter().zip(held).enumerate()
            {
                let owner = owner(&claim, held, settled.remove(&position));
                let owner = owner.map(|owner| self.pollable(owner, &claim));
                match (purpose, owner) {
                    // The key's job is gone, and the worker knows how it ended.
                    (Purpose::Submit(submission), Some(owner)) if owner.job == claim.job => {
                        self.enqueuer.send(submission);
                        self.untold.push_back((now + TOLD_AFTER, claim));
                    }
                    (Purpose::Tell(answer), owner) => {
                        let _ = answer.send(owner);
                    }
                    (Purpose::Submit(submission), Some(owner)) => {
                        submission.refuse(Refusal::KeyTaken(owner));
                    }
                    (Purpose::Submit(submission), None) => {
                        self.enqueuer.send(submission);
                        self.untold.push_back((now + TOLD_AFTER, claim));
                    }
                }
            }
            if asked_now < ENOUGH && inbox.len() < ENOUGH {
                sleep_until(now + BATCH_INTERVAL).await;
            }
        }
    }

    /// Frees keys whose jobs are lost: who asks for one may have it.
    async fn free_lost(
        &self,
        wanted: &[Wanted],
        held: &mut [Option<String>],
        settled: &HashMap<usize, (JobId, String)>,
    ) {
        let queued = |held: &Option<String>| match parse(held.as_deref()?)? {
            (QUEUED, job, _) => Some(job),
            _ => None,
        };
        let suspects = held.iter().map(queued).enumerate().filter_map(|(position, job)| {
            let job = job.filter(|_| !settled.contains_key(&position))?;
            self.lost.has_come_out(job).then_some((position, job))
        });
        let looking = suspects.filter_map(|(position, job)| {
            let user = wanted.get(position)?.claim.user_id;
            Some(async move { (position, self.lost.outcome(job, user).await) })
        });
        let is_lost = |settled: &Settled| settled.code.as_deref() == Some(Failure::Lost.code());
        let lost: Vec<usize> = join_all(looking.collect::<Vec<_>>())
            .await
            .into_iter()
            .filter(|(_, outcome)| matches!(outcome, Ok(Some(settled)) if is_lost(settled)))
            .map(|(position, _)| position)
            .collect();
        if !lost.is_empty() {
            self.redis.replace(wanted, held, &lost).await;
        }
    }

    /// The owner, or in its place, once it can no longer be polled, the job of this claim: the worker gives it
    /// the outcome of the first one, as far as that is kept.
    fn pollable(&self, owner: Owner, claim: &Claim) -> Owner {
        if !owner.is_same || Utc::now() - owner.job.submitted_at() <= self.retention {
            return owner;
        }
        Owner { job: claim.job, is_queued: false, ..owner }
    }

    /// Tells Redis of jobs that are in their lines for a while, and not settled.
    async fn tell(&mut self, now: Instant) {
        let mut all = redis::pipe();
        while let Some((due, claim)) = self.untold.pop_front() {
            if due > now {
                self.untold.push_front((due, claim));
                break;
            }
            if !claim.is_queued.load(Ordering::Relaxed) {
                // Its request still waits for the broker, or was refused.
                if Arc::strong_count(&claim) > 1 {
                    self.untold.push_back((now + TOLD_AFTER, claim));
                }
            } else if !self.jobs.has_outcome(claim.job) {
                self.redis.set(&mut all, QUEUED, &claim, QUEUED_TTL_SECONDS).ignore();
            }
        }
        if !all.is_empty() {
            let telling = async |mut redis| all.query_async::<()>(&mut redis).await;
            self.redis.cache.ask(telling).await;
        }
    }
}

impl Redis {
    /// Claims the keys whose jobs are to be submitted; who else has them, in order. Where Redis cannot
    /// tell, nobody.
    async fn claim(&self, wanted: &[Wanted]) -> Vec<Option<String>> {
        let nobody = || wanted.iter().map(|_| None).collect();
        let mut all = redis::pipe();
        for Wanted { claim, purpose } in wanted {
            if let Purpose::Submit(_) = purpose {
                self.set(&mut all, PENDING, claim, PENDING_TTL_SECONDS).arg("NX");
            }
        }
        let mut set: Vec<Option<String>> = Vec::new();
        if !all.is_empty() {
            let claiming = self.cache.ask(async |mut redis| all.query_async(&mut redis).await);
            let Some(answers) = claiming.await else { return nobody() };
            set = answers;
        }
        let mut set = set.into_iter();
        let is_taken = |wanted: &Wanted| match wanted.purpose {
            Purpose::Submit(_) => set.next().flatten().is_none(),
            Purpose::Tell(_) => true,
        };
        let taken: Vec<bool> = wanted.iter().map(is_taken).collect();
        let mut all = redis::pipe();
        for (Wanted { claim, .. }, _) in wanted.iter().zip(&taken).filter(|(_, taken)| **taken) {
            all.get(self.key(claim));
        }
        if all.is_empty() {
            return nobody();
        }
        let asking = self.cache.ask(async |mut redis| all.query_async(&mut redis).await);
        let held: Vec<Option<String>> = asking.await.unwrap_or_default();
        let mut held = held.into_iter();
        taken.into_iter().map(|taken| if taken { held.next().flatten() } else { None }).collect()
    }

    /// Puts claims in the place of what is held at these positions, unless somebody was faster; then that is
    /// held. Where Redis cannot tell, nothing.
    async fn replace(&self, wanted: &[Wanted], held: &mut [Option<String>], positions: &[usize]) {
        let mut all = redis::pipe();
        let mut replaced = Vec::new();
        for position in positions {
            let (Some(wanted), Some(held)) = (wanted.get(*position), held.get_mut(*position))
            else {
                continue;
            };
            let entry = held.take().unwrap_or_default();
            // Who only asks takes nothing.
            if let Wanted { claim, purpose: Purpose::Submit(_) } = wanted {
                all.cmd("EVAL").arg(REPLACE).arg(1).arg(self.key(claim)).arg(entry);
                all.arg(self::entry(PENDING, claim)).arg(PENDING_TTL_SECONDS);
                replaced.push(*position);
            }
        }
        if replaced.is_empty() {
            return;
        }
        let asking = async |mut redis| all.query_async::<Vec<Option<String>>>(&mut redis).await;
        let others = self.cache.ask(asking).await.unwrap_or_default();
        for (position, other) in replaced.into_iter().zip(others) {
            if let Some(held) = held.get_mut(position) {
                *held = other;
            }
        }
    }

    fn set<'a>(
        &self,
        all: &'a mut Pipeline,
        state: char,
        claim: &Claim,
        seconds: u64,
    ) -> &'a mut Pipeline {
        all.cmd("SET").arg(self.key(claim)).arg(entry(state, claim)).arg("EX").arg(seconds)
    }

    fn key(&self, claim: &Claim) -> String {
        let Claim { user_id, kind, idempotency: Idempotency { key, .. }, .. } = claim;
        held_key::name(&self.namespace, *user_id, kind, key)
    }
}

/// Puts another entry in the place of this one, unless it is held by another already: that one then.
const REPLACE: &str = "local held = redis.call('GET', KEYS[1]) \
                       if held and held ~= ARGV[1] then return held end \
                       redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) return false";

fn entry(state: char, claim: &Claim) -> String {
    held_key::entry(state, claim.job, &claim.idempotency.fingerprint)
}

/// Whose the key is, if not the claim's, by what Redis holds and by what is settled.
fn owner(claim: &Claim, held: Option<String>, settled: Option<(JobId, String)>) -> Option<Owner> {
    let held = held.as_deref().and_then(parse);
    let (job, is_queued, fingerprint) = match (held, &settled) {
        (Some((QUEUED, job, fingerprint)), _) => (job, true, fingerprint),
        (_, Some((job, fingerprint))) => (*job, true, fingerprint.as_str()),
        (Some((_, job, fingerprint)), None) => (job, false, fingerprint),
        (None, None) => return None,
    };
    Some(Owner { job, is_queued, is_same: fingerprint == claim.idempotency.fingerprint })
}

/// The settled jobs that have these keys, by position. Where PostgreSQL cannot tell, none.
async fn all_settled(database: &mut Kept, wanted: &[Wanted]) -> HashMap<usize, (JobId, String)> {
    let users: Vec<i64> = wanted.iter().map(|wanted| wanted.claim.user_id.get()).collect();
    let kinds: Vec<&'static str> = wanted.iter().map(|wanted| wanted.claim.kind).collect();
    let keys = wanted.iter().map(|wanted| wanted.claim.idempotency.key.clone());
    let keys: Vec<String> = keys.collect();
    let looking = bounded(database, |connection| Box::pin(settled(connection, users, kinds, keys)));
    match within(LOOK_UP_TIMEOUT, looking).await {
        Ok(settled) => settled,
        Err(error) => {
            tracing::warn!(%error, "keys not looked up; the worker decides");
            HashMap::new()
        }
    }
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
               WHERE user_id = ANY(ARRAY[asker]) AND kind = what AND idempotency_key BETWEEN key AND key
               ORDER BY user_id, kind, idempotency_key LIMIT 1
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
