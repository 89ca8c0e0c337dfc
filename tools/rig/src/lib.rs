//! The system from outside: starts its programs as an operator would, talks HTTP as a client would,
//! cuts connections as a network would. For tests, the demo and the benchmark.
//!
//! **Architecture invariant:** nothing here is linked with the API or the workers (`tests/tidy.rs`).
//! What they promise is known from their environment variables, their HTTP and the contract.

pub mod answers;
pub mod figures;
pub mod http;
pub mod latencies;
mod process;
mod proxy;
pub mod screen;
pub mod settings;
pub mod stage;
pub mod system;

pub use process::{Process, binary};
pub use proxy::{Proxy, Way};
