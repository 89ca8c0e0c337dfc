//! The `issue-coupon` job.

use serde::{Deserialize, Serialize};

use crate::ids::{CouponId, UserCouponId};

/// Asks for one coupon of a campaign for the submitting user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssueCoupon {
    /// The campaign; also the job's partition key.
    pub coupon_id: CouponId,
}

/// The result of a job that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CouponIssued {
    /// The coupon that the user holds from now on.
    pub user_coupon_id: UserCouponId,
    /// The campaign of which it is one.
    pub coupon_id: CouponId,
    /// Gapless from 1 to the campaign's total, in the order in which the line was settled.
    pub issue_number: i64,
}
