//! Lost jobs: they were accepted, have no outcome, and are in no line any more, because PostgreSQL went back to
//! an earlier moment or the broker lost its data.
//!
//! A line gives its jobs out in order, so how far it has come tells which jobs are no longer in it: those that
//! were put into it before one that is settled, or before a canary that came out. A job that has no outcome
//! although every line in which it may stand has passed it, can get none.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    job::{JobId, JobKind},
    line::{Line, LineName, slot},
};

/// How long after its submission a job is surely in its line, by everybody's clock: what a publisher waits at
/// most (10 s), as much again for a repeat that publishes it once more, and the rest for clocks that disagree and
/// jobs that overtake each other.
pub const MARGIN: TimeDelta = TimeDelta::seconds(60);

/// How far a line has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The line of which this tells.
    pub line: Line,
    /// How many partitions its generation has; 0 while that is not known.
    pub partitions: u16,
    /// It takes no jobs any more, and its last message has come out.
    pub is_drained: bool,
    /// What was put into it up to then is settled.
    pub passed: Option<DateTime<Utc>>,
}

/// Whether the job must have come out of its line by now. `lines` are all that there are, of the current routing
/// and of earlier ones; where none is known, nothing is certain.
#[must_use]
pub fn has_come_out(
    job: JobId,
    now: DateTime<Utc>,
    lines: impl IntoIterator<Item = Progress>,
) -> bool {
    let was_in = job.submitted_at() + MARGIN;
    if was_in >= now {
        return false;
    }
    let mut has_passed = false;
    let remaining = lines.into_iter().filter(|line| !line.is_drained);
    for line in remaining.filter(|line| may_hold(line, job)) {
        if line.passed <= Some(was_in) {
            return false;
        }
        has_passed = true;
    }
    has_passed
}

/// Whether the job may stand in the line. Its place is that of its first key, or of its pin, when it was
/// submitted; the routing may have changed before it was published, and a pin's number may have been given to
/// another key since.
fn may_hold(line: &Progress, job: JobId) -> bool {
    let Line { family, name, .. } = line.line;
    job.kind().map(JobKind::family) == Some(family)
        && match (job.place().slot(), name) {
            (None, _) => true,
            (Some(_), LineName::Partition(_)) if line.partitions == 0 => true,
            (Some(slot), LineName::Partition(index)) => slot % line.partitions == index,
            (Some(first), LineName::Pin(key)) => family.has_several_keys() || slot(key) == first,
        }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::line::{Naming, Routing};
    use proptest::prelude::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
    }

    fn job(kind: JobKind, routing: &Routing, keys: &[i64]) -> JobId {
        let place = routing.place(keys.iter().copied());
        JobId::compose(at(0).timestamp_millis().unsigned_abs(), kind, place, 0, 0)
    }

    fn routing(generation: i32, partitions: u16, pins: &[i64]) -> Routing {
        let pins = pins.iter().copied().zip(0..).collect();
        Routing { generation, partitions, pins, naming: Naming::Family }
    }

    /// Every line of these routings, all of which have passed everything.
    fn passed(kind: JobKind, routings: &[&Routing]) -> BTreeMap<Line, Progress> {
        let lines = routings.iter().flat_map(|routing| {
            routing.lines().map(|line| {
                let line = routing.named(kind.family(), line);
                let passed = Some(at(1_000));
                (line, Progress { line, partitions: routing.partitions, is_drained: false, passed })
            })
        });
        lines.collect()
    }

    fn is_out(job: JobId, lines: &BTreeMap<Line, Progress>) -> bool {
        has_come_out(job, at(1_000), lines.values().copied())
    }

    #[test]
    fn a_job_has_come_out_when_its_line_has_passed_it_by_the_margin() {
        let routing = routing(1, 1, &[]);
        let job = job(JobKind::IssueCoupon, &routing, &[7]);
        let mut lines = passed(JobKind::IssueCoupon, &[&routing]);
        let mut is_out_at = |until: Option<DateTime<Utc>>, now| {
            lines.values_mut().for_each(|line| line.passed = until);
            has_come_out(job, now, lines.values().copied())
        };
        assert!(is_out_at(Some(at(61)), at(61)));
        assert!(!is_out_at(Some(at(60)), at(61)), "it may have come later");
        assert!(!is_out_at(Some(at(1_000)), at(60)), "by a clock that is fast");
        assert!(!is_out_at(None, at(1_000)), "nobody knows");
        assert!(!has_come_out(job, at(1_000), []), "there is no line");
        lines.values_mut().for_each(|line| {
            (line.is_drained, line.passed) = (true, Some(at(1_000)));
        });
        assert!(!is_out(job, &lines), "all that is known is over");
    }

    #[test]
    fn lines_of_other_families_and_drained_ones_tell_nothing() {
        let routing = routing(1, 2, &[]);
        let job = job(JobKind::IssueCoupon, &routing, &[7]);
        let mut lines = passed(JobKind::IssueCoupon, &[&routing]);
        lines.extend(
            passed(JobKind::PlaceOrder, &[&routing])
                .into_iter()
                .map(|(line, progress)| (line, Progress { passed: None, ..progress })),
        );
        let line = routing.line(std::iter::once(7));
        let older = Line { generation: 0, ..routing.named(JobKind::IssueCoupon.family(), line) };
        let drained = Progress { line: older, partitions: 2, is_drained: true, passed: None };
        lines.insert(older, drained);
        assert!(is_out(job, &lines));
    }

    proptest! {
        /// Published by that routing or, where it came back, by the next one.
        #[test]
        fn a_job_that_stands_in_a_line_has_not_come_out(
            partitions in (1u16..9, 1u16..9), pins in prop::collection::vec(prop::collection::btree_set(1i64..12, 0..4), 2),
            keys in prop::collection::btree_set(1i64..12, 1..4), moved: bool,
        ) {
            let pins: Vec<Vec<i64>> = pins.into_iter().map(|pins| pins.into_iter().collect()).collect();
            let submitted = routing(1, partitions.0, &pins[0]);
            let next = routing(2, partitions.1, &pins[1]);
            let keys: Vec<i64> = keys.into_iter().collect();
            for (kind, keys) in [(JobKind::IssueCoupon, &keys[..1]), (JobKind::PlaceOrder, &keys[..])] {
                let job = job(kind, &submitted, keys);
                let mut lines = passed(kind, &[&submitted, &next]);
                prop_assert!(is_out(job, &lines));
                let stands = if moved { &next } else { &submitted };
                let line = stands.line(keys.iter().copied());
                let line = stands.named(kind.family(), line);
                lines.get_mut(&line).unwrap().passed = Some(at(-1));
                prop_assert!(!is_out(job, &lines), "{keys:?} stand in {line:?}");
            }
        }
    }
}
