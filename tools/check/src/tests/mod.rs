//! The checker against a shop that keeps its promises, and against one that breaks them one by one.

mod anomalies;
mod random;
mod rules;
mod sale;
mod shop;
