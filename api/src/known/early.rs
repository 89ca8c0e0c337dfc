//! What is certain before a job stands in line: why it would be rejected, and when it would not be any more.

use chrono::{DateTime, Utc};
use firstcome_contract::rejection::Rejection;
use uuid::Uuid;

use crate::http::problem::Problem;

/// How soon to come back to a sale that is paused, in seconds: nobody knows when it goes on.
const PAUSED_RETRY_AFTER: u64 = 5;
/// Up to so many seconds more, so that those who were told to come at one moment come spread over three.
const MAX_JITTER: u64 = 2;

/// Why the line would reject every such request, for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Early {
    rejection: Rejection,
    begins_at: Option<DateTime<Utc>>,
}

impl Early {
    /// A rejection of which nobody knows that it will ever be another one.
    pub(super) const fn new(rejection: Rejection) -> Self {
        Self { rejection, begins_at: None }
    }

    /// A rejection of what was submitted before that instant.
    pub(super) const fn until(begins_at: DateTime<Utc>, rejection: Rejection) -> Self {
        Self { rejection, begins_at: Some(begins_at) }
    }

    /// Why.
    #[must_use]
    pub const fn rejection(self) -> Rejection {
        self.rejection
    }

    /// The answer to a request that was submitted then.
    #[must_use]
    pub fn problem(self, submitted_at: DateTime<Utc>) -> Problem {
        let problem = Problem::new(self.rejection.into());
        match self.retry_after(submitted_at) {
            Some(seconds) => problem.retry_after(seconds + jitter()),
            None => problem,
        }
    }

    /// The first whole second after which it is worth to come back.
    fn retry_after(self, submitted_at: DateTime<Utc>) -> Option<u64> {
        if self.rejection == Rejection::SalePaused {
            return Some(PAUSED_RETRY_AFTER);
        }
        let left = self.begins_at? - submitted_at;
        // Rounded up: nobody comes early.
        let seconds = left.num_seconds() + i64::from(left.subsec_nanos() > 0);
        u64::try_from(seconds).ok()
    }
}

/// 0 to [`MAX_JITTER`], each as likely as the others.
fn jitter() -> u64 {
    // Of the random bits, those that are at hand.
    let choices = u128::from(MAX_JITTER) + 1;
    u64::try_from(Uuid::new_v4().as_u128() % choices).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use axum::{http::header::RETRY_AFTER, response::IntoResponse};
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn told(early: Early, submitted_at: DateTime<Utc>) -> Option<u64> {
        let response = early.problem(submitted_at).into_response();
        response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().parse().unwrap())
    }

    proptest! {
        #[test]
        fn who_obeys_is_never_early(left in 1i64..100_000_000_000) {
            let now = Utc::now();
            let begins_at = now + TimeDelta::microseconds(left);
            let early = Early::until(begins_at, Rejection::CouponNotStarted);
            let wait = i64::try_from(told(early, now).unwrap()).unwrap();
            let comes_at = now + TimeDelta::seconds(wait);
            prop_assert!(comes_at >= begins_at);
            prop_assert!(comes_at < begins_at + TimeDelta::seconds(3));
        }
    }

    /// Whether they ask all at once or one after the other.
    #[test]
    fn those_who_obey_come_spread() {
        const CLIENTS: usize = 10_000;
        let begins_at = Utc::now();
        for apart in [TimeDelta::zero(), TimeDelta::microseconds(1_700)] {
            let mut seconds = [0; 3];
            for client in 0..CLIENTS {
                let asks_at =
                    begins_at - TimeDelta::seconds(60) - apart * i32::try_from(client).unwrap();
                let early = Early::until(begins_at, Rejection::ProductNotOnSale);
                let wait = i64::try_from(told(early, asks_at).unwrap()).unwrap();
                let after = asks_at + TimeDelta::seconds(wait) - begins_at;
                seconds[usize::try_from(after.num_seconds()).unwrap()] += 1;
            }
            // A third each; that one has more than 40 % happens once in 10⁴⁰ runs.
            assert!(seconds.iter().all(|share| share * 10 < CLIENTS * 4), "{seconds:?}");
        }
    }

    #[test]
    fn nobody_waits_for_what_does_not_come() {
        let now = Utc::now();
        for rejection in [Rejection::CouponEnded, Rejection::ProductNotOnSale] {
            assert_eq!(told(Early::new(rejection), now), None);
        }
        let paused = told(Early::new(Rejection::SalePaused), now).unwrap();
        assert!((5..=7).contains(&paused), "{paused}");
    }
}
