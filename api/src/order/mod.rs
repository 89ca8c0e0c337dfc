//! Orders: placing them, and those that were completed.

mod place;
mod view;

pub use place::place;
pub use view::{get, history};
