//! Products, as everyone sees them.

mod get;
mod list;
mod popular;

pub use get::*;
pub use list::*;
pub use popular::*;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A product.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Product, example = json!({"id": 1, "name": "Product 1", "price": 1_000, "stock": 10_000, "soldOut": false}))]
pub struct ProductView {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// In won.
    pub price: i64,
    /// How many there are.
    pub stock: i64,
    /// Whether there is none left.
    pub sold_out: bool,
}
