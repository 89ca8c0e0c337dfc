//! The caller's balance: show, charge, history.

mod charge;
mod get;
mod history;

pub use charge::*;
pub use get::*;
pub use history::*;
