//! For tests, the demo and the benchmark: the two programs as processes, and connections that can
//! be cut.

mod process;
mod proxy;

pub use process::{Process, binary};
pub use proxy::Proxy;
