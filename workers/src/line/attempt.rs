//! One attempt at a transaction: bounded in time, and proof against panics.

use std::{any::Any, io::ErrorKind, panic::AssertUnwindSafe, time::Duration};

use firstcome_contract::job::JobKind;
use firstcome_process::database::{PooledConnection, is_lost};
use futures_util::FutureExt;
use sqlx::PgConnection;
use tokio::time::timeout;

use crate::{
    jobs::{outcome::HandlerError, registry},
    schema,
};

/// The longest that an attempt may take, twice the database's own `statement_timeout`: what gets here is a
/// connection that is frozen, not closed, or a batch of many slow statements, which is settled in parts then.
/// Its locks are free by then, too (`idle_in_transaction_session_timeout`).
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most lost races of a batch before they count as a contradiction in the data.
const MAX_RACES: u32 = 10;

/// The unique index by which an idempotency key belongs to one job.
const TAKEN_KEY: &str = "job_outcomes_idempotency_key";

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the database did not answer within {ATTEMPT_TIMEOUT:?}")]
    Frozen,
    #[error("the line is another worker's by now")]
    Fenced,
    #[error("panicked: {0}")]
    Panicked(String),
    #[error("the handler of {} is broken: {reason}", kind.as_str())]
    Broken { kind: JobKind, reason: String },
    #[error("a newer release has migrated the database and asks for more: {0}")]
    Outdated(sqlx::Error),
}

/// Runs one transaction within [`ATTEMPT_TIMEOUT`], and makes an error of its panic.
pub(crate) async fn bounded<T>(
    transaction: impl Future<Output = Result<T, AttemptError>>,
) -> Result<T, AttemptError> {
    match timeout(ATTEMPT_TIMEOUT, AssertUnwindSafe(transaction).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(AttemptError::Panicked(said(&*panic))),
        Err(_) => Err(AttemptError::Frozen),
    }
}

/// The message of a panic; empty if it is not a text.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Gives the connection back after an attempt, unless it is of no more use.
pub(crate) fn give_back<T>(mut connection: PooledConnection, outcome: &Result<T, AttemptError>) {
    match outcome {
        Err(AttemptError::Frozen) => connection.give_up(),
        Err(AttemptError::Database(error)) if is_lost(error) => connection.give_up(),
        // It was left in the middle of something.
        Err(AttemptError::Panicked(_)) => connection.discard(),
        Ok(_)
        | Err(
            AttemptError::Database(_)
            | AttemptError::Fenced
            | AttemptError::Broken { .. }
            | AttemptError::Outdated(_),
        ) => connection.answered(),
    }
}

impl AttemptError {
    /// The error of the handler of this kind.
    pub(crate) fn of_handler(kind: JobKind, error: HandlerError) -> Self {
        match error {
            HandlerError::Database(error) => Self::Database(error),
            HandlerError::Broken(reason) => Self::Broken { kind, reason },
        }
    }

    /// Whether no further attempt of this process makes sense: the jobs are another's.
    pub(crate) fn is_final(&self) -> bool {
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
            Self::Database(_)
            | Self::Fenced
            | Self::Panicked(_)
            | Self::Broken { .. }
            | Self::Outdated(_) => false,
        }
    }

    /// The error, as the schema explains it: a constraint that no migration of this program names, where a
    /// newer release has migrated the database, is that release's. Every job of this program would
    /// violate it, and a newer program will not.
    pub(crate) async fn explained(self, connection: &mut PgConnection) -> Self {
        let Self::Database(error) = self else { return self };
        let database = error.as_database_error();
        let constraint = database.and_then(|database| database.constraint());
        if constraint.is_none_or(schema::mentions) {
            return Self::Database(error);
        }
        match bounded(async { Ok(schema::is_newer(connection).await?) }).await {
            Ok(true) => Self::Outdated(error),
            Ok(false) => Self::Database(error),
            Err(unknown) => unknown,
        }
    }

    /// Whether it is a race lost against another consumer of the same jobs, users or keys: the next
    /// attempt sees what the winner committed and decides accordingly.
    pub(crate) fn is_race(&self) -> bool {
        const RACES: [&str; 2] = ["job_outcomes_pkey", TAKEN_KEY];
        self.violated().is_some_and(|name| RACES.contains(&name) || registry::is_race(name))
    }

    /// Whether one of the idempotency keys is another job's.
    pub(crate) fn is_taken_key(&self) -> bool {
        self.violated() == Some(TAKEN_KEY)
    }

    /// The name of the constraint that was violated, if that is the error.
    fn violated(&self) -> Option<&str> {
        let Self::Database(sqlx::Error::Database(database)) = self else { return None };
        database.constraint()
    }

    /// Whether another attempt of the same batch can succeed, after so many lost races.
    ///
    /// Deterministic are only the SQLSTATE classes that speak of the data: 22 (data exception), 23
    /// (integrity constraint), 54 (larger than an index or a row can hold), P0 (raised by a trigger),
    /// XX001 and XX002 (a damaged row or index), panics, and handlers that say so. Everything else, also a missing table (a
    /// migration that is still to come) or a value that this program leaves out and a newer one does not
    /// (23502), is the state of the system: failing a job for it would fail all of them.
    pub(crate) fn is_transient(&self, races: u32, is_bisected: bool) -> bool {
        if self.is_race() {
            return races < if is_bisected { 2 } else { MAX_RACES };
        }
        let database = match self {
            Self::Database(sqlx::Error::Database(database)) => database,
            Self::Database(_) | Self::Frozen | Self::Fenced | Self::Outdated(_) => return true,
            Self::Panicked(_) | Self::Broken { .. } => return false,
        };
        const NOT_NULL: &str = "23502";
        let code = database.code().unwrap_or_default();
        let is_the_jobs = |class: &&str| code.starts_with(*class);
        code == NOT_NULL || !["22", "23", "54", "P0", "XX001", "XX002"].iter().any(is_the_jobs)
    }
}
