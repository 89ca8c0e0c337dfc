//! Coupons: campaigns, asking for one, and those in the caller's hands.

mod held;
mod issue;
mod list;

pub use held::*;
pub use issue::*;
pub use list::*;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{ToSchema, openapi::Object};

use crate::openapi::one_of;

/// A campaign as everyone sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Coupon, example = json!({
    "id": 2, "name": "10 percent off", "discountType": "percent", "discountValue": 10, "maxDiscount": 5_000,
    "total": 10_000, "remaining": 9_999, "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
    "validUntil": "2100-01-01T00:00:00Z",
}))]
pub struct CouponView {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What kind of discount it gives.
    #[schema(schema_with = discount_types)]
    pub discount_type: String,
    /// Won, or percent.
    pub discount_value: i64,
    /// The most that a percentage takes off, in won.
    #[schema(required)]
    pub max_discount: Option<i64>,
    /// How many coupons there are in all.
    pub total: i64,
    /// How many of them are not issued yet.
    pub remaining: i64,
    /// First instant at which it can be had.
    pub starts_at: DateTime<Utc>,
    /// First instant at which it can no longer be had.
    pub ends_at: DateTime<Utc>,
    /// First instant at which an issued one can no longer be used.
    pub valid_until: DateTime<Utc>,
}

/// The kinds of discounts.
pub(crate) const DISCOUNT_TYPES: [(&str, &str); 2] = [("fixed", "fixed"), ("percent", "percent")];

pub(crate) fn discount_types() -> Object {
    one_of(DISCOUNT_TYPES.map(|(name, _)| name))
}
