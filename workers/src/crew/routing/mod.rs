//! Brings about the routing that operators want: how many partitions, and which keys have a line of
//! their own.
//!
//! A change replaces the whole generation of lines, in steps that any worker of the family takes or
//! repeats, one at a time under the family's advisory lock:
//! 1. *Plan*: store the next generation's lines.
//! 2. *Switch*: make their queues, take the old ones out of the exchange, put the new ones in. A
//!    publisher that does not know yet gets its messages back. Nothing is in the new lines that
//!    is not later than all that is in the old ones.
//! 3. *End*: put a last message into each old queue. Whoever consumes it has settled all before it,
//!    so the line is drained.
//! 4. *Open*: a new line is consumed when all old lines that could hold its keys are drained, so
//!    that the order within a key survives the change.
//! 5. *Retire*: delete what is drained.
//!
//! Queues that are named in the former way ([`Naming::Kind`]) are replaced like this, too, as soon as no worker
//! is alive that knows no other way; and come back for one that joins after all.
//!
//! A change that would make keys wait for a backlog that they had nothing to do with is put off until that
//! is short. No step waits for a line's row, which a batch may hold.

mod barrier;
mod steps;

pub(crate) use steps::StepError;

use std::{collections::BTreeMap, time::Duration};

use firstcome_contract::{
    family::Family,
    line::{Line, LineName, Naming, Routing},
};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::line::lease::Lease;

/// The longest that a job may have waited in a line that others wait for: while one has waited longer, a
/// change of the routing that would make them wait is put off.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// A row of `partition_leases`: a line, its lease and the steps that it has taken.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) line: Line,
    pub(crate) owner: Option<Uuid>,
    /// Workers consume from it: it was opened, and is not drained for long.
    pub(crate) is_open: bool,
    was_opened: bool,
    epoch: i64,
    partitions: i32,
    /// What the queue was declared with; it cannot change.
    capacity: i32,
    is_drained: bool,
    /// One of its jobs has waited for longer than [`MAX_WAIT`].
    is_long: bool,
    /// Its last message is to be published now.
    end_is_due: bool,
    /// Its queue is to be deleted now.
    retirement_is_due: bool,
}

impl Row {
    /// The lease that `owner` has on it.
    pub(crate) fn lease(&self, owner: Uuid) -> Lease {
        Lease { line: self.line, owner, epoch: self.epoch }
    }
}

/// The routing of a family: what is wanted and what is.
#[derive(Debug)]
pub(crate) struct State {
    family: Family,
    /// After what new queues are named: as every worker that is alive knows.
    naming: Naming,
    partitions: i32,
    capacity: i32,
    /// The generation that takes new jobs.
    generation: i32,
    pins: Vec<i64>,
    pub(crate) rows: Vec<Row>,
}

/// The family's lock, for one transaction; `None` while another worker has it. Its name is the former one, by which
/// workers of the release before this one take it.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    family: Family,
) -> Result<Option<Transaction<'_, Postgres>>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // A batch may hold a line's row for as long as its database connection is frozen.
    let locked = sqlx::query_scalar!(
        r#"SELECT set_config('lock_timeout', '2s', true) IS NOT NULL
                  -- Who does not say so is of the release before this one.
                  AND set_config('firstcome.naming', 'family', true) IS NOT NULL
                  AND pg_try_advisory_xact_lock(hashtext('firstcome.routing.' || $1)) AS "locked!""#,
        family.former_name()
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok(locked.then_some(transaction))
}

impl State {
    /// Reads the family's routing and all of its lines: some dozens of rows.
    pub(crate) async fn load(
        connection: &mut PgConnection,
        family: Family,
    ) -> Result<Self, sqlx::Error> {
        // Whatever it serves: a worker looks after the lines of every family.
        let routing = sqlx::query!(
            r#"SELECT partitions, line_capacity, generation,
                      EXISTS (SELECT FROM workers WHERE naming = 'kind' AND expires_at > clock_timestamp()) AS "has_older_workers!"
               FROM routing WHERE family = $1"#,
            family.as_str()
        )
        .fetch_one(&mut *connection)
        .await?;
        let pins = sqlx::query_scalar!(
            "SELECT key FROM pins WHERE family = $1 ORDER BY key",
            family.as_str()
        )
        .fetch_all(&mut *connection)
        .await?;
        let rows = sqlx::query!(
            r#"SELECT l.generation, line, naming, l.partitions, capacity, owner, epoch,
                      opened_at IS NOT NULL AS "was_opened!",
                      (opened_at IS NOT NULL AND (drained_at IS NULL OR drained_at > clock_timestamp() - interval '15 seconds')) AS "is_open!",
                      drained_at IS NOT NULL AS "is_drained!",
                      (SELECT COALESCE(sum(jobs), 0) FROM line_arrivals AS a
                       WHERE a.family = l.family AND a.generation = l.generation AND a.line = l.line
                         AND last_at < clock_timestamp() - make_interval(secs => $2))
                      + COALESCE((SELECT folded FROM line_reports AS r WHERE r.family = l.family AND r.generation = l.generation AND r.line = l.line), 0)
                      > COALESCE((SELECT settled FROM line_progress AS p WHERE p.family = l.family AND p.generation = l.generation AND p.line = l.line), 0) AS "is_long!",
                      (drained_at IS NULL AND l.generation < routing.generation
                       AND COALESCE(closed_at, switched_at) < clock_timestamp() - interval '1 second'
                       -- Once more if it got lost with its queue.
                       AND (ended_at IS NULL OR ended_at < clock_timestamp() - interval '30 seconds')) IS TRUE AS "end_is_due!",
                      -- An API of the release before this one that finds none of the queues that it knows counts itself
                      -- as unready: some are left to it for as long as a deployment rolls.
                      (drained_at < clock_timestamp() - CASE naming WHEN 'kind' THEN interval '1 hour' ELSE interval '30 seconds' END
                       AND NOT EXISTS (SELECT FROM workers WHERE id = owner AND expires_at > clock_timestamp())) IS TRUE AS "retirement_is_due!"
               FROM partition_leases AS l JOIN routing USING (family) WHERE family = $1 ORDER BY l.generation, line"#,
            family.as_str(),
            MAX_WAIT.as_secs_f64(),
        )
        .fetch_all(connection)
        .await?;
        let rows = rows.into_iter().filter_map(|row| {
            let (name, naming) = (row.line.parse().ok()?, Naming::from_name(&row.naming)?);
            Some(Row {
                line: Line { family, generation: row.generation, name, naming },
                partitions: row.partitions,
                capacity: row.capacity,
                owner: row.owner,
                epoch: row.epoch,
                is_open: row.is_open,
                was_opened: row.was_opened,
                is_drained: row.is_drained,
                is_long: row.is_long,
                end_is_due: row.end_is_due,
                retirement_is_due: row.retirement_is_due,
            })
        });
        Ok(Self {
            family,
            naming: if routing.has_older_workers { Naming::Kind } else { Naming::Family },
            partitions: routing.partitions,
            capacity: routing.line_capacity,
            generation: routing.generation,
            pins,
            rows: rows.collect(),
        })
    }

    /// Whether a worker of the release before this one is alive, which knows one naming only.
    pub(crate) fn has_older_workers(&self) -> bool {
        self.naming == Naming::Kind
    }

    /// Names new queues as the present ones, if there are any.
    pub(crate) fn keep_naming(&mut self) {
        let current = self.rows.iter().find(|row| row.line.generation == self.generation);
        self.naming = current.map_or(self.naming, |row| row.line.naming);
    }

    /// How new jobs are dealt out at present; `None` before the first worker made lines.
    pub(crate) fn routing(&self) -> Option<Routing> {
        self.routings().remove(&self.generation)
    }

    /// How jobs were and are dealt out, by generation. A line that is deleted since is not missed: what
    /// could have stood in it could have stood in another, for all we know.
    fn routings(&self) -> BTreeMap<i32, Routing> {
        let mut routings = BTreeMap::new();
        for row in &self.rows {
            let Ok(partitions) = u16::try_from(row.partitions) else { continue };
            let generation = row.line.generation;
            let routing = routings.entry(generation).or_insert_with(|| Routing {
                generation,
                partitions,
                pins: BTreeMap::new(),
                naming: row.line.naming,
            });
            if let LineName::Pin(key) = row.line.name {
                // Numbers matter in job ids only.
                routing.pins.insert(key, 0);
            }
        }
        routings
    }
}

/// Notes how many partitions are wanted; the family's workers bring it about.
///
/// # Errors
/// The database's.
pub async fn set_partitions(pool: &PgPool, family: Family, count: u16) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE routing SET partitions = $2 WHERE family = $1",
        family.as_str(),
        i32::from(count)
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Every line there is, of every family and generation.
///
/// # Errors
/// The database's.
pub async fn lines(pool: &PgPool) -> Result<Vec<Line>, sqlx::Error> {
    let rows = sqlx::query!("SELECT family, generation, line, naming FROM partition_leases")
        .fetch_all(pool)
        .await?;
    let lines = rows.into_iter().filter_map(|row| {
        let (family, naming) = (Family::from_name(&row.family)?, Naming::from_name(&row.naming)?);
        Some(Line { family, generation: row.generation, name: row.line.parse().ok()?, naming })
    });
    Ok(lines.collect())
}
