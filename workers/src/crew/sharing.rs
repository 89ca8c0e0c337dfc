//! Who serves which line, in PostgreSQL and by its clock alone.
//!
//! A worker that is alive says so every second ([`Heartbeat`]); the lines are shared evenly
//! among those that are, by each of them for itself: it takes what is free, up to its share, and waits
//! neither for the others nor for what they do about the routing. A lease has an epoch that counts up with
//! every new owner, and every batch locks it and compares ([`crate::line::outcomes::begin`]): a worker that lost
//! a line without noticing, however long it was paused, cannot commit. Losing a lease therefore costs
//! time, never truth.

use std::{sync::Arc, time::Duration};

use firstcome_contract::{
    family::Family,
    line::{Line, Naming},
};
use firstcome_process::database::{Pool, within};
use sqlx::{Connection, PgConnection, PgExecutor};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use super::routing::State;
use crate::line::lease::Lease;

/// How long a worker counts as alive after its last heartbeat: several missed ones, and still
/// well below what an operator would call an outage.
const HEARTBEAT_TTL: Duration = Duration::from_secs(5);
/// Time between two heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The longest that a heartbeat may take. A connection that is frozen costs one of those that may be missed.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest that connecting to the database may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest that giving lines back may take; without it the others wait until the leases expire.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The lines that a worker has, and how many it should have.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) leases: Vec<Lease>,
    pub(crate) fair: usize,
    /// The first of those that are alive: it does what one of them has to.
    pub(crate) is_first: bool,
    /// An operator has halted the family: nobody is to have any.
    pub(crate) is_halted: bool,
}

/// This process among the workers of a family.
#[derive(Debug)]
pub(crate) struct Member {
    identity: Arc<Identity>,
    /// Not of the pool: with every connection in the middle of a batch, or frozen, a worker is
    /// alive all the same.
    connection: Option<PgConnection>,
}

/// What a worker is known by in the table `workers`.
#[derive(Debug)]
struct Identity {
    id: Uuid,
    family: Family,
    name: String,
    pool: Pool,
}

impl Identity {
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        within(CONNECT_TIMEOUT, self.pool.connect()).await
    }

    /// Says that this worker is alive. Deliberately waits for no other worker.
    async fn beat(&self, on: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "INSERT INTO workers (id, family, name, expires_at, naming)
             VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4), 'family')
             ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at",
            self.id,
            self.family.as_str(),
            self.name,
            HEARTBEAT_TTL.as_secs_f64(),
        )
        .execute(on)
        .await?;
        Ok(())
    }
}

/// Says that a worker is alive, whatever else that waits for: a task and a connection of its own. It ends
/// when it is dropped, at the latest.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    stop: CancellationToken,
    beating: AbortOnDropHandle<()>,
}

impl Heartbeat {
    pub(crate) fn start(member: &Member, on: PgConnection) -> Self {
        let stop = CancellationToken::new();
        let beating = tokio::spawn(beat(Arc::clone(&member.identity), on, stop.clone()));
        Self { stop, beating: AbortOnDropHandle::new(beating) }
    }

    /// Ends the heartbeat: when this returns the last beat is over, and no other comes.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        let _ = timeout(HEARTBEAT_TIMEOUT, self.beating).await;
    }
}

async fn beat(identity: Arc<Identity>, on: PgConnection, stop: CancellationToken) {
    let mut kept = Some(on);
    let mut beats = interval(HEARTBEAT_INTERVAL);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(beats.tick()).await.is_some() {
        let beaten = async {
            let mut on = match kept.take() {
                Some(connection) => connection,
                None => identity.connect().await?,
            };
            within(HEARTBEAT_TIMEOUT, identity.beat(&mut on)).await?;
            Ok::<_, sqlx::Error>(on)
        };
        match beaten.await {
            Ok(connection) => kept = Some(connection),
            // Sharing says so, too, if it lasts.
            Err(error) => tracing::debug!(%error, "a heartbeat is missed"),
        }
    }
}

impl Member {
    /// A worker with a new id, which no other worker knows yet.
    pub(crate) fn new(family: Family, pool: &Pool) -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned());
        let (id, name) = (Uuid::new_v4(), format!("{host}:{}", std::process::id()));
        let identity = Identity { id, family, name, pool: pool.clone() };
        Self { identity: Arc::new(identity), connection: None }
    }

    /// Makes a connection that is not of the pool.
    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.identity.connect().await
    }

    /// Takes the connection that was kept, or makes a new one.
    pub(crate) async fn connection(&mut self) -> Result<PgConnection, sqlx::Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.connect().await,
        }
    }

    /// Keeps a connection with which nothing went wrong, to be used again.
    pub(crate) fn keep(&mut self, connection: PgConnection) {
        self.connection = Some(connection);
    }

    /// Takes what is free of the lines up to a fair share, and tells what is ours.
    pub(crate) async fn share(&self, on: &mut PgConnection) -> Result<Share, sqlx::Error> {
        let Identity { id, family, .. } = *self.identity;
        let is_halted = is_halted(&mut *on, family).await?;
        let mut workers = self.alive(on).await?;
        if !workers.iter().any(|(other, _)| *other == id) {
            // New, or paused for so long.
            self.identity.beat(on).await?;
            workers = self.alive(on).await?;
        }
        let alive: Vec<Uuid> = workers.iter().map(|(other, _)| *other).collect();
        let rank = rank(&alive, id);
        let rows = State::load(on, family).await?.rows;
        let open: Vec<_> = rows.iter().filter(|row| row.is_open).collect();
        let mut fair = fair_share(open.len(), alive.len(), rank);
        let knowing = workers.iter().filter(|(_, naming)| *naming == Naming::Family);
        let knowing: Vec<Uuid> = knowing.map(|(other, _)| *other).collect();
        if knowing.len() < alive.len() {
            // Lines that workers of the release before this one do not know are left to the others.
            let named = open.iter().filter(|row| row.line.naming == Naming::Family).count();
            fair = fair_share(open.len() - named, alive.len(), rank)
                + fair_share(named, knowing.len(), self::rank(&knowing, id));
        }
        if is_halted {
            fair = 0;
        }

        let ours = open.iter().filter(|row| row.owner == Some(id));
        let mut leases: Vec<Lease> = ours.map(|row| row.lease(id)).collect();
        let is_free = |owner: Option<Uuid>| owner.is_none_or(|owner| !alive.contains(&owner));
        let mut free: Vec<_> = open.iter().filter(|row| is_free(row.owner)).collect();
        // Others look at the same time: each begins elsewhere.
        let begin = (free.len() * rank).checked_div(alive.len()).unwrap_or_default();
        free.rotate_left(begin);
        free.sort_by_key(|row| row.line.naming == Naming::Kind);
        let wanted = free.into_iter().take(fair.saturating_sub(leases.len()));
        let (generations, names): (Vec<i32>, Vec<String>) =
            wanted.map(|row| (row.line.generation, row.line.name.to_string())).unzip();
        if !names.is_empty() {
            // A line that a batch of its late owner still holds is skipped, not waited for; one that another
            // worker has taken meanwhile is not free any more.
            let taken = sqlx::query!(
                r#"WITH free AS (
                       SELECT family, generation, line FROM partition_leases
                       JOIN UNNEST($3::int[], $4::text[]) AS wanted (g, l) ON generation = g AND line = l
                       WHERE family = $1 AND (owner IS NULL OR owner <> ALL ($5::uuid[]))
                       FOR UPDATE OF partition_leases SKIP LOCKED
                   )
                   UPDATE partition_leases AS taken SET owner = $2, epoch = epoch + 1
                   FROM free
                   WHERE taken.family = free.family AND taken.generation = free.generation AND taken.line = free.line
                   RETURNING taken.generation, taken.line, taken.naming, taken.epoch"#,
                family.as_str(),
                id,
                &generations,
                &names,
                &alive,
            )
            .fetch_all(on)
            .await?;
            leases.extend(taken.into_iter().filter_map(|row| {
                let (name, naming) = (row.line.parse().ok()?, Naming::from_name(&row.naming)?);
                let line = Line { family, generation: row.generation, name, naming };
                Some(Lease { line, owner: id, epoch: row.epoch })
            }));
        }
        Ok(Share { leases, fair, is_first: rank == 0, is_halted })
    }

    /// The workers that count as alive, in an order that all of them know, and the newest naming that each knows.
    async fn alive(&self, on: &mut PgConnection) -> Result<Vec<(Uuid, Naming)>, sqlx::Error> {
        let alive = sqlx::query!(
            "WITH dead AS (DELETE FROM workers WHERE expires_at < clock_timestamp())
             SELECT id, naming FROM workers WHERE family = $1 AND expires_at >= clock_timestamp() ORDER BY id",
            self.identity.family.as_str(),
        )
        .fetch_all(on)
        .await?;
        let naming = |name: &str| Naming::from_name(name).unwrap_or(Naming::Kind);
        Ok(alive.into_iter().map(|row| (row.id, naming(&row.naming))).collect())
    }

    /// Gives a line back, so that another worker can take it at once.
    pub(crate) async fn release(&mut self, lease: &Lease) -> Result<(), sqlx::Error> {
        let mut on = self.connection().await?;
        let released = sqlx::query!(
            "UPDATE partition_leases SET owner = NULL
             WHERE family = $1 AND generation = $2 AND line = $3 AND owner = $4 AND epoch = $5",
            lease.line.family.as_str(),
            lease.line.generation,
            lease.line.name.to_string(),
            lease.owner,
            lease.epoch,
        )
        .execute(&mut on);
        within(RELEASE_TIMEOUT, released).await?;
        self.keep(on);
        Ok(())
    }

    /// Gives all lines back, and takes the worker off the list of those that are alive.
    pub(crate) async fn leave(&mut self) -> Result<(), sqlx::Error> {
        let leaving = async {
            let mut on = self.connection().await?;
            sqlx::query!(
                "WITH released AS (UPDATE partition_leases SET owner = NULL WHERE owner = $1)
                 DELETE FROM workers WHERE id = $1",
                self.identity.id
            )
            .execute(&mut on)
            .await?;
            on.close().await
        };
        within(RELEASE_TIMEOUT, leaving).await
    }
}

/// Whether an operator has halted the family.
pub(crate) async fn is_halted(
    on: impl PgExecutor<'_>,
    family: Family,
) -> Result<bool, sqlx::Error> {
    let halted = sqlx::query!("SELECT FROM halts WHERE family = $1", family.as_str());
    Ok(halted.fetch_optional(on).await?.is_some())
}

/// The place of a worker among these.
fn rank(workers: &[Uuid], worker: Uuid) -> usize {
    workers.iter().position(|other| *other == worker).unwrap_or_default()
}

/// How many of `lines` the `rank`-th of `workers` should have: all get the same, the first ones one
/// more where it does not divide evenly.
fn fair_share(lines: usize, workers: usize, rank: usize) -> usize {
    let Some(even) = lines.checked_div(workers) else { return 0 };
    even + usize::from(rank < lines % workers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_are_even_and_leave_nothing(lines in 0usize..300, workers in 1usize..40) {
            let shares: Vec<usize> = (0..workers).map(|rank| fair_share(lines, workers, rank)).collect();
            prop_assert_eq!(shares.iter().sum::<usize>(), lines);
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
