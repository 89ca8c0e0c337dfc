//! Brings about the routing that operators want: how many partitions, and which keys have a line of
//! their own.
//!
//! A change replaces the whole generation of lines, in steps that any worker of the kind takes or
//! repeats, one at a time under the kind's advisory lock:
//! 1. *Plan*: store the next generation's lines.
//! 2. *Switch*: make their queues, take the old ones out of the exchange, put the new ones in. A
//!    publisher that does not know yet gets its messages back. Nothing is in the new lines that
//!    is not later than all that is in the old ones.
//! 3. *End*: put a last message into each old queue. Whoever consumes it has settled all before it,
//!    so the line is drained.
//! 4. *Open*: a new line is consumed when all old lines that could hold its keys are drained, so
//!    that the order within a key survives the change.
//! 5. *Retire*: delete what is drained.

mod steps;

pub(super) use steps::{StepError, advance};

use firstcome_database::Pool;
use firstcome_shared::{
    job::JobKind,
    partition::{Line, Partition, Routing},
};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::lease::Lease;

/// A line as it is stored.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) line: Partition,
    pub(super) owner: Option<Uuid>,
    /// To be consumed from.
    pub(super) is_open: bool,
    was_opened: bool,
    epoch: i64,
    partitions: i32,
    /// What the queue was declared with; it cannot change.
    capacity: i32,
    is_closed: bool,
    is_drained: bool,
    /// It is time for its last message.
    end_is_due: bool,
    /// It is time to delete it.
    retirement_is_due: bool,
}

impl Row {
    /// The lease that `owner` has on it.
    pub(super) fn lease(&self, owner: Uuid) -> Lease {
        Lease { line: self.line, owner, epoch: self.epoch }
    }

    /// Whether a job that would stand in `later` now could be waiting in this line still.
    fn feeds(&self, later: &Self) -> bool {
        let pinned = |row: &Self| matches!(row.line.line, Line::Pin(_));
        // An order stands in the line of a pinned product before any other: pinning moves orders
        // between all lines.
        self.line.generation < later.line.generation
            && (self.line.line == later.line.line
                || pinned(self)
                || pinned(later)
                || self.partitions != later.partitions)
    }
}

/// The routing of a kind: what is wanted and what is.
#[derive(Debug)]
pub(super) struct State {
    kind: JobKind,
    partitions: i32,
    capacity: i32,
    /// The generation that takes new jobs.
    generation: i32,
    pins: Vec<i64>,
    pub(super) rows: Vec<Row>,
}

/// The kind's lock, for one transaction; `None` while another worker has it.
pub(super) async fn lock(
    connection: &mut PgConnection,
    kind: JobKind,
) -> Result<Option<Transaction<'_, Postgres>>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // A batch may hold a line's row for as long as its database connection is frozen.
    let locked = sqlx::query_scalar!(
        r#"SELECT set_config('lock_timeout', '2s', true) IS NOT NULL
                  AND pg_try_advisory_xact_lock(hashtext('firstcome.routing.' || $1)) AS "locked!""#,
        kind.as_str()
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok(locked.then_some(transaction))
}

impl State {
    /// Reads it all: some dozens of rows.
    pub(super) async fn load(
        connection: &mut PgConnection,
        kind: JobKind,
    ) -> Result<Self, sqlx::Error> {
        let routing = sqlx::query!(
            "SELECT partitions, line_capacity, generation FROM routing WHERE kind = $1",
            kind.as_str()
        )
        .fetch_one(&mut *connection)
        .await?;
        let pins =
            sqlx::query_scalar!("SELECT key FROM pins WHERE kind = $1 ORDER BY key", kind.as_str())
                .fetch_all(&mut *connection)
                .await?;
        let rows = sqlx::query!(
            r#"SELECT generation, line, partitions, capacity, owner, epoch,
                      opened_at IS NOT NULL AS "was_opened!",
                      (opened_at IS NOT NULL AND (drained_at IS NULL OR drained_at > clock_timestamp() - interval '15 seconds')) AS "is_open!",
                      closed_at IS NOT NULL AS "is_closed!",
                      drained_at IS NOT NULL AS "is_drained!",
                      (drained_at IS NULL AND closed_at < clock_timestamp() - interval '1 second'
                       -- Once more if it got lost with its queue.
                       AND (ended_at IS NULL OR ended_at < clock_timestamp() - interval '30 seconds')) IS TRUE AS "end_is_due!",
                      (drained_at < clock_timestamp() - interval '30 seconds'
                       AND NOT EXISTS (SELECT FROM workers WHERE id = owner AND expires_at > clock_timestamp())) IS TRUE AS "retirement_is_due!"
               FROM partition_leases WHERE kind = $1 ORDER BY generation, line"#,
            kind.as_str()
        )
        .fetch_all(connection)
        .await?;
        let rows = rows.into_iter().filter_map(|row| {
            Some(Row {
                line: Partition { kind, generation: row.generation, line: row.line.parse().ok()? },
                partitions: row.partitions,
                capacity: row.capacity,
                owner: row.owner,
                epoch: row.epoch,
                is_open: row.is_open,
                was_opened: row.was_opened,
                is_closed: row.is_closed,
                is_drained: row.is_drained,
                end_is_due: row.end_is_due,
                retirement_is_due: row.retirement_is_due,
            })
        });
        Ok(Self {
            kind,
            partitions: routing.partitions,
            capacity: routing.line_capacity,
            generation: routing.generation,
            pins,
            rows: rows.collect(),
        })
    }

    /// How new jobs are dealt out at present; `None` before the first worker made lines.
    pub(super) fn routing(&self) -> Option<Routing> {
        let current = || self.rows.iter().filter(|row| row.line.generation == self.generation);
        let pins = current().filter_map(|row| match row.line.line {
            // Numbers matter in job ids only.
            Line::Pin(key) => Some((key, 0)),
            Line::Partition(_) => None,
        });
        Some(Routing {
            generation: self.generation,
            partitions: u16::try_from(current().next()?.partitions).ok()?,
            pins: pins.collect(),
        })
    }
}

/// Notes how many partitions are wanted; the kind's workers bring it about.
///
/// # Errors
/// The database's.
pub async fn set_partitions(pool: &PgPool, kind: JobKind, count: u16) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE routing SET partitions = $2 WHERE kind = $1",
        kind.as_str(),
        i32::from(count)
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Every line there is, of every kind and generation.
///
/// # Errors
/// The database's.
pub async fn lines(pool: &PgPool) -> Result<Vec<Partition>, sqlx::Error> {
    let rows =
        sqlx::query!("SELECT kind, generation, line FROM partition_leases").fetch_all(pool).await?;
    let lines = rows.into_iter().filter_map(|row| {
        let kind = JobKind::from_name(&row.kind)?;
        Some(Partition { kind, generation: row.generation, line: row.line.parse().ok()? })
    });
    Ok(lines.collect())
}

/// Its last message was consumed: everything before it is settled.
pub(super) async fn drained(pool: &Pool, line: Partition) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE partition_leases
         SET drained_at = clock_timestamp(), ended_at = COALESCE(ended_at, clock_timestamp())
         WHERE kind = $1 AND generation = $2 AND line = $3
           AND closed_at IS NOT NULL AND drained_at IS NULL",
        line.kind.as_str(),
        line.generation,
        line.line.to_string(),
    )
    .execute(pool)
    .await?;
    Ok(())
}
