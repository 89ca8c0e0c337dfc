//! Jobs as their submitters see them: ids that prove themselves, and polls that wait.

mod board;
mod get;
mod signer;

pub use board::Board;
pub use get::get;
pub use signer::Signer;
