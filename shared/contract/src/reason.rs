//! Why a message cannot be read: it may quote all of the message, of which little is told.

/// The most that is said, in characters.
pub(crate) const LONGEST: usize = 500;

/// The reason, cut off where it is longer.
pub(crate) fn bounded(reason: String) -> String {
    if reason.chars().nth(LONGEST).is_none() {
        return reason;
    }
    reason.chars().take(LONGEST).chain(['…']).collect()
}
