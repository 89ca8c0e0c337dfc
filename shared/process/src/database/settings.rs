//! How the sessions of all programs use PostgreSQL.

/// Settings of every session, whatever the role, the database or the server says.
pub const SAFE: [(&str, &str); 2] = [
    // What was told must survive a crash.
    ("synchronous_commit", "on"),
    // A worker that was paused in mid-batch must not hold a campaign's lock forever.
    ("idle_in_transaction_session_timeout", "10s"),
];

/// Settings of every session by which the server finds out that its client is gone: with its host, behind a
/// firewall, or paused in the middle of a result, which no other timeout ends. Until then it holds its locks.
pub const NO_DEAD_CLIENTS: [(&str, &str); 4] = [
    ("tcp_user_timeout", "10s"),
    ("tcp_keepalives_idle", "10s"),
    ("tcp_keepalives_interval", "5s"),
    ("tcp_keepalives_count", "3"),
];

/// Settings of every session that looks rows up by their keys, one or a thousand at a time.
///
/// A plan is made once and kept. No statement leaves the planner a choice between indexes: each goes down
/// the one that has the order it asks for, a lateral look-up per key, so a plan that was made in an
/// empty shop is right in a full one (`docs/decisions/0008`). What these settings are for, and that nothing else is needed, is
/// tested: `tests/statements`.
pub const BY_KEY: [(&str, &str); 5] = [
    // Of a table that is empty when the plan is made, reading all of it looks cheapest.
    ("enable_seqscan", "off"),
    // Of one that nobody has analyzed, to collect what is found before it is read looks cheaper: it takes a tenth longer.
    ("enable_bitmapscan", "off"),
    // What is ordered by an index goes down that one, and no other that looks as good.
    ("enable_sort", "off"),
    // To plan each batch anew takes longer than to settle a small one, and would be the planner's luck again.
    ("plan_cache_mode", "force_generic_plan"),
    // It judges by the penalties of what is "off", and would compile the plan of a table of ten rows.
    ("jit", "off"),
];

/// Settings of the sessions of roles that do not settle: they look up by key, too, and read days of any size, planned for
/// what there is.
pub const BY_KEY_ANEW: [(&str, &str); 4] = [
    // Of a table that was analyzed when its rows were gone, reading all of it looks cheapest until it is analyzed again.
    ("enable_seqscan", "off"),
    // So does sorting what the index that begins with the key has in order.
    ("enable_sort", "off"),
    PLANNED_ANEW[0],
    PLANNED_ANEW[1],
];

/// Settings of the sessions of commands, some of which read whole tables: planned for what there is.
pub const PLANNED_ANEW: [(&str, &str); 2] = [
    ("plan_cache_mode", "force_custom_plan"),
    // Without statistics it takes a day's orders for millions, and compiles for longer than it counts.
    ("jit", "off"),
];
