//! What this process knows, so that it need not ask for every request: campaigns, products, outcomes, keys.
//!
//! **Architecture invariant:** nothing here decides; what is known may be old by as much as each file says.

pub mod announcements;
pub mod batched;
pub mod board;
pub mod campaigns;
pub mod early;
pub mod free_ids;
pub mod job_ids;
pub mod keys;
pub mod lost;
pub mod once;
pub mod outcomes;
pub mod popular;
pub mod product_pages;
pub mod products;
pub mod refusals;
pub mod shown;
pub mod streams;
pub mod subjects;
pub mod users;
