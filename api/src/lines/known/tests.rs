//! What an old report and an old look say of a line.

use std::time::Duration;

use super::*;

/// A line that was looked at so long ago. Its worker, who takes a tenth of a second for a batch, had told `age` before
/// that it had worked on one for `in_hand`; the first that is not settled had come `head` before.
fn looked_at(read: f64, age: f64, in_hand: f64, head: f64) -> Known {
    let now = Instant::now();
    let came = Utc::now() - TimeDelta::milliseconds(whole((read + head) * 1e3).cast_signed());
    let mut stored = Arrivals::default();
    stored.note(Bucket { first_at: came, last_at: came, jobs: 10 }, TimeDelta::zero());
    let report = Report {
        in_hand: 1,
        jobs_in_hand: 5,
        in_hand_seconds: Some(in_hand),
        batch_limit: 4_000,
        batch_seconds: 0.1,
        job_seconds: 0.0,
        jobs_per_message: 10.0,
        progress_at: came,
        hottest: Value::Null,
        age,
    };
    Known {
        is_open: true,
        owner: Some("a worker".into()),
        report: Some(report),
        read: Some(now - Duration::from_secs_f64(read)),
        head_at: Some(came),
        stored,
        ..Known::default()
    }
}

fn told(known: &Known) -> f64 {
    known.seconds_to(10, 10).unwrap()
}

#[test]
fn an_old_report_of_a_quick_batch_is_no_slow_batch() {
    let mut known = looked_at(0.48, 0.49, 0.08, 0.1);
    known.progressed = known.read;
    assert!(told(&known) < 0.3, "{}", told(&known));
    // Nor where nothing had been settled for long: nothing had come.
    let known = looked_at(0.48, 0.49, 0.08, 0.02);
    assert!(told(&known) < 0.3, "{}", told(&known));
}

#[test]
fn what_was_under_way_at_the_last_look_is_no_forgotten_line() {
    let mut known = looked_at(0.49, 0.9, 0.0, 0.7);
    known.report.as_mut().unwrap().in_hand_seconds = None;
    assert!(told(&known) < 0.3, "{}", told(&known));
    // Who had waited for long by then is.
    let mut known = looked_at(0.1, 0.9, 0.0, 3.0);
    known.report.as_mut().unwrap().in_hand_seconds = None;
    assert!(told(&known) > 2.5, "{}", told(&known));
}

#[test]
fn a_batch_that_was_seen_to_take_long_takes_as_long_again() {
    let known = looked_at(0.1, 0.5, 2.5, 5.0);
    assert!((told(&known) - 3.0).abs() < 0.5, "{}", told(&known));
}

#[test]
fn a_queue_that_refuses_is_full_only_if_so_many_may_wait() {
    let of = |capacity| Known { capacity, ..looked_at(0.1, 0.9, 0.0, 3.0) };
    assert_eq!(of(None).waiting_jobs(), 10);
    assert!(of(None).may_be_full(), "nobody told what it takes");
    assert!(of(Some(10)).may_be_full() && of(Some(20)).may_be_full());
    assert!(!of(Some(21)).may_be_full());
}
