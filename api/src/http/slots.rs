//! What is counted of however many sources in so much memory and no more.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
};

use governor::{
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore},
};

/// So many allowances, and each source has one of them, by its digest; who has the same one shares it. Nothing grows with
/// the sources, nothing is locked, and nobody has to be forgotten: an allowance that is not used is whole again.
///
/// A digest is of this process, so nobody knows with whom they share. Who has many addresses can spend many
/// allowances, but must go on sending as many requests for each as it allows.
#[derive(Debug)]
pub(super) struct Slots<K> {
    digests: RandomState,
    slots: Box<[InMemoryState]>,
    sources: PhantomData<fn(K)>,
}

impl<K: Hash> Slots<K> {
    pub(super) fn new(count: usize) -> Self {
        let slots = (0..count).map(|_| InMemoryState::default()).collect();
        Self { digests: RandomState::new(), slots, sources: PhantomData }
    }

    fn slot(&self, source: &K) -> Option<&InMemoryState> {
        let count = u64::try_from(self.slots.len()).ok()?;
        let at = self.digests.hash_one(source).checked_rem(count)?;
        self.slots.get(usize::try_from(at).ok()?)
    }
}

impl<K: Hash> StateStore for Slots<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, source: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        match self.slot(source) {
            Some(slot) => slot.measure_and_replace(&NotKeyed::NonKey, measure),
            // Without any, nothing is remembered.
            None => measure(None).map(|(measured, _)| measured),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::{Quota, RateLimiter, clock::FakeRelativeClock, middleware::NoOpMiddleware};

    use super::*;

    const ALLOWED: u32 = 3;

    type Limiter = RateLimiter<u64, Slots<u64>, FakeRelativeClock, NoOpMiddleware<Nanos>>;

    fn limiter(count: usize) -> Limiter {
        let quota = Quota::per_second(NonZeroU32::new(ALLOWED).unwrap());
        RateLimiter::new(quota, Slots::new(count), FakeRelativeClock::default())
    }

    #[test]
    fn a_source_has_its_allowance_and_has_it_again() {
        let limiter = limiter(1_024);
        let admitted = |source| (0..10).filter(|_| limiter.check_key(&source).is_ok()).count();
        assert_eq!(admitted(1), ALLOWED as usize);
        limiter.clock().advance(std::time::Duration::from_secs(1));
        assert_eq!(admitted(1), ALLOWED as usize);
    }

    #[test]
    fn who_has_the_same_allowance_shares_it() {
        let limiter = limiter(1);
        let admitted = (0..10).filter(|source| limiter.check_key(source).is_ok()).count();
        assert_eq!(admitted, ALLOWED as usize);
    }

    /// However many sources there are: they share what there is, and the memory is what it was.
    #[test]
    fn many_sources_take_no_more_memory_than_one() {
        const COUNT: usize = 1_024;
        let limiter = limiter(COUNT);
        let before = limiter.check_key(&0);
        assert!(before.is_ok());
        let admitted =
            (0..100 * COUNT as u64).filter(|source| limiter.check_key(source).is_ok()).count();
        // All of it is spent, but for the one before.
        assert_eq!(admitted, COUNT * ALLOWED as usize - 1);
        let slots = limiter.into_state_store();
        assert_eq!(size_of_val(&*slots.slots), COUNT * size_of::<InMemoryState>());
    }

    /// Who spends the allowances of some sources takes theirs from few others.
    #[test]
    fn few_share_with_those_who_spend_all() {
        const COUNT: usize = 1 << 16;
        let limiter = limiter(COUNT);
        let spenders = 0..100;
        for source in spenders.clone() {
            while limiter.check_key(&source).is_ok() {}
        }
        let others = spenders.end..spenders.end + 10_000;
        let refused = others.filter(|source| limiter.check_key(source).is_err()).count();
        // 15 are to be expected, and a few of those of which four share one.
        assert!(refused < 200, "{refused}");
    }
}
