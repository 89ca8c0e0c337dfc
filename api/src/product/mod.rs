//! Products, as everyone sees them.

mod get;
mod known;
mod list;
mod popular;

pub use get::get;
pub use known::Known;
pub use list::{Pages, list};
pub use popular::{Board as PopularBoard, popular};

use serde::{Deserialize, Serialize};

/// A product.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
