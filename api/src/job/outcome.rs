//! What is known of a job's outcome, whoever asks: a poll, a stream or a submission that waits.

use std::{sync::Arc, time::Duration};

use firstcome_contract::{
    ids::UserId,
    job::{JobId, Settled},
};

use crate::{http::problem::Problem, known::batched::Unavailable, lines, state::AppState};

/// The outcome of a job, waiting for it up to `wait`; a job that is lost gets one. `None` while it has none.
///
/// # Errors
/// [`Unavailable`] if PostgreSQL could not say whether there is one.
pub(crate) async fn outcome(
    state: &AppState,
    id: JobId,
    user: UserId,
    wait: Option<Duration>,
) -> Result<Option<Arc<Settled>>, Unavailable> {
    // Nothing more comes of what is in no line any more.
    let waits = wait.filter(|_| !state.lost.has_come_out(id));
    match state.jobs.outcome(id, waits).await {
        Ok(None) => state.lost.outcome(id, user).await,
        settled => settled,
    }
}

/// Whether the job still waits, only PostgreSQL can say: its place, as it was known last.
pub(super) fn cannot_be_told(state: &AppState, id: JobId) -> Problem {
    let problem = Problem::from(Unavailable);
    match state.lines.position(id) {
        Some(place) => problem
            .last_known(place.position)
            .retry_after(lines::seconds_to_wait(id, Some(place)).max(1)),
        None => problem,
    }
}
