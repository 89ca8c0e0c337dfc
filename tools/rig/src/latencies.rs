//! How long things took, as percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Whatever took longer than an hour counts as an hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// A histogram of durations, exact to three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "a lowest of 1, a highest of at least twice that and 3 digits are valid"
        )]
        let histogram = Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("valid bounds");
        Self(histogram)
    }
}

impl Latencies {
    /// Adds one duration.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    /// How many durations were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What `percent` of them did not exceed.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    /// The longest duration.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(99.0), Duration::ZERO);
        for millis in 1..=1000 {
            latencies.record(Duration::from_millis(millis));
        }
        assert_eq!(latencies.count(), 1000);
        assert!(
            latencies.percentile(50.0).abs_diff(Duration::from_millis(500))
                < Duration::from_millis(1)
        );
        assert!(
            latencies.percentile(99.0).abs_diff(Duration::from_millis(990))
                < Duration::from_millis(2)
        );
        assert!(latencies.max().abs_diff(Duration::from_secs(1)) < Duration::from_millis(2));
    }
}
