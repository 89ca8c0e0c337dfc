//! A simple cart: what the caller means to buy.

mod edit;
mod get;

pub use edit::*;
pub use get::*;
