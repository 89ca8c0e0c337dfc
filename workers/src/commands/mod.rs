//! What an operator or a timer asks for, once.

pub mod audit;
pub mod dead_letters;
pub mod forecast;
pub mod health;
pub mod mock_data_platform;
pub mod plan;
pub mod preflight;
pub mod purge;
pub mod reconcile;
pub mod sample_data;
