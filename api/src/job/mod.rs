//! Jobs as their submitters see them: ids that prove themselves, and polls that wait.

mod get;
mod schema;

pub use get::*;
pub(crate) use schema::Item;
