//! Events: what happened, for whoever wants to know.

pub mod order_completed;

pub use order_completed::OrderCompleted;
