//! Another attempt for dead letters, when an operator asks for it.
//!
//! A job keeps its id and has one outcome all the time: `failed` until another one replaces it.

use firstcome_shared::{
    broker::{publish::MessageType, topology},
    job::{Envelope, JobKind},
    partition::Partition,
};
use sqlx::PgConnection;

use super::{
    control::{Control, To},
    routing::State,
};

/// Puts what operators asked for back into its line or queue: at least once, which is enough for
/// jobs and events alike. Jobs that this version cannot read stay dead letters.
pub(super) async fn requested(
    on: &mut PgConnection,
    kind: JobKind,
    namespace: &str,
    control: &Control,
) -> Result<(), sqlx::Error> {
    let mut seen = 0;
    while let Some(letter) = next(on, seen).await? {
        seen = letter.id;
        let (to, message) = if topology::event_queues(namespace).contains(&letter.queue) {
            (To::Queue(letter.queue), MessageType::Events)
        } else {
            let Ok(envelope) = Envelope::decode(&letter.payload) else {
                tracing::warn!(id = letter.id, "still undecodable, not redriven");
                give_up(on, letter.id).await?;
                continue;
            };
            // The workers of its kind see to it.
            if envelope.job.kind() != kind {
                continue;
            }
            let Some(routing) = State::load(on, kind).await?.routing() else { continue };
            let line = routing.line(envelope.job.keys());
            let line = Partition { kind, generation: routing.generation, line };
            (To::Line { exchange: topology::jobs(namespace, kind), line }, MessageType::Jobs)
        };
        let mut body = letter.payload;
        body.push(b'\n');
        // Before it is published, or the line would drop it as settled.
        if let Some(job) = letter.job_id {
            super::record::reopen(on, job).await?;
        }
        if control.publish(to, message, body).await {
            sqlx::query!("DELETE FROM dead_letters WHERE id = $1", letter.id)
                .execute(&mut *on)
                .await?;
            tracing::info!(id = letter.id, "redriven");
        }
    }
    Ok(())
}

struct Letter {
    id: i64,
    queue: String,
    job_id: Option<uuid::Uuid>,
    payload: Vec<u8>,
}

async fn next(on: &mut PgConnection, after: i64) -> Result<Option<Letter>, sqlx::Error> {
    sqlx::query_as!(
        Letter,
        "SELECT id, queue, job_id, payload FROM dead_letters
         WHERE redrive_requested_at IS NOT NULL AND id > $1 ORDER BY id LIMIT 1",
        after
    )
    .fetch_optional(on)
    .await
}

async fn give_up(on: &mut PgConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE dead_letters SET redrive_requested_at = NULL WHERE id = $1", id)
        .execute(&mut *on)
        .await?;
    Ok(())
}
