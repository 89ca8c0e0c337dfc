//! The steps: see the parent.

use std::{collections::BTreeSet, sync::Arc};

use firstcome_shared::{
    broker::{
        connect::{Connection, SessionError},
        depth::{Depth, Gauge},
        topology::Lines,
    },
    partition::{Line, Partition},
};
use sqlx::PgConnection;

use super::{Row, State};
use crate::runtime::control::Control;

/// Lines that one step deletes; the broker takes its time for each.
const RETIRED_AT_ONCE: usize = 8;

impl State {
    /// Makes the queues that should be there and connects those that take jobs, where a broker has
    /// lost them or somebody deleted one.
    pub(in crate::runtime) async fn restore(
        &self,
        locked: &mut PgConnection,
        connection: &Connection,
        namespace: &str,
    ) -> Result<(), StepError> {
        let mut lines = Lines::open(connection, namespace).await?;
        for row in self.rows.iter().filter(|row| row.line.generation <= self.generation) {
            stay(locked).await?;
            let mended = lines.mend(connection, row.line, row.capacity, !row.is_closed).await;
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
    pub(in crate::runtime) async fn step(
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
        // Committed before anything is asked of the broker, which may take no messages at present.
        if self.mark(locked, self.rows.iter().filter(openable), "opened").await? {
            return Ok(true);
        }
        let mut stepped = false;
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
                     DELETE FROM line_reports WHERE kind = $1 AND generation = $2 AND line = $3
                 ), arrived AS (
                     DELETE FROM line_arrivals WHERE kind = $1 AND generation = $2 AND line = $3
                 ), settled AS (
                     DELETE FROM line_progress WHERE kind = $1 AND generation = $2 AND line = $3
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

/// Keeps a transaction from idling too long while the broker works.
async fn stay(locked: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT").execute(locked).await?;
    Ok(())
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub(in crate::runtime) enum StepError {
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
