//! Orders: placing them, those that were completed, and cancelling them.

mod cancel;
mod place;
mod view;

pub use cancel::*;
pub use place::*;
pub use view::*;
