//! The time zones that the server knows.

use std::time::Duration;

use sqlx::PgExecutor;
use tokio::time::timeout;

/// How long the server may take to tell whether it knows a time zone.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// PostgreSQL's SQLSTATE `invalid_parameter_value`: it knows no such time zone.
const INVALID_PARAMETER_VALUE: &str = "22023";

/// Refuses a time zone that PostgreSQL does not know; not while it cannot be asked, since the programs start
/// without it, too.
///
/// # Errors
/// With a hint.
pub async fn check_time_zone(on: impl PgExecutor<'_>, time_zone: &str) -> Result<(), String> {
    let asking = sqlx::query_scalar!("SELECT now() AT TIME ZONE $1 AS known", time_zone);
    match timeout(ASK_TIMEOUT, asking.fetch_one(on)).await {
        Ok(Err(sqlx::Error::Database(error)))
            if error.code().as_deref() == Some(INVALID_PARAMETER_VALUE) =>
        {
            Err(format!(
                "BUSINESS_TIME_ZONE: PostgreSQL knows no time zone {time_zone:?}; \
                 pg_timezone_names has those that it knows, such as Asia/Seoul"
            ))
        }
        _ => Ok(()),
    }
}
