//! The schema.

use std::time::Duration;

use firstcome_shared::retry::Retry;
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use tokio::time::{Instant, sleep};

/// All migrations, embedded. Several processes may run them at once: sqlx takes a lock.
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How long a migration waits for a table that is in use: for so long others wait behind it.
const LOCK_TIMEOUT: &str = "1s";
/// Pauses between attempts, in which those others go on.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// How long it is tried.
const PATIENCE: Duration = Duration::from_secs(600);

/// Brings the schema to this version. A migration that meets a table in use is tried again.
///
/// # Errors
/// The database's, or a schema that another version has changed.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let options = PgConnectOptions::clone(&pool.connect_options());
    let options = options.options([("lock_timeout", LOCK_TIMEOUT)]);
    let (began, mut retry) = (Instant::now(), Retry::new(PAUSES.0, PAUSES.1));
    loop {
        // A new connection each time: sqlx's own lock ends with it.
        let own = pool.options().clone().max_connections(1).connect_lazy_with(options.clone());
        match MIGRATIONS.run(&own).await {
            Err(error) if is_locked(&error) && began.elapsed() < PATIENCE => {
                let delay = retry.next_delay();
                tracing::warn!(%error, ?delay, "what is to be migrated is in use, trying again");
                own.close().await;
                sleep(delay).await;
            }
            done => return done,
        }
    }
}

/// Whether a lock was not to be had in time.
fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"))
}
