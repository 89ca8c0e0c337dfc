//! HTTP as this API speaks it: who asks, what was sent, and how problems are told.
//!
//! **Architecture invariant:** it knows no handler, no state and no service: everything else stands on it.

pub mod accept;
pub mod address;
pub mod answer;
pub mod auth;
pub mod body;
pub mod cors;
pub mod etag;
pub mod fields;
pub mod gzip;
pub mod idempotency_key;
pub mod issuer;
pub mod json;
pub mod keys;
pub mod limit;
pub mod page;
pub mod path;
pub mod prefer;
pub mod problem;
pub mod public;
pub mod request_id;
pub mod requests;
pub mod schema;
pub mod seek;
mod slots;
mod strict_json;
pub mod text;
pub mod trace;
