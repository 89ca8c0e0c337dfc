//! What Redis remembers of idempotency keys: which job has one. A hint like all that is there; whose a key is,
//! PostgreSQL decides.

use super::JobId;
use crate::ids::UserId;

/// Marks the key of a job that the broker has not confirmed: it may be in its line or not.
pub const PENDING: char = 'p';
/// Marks the key of a job that is in its line, or settled.
pub const QUEUED: char = 'a';

/// Where it is remembered who has this user's key for this kind of job.
#[must_use]
pub fn name(namespace: &str, user_id: UserId, kind: &str, key: &str) -> String {
    format!("{}{user_id}:{kind}:{key}", prefix(namespace))
}

/// What all of these names begin with. A namespace holds nothing that is special in a pattern of Redis.
#[must_use]
pub fn prefix(namespace: &str) -> String {
    format!("{namespace}:idempotency:")
}

/// Reads whose key it is from a name that [`name`] made.
#[must_use]
pub fn user_of(namespace: &str, name: &str) -> Option<UserId> {
    let (user, _) = name.strip_prefix(&prefix(namespace))?.split_once(':')?;
    user.parse().ok().map(UserId::new)
}

/// What is remembered: that this job has it, and what was asked for.
#[must_use]
pub fn entry(state: char, job: JobId, fingerprint: &str) -> String {
    format!("{state}:{job}:{fingerprint}")
}

/// State, job and fingerprint of an entry; nothing, if it is not understood.
#[must_use]
pub fn parse(entry: &str) -> Option<(char, JobId, &str)> {
    let mut parts = entry.splitn(3, ':');
    let state = parts.next()?.chars().next()?;
    let id = parts.next()?.parse::<uuid::Uuid>().ok()?;
    Some((state, JobId::from(id), parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{job::JobKind, line::Place};

    /// Releases that run side by side share them.
    #[test]
    fn names_and_entries_never_change() {
        let name = name("shop", UserId::new(7), "issue-coupon", "a:key");
        assert_eq!(name, "shop:idempotency:7:issue-coupon:a:key");
        assert_eq!(user_of("shop", &name), Some(UserId::new(7)));
        assert_eq!(user_of("other", &name), None);
        let job = JobId::compose(1_750_000_000_000, JobKind::IssueCoupon, Place::UNKNOWN, 7, 9);
        let entry = entry(QUEUED, job, "0123");
        assert_eq!(entry, format!("a:{job}:0123"));
        assert_eq!(parse(&entry), Some((QUEUED, job, "0123")));
        assert_eq!(parse("a:no-job:0123"), None);
    }
}
