//! Products, as everyone sees them.

mod get;
mod list;
mod popular;

pub use get::*;
pub use list::*;
pub use popular::*;
