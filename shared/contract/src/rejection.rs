//! The business "no": every reason for which a job can end in `rejected`.

use serde::{Deserialize, Serialize};

/// Why a job was rejected. The code is public and stable; messages and rows outlive deploys, so a
/// variant may be renamed but its code may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rejection {
    /// The caller has no user row.
    UserNotFound,
    /// No such campaign, or it was deleted.
    CouponNotFound,
    /// Submitted before the campaign's `startsAt`.
    CouponNotStarted,
    /// Submitted at or after the campaign's `endsAt`.
    CouponEnded,
    /// The user already holds this campaign's coupon.
    CouponAlreadyIssued,
    /// All coupons of the campaign are issued.
    CouponSoldOut,
    /// A product of the order does not exist, or was deleted.
    ProductNotFound,
    /// The order asks for more than there is; says which lines.
    OutOfStock,
    /// The user holds no coupon of the campaign.
    CouponNotOwned,
    /// The user's coupon was used before.
    CouponAlreadyUsed,
    /// Submitted outside of the coupon's window.
    CouponExpired,
    /// The balance does not cover the order.
    InsufficientBalance,
    /// The idempotency key was used before, with another request.
    IdempotencyKeyReused,
}

impl Rejection {
    /// Every rejection there is, for look-ups and tests.
    pub const ALL: [Self; 13] = [
        Self::UserNotFound,
        Self::CouponNotFound,
        Self::CouponNotStarted,
        Self::CouponEnded,
        Self::CouponAlreadyIssued,
        Self::CouponSoldOut,
        Self::ProductNotFound,
        Self::OutOfStock,
        Self::CouponNotOwned,
        Self::CouponAlreadyUsed,
        Self::CouponExpired,
        Self::InsufficientBalance,
        Self::IdempotencyKeyReused,
    ];

    /// The stable code in problems, rows and messages.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UserNotFound => "user-not-found",
            Self::CouponNotFound => "coupon-not-found",
            Self::CouponNotStarted => "coupon-not-started",
            Self::CouponEnded => "coupon-ended",
            Self::CouponAlreadyIssued => "coupon-already-issued",
            Self::CouponSoldOut => "coupon-sold-out",
            Self::ProductNotFound => "product-not-found",
            Self::OutOfStock => "out-of-stock",
            Self::CouponNotOwned => "coupon-not-owned",
            Self::CouponAlreadyUsed => "coupon-already-used",
            Self::CouponExpired => "coupon-expired",
            Self::InsufficientBalance => "insufficient-balance",
            Self::IdempotencyKeyReused => "idempotency-key-reused",
        }
    }

    /// The rejection with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rejection| rejection.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_and_equals_its_json_name() {
        for rejection in Rejection::ALL {
            assert_eq!(Rejection::from_code(rejection.code()), Some(rejection));
            assert_eq!(serde_json::to_value(rejection).unwrap(), rejection.code());
        }
        assert_eq!(Rejection::from_code("no-such-code"), None);
    }
}
