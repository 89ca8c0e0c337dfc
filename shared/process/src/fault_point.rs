//! Places at which a process can be told to die, so that tests reach moments that last microseconds. Builds for
//! production have none.

/// Whether this build has them.
pub const ARE_BUILT: bool = cfg!(debug_assertions);
/// Names a place and how often it is passed before: `committed:3`.
pub const VARIABLE: &str = "FIRSTCOME_DIES_AT";

/// A batch is written and not committed.
pub const MID_BATCH: &str = "mid-batch";
/// A batch is committed and not acknowledged.
pub const COMMITTED: &str = "committed";
/// A job is confirmed by the broker and not answered.
pub const CONFIRMED: &str = "confirmed";
/// A line is not served any more and not released.
pub const MID_HANDOVER: &str = "mid-handover";
/// The broker knows of new lines, and the database does not.
pub const MID_SWITCH: &str = "mid-switch";
/// Events are published and still in the outbox.
pub const RELAYED: &str = "relayed";
/// Events are counted or delivered and not acknowledged.
pub const HANDLED: &str = "handled";

/// Dies here, if it is told to, as by SIGKILL.
#[cfg(debug_assertions)]
pub fn pass(place: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    };

    static TOLD: LazyLock<Option<(String, AtomicU32)>> = LazyLock::new(|| {
        let told = std::env::var(VARIABLE).ok()?;
        let (place, before) = told.split_once(':')?;
        Some((place.to_owned(), AtomicU32::new(before.parse().ok()?)))
    });
    if let Some((told, before)) = &*TOLD
        && told == place
        && before.fetch_sub(1, Ordering::Relaxed) == 0
    {
        tracing::error!(place, "told to die here");
        std::process::abort();
    }
}

/// Nothing: this build has no such places.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn pass(_place: &str) {}
