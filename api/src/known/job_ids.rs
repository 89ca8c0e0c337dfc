//! Makes job ids, and recognises its own: a keyed MAC over (user, time, kind, sequence) tells an id
//! that was issued to this caller from one that was not, without any store.

use std::sync::atomic::{AtomicU32, Ordering};

use chrono::Utc;
use firstcome_contract::{
    ids::UserId,
    job::{
        JobId, JobKind,
        id::{MAC_BITS, SEQUENCE_BITS},
    },
    line::Place,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// Mints and verifies job ids.
#[derive(Debug)]
pub struct Signer {
    /// The first one signs, all verify.
    keys: Vec<Hmac<Sha256>>,
    /// Counts up, so that one process never makes the same id twice within a millisecond; starts
    /// anywhere, so that two processes hardly do for one caller.
    sequence: AtomicU32,
}

impl Signer {
    /// A signer with these keys.
    #[must_use]
    pub fn new(keys: &[String]) -> Self {
        let keys = keys
            .iter()
            // HMAC takes keys of any length.
            .filter_map(|key| Hmac::new_from_slice(key.as_bytes()).ok())
            .collect();
        let start = Uuid::new_v4().as_fields().0;
        Self { keys, sequence: AtomicU32::new(start) }
    }

    /// A new id for a job that this user submits now, for the line at `place`.
    #[must_use]
    pub fn mint(&self, user: UserId, kind: JobKind, place: Place) -> JobId {
        let millis = u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default();
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) & ((1 << SEQUENCE_BITS) - 1);
        self.sign(user, JobId::compose(millis, kind, place, sequence, 0))
    }

    /// The id without a MAC, with that of this user.
    #[must_use]
    pub fn sign(&self, user: UserId, unsigned: JobId) -> JobId {
        unsigned.with_mac(self.keys.first().map_or(0, |key| mac(key, user, unsigned)))
    }

    /// Whether we issued this id to this user. Not constant in time: what a caller could learn
    /// from it is whether a job of its own making exists.
    #[must_use]
    pub fn issued(&self, id: JobId, user: UserId) -> bool {
        self.keys.iter().any(|key| mac(key, user, id) == id.mac())
    }
}

fn mac(key: &Hmac<Sha256>, user: UserId, id: JobId) -> u64 {
    let mut hmac = key.clone();
    hmac.update(&user.get().to_be_bytes());
    hmac.update(&id.without_mac().to_be_bytes());
    let digest = hmac.finalize().into_bytes();
    let first = digest.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    first & ((1 << MAC_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn signer(keys: &[&str]) -> Signer {
        Signer::new(&keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn ids_never_collide_in_one_process() {
        let signer = signer(&["a key"]);
        let ids: HashSet<JobId> = (0..100_000)
            .map(|_| signer.mint(UserId::new(7), JobKind::IssueCoupon, Place::UNKNOWN))
            .collect();
        assert_eq!(ids.len(), 100_000);
    }

    #[test]
    fn a_rotated_key_is_still_believed() {
        let id = signer(&["old"]).mint(UserId::new(7), JobKind::IssueCoupon, Place::UNKNOWN);
        assert!(signer(&["new", "old"]).issued(id, UserId::new(7)));
        assert!(!signer(&["new"]).issued(id, UserId::new(7)));
    }

    proptest! {
        #[test]
        fn only_our_ids_for_this_user_are_believed(user in 1i64..1 << 53, other in 1i64..1 << 53, flip in 0u32..128) {
            prop_assume!(user != other);
            let signer = signer(&["a key"]);
            let id = signer.mint(UserId::new(user), JobKind::IssueCoupon, Place::UNKNOWN);
            prop_assert!(signer.issued(id, UserId::new(user)));
            prop_assert!(!signer.issued(id, UserId::new(other)));
            let forged = JobId::from(Uuid::from_u128(id.get().as_u128() ^ (1 << flip)));
            prop_assert!(!signer.issued(forged, UserId::new(user)));
        }
    }
}
