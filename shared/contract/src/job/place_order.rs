//! The `place-order` job.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{CouponId, OrderId, ProductId},
    money::Money,
    order::{Fulfilment, Line, MAX_LINES, MAX_QUANTITY},
};

/// Asks for products, paid from the submitting user's balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceOrder {
    /// What is wanted: merged, by product id, at least one line.
    pub lines: Vec<Line>,
    /// The campaign whose coupon is to be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupon_id: Option<CouponId>,
    /// What happens when a line is short.
    #[serde(default)]
    pub fulfilment: Fulfilment,
    /// The lines were the user's cart: what is bought leaves it.
    #[serde(default)]
    pub from_cart: bool,
}

impl PlaceOrder {
    /// The products, ascending.
    pub fn product_ids(&self) -> impl Iterator<Item = i64> + Clone + '_ {
        self.lines.iter().map(|line| line.product_id.get())
    }

    /// Whether the lines are as the API makes them: by product id, each once, within the bounds
    /// that keep every amount in range.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (1..=MAX_LINES).contains(&self.lines.len())
            && self.lines.iter().all(|line| (1..=MAX_QUANTITY).contains(&line.quantity))
            && self.lines.is_sorted_by(|earlier, later| earlier.product_id < later.product_id)
    }
}

/// The result of a job that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderPlaced {
    /// The order.
    pub order_id: OrderId,
    /// What its lines cost.
    pub items_amount: Money,
    /// What the coupon took off.
    pub discount: Money,
    /// What was deducted from the balance.
    pub paid: Money,
    /// The lines of a partial order that were short.
    pub dropped: Vec<Line>,
}

/// A line that is short of stock: what `out-of-stock` adds to its code, as `lines`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShortLine {
    /// The product.
    pub product_id: ProductId,
    /// How many were asked for.
    pub requested: i64,
    /// How many there were.
    pub available: i64,
}
