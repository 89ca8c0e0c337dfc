//! A batch of rows in the database: one transaction, or several where a row in it cannot be stored.

use std::time::Duration;

use firstcome_process::database::is_lost;
use futures_util::future::BoxFuture;
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};

use super::{Verdict, reader::Layout};
use crate::{known::free_ids::Table, state::AppState};

/// How often a batch is tried that fails for a reason that passes: a failover, two that wait for each other.
const ATTEMPTS: u32 = 6;
/// How long after the last time.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often a single row is tried that somebody else contradicted at that moment.
const ROW_ATTEMPTS: u32 = 3;
/// How long a batch may take; each of its statements is ended by the server before.
const BATCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Of advisory locks, those of imports; the table's number is added.
const LOCKS: i64 = 0x1e70_0000;

/// A row of what is imported.
pub(super) trait Row: Layout + Send + Sync + 'static {
    const TABLE: Table;

    /// Creates and edits what the rows say, one after the other; what it is to each of them is told in their order, and
    /// which ones were edited.
    fn store<'c>(
        state: &'c AppState,
        rows: &'c [Self],
        transaction: &'c mut PgConnection,
    ) -> BoxFuture<'c, Result<Stored, sqlx::Error>>;

    /// Has every API forget what was changed.
    fn announce<'c>(state: &'c AppState, stored: &'c Stored) -> BoxFuture<'c, ()>;
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) verdicts: Vec<Verdict>,
    /// What was there and is changed, by id.
    pub(super) changed: Vec<i64>,
}

/// Stores a batch. What the database refuses is found by halving; the others are stored.
///
/// # Errors
/// The database's, if it is away for longer.
pub(super) async fn settle<R: Row>(
    state: &AppState,
    rows: &[R],
) -> Result<Vec<Verdict>, sqlx::Error> {
    let mut verdicts = Vec::with_capacity(rows.len());
    let mut parts = vec![Part { rows, attempt: 1, unanswered: None }];
    let mut failed = 0;
    while let Some(mut part) = parts.pop() {
        if part.rows.is_empty() {
            continue;
        }
        match store(state, &mut part).await {
            Ok(stored) => verdicts.extend(stored),
            Err(error) if is_refusal(&error) => {
                if part.rows.len() > 1 {
                    let (first, second) = part.rows.split_at(part.rows.len() / 2);
                    let half = |rows| Part { rows, attempt: 1, unanswered: None };
                    parts.extend([half(second), half(first)]);
                } else if part.attempt < ROW_ATTEMPTS {
                    parts.push(Part { attempt: part.attempt + 1, ..part });
                } else {
                    tracing::warn!(%error, table = R::TABLE.name(), "a row of an import is refused");
                    let reason = "the database refuses it, by what others stored meanwhile";
                    verdicts.push(Verdict::Faulty(vec![reason.to_owned()]));
                }
            }
            Err(error) if is_passing(&error) && failed + 1 < ATTEMPTS => {
                failed += 1;
                tracing::warn!(%error, "a batch of an import failed, trying again");
                parts.push(part);
                sleep(RETRY_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(verdicts)
}

/// Rows that are stored together.
struct Part<'r, R> {
    rows: &'r [R],
    attempt: u32,
    unanswered: Option<Unanswered>,
}

/// A transaction that was to be committed, which may or may not have been: rows without an id must not be created by a
/// second one.
struct Unanswered {
    transaction: String,
    stored: Stored,
}

/// Stores rows in one transaction, and announces what that changed.
async fn store<R: Row>(
    state: &AppState,
    part: &mut Part<'_, R>,
) -> Result<Vec<Verdict>, sqlx::Error> {
    let mut connection = state.pool.acquire().await?;
    let storing = timeout(BATCH_TIMEOUT, async {
        let mut transaction = connection.begin().await?;
        let id = take_turn(&mut transaction, R::TABLE).await?;
        if let Some(earlier) = &part.unanswered {
            // It had the turn before this one, so it is over.
            if was_committed(&mut transaction, &earlier.transaction).await? {
                return Ok(());
            }
            part.unanswered = None;
        }
        let stored = R::store(state, part.rows, &mut transaction).await?;
        part.unanswered = Some(Unanswered { transaction: id, stored });
        transaction.commit().await
    })
    .await;
    let storing = connection.judge(storing);
    drop(connection);
    // Also where they may or may not have been changed.
    if let Some(Unanswered { stored, .. }) = &part.unanswered {
        R::announce(state, stored).await;
    }
    storing.map(|()| part.unanswered.take().map(|sent| sent.stored.verdicts).unwrap_or_default())
}

/// Batches of one table take turns: they would wait for each other's rows, in orders of their own. Tells the
/// transaction's id.
async fn take_turn(transaction: &mut PgConnection, table: Table) -> Result<String, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT pg_current_xact_id()::text AS "id!" FROM pg_advisory_xact_lock($1)"#,
        LOCKS + table as i64,
    )
    .fetch_one(transaction)
    .await
}

/// Whether a transaction that is over was committed.
async fn was_committed(transaction: &mut PgConnection, id: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT pg_xact_status($1::text::xid8) IS NOT DISTINCT FROM 'committed' AS "committed!""#,
        id,
    )
    .fetch_one(transaction)
    .await
}

/// Whether it is a row that the database does not take.
fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}

/// Whether it may be otherwise in a moment.
fn is_passing(error: &sqlx::Error) -> bool {
    // Two that waited for each other; a wait that was too long.
    const WAITS: [&str; 4] = ["40001", "40P01", "55P03", "57014"];
    let code = error.as_database_error().and_then(|error| error.code());
    is_lost(error) || code.is_some_and(|code| WAITS.contains(&&*code))
}
