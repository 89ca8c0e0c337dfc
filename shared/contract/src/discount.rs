//! What a coupon takes off an order, and how that is rounded.

use crate::money::Money;

/// What a coupon takes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discount {
    /// An amount in won, the same for every order.
    Fixed(Money),
    /// A percentage, rounded down.
    Percent {
        /// The percentage: 1..=100.
        percent: i64,
        /// The most that it takes off, in won; `None` for no such bound.
        cap: Option<Money>,
    },
}

impl Discount {
    /// What it takes off an order of this amount: never more than the amount.
    #[must_use]
    pub fn off(self, items_amount: Money) -> Money {
        let nominal = match self {
            Self::Fixed(amount) => amount,
            Self::Percent { percent, cap } => {
                // Rounded down, as whole numbers are divided.
                let part = Money::new(items_amount.get() * percent / 100);
                cap.map_or(part, |cap| part.min(cap))
            }
        };
        nominal.min(items_amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::MAX_PRICE;
    use proptest::prelude::*;

    fn discount() -> impl Strategy<Value = Discount> {
        prop_oneof![
            (1i64..=MAX_PRICE).prop_map(|amount| Discount::Fixed(Money::new(amount))),
            (1i64..=100, prop::option::of(1i64..=MAX_PRICE)).prop_map(|(percent, cap)| {
                Discount::Percent { percent, cap: cap.map(Money::new) }
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_discount_is_between_nothing_and_everything(discount in discount(), amount in 0i64..=MAX_PRICE * 500_000) {
            let off = discount.off(Money::new(amount)).get();
            prop_assert!((0..=amount).contains(&off));
            match discount {
                Discount::Fixed(fixed) => prop_assert_eq!(off, fixed.get().min(amount)),
                Discount::Percent { percent, cap } => {
                    let exact = i128::from(amount) * i128::from(percent) / 100;
                    let capped = cap.map_or(exact, |cap| exact.min(i128::from(cap.get())));
                    prop_assert_eq!(i128::from(off), capped);
                }
            }
        }
    }
}
