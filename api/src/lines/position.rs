//! Where a job stands, and when to ask for it again.

use chrono::Utc;
use firstcome_contract::job::JobId;

use super::whole;

/// The longest that a poller is asked to wait: it may be wrong, and nobody likes to miss his turn.
const LONGEST_WAIT: f64 = 30.0;
/// The longest that a poller of a line that does not move is asked to wait: it may move any moment.
const LONGEST_RETRY_AFTER: f64 = 10.0;

/// A job's place in its line: an estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// The place in the line, counted from 1: that one is next.
    pub position: u64,
    /// Seconds until it is settled; unknown while the line does not move.
    pub seconds: Option<f64>,
}

/// When to ask for this job again, in whole seconds: when it should be settled. 0 is within the second.
#[must_use]
pub fn seconds_to_wait(id: JobId, place: Option<Position>) -> u64 {
    let waited = (Utc::now() - id.submitted_at()).as_seconds_f64().max(0.0);
    let seconds = match place.and_then(|place| place.seconds) {
        // A turn that should have come comes later than one that was told anew.
        Some(seconds) if waited > 1.0 => seconds.max(1.0),
        Some(seconds) => seconds,
        // Nobody knows: seldom, and more seldom the longer it lasts.
        None => (waited / 2.0).clamp(1.0, LONGEST_RETRY_AFTER),
    };
    let seconds = if seconds < 1.0 { 0.0 } else { seconds.ceil() };
    whole(seconds.min(LONGEST_WAIT))
}
