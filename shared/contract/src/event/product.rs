//! `product.sold-out`.

use serde::{Deserialize, Serialize};

use crate::ids::ProductId;

/// A product whose last unit was sold. It may have some again: stock is added, orders are cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProductSoldOut {
    /// The product; also the `subject` of the event.
    pub product_id: ProductId,
}
