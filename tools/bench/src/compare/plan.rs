//! How much is measured.

use std::time::Duration;

use clap::ValueEnum;

/// How many connections send requests.
pub(super) const CONNECTIONS: [usize; 2] = [64, MOST_CONNECTIONS];
/// How many they are where only one number is measured.
pub(super) const MOST_CONNECTIONS: usize = 256;

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The other designs.
    #[value(alias = "sides")]
    Rivals,
    /// The design that decides in Redis, with a Redis of its own.
    RedisLua,
    /// What HTTP alone costs, and a confirmed message per request.
    Floors,
    /// The system's coupons.
    Coupons,
    /// The system's orders.
    Orders,
    /// Backlogs, drained and raw.
    Backlogs,
    /// A sale on a fresh database: with keys and without, orders with a coupon and without.
    Fresh,
    /// The first seconds of a sale with nothing warmed up, beside the same warmed up.
    ColdStart,
    /// One hot coupon beside thousands of event streams.
    Streams,
    /// One hot coupon through many APIs.
    Fleet,
    /// Reads, polls, coupons and orders together.
    Mixed,
    /// The database with a history.
    Large,
    /// The idle system.
    Idle,
    /// Databases with histories of up to 50 million rows; only when it is named, as filling them takes long.
    Growth,
}

/// Bounds of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) quick: bool,
    pub(super) rounds: u32,
    /// How long requests are sent in a measurement.
    pub(super) window: Duration,
    /// The same before it, unmeasured.
    pub(super) warm_up: Duration,
    /// The sizes of a rival's pool that are tried, and for how long each.
    pub(super) pools: &'static [u32],
    pub(super) search_window: Duration,
    /// Each asks once, so no measurement has more requests, but for that of a cold start.
    pub(super) users: i64,
    /// Jobs that wait when the workers start.
    pub(super) backlog: usize,
    /// The same on a fresh database; no more than there are users.
    pub(super) fresh_backlog: usize,
    /// How long requests are sent to a system that was just started.
    pub(super) cold_window: Duration,
    /// Each asks it once; no fewer than `users`.
    pub(super) cold_users: i64,
    /// Outcomes, and as many coupons, in the large database.
    pub(super) large_rows: i64,
    /// The same in the databases that are compared with each other; the first is empty, the last one the largest.
    pub(super) growth_rows: [i64; 3],
    /// How long the idle system is watched.
    pub(super) idle: Duration,
    /// How many APIs a fleet has.
    pub(super) apis: usize,
}

impl Plan {
    pub(super) const FULL: Self = Self {
        quick: false,
        rounds: 3,
        window: Duration::from_secs(4),
        warm_up: Duration::from_millis(500),
        pools: &[2, 4, 8, 16, 32],
        search_window: Duration::from_millis(1_500),
        users: 200_000,
        backlog: 200_000,
        fresh_backlog: 100_000,
        cold_window: Duration::from_secs(10),
        // As many as it could settle meanwhile, and more.
        cold_users: 400_000,
        large_rows: 5_000_000,
        growth_rows: [0, 5_000_000, 50_000_000],
        idle: Duration::from_secs(10),
        apis: 50,
    };

    pub(super) const QUICK: Self = Self {
        quick: true,
        rounds: 1,
        window: Duration::from_millis(1_200),
        warm_up: Duration::from_millis(300),
        pools: &[4, 16],
        search_window: Duration::from_millis(500),
        users: 50_000,
        backlog: 30_000,
        // More than two of the worker's batches, the first of which is not counted.
        fresh_backlog: 9_000,
        cold_window: Duration::from_millis(1_500),
        cold_users: 60_000,
        large_rows: 300_000,
        growth_rows: [0, 50_000, 300_000],
        idle: Duration::from_secs(2),
        apis: 5,
    };
}
