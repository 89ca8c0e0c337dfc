//! `firstcome-worker dead-letters`: what could not be processed, for operators without HTTP. Asks
//! for what the running workers then do (`crew/redrive`).

use anyhow::ensure;
use clap::Subcommand;
use firstcome_contract::job::Envelope;
use futures_util::TryStreamExt;
use sqlx::PgPool;

/// The most characters of a reason that are printed.
const MAX_REASON: i32 = 200;

/// What to do with dead letters.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Action {
    /// Print them, oldest first: id, time, queue, job, attempts, reason.
    List,
    /// Ask the workers for another attempt. A job keeps its id, and stays failed until it has another outcome.
    Redrive {
        /// Which one; all, if left out.
        id: Option<i64>,
    },
    /// Forget one. A job keeps its outcome, failed.
    Discard {
        /// Which one.
        id: i64,
    },
}

/// Carries the action out, and prints what came of it.
///
/// # Errors
/// The database's; with a hint if there is no such dead letter.
#[expect(clippy::print_stdout, reason = "the list is what the command is for")]
pub async fn run(pool: &PgPool, action: Action) -> anyhow::Result<()> {
    match action {
        Action::List => {
            let mut count = 0;
            let mut letters = sqlx::query!(
                r#"SELECT id, queue, job_id, left(reason, $1) AS "reason!", attempts, payload, dead_lettered_at,
                          redrive_requested_at
                   FROM dead_letters WHERE discarded_at IS NULL ORDER BY id"#,
                MAX_REASON,
            )
            .fetch(pool);
            while let Some(letter) = letters.try_next().await? {
                count += 1;
                let at = letter.dead_lettered_at.format("%Y-%m-%dT%H:%M:%SZ");
                let job = letter.job_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
                let readable = Envelope::decode(&letter.payload).is_ok();
                let note = match letter.redrive_requested_at {
                    Some(_) => " (redrive requested)",
                    None if letter.job_id.is_some() && !readable => " (undecodable)",
                    None => "",
                };
                // One row each, whatever the reason quotes.
                let reason = letter.reason.escape_debug();
                let (id, queue, attempts) = (letter.id, letter.queue, letter.attempts);
                println!("{id} {at} {queue} {job} {attempts} {reason}{note}");
            }
            println!("{count} dead letters");
        }
        Action::Redrive { id } => {
            let requested = sqlx::query!(
                "UPDATE dead_letters SET redrive_requested_at = COALESCE(redrive_requested_at, now())
                 WHERE discarded_at IS NULL AND ($1::bigint IS NULL OR id = $1)",
                id
            )
            .execute(pool)
            .await?;
            ensure!(
                id.is_none() || requested.rows_affected() > 0,
                "there is no such dead letter; see `firstcome-worker dead-letters list`"
            );
            println!("requested for {} dead letters", requested.rows_affected());
        }
        Action::Discard { id } => {
            let discarded = sqlx::query!(
                "UPDATE dead_letters SET discarded_at = now(), redrive_requested_at = NULL
                 WHERE id = $1 AND discarded_at IS NULL",
                id
            )
            .execute(pool)
            .await?;
            ensure!(
                discarded.rows_affected() > 0,
                "there is no such dead letter; see `firstcome-worker dead-letters list`"
            );
            println!("discarded");
        }
    }
    Ok(())
}
