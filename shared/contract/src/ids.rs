//! Typed identifiers, so that no bare `i64` crosses a function boundary.

use serde::{Deserialize, Serialize};

/// The largest id that the API accepts: the largest integer that every JSON reader keeps exactly
/// (RFC 8259, section 6).
pub const MAX_ID: i64 = (1 << 53) - 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(i64);

        impl $name {
            /// Wraps a database id.
            #[must_use]
            pub const fn new(id: i64) -> Self {
                Self(id)
            }

            /// The id as the database and JSON know it.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A customer: the `sub` of a token.
    UserId
);
id!(
    /// A coupon campaign, of which each user can get one coupon.
    CouponId
);
id!(
    /// One coupon in one user's hands.
    UserCouponId
);
id!(
    /// A product of the catalogue, deleted ones included.
    ProductId
);
id!(
    /// A completed order. Before its completion there is only its job.
    OrderId
);
