//! How much of a batch goes into one transaction: all of it, unless that takes too long or contradicts
//! the data.

use std::time::Duration;

use firstcome_broker::retry::Retry;
use firstcome_contract::job::envelope::MAX_PARCEL;

use super::{attempt::AttemptError, batch::MAX_JOBS};

/// The longest pause between two attempts while the database is away.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest that a full part may take for the next one to be twice as large: a quarter of what a
/// statement may take (see `config`).
const MAX_QUICK: Duration = Duration::from_millis(1_250);
/// The most in one transaction: a batch with the rest of its last message. A message that did not come
/// from our publisher may hold any number.
const MAX_PART: usize = MAX_JOBS + MAX_PARCEL;
/// For how many parts keys are looked up first, after one in which a key was taken. Where each part has a
/// taken key (which takes a client that repeats itself, and no Redis), one of so many is done twice.
const LOOKUP_PARTS: u32 = 100;

/// How the next batch of a line is settled, as the last ones have taught.
#[derive(Debug)]
pub(crate) struct Tuning {
    /// The most jobs that one transaction takes at present. It is halved by what takes too long and doubled
    /// by what is quick, so that a slow database settles as much as it can.
    jobs: usize,
    /// In how many of the next parts idempotency keys are looked up before they are stored. In all others
    /// the unique index alone tells that one is taken, which costs a second attempt, but nothing where
    /// none is: an API knows most repeats.
    lookups: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { jobs: MAX_PART, lookups: 0 }
    }
}

impl Tuning {
    /// Whether a small batch may be settled together with others: nothing is slow, and no keys are repeated.
    pub(crate) fn is_calm(&self) -> bool {
        self.jobs == MAX_PART && self.lookups == 0
    }

    /// The most jobs in the next batch: no more than is done in one go, so that they are announced and
    /// acknowledged soon.
    pub(crate) fn batch_limit(&self) -> usize {
        self.jobs.min(MAX_JOBS)
    }
}

/// The parts of a batch, one after the other, in order.
#[derive(Debug)]
pub(crate) struct Parts<'a, T> {
    /// The parts to come: a stack, the next one on top.
    waiting: Vec<&'a [T]>,
    tuning: &'a mut Tuning,
    retry: Retry,
    /// Attempts at the part in hand.
    attempts: i32,
    /// The races that it lost; counted apart, or an outage would use them up.
    races: u32,
    /// What contradicts the data again and again is searched for, with fewer attempts for each part.
    is_bisected: bool,
}

/// What to do about a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Try the same part, or half of it, after this pause.
    Retry(Duration),
    /// Try the same part at once, with its keys looked up.
    LookUpKeys,
    /// Try each half alone.
    Bisect,
    /// Set it aside: it was one job alone, and this was its so manieth attempt.
    GiveUp(i32),
}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn of(all: &'a [T], tuning: &'a mut Tuning) -> Self {
        Self::of_pieces(if all.is_empty() { Vec::new() } else { vec![all] }, tuning)
    }

    /// Of pieces, in order, of which no two go into one transaction; none is empty.
    pub(crate) fn of_pieces(mut pieces: Vec<&'a [T]>, tuning: &'a mut Tuning) -> Self {
        pieces.reverse();
        let retry = Retry::new(Duration::from_millis(10), MAX_RETRY_DELAY);
        Self { waiting: pieces, tuning, retry, attempts: 0, races: 0, is_bisected: false }
    }

    /// The next part; `None` when all are done.
    pub(crate) fn next(&mut self) -> Option<&'a [T]> {
        let next = self.waiting.pop()?;
        self.attempts += 1;
        if next.len() <= self.tuning.jobs {
            return Some(next);
        }
        let (now, later) = next.split_at(self.tuning.jobs);
        self.waiting.push(later);
        Some(now)
    }

    /// Whether the keys of the next part are to be looked up first.
    pub(crate) fn looks_up_keys(&self) -> bool {
        self.tuning.lookups > 0
    }

    /// Notes that this part is done, and how long it took.
    pub(crate) fn done(&mut self, part: &[T], took: Duration) {
        if part.len() >= self.tuning.jobs && took < MAX_QUICK {
            self.tuning.jobs = (2 * self.tuning.jobs).min(MAX_PART);
        }
        self.tuning.lookups = self.tuning.lookups.saturating_sub(1);
        self.retry.reset();
        (self.attempts, self.races) = (0, 0);
    }

    /// Notes that this part has failed; what to do about it.
    pub(crate) fn failed(&mut self, part: &'a [T], error: &AttemptError) -> Then {
        if error.is_taken_key() && !self.looks_up_keys() {
            self.tuning.lookups = LOOKUP_PARTS;
            self.waiting.push(part);
            return Then::LookUpKeys;
        }
        self.races += u32::from(error.is_race());
        if error.is_transient(self.races, self.is_bisected) {
            if error.is_timeout() {
                // Never none. One alone that takes too long waits, as far as anybody can tell, for
                // somebody else's lock: that is the state of the system.
                self.tuning.jobs = (part.len() / 2).max(1);
            }
            self.waiting.push(part);
            return Then::Retry(self.retry.next_delay());
        }
        let attempts = std::mem::take(&mut self.attempts);
        self.races = 0;
        if part.len() <= 1 {
            return Then::GiveUp(attempts);
        }
        self.is_bisected = true;
        let (first, second) = part.split_at(part.len() / 2);
        self.waiting.extend([second, first]);
        Then::Bisect
    }

    /// Gives this part, given up or not, another attempt; the pause before it.
    pub(crate) fn again(&mut self, part: &'a [T]) -> Duration {
        self.waiting.push(part);
        self.retry.next_delay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: AttemptError = AttemptError::Frozen;

    #[test]
    fn what_takes_too_long_is_halved_and_what_is_quick_grows_again() {
        let jobs: Vec<usize> = (0..1_000).collect();
        let mut tuning = Tuning::default();
        let mut parts = Parts::of(&jobs, &mut tuning);
        let (mut sizes, mut done) = (Vec::new(), Vec::new());
        while let Some(part) = parts.next() {
            sizes.push(part.len());
            if part.len() > 300 {
                assert!(matches!(parts.failed(part, &NO_TIME), Then::Retry(_)));
            } else {
                done.extend_from_slice(part);
                // The first ones take a while.
                let took = if done.len() <= 500 { MAX_QUICK } else { Duration::ZERO };
                parts.done(part, took);
            }
        }
        assert_eq!(sizes, [1_000, 500, 250, 250, 250, 250]);
        assert_eq!(done, jobs);
        // Remembered: the next batch of the line begins with it.
        assert_eq!(Parts::of(&jobs, &mut tuning).next().map(<[_]>::len), Some(500));
    }

    #[test]
    fn one_alone_that_takes_too_long_is_tried_again() {
        let mut tuning = Tuning { jobs: 2, lookups: 0 };
        let mut parts = Parts::of(&[1, 2, 3], &mut tuning);
        for expected in [2, 1, 1, 1] {
            let part = parts.next().unwrap();
            assert_eq!(part.len(), expected);
            assert!(matches!(parts.failed(part, &NO_TIME), Then::Retry(_)));
        }
    }

    #[test]
    fn what_contradicts_the_data_is_found_alone() {
        let jobs = [1, 2, 3, 4, 5];
        let mut tuning = Tuning::default();
        let mut parts = Parts::of(&jobs, &mut tuning);
        let (mut done, mut given_up) = (Vec::new(), Vec::new());
        while let Some(part) = parts.next() {
            if part.contains(&4) {
                match parts.failed(part, &AttemptError::Panicked(String::new())) {
                    Then::GiveUp(attempts) => given_up.push((part, attempts)),
                    then @ (Then::Retry(_) | Then::LookUpKeys | Then::Bisect) => {
                        assert_eq!(then, Then::Bisect)
                    }
                }
            } else {
                done.extend_from_slice(part);
                parts.done(part, Duration::ZERO);
            }
        }
        assert_eq!((done, given_up), (vec![1, 2, 3, 5], vec![(&[4][..], 1)]));
    }
}
