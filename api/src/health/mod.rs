//! How this process is, for the orchestrator and for Prometheus.

mod metrics;
mod probes;

pub use metrics::*;
pub use probes::*;
