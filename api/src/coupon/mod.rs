//! Coupons: campaigns, asking for one, and those in the caller's hands.

mod held;
mod issue;
mod list;

pub use held::*;
pub use issue::*;
pub use list::*;
