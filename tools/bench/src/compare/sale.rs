//! What is stormed, and so what is measured: coupons and products. Nobody storms a shop to cancel an order.

use firstcome_contract::job::JobKind;

/// What everybody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sale {
    /// A coupon each.
    Coupons,
    /// An order each.
    Orders,
}

impl Sale {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Coupons, Self::Orders];

    /// The jobs that it is made of.
    pub(super) const fn kind(self) -> JobKind {
        match self {
            Self::Coupons => JobKind::IssueCoupon,
            Self::Orders => JobKind::PlaceOrder,
        }
    }
}
