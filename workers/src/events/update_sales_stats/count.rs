//! Counts a batch of events into the statistics, and finds those that the database refuses.

use std::{collections::HashSet, time::Instant};

use firstcome_process::database::Pool;
use sqlx::PgConnection;

use super::{count_once::count_once, rebuild, sale::Sale};
use crate::{
    events::subscribe::{Interrupted, Received, Undeliverable},
    line::{AttemptError, Parts, Then, Tuning},
};

/// Counts these events. Those that the database refuses are found by bisection and returned, each
/// alone; what was counted before an error is not counted again.
pub(super) async fn count(
    pool: &Pool,
    events: &[Received],
    time_zone: &str,
    tuning: &mut Tuning,
) -> Result<Vec<Undeliverable>, Interrupted> {
    let mut refused = Vec::new();
    let mut parts = Parts::of(events, tuning);
    while let Some(part) = parts.next() {
        let began = Instant::now();
        let error = match try_count(pool, part, time_zone).await {
            Ok(()) => {
                parts.done(part, began.elapsed());
                continue;
            }
            Err(error) => AttemptError::from(error),
        };
        let events = part.len();
        match (parts.failed(part, &error), part) {
            // Less at a time may be done in time.
            (Then::Retry(_), _) if error.is_timeout() && events > 1 => {
                tracing::warn!(%error, events, "events not counted in time, fewer at once");
            }
            (Then::Retry(_) | Then::LookUpKeys, _) => return Err(Interrupted(error.to_string())),
            (Then::GiveUp(_), [received]) => {
                let reason = error.to_string();
                tracing::error!(event = %received.event.id, reason, "an event cannot be counted, dead-lettering it");
                refused.push(Undeliverable { received: received.clone(), reason });
            }
            (Then::GiveUp(_) | Then::Bisect, _) => {
                tracing::warn!(%error, events, "events refused by the database, bisecting");
            }
        }
    }
    Ok(refused)
}

async fn try_count(pool: &Pool, events: &[Received], time_zone: &str) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let counted = count_on(&mut connection, events, time_zone).await;
    connection.judge(Ok(counted))
}

async fn count_on(
    on: &mut PgConnection,
    events: &[Received],
    time_zone: &str,
) -> Result<(), sqlx::Error> {
    // A batch can hold an event twice.
    let mut seen = HashSet::new();
    let new = events.iter().map(|received| &received.event).filter(|event| seen.insert(event.id));
    let sales: Vec<Sale> = new.flat_map(Sale::all_of).collect();
    if sales.is_empty() {
        return Ok(());
    }
    let closed = count_once(on, &sales, time_zone).await?;
    if !closed.is_empty() {
        rebuild::log(&rebuild::recount(on, time_zone, &closed).await?);
    }
    Ok(())
}
