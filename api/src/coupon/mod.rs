//! Coupons: campaigns, asking for one, and those in the caller's hands.

mod board;
mod held;
mod issue;
mod list;

pub use board::{Board, changed_channel};
pub use held::held;
pub use issue::issue;
pub use list::{get, list};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A campaign as everyone sees it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CouponView {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// `fixed` or `percent`.
    pub discount_type: String,
    /// Won, or percent.
    pub discount_value: i64,
    /// The most that a percentage takes off, in won.
    pub max_discount: Option<i64>,
    /// How many coupons there are in all.
    pub total: i64,
    /// How many of them are not issued yet.
    pub remaining: i64,
    /// First instant at which it can be had.
    pub starts_at: DateTime<Utc>,
    /// First instant at which it can no longer be had.
    pub ends_at: DateTime<Utc>,
}
