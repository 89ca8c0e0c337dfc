//! The circuit breaker: after some failures in a row it opens, and only a probe goes out once in a
//! while, until one succeeds.

use std::time::Duration;

use firstcome_broker::retry::Retry;
use prometheus_client::metrics::gauge::Gauge;

/// As many failures in a row open the circuit.
const MAX_FAILURES: u32 = 5;
/// The first and the longest pause between two attempts that failed.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// The most events in one request.
const MAX_EVENTS: usize = 100;

/// The circuit to the data platform, with its failures in a row.
#[derive(Debug)]
pub(super) struct Circuit {
    failures: u32,
    retry: Retry,
    shown: Gauge,
}

impl Circuit {
    /// A closed circuit; the gauge is 1 while it is open.
    pub(super) fn new(shown: Gauge) -> Self {
        Self { failures: 0, retry: Retry::new(RETRY_DELAYS.0, RETRY_DELAYS.1), shown }
    }

    /// How many of so many events may go out in the next request.
    pub(super) fn admits(&self, events: usize) -> usize {
        events.min(if self.is_open() { 1 } else { MAX_EVENTS })
    }

    /// Closes the circuit: the platform has answered.
    pub(super) fn succeeded(&mut self) {
        if self.is_open() {
            tracing::info!("the data platform is back");
        }
        self.failures = 0;
        self.retry.reset();
        self.shown.set(0);
    }

    /// Counts a failure; how long to leave the platform alone.
    pub(super) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.shown.set(self.is_open().into());
        self.retry.next_delay()
    }

    pub(super) fn state(&self) -> &'static str {
        if self.is_open() { "open" } else { "closed" }
    }

    fn is_open(&self) -> bool {
        self.failures >= MAX_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_and_closes_with_a_success() {
        let shown = Gauge::default();
        let mut circuit = Circuit::new(shown.clone());
        assert_eq!((circuit.admits(1_000), circuit.admits(7)), (MAX_EVENTS, 7));
        let delays: Vec<Duration> = (0..20).map(|_| circuit.failed()).collect();
        assert_eq!((circuit.state(), circuit.admits(1_000)), ("open", 1));
        assert_eq!(shown.get(), 1);
        assert!(delays[0] < Duration::from_secs(1));
        assert!(delays.iter().all(|delay| *delay <= RETRY_DELAYS.1 * 3 / 2));
        circuit.succeeded();
        assert_eq!((circuit.state(), circuit.admits(1_000)), ("closed", MAX_EVENTS));
        assert_eq!(shown.get(), 0);
    }
}
