//! What an order asks for, and its bounds.

use serde::{Deserialize, Serialize};

use crate::ids::ProductId;

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

    proptest! {
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
