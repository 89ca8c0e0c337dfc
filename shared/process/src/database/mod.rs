//! The way to PostgreSQL: connections that are told what they are for, looked at before they are used, and
//! given up when nothing comes back.
//!
//! A connection that is open may be dead: its server was failed over, a firewall has lost its state, a
//! pooler hangs. sqlx's own pool waits for such a one without a bound, also when it is given back, and
//! keeps its place until then. And a server that answers may be the wrong one: one that cannot be written
//! to counts as away, for readers too, since what a standby tells is old.
//!
//! **Architecture invariant:** no table is named here. What is read and written stands where it belongs.

mod check;
mod pool;
pub mod settings;
mod time_zone;

pub use pool::{Pool, PooledConnection, Sessions, is_lost};
pub use time_zone::check_time_zone;
