//! How many jobs had come into a line by when.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

/// The least time that a bucket stands for, in milliseconds.
const NARROWEST_BUCKET: i64 = 100;
/// About the most time that a bucket stands for, in milliseconds.
const WIDEST_BUCKET: i64 = 60_000;
/// A bucket is narrower than this part of the oldest job's age: so many tell of a line, however long its
/// backlog has grown, and a job's place in it is as exact as anybody's sense of time.
const BUCKETS: i64 = 100;

/// A number of jobs, and when the first and the last of them came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) first_at: DateTime<Utc>,
    pub(super) last_at: DateTime<Utc>,
    pub(super) jobs: u64,
}

/// What came into a line, in buckets by when they begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Arrivals {
    buckets: BTreeMap<DateTime<Utc>, Bucket>,
    /// The jobs of all buckets together.
    jobs: u64,
    /// When the last job came; `None` while there is none.
    last_at: Option<DateTime<Utc>>,
}

impl Bucket {
    /// How many of them had come by then, as if they had come evenly.
    fn by(&self, then: DateTime<Utc>) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
        let jobs = self.jobs as f64;
        if then < self.first_at {
            0.0
        } else if then >= self.last_at {
            jobs
        } else {
            let length = (self.last_at - self.first_at).as_seconds_f64();
            1.0 + (jobs - 1.0) * (then - self.first_at).as_seconds_f64() / length
        }
    }

    /// Joins two buckets: their jobs, and the time from the first to the last.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            first_at: self.first_at.min(other.first_at),
            last_at: self.last_at.max(other.last_at),
            jobs: self.jobs + other.jobs,
        }
    }
}

impl Arrivals {
    /// Adds jobs to the bucket of the last of them, in a line whose oldest job is so old.
    pub(super) fn note(&mut self, jobs: Bucket, oldest: TimeDelta) {
        let wanted = (oldest.num_milliseconds() / BUCKETS).clamp(NARROWEST_BUCKET, WIDEST_BUCKET);
        // Doubled as often as needed: as it grows, a bucket begins where a narrower one did.
        let mut width = NARROWEST_BUCKET;
        while width < wanted {
            width *= 2;
        }
        let millis = jobs.last_at.timestamp_millis();
        let begins = DateTime::from_timestamp_millis(millis - millis.rem_euclid(width));
        let begins = begins.unwrap_or(jobs.last_at);
        self.insert(begins, jobs);
    }

    /// Adds jobs to this bucket.
    pub(super) fn insert(&mut self, begins: DateTime<Utc>, jobs: Bucket) {
        self.jobs += jobs.jobs;
        self.last_at = self.last_at.max(Some(jobs.last_at));
        self.buckets.entry(begins).and_modify(|bucket| *bucket = bucket.and(jobs)).or_insert(jobs);
    }

    /// Takes jobs out of this bucket again.
    pub(super) fn remove(&mut self, begins: DateTime<Utc>, jobs: u64) {
        if let Some(bucket) = self.buckets.get_mut(&begins) {
            let jobs = jobs.min(bucket.jobs);
            self.jobs -= jobs;
            bucket.jobs -= jobs;
            if bucket.jobs == 0 {
                self.buckets.remove(&begins);
                self.last_at = self.buckets.values().map(|bucket| bucket.last_at).max();
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (DateTime<Utc>, Bucket)> {
        self.buckets.iter().map(|(begins, bucket)| (*begins, *bucket))
    }

    /// The number of jobs that came in all.
    pub(super) fn jobs(&self) -> u64 {
        self.jobs
    }

    /// Estimates how many jobs had come by then.
    pub(super) fn by(&self, then: DateTime<Utc>) -> f64 {
        // Who has just come asks most often.
        if self.last_at <= Some(then) {
            #[expect(clippy::cast_precision_loss, reason = "some millions at most")]
            let jobs = self.jobs as f64;
            return jobs;
        }
        self.buckets.values().map(|bucket| bucket.by(then)).sum()
    }

    /// Whether a bucket's time includes that moment.
    pub(super) fn took(&self, then: DateTime<Utc>) -> bool {
        self.buckets.values().any(|bucket| (bucket.first_at..=bucket.last_at).contains(&then))
    }

    /// When the first job came; `None` while there is none.
    pub(super) fn first_at(&self) -> Option<DateTime<Utc>> {
        self.buckets.values().map(|bucket| bucket.first_at).min()
    }

    /// When the last job came; `None` while there is none.
    pub(super) fn last_at(&self) -> Option<DateTime<Utc>> {
        self.last_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_000 + millis).unwrap()
    }

    fn bucket(first: i64, last: i64, jobs: u64) -> Bucket {
        Bucket { first_at: at(first), last_at: at(last), jobs }
    }

    #[test]
    fn three_hundred_in_a_moment_have_places_from_1_to_300() {
        let mut arrivals = Arrivals::default();
        // In parcels, some milliseconds each.
        for parcel in 0..30 {
            arrivals.note(bucket(parcel * 10, parcel * 10 + 9, 10), TimeDelta::zero());
        }
        assert!(arrivals.by(at(-1)) < 1.0);
        assert!((arrivals.by(at(0)) - 1.0).abs() < 0.01);
        assert!((arrivals.by(at(150)) - 150.0).abs() < 5.0);
        assert!((arrivals.by(at(299)) - 300.0).abs() < 0.01);
    }

    #[test]
    fn a_backlog_of_an_hour_is_told_in_some_hundred_buckets() {
        let mut arrivals = Arrivals::default();
        for second in 0..3_600 {
            let millis = second * 1_000;
            arrivals.note(bucket(millis, millis + 999, 7), TimeDelta::seconds(second));
        }
        assert_eq!(arrivals.jobs(), 3_600 * 7);
        assert!(arrivals.buckets.len() < 1_000, "{}", arrivals.buckets.len());
        assert!(
            (arrivals.by(at(1_800_000)) - 12_600.0).abs() < 126.0,
            "{}",
            arrivals.by(at(1_800_000))
        );
    }

    proptest! {
        #[test]
        fn nobody_comes_twice_or_goes_away(
            parcels in prop::collection::vec((0i64..100_000, 0i64..50, 1u64..128), 1..100),
            looks in prop::collection::vec(0i64..110_000, 2..20),
        ) {
            let mut arrivals = Arrivals::default();
            let mut all = 0;
            for (first, length, jobs) in parcels {
                arrivals.note(bucket(first, first + length, jobs), TimeDelta::zero());
                all += jobs;
            }
            prop_assert_eq!(arrivals.jobs(), all);
            let mut looks = looks;
            looks.sort_unstable();
            let seen: Vec<f64> = looks.into_iter().map(|then| arrivals.by(at(then))).collect();
            prop_assert!(seen.is_sorted_by(|before, after| *before <= *after + 1e-6), "{:?}", seen);
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let all = all as f64;
            prop_assert!((arrivals.by(arrivals.last_at().unwrap()) - all).abs() < 1e-6);
        }
    }
}
