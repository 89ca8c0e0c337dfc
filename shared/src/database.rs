//! How the sessions of all programs use PostgreSQL.

/// Settings of every session that looks rows up by their keys, one or a thousand at a time.
///
/// A plan is made once and kept: while a table is new, or for a large batch, reading all of the table
/// looks cheaper than its index, and is the plan still when the table has grown by a hundred
/// thousand rows in a minute. A sale cannot wait for the next `ANALYZE`.
pub const BY_KEY: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("max_parallel_workers_per_gather", "0"),
    // It would judge by the penalties of what is "off".
    ("jit", "off"),
];
