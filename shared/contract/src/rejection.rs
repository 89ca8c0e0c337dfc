//! The business "no": every reason for which a job can end in `rejected`.

use crate::codes::codes;

codes! {
    /// Why a job was rejected. The code is public and stable; messages and rows outlive deploys, so a
    /// variant may be renamed but its code may not.
    pub enum Rejection {
        /// The caller has no user row.
        UserNotFound = "user-not-found",
        /// No such campaign, or it was deleted.
        CouponNotFound = "coupon-not-found",
        /// Submitted while the sale of the product, or the campaign, was paused.
        SalePaused = "sale-paused",
        /// Submitted before the campaign's `startsAt`.
        CouponNotStarted = "coupon-not-started",
        /// Submitted at or after the campaign's `endsAt`.
        CouponEnded = "coupon-ended",
        /// The user already holds this campaign's coupon.
        CouponAlreadyIssued = "coupon-already-issued",
        /// All coupons of the campaign are issued.
        CouponSoldOut = "coupon-sold-out",
        /// A product of the order does not exist, or was deleted.
        ProductNotFound = "product-not-found",
        /// Submitted outside of the product's sale window.
        ProductNotOnSale = "product-not-on-sale",
        /// The order asks for more than the product's limit per customer leaves; says which items.
        LimitExceeded = "limit-exceeded",
        /// The order asks for more than there is; says which items.
        OutOfStock = "out-of-stock",
        /// The user holds no coupon of the campaign.
        CouponNotOwned = "coupon-not-owned",
        /// The user's coupon was used before.
        CouponAlreadyUsed = "coupon-already-used",
        /// Submitted outside of the coupon's window.
        CouponExpired = "coupon-expired",
        /// The balance does not cover the order.
        InsufficientBalance = "insufficient-balance",
        /// No such order, or another customer's.
        OrderNotFound = "order-not-found",
        /// The order was cancelled before.
        OrderAlreadyCancelled = "order-already-cancelled",
        /// The order is too old to be cancelled by its customer.
        OrderNotCancellable = "order-not-cancellable",
        /// The idempotency key was used before, with another request.
        IdempotencyKeyReused = "idempotency-key-reused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn every_code_reads_back() {
        for rejection in Rejection::ALL {
            assert_eq!(Rejection::from_code(rejection.code()), Some(rejection));
        }
        for failure in Failure::ALL {
            assert_eq!(Failure::from_code(failure.code()), Some(failure));
        }
        assert_eq!(Rejection::from_code("no-such-code"), None);
    }
}
