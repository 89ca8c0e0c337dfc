//! Jobs: contended writes that were accepted but not yet decided, and how they travel.

pub mod envelope;
pub mod id;
pub mod issue_coupon;
pub mod outcome;

pub use envelope::{Envelope, Idempotency, Undecodable};
pub use id::JobId;
pub use issue_coupon::IssueCoupon;
pub use outcome::{Settled, SettledBatch, Status};

use crate::partition::Partition;

/// The kinds of jobs. Adding one is: add a variant here and follow the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobKind {
    /// Give one coupon of a campaign to a user.
    IssueCoupon,
}

impl JobKind {
    /// Every kind there is.
    pub const ALL: [Self; 1] = [Self::IssueCoupon];

    /// The name in URLs, messages, rows and queue names; never renamed, since messages outlive
    /// deploys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IssueCoupon => "issue-coupon",
        }
    }

    /// The kind's number in the bits of a job id (0..=15); never renumbered.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::IssueCoupon => 1,
        }
    }

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// A job's own fields, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// See [`JobKind::IssueCoupon`].
    IssueCoupon(IssueCoupon),
}

impl Job {
    /// The job's kind.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::IssueCoupon(_) => JobKind::IssueCoupon,
        }
    }

    /// The line that the job must stand in, among `count` partitions of its kind.
    #[must_use]
    pub fn partition(&self, count: u16) -> Partition {
        let key = match self {
            Self::IssueCoupon(job) => job.coupon_id.get(),
        };
        Partition::of(self.kind(), key, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_never_change() {
        let pinned: Vec<_> = JobKind::ALL.map(|kind| (kind.as_str(), kind.number())).to_vec();
        assert_eq!(pinned, [("issue-coupon", 1)]);
        for kind in JobKind::ALL {
            assert_eq!(JobKind::from_number(kind.number()), Some(kind));
        }
    }
}
