//! How long a batch takes, by how many jobs it holds: so long in any case (round trips, the commit), and so
//! much more for each job. Fitted to the batches of late.

use std::time::Duration;

/// What a batch counts for, against the one after it: in effect the last ten or so tell.
const BATCH_DECAY: f64 = 0.85;
/// A batch that took a second tells more of the present than many that took none: all before it count for so
/// many e-folds less.
const SECOND_DECAY: f64 = 2.0;
/// What a job takes, in seconds, as long as all batches held the same number of jobs and cannot tell it from
/// what a batch takes: about what it does on an idle machine.
const PRIOR_JOB_SECONDS: f64 = 0.000_1;
/// The weight of that assumption: that of batches whose sizes differ by so many jobs.
const PRIOR_SPREAD: f64 = 30.0;

/// Seconds over jobs, fitted to the batches of late by least squares; the newer ones weigh more.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Speed {
    weight: f64,
    jobs: f64,
    seconds: f64,
    jobs_squared: f64,
    jobs_seconds: f64,
}

impl Speed {
    /// A batch of so many jobs took so long.
    pub(crate) fn note(&mut self, jobs: usize, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "some thousands at most")]
        let (jobs, seconds) = (jobs as f64, took.as_secs_f64());
        let decay = BATCH_DECAY * (-SECOND_DECAY * seconds.min(1.0)).exp();
        self.weight = self.weight * decay + 1.0;
        self.jobs = self.jobs * decay + jobs;
        self.seconds = self.seconds * decay + seconds;
        self.jobs_squared = self.jobs_squared * decay + jobs * jobs;
        self.jobs_seconds = self.jobs_seconds * decay + jobs * seconds;
    }

    /// What a batch takes in any case, and what each job adds, in seconds; 0 before the first one.
    pub(crate) fn per_batch_and_job(&self) -> (f64, f64) {
        if self.weight == 0.0 {
            return (0.0, 0.0);
        }
        let (jobs, seconds) = (self.jobs / self.weight, self.seconds / self.weight);
        let variance = (self.jobs_squared / self.weight - jobs * jobs).max(0.0);
        let covariance = self.jobs_seconds / self.weight - jobs * seconds;
        let prior = PRIOR_SPREAD * PRIOR_SPREAD;
        let per_job = (covariance + prior * PRIOR_JOB_SECONDS) / (variance + prior);
        // Neither is negative: a batch of twice as many jobs takes no less, and at most twice as long.
        let per_job = per_job.clamp(0.0, seconds / jobs.max(1.0));
        (seconds - per_job * jobs, per_job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(batches: &[(usize, f64)]) -> (f64, f64) {
        let mut speed = Speed::default();
        for (jobs, seconds) in batches {
            speed.note(*jobs, Duration::from_secs_f64(*seconds));
        }
        speed.per_batch_and_job()
    }

    #[test]
    fn before_the_first_batch_nothing_is_known() {
        assert_eq!(told(&[]), (0.0, 0.0));
    }

    #[test]
    fn lone_jobs_do_not_make_a_storm_look_slow() {
        let (batch, job) = told(&[(1, 0.02); 20]);
        assert!(batch + 300.0 * job < 0.1, "{batch} {job}");
    }

    #[test]
    fn large_batches_of_a_slow_database_tell_what_a_job_takes() {
        let (batch, job) = told(&[(4_000, 48.0), (2_000, 24.0), (4_000, 48.0)]);
        assert!((job - 0.012).abs() < 0.002, "{job}");
        assert!(batch < 5.0, "{batch}");
        // After a storm of quick ones, two tell.
        let mut batches = vec![(100, 0.02); 100];
        batches.extend([(200, 3.0); 2]);
        let (batch, job) = told(&batches);
        assert!((2.0..4.0).contains(&(batch + 200.0 * job)), "{batch} {job}");
    }

    #[test]
    fn what_was_learned_is_forgotten() {
        let mut batches = vec![(100, 10.0); 50];
        batches.extend([(100, 0.01); 50]);
        let (batch, job) = told(&batches);
        assert!(batch + 100.0 * job < 0.02, "{batch} {job}");
    }

    proptest! {
        #[test]
        fn both_are_sane(batches in prop::collection::vec((1usize..4_000, 0.0f64..60.0), 1..60)) {
            let (batch, job) = told(&batches);
            prop_assert!(batch >= -1e-9 && job >= 0.0);
            let longest = batches.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
            prop_assert!(batch <= longest + 1e-9);
        }

        #[test]
        fn what_batches_follow_is_found(a in 0.0f64..0.02, b in 0.0f64..0.000_02, sizes in prop::collection::vec(1usize..4_000, 30..60)) {
            prop_assume!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() > 1_000);
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let batches: Vec<_> = sizes.iter().map(|n| (*n, a + b * *n as f64)).collect();
            let (batch, job) = told(&batches);
            let at = batch + 1_000.0 * job;
            let truth = a + b * 1_000.0;
            prop_assert!((at - truth).abs() <= truth * 0.2 + 0.02, "{} {}", at, truth);
        }
    }
}
