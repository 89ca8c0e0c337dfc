//! Money: an integer number of the currency's minor unit (KRW: won).

use serde::{Deserialize, Serialize};

/// An amount. All amounts of the system stay far below the range of 64 bits: the bounds on prices,
/// quantities, items and balances see to it (see `order::MAX_PRICE`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Money(i64);

impl Money {
    /// No money: what a free order costs, and where sums begin.
    pub const ZERO: Self = Self(0);

    /// Makes an amount from a number of minor units.
    #[must_use]
    pub const fn new(amount: i64) -> Self {
        Self(amount)
    }

    /// The number of minor units.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Multiplies the amount; within the bounds on prices and quantities it cannot overflow.
    #[must_use]
    pub const fn times(self, quantity: i64) -> Self {
        Self(self.0 * quantity)
    }
}

impl std::ops::Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::ops::Sub for Money {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl std::iter::Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self(amounts.map(Self::get).sum())
    }
}
