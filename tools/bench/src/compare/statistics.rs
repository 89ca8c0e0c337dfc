//! Statistics that PostgreSQL plans by, as they should not be.

use anyhow::{Context, ensure};
use sqlx::AssertSqlSafe;

use super::databases::Database;

/// The tables and their indexes.
const OURS: &str =
    "(SELECT relid FROM pg_stat_user_tables UNION SELECT indexrelid FROM pg_stat_user_indexes)";

/// What is the matter with them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Statistics {
    /// As of a table's first row: there was one, on one page, and every column held one value. (None on one page would be
    /// worse: of a table that is taken for empty the planner reads all rather than look a row up.)
    Wrong,
    /// As after `pg_upgrade`: nothing is known.
    Absent,
}

impl Statistics {
    /// How many rows a table has, as the planner sees it.
    const fn rows(self) -> i32 {
        match self {
            Self::Wrong => 1,
            Self::Absent => -1,
        }
    }

    const fn statements(self) -> [&'static str; 2] {
        match self {
            Self::Wrong => [
                "UPDATE pg_statistic SET stanullfrac = 0, stadistinct = 1, stakind1 = 0, stakind2 = 0, stakind3 = 0,
                                         stakind4 = 0, stakind5 = 0
                 WHERE starelid IN ",
                "UPDATE pg_class SET reltuples = 1, relpages = 1, relallvisible = 0 WHERE oid IN ",
            ],
            Self::Absent => [
                "DELETE FROM pg_statistic WHERE starelid IN ",
                "UPDATE pg_class SET reltuples = -1, relpages = 0, relallvisible = 0 WHERE oid IN ",
            ],
        }
    }

    /// Makes them so, and keeps autovacuum from mending it. Who is connected may still have plans of before.
    pub(super) async fn set(self, database: &Database) -> anyhow::Result<()> {
        database.set_autovacuum(false).await?;
        for statement in self.statements() {
            sqlx::raw_sql(AssertSqlSafe(format!("{statement}{OURS}")))
                .execute(&database.pool)
                .await
                .context("cannot change statistics (a superuser can)")?;
        }
        self.are_still(database).await
    }

    /// Nobody has analyzed or vacuumed a table since.
    pub(super) async fn are_still(self, database: &Database) -> anyhow::Result<()> {
        let known: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_class JOIN pg_stat_user_tables USING (relname)
             WHERE pg_class.oid = relid AND reltuples <> $1",
        )
        .bind(self.rows())
        .fetch_all(&database.pool)
        .await?;
        ensure!(known.is_empty(), "somebody has looked into {}", known.join(", "));
        Ok(())
    }
}

/// Makes them what they should be.
pub(super) async fn mend(database: &Database) -> Result<(), sqlx::Error> {
    database.vacuum().await?;
    database.set_autovacuum(true).await
}
