//! `from` and `to`: when jobs were submitted.

use chrono::{DateTime, TimeDelta, Utc};
use firstcome_contract::job::JobId;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::http::fields::Fields;

/// Submitted at `from` or later, and before `to`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Between {
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

/// As it stands in a query.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Between` reads")]
pub(super) struct BetweenParams {
    /// Submitted then or later.
    #[param(required = false)]
    from: Option<DateTime<Utc>>,
    /// Submitted before.
    #[param(required = false)]
    to: Option<DateTime<Utc>>,
}

impl Between {
    pub(super) fn read(fields: &mut Fields) -> Self {
        Self { from: fields.optional_instant("from"), to: fields.optional_instant("to") }
    }

    pub(super) const fn is_given(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// The same as instants, the later one of which is not in it.
    pub(super) fn instants(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        let end = DateTime::from_timestamp(253_402_300_799, 0).unwrap_or_default();
        (self.from.unwrap_or_default(), self.to.unwrap_or(end))
    }

    /// The same as the ids of jobs, of which those of this page are before `after`, if that is given.
    pub(super) fn jobs(&self, after: Option<Uuid>) -> (Uuid, Uuid) {
        let from = self.from.map_or(Uuid::nil(), |at| JobId::lowest_at(to_millis(at)));
        let to = self.to.map_or(Uuid::max(), |at| JobId::lowest_at(to_millis(at)));
        (from, after.map_or(to, |after| after.min(to)))
    }
}

/// Ids know milliseconds: of those, the first that is not before this instant. Nothing was submitted before 1970.
fn to_millis(at: DateTime<Utc>) -> DateTime<Utc> {
    let at = at.max(DateTime::UNIX_EPOCH);
    let rest = at.timestamp_subsec_nanos() % 1_000_000;
    if rest == 0 { at } else { at + TimeDelta::nanoseconds(i64::from(1_000_000 - rest)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firstcome_contract::{job::JobKind, line::Place};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_job_is_between_as_its_instant_is(from in 0i64..3_000, to in 0i64..3_000, millis in 0u64..3) {
            // In microseconds, so that some are within a millisecond.
            let between = Between { from: DateTime::from_timestamp_micros(from), to: DateTime::from_timestamp_micros(to) };
            let job = JobId::compose(millis, JobKind::IssueCoupon, Place::UNKNOWN, 7, 7);
            let at = job.submitted_at().timestamp_micros();
            let (first, end) = between.jobs(None);
            prop_assert_eq!(job.get() >= first && job.get() < end, at >= from && at < to);
        }
    }
}
