//! Brings the database's schema to this release's version, and tells whether a newer one was there.

use std::{sync::LazyLock, time::Duration};

use anyhow::ensure;
use firstcome_broker::retry::Retry;
use sqlx::{
    PgConnection, PgPool,
    migrate::{Migrate, MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use tokio::time::{Instant, sleep};

/// All migrations, embedded. Several processes may run them at once: sqlx takes a lock. What a newer
/// release has migrated stays as it is: [`migrate`] asks whether this one may run on it.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("../migrations");
    migrations.set_ignore_missing(true);
    migrations
});

/// How long a migration waits for a table that is in use: for so long others wait behind it.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '1s'";
/// The first and the longest pause between two attempts, in which those others go on.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// The longest time from the first attempt at the migrations to the last.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(600);

/// Brings the schema to this version, or leaves it at a newer one that this version can run on. A migration
/// that meets a table in use is tried again.
///
/// # Errors
/// The database's; a schema that another version has changed, or that is too new.
pub async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    let oldest = oldest_program(pool).await?.unwrap_or_default();
    ensure!(
        newest >= oldest,
        "this release is too old for the database: it knows the migrations up to {newest}, \
         and the schema needs a release that knows {oldest}"
    );
    let options = PgConnectOptions::clone(&pool.connect_options());
    let (began, mut retry) = (Instant::now(), Retry::new(RETRY_DELAYS.0, RETRY_DELAYS.1));
    loop {
        // A new connection each time: sqlx's own lock ends with it.
        let own = pool.options().clone().max_connections(1).connect_lazy_with(options.clone());
        let mut connection = own.acquire().await?;
        // Not where the connection begins: a pooler may drop that.
        sqlx::raw_sql(LOCK_TIMEOUT).execute(&mut *connection).await?;
        match MIGRATIONS.run(&mut *connection).await {
            Err(error) if is_locked(&error) && began.elapsed() < MIGRATE_TIMEOUT => {
                let delay = retry.next_delay();
                tracing::warn!(%error, ?delay, "what is to be migrated is in use, trying again");
                drop(connection);
                own.close().await;
                sleep(delay).await;
            }
            done => return Ok(done?),
        }
    }
}

/// The migration that the oldest program knows that may run on this schema; `None` where nobody has
/// said so yet.
async fn oldest_program(pool: &PgPool) -> Result<Option<i64>, sqlx::Error> {
    const UNDEFINED_TABLE: &str = "42P01";
    let oldest = sqlx::query_scalar!("SELECT oldest_program FROM schema_compatibility")
        .fetch_optional(pool)
        .await;
    match oldest {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNDEFINED_TABLE) => {
            Ok(None)
        }
        other => other,
    }
}

/// Whether a migration of this program names the constraint.
pub(crate) fn mentions(constraint: &str) -> bool {
    MIGRATIONS.iter().any(|migration| migration.sql.as_str().contains(constraint))
}

/// Whether a newer release has migrated this database.
///
/// # Errors
/// The database's.
pub(crate) async fn is_newer(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let applied = connection.list_applied_migrations(&MIGRATIONS.table_name).await?;
    Ok(applied.iter().any(|applied| !MIGRATIONS.version_exists(applied.version)))
}

/// Whether a lock was not to be had in time, or two waited for each other.
fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error
        .as_database_error()
        .is_some_and(|error| matches!(error.code().as_deref(), Some("55P03" | "40P01")))
}
