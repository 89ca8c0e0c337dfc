//! Whole flows on real services: HTTP → broker → worker → poll. Run with `make test`, which
//! provides PostgreSQL, RabbitMQ and Redis.
//!
//! Every test has a database, a queue namespace and a Redis prefix of its own, so all of them run
//! in parallel. A fault is done to the test's own connections (through a proxy) or to processes of
//! its own, never to what other tests use.

mod accept;
mod addresses;
mod admin;
mod alerts;
mod asyncapi;
mod audit;
mod audit_log;
mod balance;
mod browsers;
mod cancel;
mod cancel_events;
mod cancel_races;
mod cart;
mod compression;
mod connections;
mod coupon_drop;
mod data_platform;
mod database;
mod dead_letters;
mod doors;
mod drops;
mod event_types;
mod events;
mod exports;
mod faults;
mod frozen;
mod halts;
mod http;
mod hung;
mod idempotency;
mod identity;
mod imported_subjects;
mod imports;
mod incident;
mod limits;
mod live;
mod lookups;
mod lost;
mod metrics;
mod nodes;
mod openapi;
mod ops;
mod orders;
mod pause;
mod personal_data;
mod poison;
mod poison_events;
mod polls;
mod poolers;
mod preflight;
mod processes;
mod products;
mod reads;
mod recount;
mod references;
mod rejections;
mod retention;
mod roles;
mod rolling;
mod routing;
mod scaling;
mod schema;
mod services;
mod sharing;
mod sold_out;
mod stock;
mod timeouts;
mod traces;
mod upgrade;
mod upkeep;
mod uploads;
