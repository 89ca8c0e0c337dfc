//! What every program needs, whatever it does: sessions with PostgreSQL, telemetry, metrics, the end.
//!
//! **Architecture invariant:** nothing here knows a job, a table, a route or the broker.

pub mod cli;
pub mod database;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;
