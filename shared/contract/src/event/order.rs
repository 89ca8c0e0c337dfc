//! `order.completed` and `order.cancelled`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{CouponId, OrderId, ProductId, UserId},
    money::Money,
    order::{MAX_ITEMS, MAX_PRICE, MAX_QUANTITY},
};

/// A completed order, as it was settled. The event's id is the id of its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCompleted {
    /// The order's number; also the `subject` of the event.
    pub order_id: OrderId,
    /// The customer who placed the order.
    pub user_id: UserId,
    /// What was bought, by product id; without what a partial order dropped.
    #[serde(rename = "lines")]
    pub items: Vec<SoldItem>,
    /// The sum of price times quantity, before the coupon.
    pub items_amount: Money,
    /// What the coupon took off; 0 without one.
    pub discount: Money,
    /// What was taken from the balance: `items_amount` less `discount`.
    pub paid: Money,
    /// The campaign of the coupon that was used, if any.
    pub coupon_id: Option<CouponId>,
}

/// An order that was cancelled. The event's id is the id of the job that cancelled it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCancelled {
    /// The order's number; also the `subject` of the event.
    pub order_id: OrderId,
    /// The customer whose order it was.
    pub user_id: UserId,
    /// What was bought and is for sale again, by product id.
    #[serde(rename = "lines")]
    pub items: Vec<SoldItem>,
    /// What is back in the balance: all that was paid.
    pub refunded: Money,
    /// The campaign of the coupon that was used and can be used again, if any.
    pub coupon_id: Option<CouponId>,
    /// When the order was completed.
    pub completed_at: DateTime<Utc>,
    /// Why, in the words of who cancelled it.
    pub reason: Option<String>,
    /// Whether that was an operator, not the customer.
    pub by_operator: bool,
}

/// An item of a completed order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SoldItem {
    /// The product's id; the product itself may change or go.
    pub product_id: ProductId,
    /// How many were bought: 1..=[`MAX_QUANTITY`].
    pub quantity: i64,
    /// The price of one at settlement.
    pub unit_price: Money,
}

/// Whether all of it can have been sold.
pub(super) fn check(items: &[SoldItem]) -> Result<(), String> {
    if items.len() > MAX_ITEMS {
        return Err(format!("{} items are more than an order can have", items.len()));
    }
    let is_sold = |item: &&SoldItem| {
        (1..=MAX_QUANTITY).contains(&item.quantity)
            && (0..=MAX_PRICE).contains(&item.unit_price.get())
    };
    match items.iter().find(|item| !is_sold(item)) {
        Some(item) => Err(format!(
            "nothing is sold {} times at {}: product {}",
            item.quantity,
            item.unit_price.get(),
            item.product_id
        )),
        None => Ok(()),
    }
}
