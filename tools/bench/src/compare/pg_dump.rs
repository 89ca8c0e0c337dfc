//! A backup that is made meanwhile.

use std::{path::Path, time::Duration};

use anyhow::bail;
use firstcome_rig::Process;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use super::{databases::Database, programs::in_path};

const NAME: &str = "pg_dump";
/// How long it may take until it copies a table: it asks for the schema first.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One that is running; killed when dropped.
pub(super) struct PgDump {
    process: Process,
}

impl PgDump {
    /// Starts one of this database, which is written nowhere; returns when it copies rows, or has already ended.
    pub(super) async fn start(database: &Database) -> anyhow::Result<Self> {
        let program = program(&database.pool).await?;
        let log = database.settings.log(NAME);
        let url = format!("--dbname={}", database.settings.database_url);
        // A device cannot be synced.
        let arguments = ["--format=custom", "--file=/dev/null", "--no-sync", &url];
        let mut process = Process::start(&program, &arguments, [], &log)?;
        let give_up = Instant::now() + START_DEADLINE;
        loop {
            match process.ended()? {
                Some(status) if !status.success() => {
                    bail!("{NAME} ended with {status}; see {}", log.display())
                }
                Some(_) => return Ok(Self { process }),
                None => {}
            }
            if copies(&database.pool).await? {
                return Ok(Self { process });
            }
            if Instant::now() > give_up {
                bail!("{NAME} copies nothing after {START_DEADLINE:?}; see {}", log.display());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends it; tells whether it was still running.
    pub(super) async fn stop(mut self, pool: &PgPool) -> anyhow::Result<bool> {
        let runs = self.process.ended()?.is_none();
        if runs {
            self.process.kill().await?;
        }
        // Its session finds out when it next writes.
        sqlx::query(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = $1",
        )
        .bind(NAME)
        .execute(pool)
        .await?;
        Ok(runs)
    }
}

async fn copies(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name = $1 AND query ILIKE 'COPY%')",
    )
    .bind(NAME)
    .fetch_one(pool)
    .await
}

/// The server's own, as one that is older refuses it; else the one in the PATH.
async fn program(pool: &PgPool) -> anyhow::Result<String> {
    let folder: Option<String> =
        sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
            .fetch_optional(pool)
            .await
            // A user without that privilege.
            .unwrap_or_default();
    let beside = folder.map(|folder| Path::new(&folder).join(NAME));
    let found = beside.filter(|program| program.is_file()).or_else(|| in_path(NAME));
    match found.as_deref().and_then(Path::to_str) {
        Some(program) => Ok(program.to_owned()),
        None => bail!("no {NAME} beside the server or in the PATH"),
    }
}
