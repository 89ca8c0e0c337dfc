//! Waiting between attempts: exponential, with jitter, capped. The one file that knows the
//! `backoff` crate (unmaintained, kept by the owner's choice; see `deny.toml`).

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};

/// The delays of one retry loop. It never gives up by itself: the caller's deadline does that.
#[derive(Debug)]
pub struct Retry(ExponentialBackoff);

impl Retry {
    /// Delays that double from `first` to `longest`, each ±50% so that many processes that lost
    /// the same service do not come back in step.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self(ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            multiplier: 2.0,
            randomization_factor: 0.5,
            max_interval: longest,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// For a lost service: 100 ms to 2 s, so that a recovered one is noticed within seconds.
    #[must_use]
    pub fn reconnect() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(2))
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        // None only after max_elapsed_time, which is unset.
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Begins with the shortest delay again, after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_start_over() {
        let mut retry = Retry::new(Duration::from_millis(100), Duration::from_secs(1));
        let delays: Vec<Duration> = (0..20).map(|_| retry.next_delay()).collect();
        assert!(delays[0] >= Duration::from_millis(50) && delays[0] <= Duration::from_millis(150));
        assert!(delays[10..].iter().all(|delay| *delay >= Duration::from_millis(500)));
        assert!(delays.iter().all(|delay| *delay <= Duration::from_millis(1_500)));
        retry.reset();
        assert!(retry.next_delay() <= Duration::from_millis(150));
    }
}
