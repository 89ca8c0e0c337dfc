//! The `place-order` job.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{CouponId, OrderId, ProductId},
    money::Money,
    order::{Fulfilment, Item, MAX_ITEMS, MAX_QUANTITY},
};

/// Asks for products, paid from the submitting user's balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceOrder {
    /// What is wanted: merged, by product id, at least one.
    #[serde(rename = "lines")]
    pub items: Vec<Item>,
    /// The campaign whose coupon is to be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupon_id: Option<CouponId>,
    /// Whether an item that is short rejects the order or is dropped.
    #[serde(default)]
    pub fulfilment: Fulfilment,
    /// The items were the user's cart: what is bought leaves it.
    #[serde(default)]
    pub from_cart: bool,
}

impl PlaceOrder {
    /// The ids of the products, ascending.
    pub fn product_ids(&self) -> impl Iterator<Item = i64> + Clone + '_ {
        self.items.iter().map(|item| item.product_id.get())
    }

    /// Whether the items are as the API makes them: by product id, each once, within the bounds
    /// that keep every amount in range.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (1..=MAX_ITEMS).contains(&self.items.len())
            && self.items.iter().all(|item| (1..=MAX_QUANTITY).contains(&item.quantity))
            && self.items.is_sorted_by(|earlier, later| earlier.product_id < later.product_id)
    }
}

/// The result of a job that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderPlaced {
    /// The number under which the order can be read.
    pub order_id: OrderId,
    /// The sum of price times quantity, without what was dropped.
    pub items_amount: Money,
    /// What the coupon took off; 0 without one.
    pub discount: Money,
    /// What was deducted from the balance: `items_amount` less `discount`.
    pub paid: Money,
    /// The items of a partial order that were short.
    pub dropped: Vec<Item>,
}

/// An item that is short of stock: what `out-of-stock` adds to its code, as `lines`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShortItem {
    /// The product of which there are not enough.
    pub product_id: ProductId,
    /// How many were asked for.
    pub requested: i64,
    /// How many there were at the settlement; fewer than `requested`.
    pub available: i64,
}

/// An item of which the customer may not have that many: what `limit-exceeded` adds to its code, as `lines`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitedItem {
    /// The product whose limit it is.
    pub product_id: ProductId,
    /// How many were asked for.
    pub requested: i64,
    /// How many the customer has by orders that were not cancelled.
    pub bought: i64,
    /// How many a customer may have for life.
    pub limit: i64,
}
