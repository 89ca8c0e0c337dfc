//! The caller's balance: show, charge, history.

mod charge;
mod get;
mod history;

pub use charge::charge;
pub use get::get;
pub use history::history;
