//! Orders: placing them, and those that were completed.

mod place;
mod view;

pub use place::*;
pub use view::*;
