//! Whole flows on real services: HTTP → broker → worker → poll. Run with `make test`, which
//! provides PostgreSQL, RabbitMQ and Redis.
//!
//! Every test has a database, a queue namespace and a Redis prefix of its own, so all of them run
//! in parallel. A fault is done to the test's own connections (through a proxy) or to processes of
//! its own, never to what other tests use.

mod accept;
mod admin;
mod alerts;
mod audit;
mod balance;
mod cart;
mod connections;
mod coupon_drop;
mod data_platform;
mod database;
mod dead_letters;
mod events;
mod faults;
mod frozen;
mod http;
mod hung;
mod idempotency;
mod incident;
mod lost;
mod metrics;
mod openapi;
mod orders;
mod poison;
mod poison_events;
mod polls;
mod processes;
mod products;
mod reads;
mod recount;
mod references;
mod rejections;
mod retention;
mod rolling;
mod routing;
mod scaling;
mod schema;
mod services;
mod sharing;
mod timeouts;
mod traces;
mod upgrade;
mod upkeep;
