//! The rules of a coupon campaign, without I/O.

use chrono::{DateTime, Utc};

use crate::rejection::Rejection;

/// What decides whether a campaign can issue a coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Campaign {
    /// First instant at which a submission counts.
    pub starts_at: DateTime<Utc>,
    /// First instant at which a submission no longer counts.
    pub ends_at: DateTime<Utc>,
    /// How many coupons the campaign gives in all.
    pub total: i64,
    /// How many of them users have got: 0..=`total`.
    pub issued: i64,
    /// Since when nobody may submit; `None` while the campaign is not paused.
    pub paused_at: Option<DateTime<Utc>>,
}

impl Campaign {
    /// Whether the request was submitted when that was possible: not in a pause, and startsAt ≤ submittedAt < endsAt.
    ///
    /// # Errors
    /// `SalePaused`, `CouponNotStarted` or `CouponEnded`.
    pub fn check_window(&self, submitted_at: DateTime<Utc>) -> Result<(), Rejection> {
        if is_paused(self.paused_at, submitted_at) {
            Err(Rejection::SalePaused)
        } else if submitted_at < self.starts_at {
            Err(Rejection::CouponNotStarted)
        } else if submitted_at >= self.ends_at {
            Err(Rejection::CouponEnded)
        } else {
            Ok(())
        }
    }

    /// Whether a coupon is left.
    ///
    /// # Errors
    /// `CouponSoldOut`.
    pub fn check_stock(&self) -> Result<(), Rejection> {
        if self.issued < self.total { Ok(()) } else { Err(Rejection::CouponSoldOut) }
    }
}

/// Whether a sale that is paused since then was so when a request was submitted: what was submitted before is
/// settled.
pub(crate) fn is_paused(paused_at: Option<DateTime<Utc>>, submitted_at: DateTime<Utc>) -> bool {
    paused_at.is_some_and(|paused_at| paused_at <= submitted_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_window_is_half_open(start in -1_000i64..1_000, length in 1i64..1_000, at in -3_000i64..3_000, paused in proptest::option::of(-3_000i64..3_000)) {
            let epoch = DateTime::<Utc>::UNIX_EPOCH;
            let campaign = Campaign {
                starts_at: epoch + TimeDelta::milliseconds(start),
                ends_at: epoch + TimeDelta::milliseconds(start + length),
                total: 1,
                issued: 0,
                paused_at: paused.map(|paused| epoch + TimeDelta::milliseconds(paused)),
            };
            let expected = if paused.is_some_and(|paused| paused <= at) {
                Err(Rejection::SalePaused)
            } else if at < start {
                Err(Rejection::CouponNotStarted)
            } else if at >= start + length {
                Err(Rejection::CouponEnded)
            } else {
                Ok(())
            };
            prop_assert_eq!(campaign.check_window(epoch + TimeDelta::milliseconds(at)), expected);
        }
    }
}
