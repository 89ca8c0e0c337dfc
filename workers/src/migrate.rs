//! The schema.

use std::sync::LazyLock;

use anyhow::ensure;
use sqlx::{
    PgConnection, PgPool,
    migrate::{Migrate, Migrator},
};

/// All migrations, embedded. Several processes may run them at once: sqlx takes a lock. What a newer
/// release has migrated stays as it is: [`migrate`] asks whether this one may run on it.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("../migrations");
    migrations.set_ignore_missing(true);
    migrations
});

/// Brings the schema to this version, or leaves it at a newer one that this version can run on.
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
    MIGRATIONS.run(pool).await?;
    Ok(())
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

/// Whether a migration of this program names it.
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
