//! The bound on statements of those who do not settle: no wait for the database is without an end.

use std::time::Duration;

use firstcome_process::database::within;

/// The longest wait for the answer to a statement: longer than the pool's `statement_timeout`, so that only a
/// connection that is frozen, not closed, gets here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// What the database says, if it does so within [`ANSWER_TIMEOUT`].
pub(crate) async fn answered<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    within(ANSWER_TIMEOUT, answer).await
}
