//! Jobs as their submitters see them: ids that prove themselves, and polls that wait.

mod board;
mod get;
mod lost;
mod schema;
mod signer;

pub use board::Board;
pub use get::*;
pub use lost::Lost;
pub(crate) use schema::{Line, kinds};
pub use signer::Signer;
