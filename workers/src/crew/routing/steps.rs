//! The steps by which a new routing replaces the one before; [the parent](super) says which and why.

use std::{collections::BTreeSet, sync::Arc};

use firstcome_broker::{
    connect::{Connection, SessionError},
    depth::{Depth, Gauge},
    topology::Lines,
};
use firstcome_contract::line::{Line, LineName, Naming, Routing};
use firstcome_process::fault_point;
use sqlx::PgConnection;

use super::{Row, State, barrier};
use crate::crew::control::Control;

/// The most lines that one step deletes; the broker takes its time for each.
const MAX_RETIRED: usize = 8;

impl State {
    /// Makes the queues that should be there and connects those that take jobs, where a broker has
    /// lost them or somebody deleted one.
    pub(crate) async fn restore(
        &self,
        locked: &mut PgConnection,
        connection: &Connection,
        namespace: &str,
    ) -> Result<(), StepError> {
        let mut lines = Lines::open(connection, namespace).await?;
        for row in self.rows.iter().filter(|row| row.line.generation <= self.generation) {
            stay(locked).await?;
            let takes_jobs = row.line.generation == self.generation;
            let mended = lines.mend(connection, row.line, row.capacity, takes_jobs).await;
            if let Err(error) = mended {
                if !connection.status().connected() {
                    return Err(error.into());
                }
                // It is left for the next look, its neighbours are not.
                let queue = row.line.queue(namespace);
                tracing::warn!(queue, %error, "a line cannot be made again");
            }
        }
        lines.close().await?;
        Ok(())
    }

    /// Takes the next step towards the routing that is wanted. `true` if there may be another one
    /// to take at once, after a commit.
    pub(crate) async fn step(
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
        let wanted = self.wanted();
        if self.generation == 0 || self.lines_of(&wanted) != self.current() {
            self.plan(locked, &wanted).await?;
            return Ok(true);
        }
        // Committed before anything is asked of the broker, which may take no messages at present.
        if self.mark(locked, self.openable().into_iter(), "opened").await? {
            return Ok(true);
        }
        let mut stepped = false;
        for row in self.rows.iter().filter(|row| row.end_is_due && row.was_opened) {
            // A batch holds it: later.
            if !self.is_free(locked, row).await? {
                continue;
            }
            // A broker that does not take one does not take the others: with the next step perhaps.
            if !control.end_line(row.line.queue(namespace)).await {
                break;
            }
            stepped |= self.mark(locked, std::iter::once(row), "ended").await?;
        }
        self.retire(locked, connection, namespace, control).await?;
        Ok(stepped)
    }

    /// The lines that no line with older jobs of their keys holds back any more.
    fn openable(&self) -> Vec<&Row> {
        let routings = self.routings();
        let dealt = |row: &Row| Some((row.line.name, routings.get(&row.line.generation)?));
        let is_fed = |row: &Row, older: &Row| {
            older.line.generation < row.line.generation
                && !older.is_drained
                && dealt(older)
                    .zip(dealt(row))
                    .is_none_or(|(older, row)| barrier::feeds(self.family, older, row))
        };
        let is_openable =
            |row: &&Row| !row.was_opened && !self.rows.iter().any(|older| is_fed(row, older));
        self.rows.iter().filter(is_openable).collect()
    }

    /// What is still to come of a change of the routing, for people; `None` where there is nothing.
    pub(crate) fn pending(&self) -> Option<String> {
        let count =
            |is: fn(&Self, &Row) -> bool| self.rows.iter().filter(|row| is(self, row)).count();
        let draining =
            count(|state, row| row.line.generation < state.generation && !row.is_drained);
        let unopened =
            count(|state, row| row.line.generation == state.generation && !row.was_opened);
        if self.lines_of(&self.asked_for()) != self.current() {
            Some("other partitions or pins are asked for than there are".to_owned())
        } else if draining + unopened > 0 {
            Some(format!(
                "{draining} lines of before still drain, {unopened} new ones wait for them"
            ))
        } else {
            None
        }
    }

    /// The routing that operators ask for.
    fn asked_for(&self) -> Routing {
        Routing {
            generation: self.generation + 1,
            partitions: u16::try_from(self.partitions).unwrap_or(u16::MAX),
            pins: self.pins.iter().map(|key| (*key, 0)).collect(),
            naming: self.naming,
        }
    }

    /// The routing that is wanted, as far as it can be brought about now.
    fn wanted(&self) -> Routing {
        let wanted = self.asked_for();
        let routings = self.routings();
        let Some(current) = routings.get(&self.generation) else { return wanted };
        if self.lines_of(&wanted) == self.current() {
            return wanted;
        }
        let long = self.rows.iter().filter(|row| row.is_long && !row.is_drained);
        let long: Vec<(LineName, &Routing)> = long
            .filter_map(|row| Some((row.line.name, routings.get(&row.line.generation)?)))
            .collect();
        // A line waits for its own backlog alone, however its queue is named.
        let feasible = barrier::feasible(self.family, current, &wanted, &long);
        Routing { naming: self.naming, ..feasible }
    }

    /// The lines of this routing, each with its naming and its capacity in messages.
    fn lines_of(&self, routing: &Routing) -> BTreeSet<(LineName, Naming, i32)> {
        routing.lines().map(|line| (line, routing.naming, self.capacity)).collect()
    }

    fn current(&self) -> BTreeSet<(LineName, Naming, i32)> {
        let current = self.rows.iter().filter(|row| row.line.generation == self.generation);
        current.map(|row| (row.line.name, row.line.naming, row.capacity)).collect()
    }

    async fn plan(&self, locked: &mut PgConnection, wanted: &Routing) -> Result<(), sqlx::Error> {
        let lines: Vec<String> = wanted.lines().map(|line| line.to_string()).collect();
        sqlx::query!(
            "INSERT INTO partition_leases (family, generation, line, partitions, capacity, naming)
             SELECT $1, $2, line, $3, $4, $6 FROM UNNEST($5::text[]) AS lines (line)",
            self.family.as_str(),
            self.generation + 1,
            i32::from(wanted.partitions),
            self.capacity,
            &lines,
            wanted.naming.as_str(),
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
        // First what can fail: once the broker knows, the database must follow.
        sqlx::query!(
            "UPDATE routing SET generation = $2, switched_at = clock_timestamp() WHERE family = $1",
            self.family.as_str(),
            next,
        )
        .execute(&mut *locked)
        .await?;
        // No publisher knows their keys before this is committed.
        for row in of(next) {
            lines.bind(row.line).await?;
        }
        // From here until then publishers get their messages back: nothing else is done.
        for row in of(self.generation) {
            lines.unbind(row.line).await?;
        }
        lines.close().await?;
        fault_point::pass(fault_point::MID_SWITCH);
        sqlx::query!(
            "WITH free AS (
                 SELECT family, generation, line FROM partition_leases
                 WHERE family = $1 AND generation < $2 AND closed_at IS NULL
                 FOR UPDATE SKIP LOCKED
             )
             UPDATE partition_leases AS closed SET closed_at = clock_timestamp() FROM free
             WHERE closed.family = free.family AND closed.generation = free.generation AND closed.line = free.line",
            self.family.as_str(),
            next,
        )
        .execute(locked)
        .await?;
        tracing::info!(family = self.family.as_str(), generation = next, "new lines take over");
        Ok(())
    }

    /// Whether nobody holds the line's row; now we do.
    async fn is_free(&self, locked: &mut PgConnection, row: &Row) -> Result<bool, sqlx::Error> {
        let free = sqlx::query!(
            "SELECT epoch FROM partition_leases WHERE family = $1 AND generation = $2 AND line = $3
             FOR UPDATE SKIP LOCKED",
            self.family.as_str(),
            row.line.generation,
            row.line.name.to_string(),
        )
        .fetch_optional(locked)
        .await?;
        Ok(free.is_some())
    }

    /// Stamps a step of these lines' lives; whether there were any.
    async fn mark(
        &self,
        locked: &mut PgConnection,
        rows: impl Iterator<Item = &Row>,
        step: &str,
    ) -> Result<bool, StepError> {
        let (generations, names): (Vec<i32>, Vec<String>) =
            rows.map(|row| (row.line.generation, row.line.name.to_string())).unzip();
        if names.is_empty() {
            return Ok(false);
        }
        sqlx::query!(
            "UPDATE partition_leases SET
                 opened_at = CASE $4 WHEN 'opened' THEN clock_timestamp() ELSE opened_at END,
                 ended_at = CASE $4 WHEN 'ended' THEN clock_timestamp() ELSE ended_at END,
                 closed_at = CASE $4 WHEN 'ended' THEN COALESCE(closed_at, clock_timestamp()) ELSE closed_at END
             FROM UNNEST($2::int[], $3::text[]) AS marked (g, l)
             WHERE family = $1 AND generation = g AND line = l",
            self.family.as_str(),
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
        let due: Vec<&Row> = due.take(MAX_RETIRED).collect();
        if due.is_empty() {
            return Ok(());
        }
        let mut gauge = Gauge::open(Arc::clone(connection)).await?;
        let lines = Lines::open(connection, namespace).await?;
        for row in due {
            let queue = row.line.queue(namespace);
            lines.unbind(row.line).await?;
            // A broker that cannot tell says 0: only with this in it, 1 means that nothing else is.
            if !control.reaches(queue.clone()).await {
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
                     DELETE FROM line_reports WHERE family = $1 AND generation = $2 AND line = $3
                 ), arrived AS (
                     DELETE FROM line_arrivals WHERE family = $1 AND generation = $2 AND line = $3
                 ), settled AS (
                     DELETE FROM line_progress WHERE family = $1 AND generation = $2 AND line = $3
                 )
                 DELETE FROM partition_leases WHERE family = $1 AND generation = $2 AND line = $3",
                self.family.as_str(),
                row.line.generation,
                row.line.name.to_string(),
            )
            .execute(&mut *locked)
            .await?;
        }
        lines.close().await?;
        Ok(())
    }

    async fn reopen(&self, locked: &mut PgConnection, line: Line) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE partition_leases SET ended_at = NULL, drained_at = NULL
             WHERE family = $1 AND generation = $2 AND line = $3",
            line.family.as_str(),
            line.generation,
            line.name.to_string(),
        )
        .execute(locked)
        .await?;
        Ok(())
    }
}

/// Keeps a transaction from idling too long while the broker works.
async fn stay(locked: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT").execute(locked).await?;
    Ok(())
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
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
