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

use std::{collections::BTreeSet, sync::Arc};

use firstcome_shared::{
    broker::{
        connect::{Connection, SessionError},
        depth::{Depth, Gauge},
        topology::Lines,
    },
    job::JobKind,
    partition::{Line, Partition, Routing},
};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::{control::Control, lease::Lease};

/// Lines that one step deletes; the broker takes its time for each.
const RETIRED_AT_ONCE: usize = 8;

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

/// Restores the kind's lines, the first ones too, and takes every step towards the routing that is
/// wanted. `false` while another worker is at it.
pub(super) async fn advance(
    on: &mut PgConnection,
    kind: JobKind,
    broker: &Arc<Connection>,
    namespace: &str,
    control: &Control,
) -> Result<bool, StepError> {
    while let Some(mut locked) = lock(on, kind).await? {
        let state = State::load(&mut locked, kind).await?;
        state.restore(&mut locked, broker, namespace).await?;
        let stepped = state.step(&mut locked, broker, namespace, control).await?;
        locked.commit().await?;
        if !stepped {
            return Ok(true);
        }
    }
    Ok(false)
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

    /// Makes the queues that should be there and connects those that take jobs: after a broker has
    /// lost them, or somebody deleted one.
    async fn restore(
        &self,
        locked: &mut PgConnection,
        connection: &Connection,
        namespace: &str,
    ) -> Result<(), StepError> {
        let lines = Lines::open(connection, namespace).await?;
        for row in self.rows.iter().filter(|row| row.line.generation <= self.generation) {
            stay(locked).await?;
            lines.declare(row.line, row.capacity).await?;
            if row.is_closed {
                lines.unbind(row.line).await?;
            } else {
                lines.bind(row.line).await?;
            }
        }
        lines.close().await?;
        Ok(())
    }

    /// Takes the next step towards the routing that is wanted. `true` if there may be another one
    /// to take at once, after a commit.
    pub(super) async fn step(
        &self,
        locked: &mut PgConnection,
        connection: &Arc<Connection>,
        namespace: &str,
        control: &Control,
    ) -> Result<bool, StepError> {
        if self.rows.iter().any(|row| row.line.generation > self.generation) {
            self.switch(locked, connection, namespace).await?;
            return Ok(true);
        }
        if self.generation == 0 || self.wanted() != self.current() {
            self.plan(locked).await?;
            return Ok(true);
        }
        let openable = |row: &&Row| {
            !row.was_opened && !self.rows.iter().any(|older| older.feeds(row) && !older.is_drained)
        };
        let mut stepped = self.mark(locked, self.rows.iter().filter(openable), "opened").await?;
        for row in self.rows.iter().filter(|row| row.end_is_due && row.was_opened) {
            // A broker that does not take one does not take the others: with the next step perhaps.
            if !control.end_line(row.line.queue(namespace)).await {
                break;
            }
            stepped |= self.mark(locked, std::iter::once(row), "ended").await?;
        }
        self.retire(locked, connection, namespace, control).await?;
        Ok(stepped)
    }

    /// The lines, and the capacity of each.
    fn wanted(&self) -> BTreeSet<(Line, i32)> {
        let partitions = u16::try_from(self.partitions).unwrap_or(u16::MAX);
        let partitions = (0..partitions).map(Line::Partition);
        let lines = partitions.chain(self.pins.iter().copied().map(Line::Pin));
        lines.map(|line| (line, self.capacity)).collect()
    }

    fn current(&self) -> BTreeSet<(Line, i32)> {
        let current = self.rows.iter().filter(|row| row.line.generation == self.generation);
        current.map(|row| (row.line.line, row.capacity)).collect()
    }

    async fn plan(&self, locked: &mut PgConnection) -> Result<(), sqlx::Error> {
        let lines: Vec<String> = self.wanted().iter().map(|(line, _)| line.to_string()).collect();
        sqlx::query!(
            "INSERT INTO partition_leases (kind, generation, line, partitions, capacity)
             SELECT $1, $2, line, $3, $4 FROM UNNEST($5::text[]) AS lines (line)",
            self.kind.as_str(),
            self.generation + 1,
            self.partitions,
            self.capacity,
            &lines,
        )
        .execute(locked)
        .await?;
        Ok(())
    }

    async fn switch(
        &self,
        locked: &mut PgConnection,
        connection: &Connection,
        namespace: &str,
    ) -> Result<(), StepError> {
        let next = self.generation + 1;
        let lines = Lines::open(connection, namespace).await?;
        let of = |generation| self.rows.iter().filter(move |row| row.line.generation == generation);
        for row in of(next) {
            stay(locked).await?;
            lines.declare(row.line, row.capacity).await?;
        }
        for row in of(self.generation) {
            lines.unbind(row.line).await?;
        }
        for row in of(next) {
            lines.bind(row.line).await?;
        }
        lines.close().await?;
        sqlx::query!(
            "WITH closed AS (
                 UPDATE partition_leases SET closed_at = clock_timestamp()
                 WHERE kind = $1 AND generation < $2 AND closed_at IS NULL
             )
             UPDATE routing SET generation = $2 WHERE kind = $1",
            self.kind.as_str(),
            next,
        )
        .execute(locked)
        .await?;
        tracing::info!(kind = self.kind.as_str(), generation = next, "new lines take over");
        Ok(())
    }

    /// Stamps a step of these lines' lives; whether there were any.
    async fn mark(
        &self,
        locked: &mut PgConnection,
        rows: impl Iterator<Item = &Row>,
        step: &str,
    ) -> Result<bool, StepError> {
        let (generations, names): (Vec<i32>, Vec<String>) =
            rows.map(|row| (row.line.generation, row.line.line.to_string())).unzip();
        if names.is_empty() {
            return Ok(false);
        }
        sqlx::query!(
            "UPDATE partition_leases SET
                 opened_at = CASE $4 WHEN 'opened' THEN clock_timestamp() ELSE opened_at END,
                 ended_at = CASE $4 WHEN 'ended' THEN clock_timestamp() ELSE ended_at END
             FROM UNNEST($2::int[], $3::text[]) AS marked (g, l)
             WHERE kind = $1 AND generation = g AND line = l",
            self.kind.as_str(),
            &generations,
            &names,
            step,
        )
        .execute(locked)
        .await?;
        Ok(true)
    }

    /// Deletes lines that have been drained for a while, unless something came after all.
    async fn retire(
        &self,
        locked: &mut PgConnection,
        connection: &Arc<Connection>,
        namespace: &str,
        control: &Control,
    ) -> Result<(), StepError> {
        let due = self.rows.iter().filter(|row| row.retirement_is_due);
        let due: Vec<&Row> = due.take(RETIRED_AT_ONCE).collect();
        if due.is_empty() {
            return Ok(());
        }
        let mut gauge = Gauge::open(Arc::clone(connection)).await?;
        let lines = Lines::open(connection, namespace).await?;
        for row in due {
            let queue = row.line.queue(namespace);
            lines.unbind(row.line).await?;
            // A broker that cannot tell says 0: only with this in it, 1 means that nothing else is.
            if !control.canary(queue.clone()).await.unwrap_or(false) {
                break;
            }
            match gauge.depth(&queue).await? {
                Some(Depth { ready: 0, .. }) => continue,
                Some(Depth { ready: 2.., .. }) => {
                    // Routed before the switch, arrived long after it: once more from the last message.
                    tracing::warn!(queue, "a drained line is not empty, opening it again");
                    self.reopen(locked, row.line).await?;
                    continue;
                }
                Some(Depth { ready: 1, .. }) | None => {}
            }
            lines.delete(row.line).await?;
            sqlx::query!(
                "WITH forgotten AS (
                     DELETE FROM line_reports WHERE kind = $1 AND generation = $2 AND line = $3
                 )
                 DELETE FROM partition_leases WHERE kind = $1 AND generation = $2 AND line = $3",
                self.kind.as_str(),
                row.line.generation,
                row.line.line.to_string(),
            )
            .execute(&mut *locked)
            .await?;
        }
        lines.close().await?;
        Ok(())
    }

    async fn reopen(&self, locked: &mut PgConnection, line: Partition) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE partition_leases SET ended_at = NULL, drained_at = NULL
             WHERE kind = $1 AND generation = $2 AND line = $3",
            line.kind.as_str(),
            line.generation,
            line.line.to_string(),
        )
        .execute(locked)
        .await?;
        Ok(())
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
pub(super) async fn drained(pool: &PgPool, line: Partition) -> Result<(), sqlx::Error> {
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

/// Keeps a transaction from idling too long while the broker works.
async fn stay(locked: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT").execute(locked).await?;
    Ok(())
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<StepError> for SessionError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Session(error) => error,
            StepError::Database(error) => Self::Unusable(format!("routing: {error}")),
        }
    }
}

impl From<lapin::Error> for StepError {
    fn from(error: lapin::Error) -> Self {
        Self::Session(error.into())
    }
}
