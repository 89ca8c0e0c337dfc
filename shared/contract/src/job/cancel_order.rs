//! `cancel-order`: an order is undone, and its units are for sale again.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{OrderId, ProductId, UserId},
    money::Money,
    order::MAX_ITEMS,
};

/// The longest reason, in characters.
pub const MAX_REASON: usize = 500;

/// An order to cancel. It stands in the line in which the order stood, so that its units go to whoever is next there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelOrder {
    /// The order.
    pub order_id: OrderId,
    /// Whose order it is; for an operator another one than the caller.
    pub customer_id: UserId,
    /// What the order asked for, ascending, at least one: what was dropped of it included.
    pub product_ids: Vec<ProductId>,
    /// Why, in the caller's words: 1..=[`MAX_REASON`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Set for an operator, who may cancel anybody's order.
    #[serde(default)]
    pub by_operator: bool,
    /// How old the order may be when this is submitted, in seconds; operators have no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
    /// The name of an operator's request, for the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl CancelOrder {
    /// Whether it is as the API makes it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let is_reason = |reason: &String| (1..=MAX_REASON).contains(&reason.chars().count());
        (1..=MAX_ITEMS).contains(&self.product_ids.len())
            && self.product_ids.is_sorted_by(|earlier, later| earlier < later)
            && self.reason.as_ref().is_none_or(is_reason)
    }
}

/// The result of a job that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// What is back in the balance: all that was paid.
    pub refunded: Money,
    /// Whether a coupon is unused again; it may be expired by now.
    pub coupon_returned: bool,
}
