//! HTTP as this API speaks it: who asks, what was sent, and how problems are told.

pub mod answer;
pub mod auth;
pub mod extract;
pub mod limit;
pub mod problem;
mod strict_json;
pub mod text;
pub mod trace;
