//! What happens after a job is settled: its events are published, counted and sent on.

pub(crate) mod backlog;
pub mod relay_outbox;
pub mod send_to_data_platform;
pub(crate) mod subscribe;
pub mod update_sales_stats;
pub mod webhook;
