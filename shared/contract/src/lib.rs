//! What the Firstcome API and its workers agree on: vocabulary, messages and the wire between them.
//!
//! **Architecture invariant:** a file enters this crate only if both `api` and `workers` compile
//! against it and it is vocabulary, a message or the wire. There is deliberately no SQL and no
//! handler here, so the API cannot perform a contended write by calling shared code: that code
//! lives where the API cannot reach it. `tests/tidy/main.rs` enforces this.

pub mod campaign;
mod codes;
pub mod discount;
pub mod event;
pub mod failure;
pub mod family;
pub mod ids;
pub mod job;
pub mod line;
pub mod lost;
pub mod money;
pub mod order;
mod reason;
pub mod rejection;
pub mod request_id;
pub mod sale;
pub mod trace;
