//! `firstcome-check`: holds the history of a sale against its database.
fn main() {}
