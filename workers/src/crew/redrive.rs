//! Another attempt for dead letters, when an operator asks for it.
//!
//! A job keeps its id and has one outcome all the time: `failed` until another one replaces it. A
//! task of its own, beside the heartbeat: however many letters there are, and however long a broker
//! takes that blocks publishers, the lines are served meanwhile.

use std::{sync::Arc, time::Duration};

use firstcome_broker::{publish::MessageType, topology};
use firstcome_contract::job::Envelope;
use firstcome_process::database::within;
use sqlx::{Connection, PgConnection};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    Role,
    control::{Control, To},
    routing::State,
};
use crate::line::outcomes;

/// Time between two looks for letters to redrive.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The longest that connecting, or one letter, may take.
const LETTER_TIMEOUT: Duration = Duration::from_secs(10);

/// Puts what operators ask for back into its line or queue, until `stop`. Several workers may: a
/// letter is redriven by one of them.
pub(crate) async fn run(role: Arc<Role>, control: Control, stop: CancellationToken) {
    // Not of the pool: batches come first there, and a connection that freezes is just dropped.
    let mut kept = None;
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // Each letter would be refused.
        if control.is_blocked() {
            continue;
        }
        let connection = kept.take();
        match stop.run_until_cancelled(all(connection, &role, &control)).await {
            Some(Ok(connection)) => kept = Some(connection),
            Some(Err(error)) => tracing::warn!(%error, "dead letters not redriven, trying again"),
            None => {}
        }
    }
}

/// Looks once through all letters that are to be redriven. Gives the connection back if it is good.
async fn all(
    connection: Option<PgConnection>,
    role: &Role,
    control: &Control,
) -> Result<PgConnection, sqlx::Error> {
    let mut on = match connection {
        Some(connection) => connection,
        None => within(LETTER_TIMEOUT, role.context.pool.connect()).await?,
    };
    let mut seen = 0;
    loop {
        match within(LETTER_TIMEOUT, one(&mut on, seen, role, control)).await? {
            Some(id) => seen = id,
            None => return Ok(on),
        }
    }
}

/// Redrives the first letter behind `seen`, at least once, which is enough for jobs and events
/// alike; which it was. One that the broker refuses stays for the next look.
async fn one(
    on: &mut PgConnection,
    seen: i64,
    role: &Role,
    control: &Control,
) -> Result<Option<i64>, sqlx::Error> {
    let next = sqlx::query!(
        "SELECT id, job_id FROM dead_letters
         WHERE redrive_requested_at IS NOT NULL AND id > $1 ORDER BY id LIMIT 1",
        seen
    )
    .fetch_optional(&mut *on)
    .await?;
    let Some(next) = next else { return Ok(None) };
    // Nobody else redrives or discards it meanwhile.
    let mut locked = on.begin().await?;
    let letter = sqlx::query_as!(
        Letter,
        "SELECT queue, attempts, payload FROM dead_letters WHERE id = $1 AND redrive_requested_at IS NOT NULL
         FOR UPDATE SKIP LOCKED",
        next.id
    )
    .fetch_optional(&mut *locked)
    .await?;
    let Some(letter) = letter else { return Ok(Some(next.id)) };
    match letter.destination(&mut locked, &role.broker.queue_namespace).await? {
        None => {
            tracing::warn!(id = next.id, "still undecodable, not redriven");
            sqlx::query!(
                "UPDATE dead_letters SET redrive_requested_at = NULL WHERE id = $1",
                next.id
            )
            .execute(&mut *locked)
            .await?;
        }
        Some((to, message)) => {
            let mut body = letter.payload;
            body.push(b'\n');
            // Committed, and before it is published, or the line would drop it as settled.
            if let Some(job) = next.job_id {
                outcomes::reopen(&mut *role.context.pool.acquire().await?, job, true).await?;
            }
            if !control.redrive(to, message, letter.attempts, body).await {
                tracing::warn!(id = next.id, "the broker did not take it, not redriven yet");
                if let Some(job) = next.job_id {
                    outcomes::reopen(&mut *role.context.pool.acquire().await?, job, false).await?;
                }
                return Ok(Some(next.id));
            }
            // What is left of it: the job's story.
            sqlx::query!(
                "WITH redriven AS (DELETE FROM dead_letters WHERE id = $1 RETURNING *)
                 INSERT INTO redrives (job_id, queue, reason, dead_lettered_at)
                 SELECT job_id, queue, left(reason, $2), dead_lettered_at FROM redriven WHERE job_id IS NOT NULL",
                next.id,
                LONGEST_REASON,
            )
            .execute(&mut *locked)
            .await?;
            tracing::info!(id = next.id, "redriven");
        }
    }
    locked.commit().await?;
    Ok(Some(next.id))
}

/// What is kept of the reason of a letter, in characters.
const LONGEST_REASON: i32 = 1_000;

struct Letter {
    queue: String,
    attempts: i32,
    payload: Vec<u8>,
}

impl Letter {
    /// Where it belongs now; nowhere, if this version cannot read it.
    async fn destination(
        &self,
        on: &mut PgConnection,
        namespace: &str,
    ) -> Result<Option<(To, MessageType)>, sqlx::Error> {
        if topology::event_queues(namespace).contains(&self.queue) {
            return Ok(Some((To::Queue(self.queue.clone()), MessageType::Events)));
        }
        let Ok(Envelope { job, .. }) = Envelope::decode(&self.payload) else { return Ok(None) };
        let family = job.kind().family();
        // It had a line when it was accepted.
        let routing = State::load(on, family).await?.routing().ok_or(sqlx::Error::RowNotFound)?;
        let line = routing.named(family, routing.line(job.keys()));
        let to = To::Line { exchange: line.exchange(namespace), line };
        Ok(Some((to, MessageType::Jobs)))
    }
}
