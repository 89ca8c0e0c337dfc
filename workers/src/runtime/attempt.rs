//! One attempt at a transaction: bounded in time, and proof against panics.

use std::{io::ErrorKind, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use sqlx::{Postgres, pool::PoolConnection};
use tokio::time::timeout;

/// Longer than the database's own `statement_timeout`: only a connection that is frozen, not closed,
/// gets here.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a lost race is run again before it counts as a contradiction in the data.
const MOST_RACES: u32 = 10;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the database did not answer within {DEADLINE:?}")]
    Frozen,
    #[error("the line is another worker's by now")]
    Fenced,
    #[error("panicked: {0}")]
    Panicked(String),
}

/// Runs one transaction on this connection.
pub(super) async fn bounded<T>(
    transaction: impl Future<Output = Result<T, AttemptError>>,
) -> Result<T, AttemptError> {
    match timeout(DEADLINE, AssertUnwindSafe(transaction).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(AttemptError::Panicked(text.unwrap_or_default()))
        }
        Err(_) => Err(AttemptError::Frozen),
    }
}

/// Gives the connection back after an attempt. A frozen one is given up together with its place in
/// the pool, as is one that a panic left in the middle of something.
pub(super) fn give_back<T>(
    connection: PoolConnection<Postgres>,
    outcome: &Result<T, AttemptError>,
) {
    if matches!(outcome, Err(AttemptError::Frozen | AttemptError::Panicked(_))) {
        drop(connection.detach());
    }
}

impl AttemptError {
    /// Whether no further attempt of this process makes sense: the jobs are another's.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Fenced)
    }

    /// Whether it took too long: less at a time may be done in time.
    pub(crate) fn is_timeout(&self) -> bool {
        // The statement's, that of a lock, the transaction's.
        const TIMEOUTS: [&str; 3] = ["57014", "55P03", "25P04"];
        match self {
            Self::Frozen => true,
            Self::Database(sqlx::Error::Database(database)) => {
                database.code().is_some_and(|code| TIMEOUTS.contains(&&*code))
            }
            Self::Database(sqlx::Error::Io(error)) => error.kind() == ErrorKind::TimedOut,
            Self::Database(_) | Self::Fenced | Self::Panicked(_) => false,
        }
    }

    /// Whether it is a race lost against another consumer of the same jobs, users or keys: the next
    /// attempt sees what the winner committed and decides accordingly.
    pub(super) fn is_race(&self) -> bool {
        const RACES: [&str; 5] = [
            "job_outcomes_pkey",
            "job_outcomes_idempotency_key",
            "user_coupons_one_per_user",
            "user_coupons_issue_number_key",
            "orders_job_id_key",
        ];
        let Self::Database(sqlx::Error::Database(database)) = self else { return false };
        database.constraint().is_some_and(|name| RACES.contains(&name))
    }

    /// Whether another attempt of the same batch can succeed, after so many lost races.
    ///
    /// Deterministic are only the SQLSTATE classes that speak of the data: 22 (data exception), 23
    /// (integrity constraint), 54 (larger than an index or a row can hold), P0 (raised by a trigger),
    /// XX001 and XX002 (a damaged row or index), and panics. Everything else, also a missing
    /// table (a migration that is still to come), is the state of the system: failing a job for it
    /// would fail all of them.
    pub(super) fn is_transient(&self, races: u32, is_bisected: bool) -> bool {
        if self.is_race() {
            return races < if is_bisected { 2 } else { MOST_RACES };
        }
        let database = match self {
            Self::Database(sqlx::Error::Database(database)) => database,
            Self::Database(_) | Self::Frozen | Self::Fenced => return true,
            Self::Panicked(_) => return false,
        };
        let code = database.code().unwrap_or_default();
        !["22", "23", "54", "P0", "XX001", "XX002"].iter().any(|class| code.starts_with(class))
    }
}
