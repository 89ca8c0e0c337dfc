//! Jobs as their submitters see them: ids that prove themselves, polls that wait, and streams of events.

mod events;
mod get;
mod outcome;
mod schema;
mod view;

pub use get::*;
pub(crate) use outcome::outcome;
pub(crate) use schema::Item;
pub(crate) use view::JobView;
