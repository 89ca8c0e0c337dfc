//! What every program needs, whatever it does: sessions with PostgreSQL, telemetry, metrics, the end.
//!
//! **Architecture invariant:** nothing here knows a job, a table, a route or the broker.

pub mod certificates;
pub mod cli;
pub mod database;
pub mod fault_point;
pub mod metrics;
pub mod pem;
pub mod redis;
pub mod request_id;
pub mod shutdown;
pub mod telemetry;
