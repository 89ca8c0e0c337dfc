//! What happens to PostgreSQL.

use std::fmt;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::world::World;

/// More segments of the write-ahead log than are kept on a small disk (`max_wal_size` in scripts/services).
const SEGMENTS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatabaseFault {
    Killed,
    Restarted,
    BackendsEnded,
    ReadOnly,
    ConnectionsExhausted,
    /// Nothing can be added to a table.
    DiskFull,
    /// And none to the write-ahead log, which the server does not survive.
    DiskFullForWal,
}

impl DatabaseFault {
    pub(super) const ALL: [Self; 7] = [
        Self::Killed,
        Self::Restarted,
        Self::BackendsEnded,
        Self::ReadOnly,
        Self::ConnectionsExhausted,
        Self::DiskFull,
        Self::DiskFullForWal,
    ];

    pub(super) const fn needs_small_disk(self) -> bool {
        matches!(self, Self::DiskFull | Self::DiskFullForWal)
    }

    pub(super) async fn strike(self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Killed => {
                world.services.call(&["kill", "postgres"]).await?;
            }
            Self::Restarted => {
                world.services.call(&["stop", "postgres"]).await?;
            }
            Self::BackendsEnded => end_backends(world).await?,
            Self::ReadOnly => {
                set_read_only(world, true).await?;
                end_backends(world).await?;
            }
            Self::ConnectionsExhausted => {
                let mut held = take_all(world).await;
                // Those of the programs, too; they find none again.
                if let Some(ours) = held.last_mut() {
                    sqlx::query(OTHERS).execute(ours).await?;
                }
                held.extend(take_all(world).await);
                world.hold(held);
            }
            Self::DiskFull => fill(world).await?,
            Self::DiskFullForWal => {
                fill(world).await?;
                end_segments(world).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn mend(self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Killed | Self::Restarted => {
                world.services.call(&["start", "postgres"]).await?;
            }
            Self::BackendsEnded => {}
            Self::ReadOnly => {
                set_read_only(world, false).await?;
                end_backends(world).await?;
            }
            Self::ConnectionsExhausted => {
                for connection in world.let_go() {
                    let _ = connection.close().await;
                }
            }
            Self::DiskFull | Self::DiskFullForWal => {
                world.services.call(&["free", "postgres"]).await?;
                // If it has stopped.
                world.services.call(&["start", "postgres"]).await?;
            }
        }
        Ok(())
    }
}

/// Every connection of a program to this database.
const OTHERS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name LIKE 'firstcome-%'";

async fn end_backends(world: &World) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&world.database_url).await?;
    sqlx::query(OTHERS).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// As many connections as the server gives.
async fn take_all(world: &World) -> Vec<PgConnection> {
    let mut taken = Vec::new();
    while let Ok(connection) = PgConnection::connect(&world.database_url).await {
        taken.push(connection);
    }
    taken
}

async fn fill(world: &World) -> anyhow::Result<()> {
    world.services.call(&["fill", "postgres"]).await.map(drop)
}

/// Uses up the segments of the write-ahead log that have room on the disk, as a busy server would in minutes.
async fn end_segments(world: &World) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&world.database_url).await?;
    for _ in 0..SEGMENTS {
        let end = "SELECT pg_logical_emit_message(false, 'chaos', 'x'); SELECT pg_switch_wal()";
        if sqlx::raw_sql(end).execute(&mut connection).await.is_err() {
            return Ok(());
        }
    }
    anyhow::bail!("there is room for {SEGMENTS} segments of the write-ahead log")
}

/// As on a primary that was demoted: whoever connects from now on may only read.
async fn set_read_only(world: &World, is: bool) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&world.database_url).await?;
    let database: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await?;
    // Safe: the campaign has named the database itself.
    let statement = format!(
        "BEGIN READ WRITE; ALTER DATABASE {database} SET default_transaction_read_only = {is}; COMMIT"
    );
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

impl fmt::Display for DatabaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "PostgreSQL: killed",
            Self::Restarted => "PostgreSQL: restarted",
            Self::BackendsEnded => "PostgreSQL: all sessions ended",
            Self::ReadOnly => "PostgreSQL: read-only",
            Self::ConnectionsExhausted => "PostgreSQL: no connection left",
            Self::DiskFull => "PostgreSQL: disk full",
            Self::DiskFullForWal => "PostgreSQL: disk full, for the write-ahead log, too",
        })
    }
}
