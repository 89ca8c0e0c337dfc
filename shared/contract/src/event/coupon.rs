//! `coupon.issued` and `coupon.sold-out`.

use serde::{Deserialize, Serialize};

use crate::ids::{CouponId, UserCouponId, UserId};

/// A coupon in a user's hands. The event's id is the id of its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CouponIssued {
    /// The campaign.
    pub coupon_id: CouponId,
    /// Who holds the coupon.
    pub user_id: UserId,
    /// The coupon's own number; also the `subject` of the event.
    pub user_coupon_id: UserCouponId,
    /// The how manieth of the campaign it is: 1 is the first.
    pub issue_number: i64,
}

/// A campaign whose last coupon was issued. It may have some again: its total can be raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CouponSoldOut {
    /// The campaign; also the `subject` of the event.
    pub coupon_id: CouponId,
    /// How many coupons that were.
    pub total: i64,
}
