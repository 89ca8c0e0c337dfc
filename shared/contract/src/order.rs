//! The rules of an order's amounts, without I/O.

use serde::{Deserialize, Serialize};

use crate::{ids::ProductId, money::Money};

/// The highest price of a product and the highest fixed discount, in won.
pub const MAX_PRICE: i64 = 1_000_000_000;
/// The most of one product in an order, duplicates merged.
pub const MAX_QUANTITY: i64 = 10_000;
/// The most items in an order, duplicates merged: it bounds the locks that one order takes.
pub const MAX_ITEMS: usize = 50;

/// One product of an order, and how many of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The product's id; an order names it once.
    pub product_id: ProductId,
    /// How many are wanted: 1..=[`MAX_QUANTITY`].
    pub quantity: i64,
}

/// What happens when an item is short of stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fulfilment {
    /// The order is rejected.
    #[default]
    All,
    /// The item is dropped; the order is rejected only when every item is.
    Partial,
}

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
            Self::Percent { percent, cap: None } => items_amount.percent(percent),
            Self::Percent { percent, cap: Some(cap) } => items_amount.percent(percent).min(cap),
        };
        nominal.min(items_amount)
    }
}

/// The items with duplicate products merged, by product id.
#[must_use]
pub fn merged(items: impl IntoIterator<Item = Item>) -> Vec<Item> {
    let mut merged: Vec<Item> = items.into_iter().collect();
    merged.sort_unstable_by_key(|item| item.product_id);
    merged.dedup_by(|later, earlier| {
        let same = later.product_id == earlier.product_id;
        if same {
            earlier.quantity = earlier.quantity.saturating_add(later.quantity);
        }
        same
    });
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
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

        #[test]
        fn merging_keeps_every_unit(items in prop::collection::vec((1i64..10, 1i64..100), 0..30)) {
            let items = items.into_iter().map(|(product, quantity)| Item { product_id: ProductId::new(product), quantity });
            let merged = merged(items.clone());
            prop_assert!(merged.windows(2).all(|pair| pair[0].product_id < pair[1].product_id));
            for item in &merged {
                let expected: i64 = items.clone().filter(|other| other.product_id == item.product_id).map(|item| item.quantity).sum();
                prop_assert_eq!(item.quantity, expected);
            }
            prop_assert_eq!(merged.iter().map(|item| item.quantity).sum::<i64>(), items.map(|item| item.quantity).sum::<i64>());
        }
    }
}
