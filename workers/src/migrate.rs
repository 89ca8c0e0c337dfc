//! The schema.

use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};

/// All migrations, embedded. Several processes may run them at once: sqlx takes a lock.
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Brings the schema to this version.
///
/// # Errors
/// The database's, or a schema that another version has changed.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATIONS.run(pool).await
}
