//! The `cancel-order` job.

use serde::{Deserialize, Serialize};

use crate::ids::{OrderId, ProductId};

/// Asks for a completed order to be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelOrder {
    /// Which order.
    pub order_id: OrderId,
    /// What it holds, by product id.
    pub product_ids: Vec<ProductId>,
}
