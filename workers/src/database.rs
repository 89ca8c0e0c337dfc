//! The database, as those use it who do not settle: no wait for it is without an end.

use std::time::Duration;

use firstcome_process::database::within;
use sqlx::{PgPool, Postgres, pool::PoolConnection};

/// The longest wait for the answer to a statement: longer than the pool's `statement_timeout`, so that only a
/// connection that is frozen, not closed, gets here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// What the database says, if it does so within [`ANSWER_TIMEOUT`].
pub(crate) async fn answered<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    within(ANSWER_TIMEOUT, answer).await
}

/// Gives the connection back after what was done on it. One on which something failed is not used again,
/// nor are those that are idle: one that is frozen is seldom alone.
pub(crate) fn give_back<T, E>(
    pool: &PgPool,
    connection: PoolConnection<Postgres>,
    done: Result<T, E>,
) -> Result<T, E> {
    if done.is_err() {
        drop(connection.detach());
        while let Some(idle) = pool.try_acquire() {
            drop(idle.detach());
        }
    }
    done
}
