//! The way to PostgreSQL: connections that are told what they are for, looked at before they are used, and
//! given up when nothing comes back.
//!
//! A connection that is open may be dead: its server was failed over, a firewall has lost its state, a
//! pooler hangs. sqlx's own pool waits for such a one without a bound, also when it is given back, and
//! keeps its place until then. And a server that answers may be the wrong one: one that cannot be written
//! to counts as away, for readers too, since what a standby tells is old.
//!
//! **Architecture invariant:** no table is named here. What is read and written stands where it belongs.

mod check;
mod kept;
mod pool;
mod pooler;
pub mod settings;
mod time_zone;
mod url;

use std::{io, time::Duration};

use tokio::time::timeout;

pub use kept::Kept;
pub use pool::{Pool, PooledConnection, Sessions, Usage, is_lost};
pub use time_zone::check_time_zone;

/// What the database says, if it says it in time: a connection that is frozen, not closed, says nothing.
///
/// # Errors
/// The answer's, or one of I/O that says for how long there was none.
pub async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, answer).await.unwrap_or_else(|_| {
        let silence = format!("no answer from the database within {limit:?}");
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, silence)))
    })
}
