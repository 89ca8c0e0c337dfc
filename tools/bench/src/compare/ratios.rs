//! What the figures come to: each ratio is of medians of one run, so that it travels where figures
//! do not.

use super::measurements::Measurements;

/// What a ratio should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub(super) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

/// One ratio: this figure ÷ that one.
#[derive(Debug)]
pub(super) struct Ratio {
    pub(super) key: &'static str,
    pub(super) what: &'static str,
    dividend: &'static str,
    divisor: &'static str,
    pub(super) target: Target,
}

impl Ratio {
    /// `None` if one of the two was not measured.
    pub(super) fn of(&self, measurements: &Measurements) -> Option<f64> {
        Some(measurements.median(self.dividend)? / measurements.median(self.divisor)?)
    }
}

const fn ratio(
    key: &'static str,
    what: &'static str,
    dividend: &'static str,
    divisor: &'static str,
    target: Target,
) -> Ratio {
    Ratio { key, what, dividend, divisor, target }
}

use Target::{AtLeast, AtMost};

/// Those with a target; the keys are for scripts and never change.
pub(super) const RATIOS: [Ratio; 27] = [
    ratio(
        "hot_coupon_vs_pessimistic_64",
        "one hot coupon, settled/s ÷ pessimistic lock, 64 connections",
        "hot_coupon.firstcome.64.per_second",
        "hot_coupon.pessimistic.64.per_second",
        AtLeast(12.0),
    ),
    ratio(
        "hot_coupon_vs_pessimistic_256",
        "the same, 256 connections",
        "hot_coupon.firstcome.256.per_second",
        "hot_coupon.pessimistic.256.per_second",
        AtLeast(17.0),
    ),
    ratio(
        "hot_coupon_vs_atomic_64",
        "one hot coupon, settled/s ÷ one atomic statement, 64 connections",
        "hot_coupon.firstcome.64.per_second",
        "hot_coupon.atomic.64.per_second",
        AtLeast(6.0),
    ),
    ratio(
        "hot_coupon_vs_atomic_256",
        "the same, 256 connections",
        "hot_coupon.firstcome.256.per_second",
        "hot_coupon.atomic.256.per_second",
        AtLeast(9.0),
    ),
    ratio(
        "in_postgres_vs_redis_lua_everysec",
        "one hot coupon, settled/s ÷ a script in Redis (AOF synced every second), in PostgreSQL/s, 256 connections",
        "hot_coupon.firstcome.256.per_second",
        "hot_coupon.redis-lua-everysec.256.per_second",
        AtLeast(1.2),
    ),
    ratio(
        "accepted_vs_redis_lua_always",
        "one hot coupon, accepted/s ÷ a script in Redis (AOF synced before the answer), accepted/s, 256 connections",
        "hot_coupon.firstcome.256.accepted_per_second",
        "hot_coupon.redis-lua-always.256.accepted_per_second",
        AtLeast(1.5),
    ),
    ratio(
        "hot_coupon_polled_vs_pessimistic",
        "one hot coupon, every client polls to its outcome, ÷ pessimistic lock, 256 connections",
        "hot_coupon.firstcome-polled.256.per_second",
        "hot_coupon.pessimistic.256.per_second",
        AtLeast(8.0),
    ),
    ratio(
        "hot_product_vs_sync_order",
        "one hot product, orders settled/s ÷ an order per transaction, 256 connections",
        "hot_product.firstcome.256.per_second",
        "hot_product.sync-order.256.per_second",
        AtLeast(10.0),
    ),
    ratio(
        "spread_vs_hot_coupon",
        "1,000 coupons evenly ÷ one hot coupon, 256 connections",
        "spread_coupon.firstcome.256.per_second",
        "hot_coupon.firstcome.256.per_second",
        AtLeast(0.7),
    ),
    ratio(
        "spread_vs_hot_order",
        "100 products in orders of 1 to 3 lines ÷ one hot product, 256 connections",
        "spread_product.firstcome.256.per_second",
        "hot_product.firstcome.256.per_second",
        AtLeast(0.8),
    ),
    ratio(
        "hot_coupon_vs_hello",
        "one hot coupon, settled/s ÷ HTTP hello, 256 connections",
        "hot_coupon.firstcome.256.per_second",
        "hello.hello.256.per_second",
        AtLeast(0.25),
    ),
    ratio(
        "full_path_vs_confirmed_publish_64",
        "the full path to the commit ÷ HTTP and one confirmed publish per request, 64 connections",
        "hot_coupon.firstcome.64.per_second",
        "hot_coupon.publish.64.per_second",
        AtLeast(1.0),
    ),
    ratio(
        "full_path_vs_confirmed_publish_256",
        "the same, 256 connections",
        "hot_coupon.firstcome.256.per_second",
        "hot_coupon.publish.256.per_second",
        AtLeast(1.3),
    ),
    ratio(
        "hot_coupon_beside_5000_streams",
        "one hot coupon beside 5,000 event streams ÷ without them, 256 connections",
        "streams.firstcome-streams.256.per_second",
        "streams.firstcome.256.per_second",
        AtLeast(0.9),
    ),
    ratio(
        "drain_vs_raw_coupon",
        "draining a backlog of one coupon ÷ the same batches without broker and HTTP",
        "drain_coupon.firstcome.per_second",
        "drain_coupon.raw.per_second",
        AtLeast(0.6),
    ),
    ratio(
        "drain_vs_raw_order",
        "the same, orders of one product",
        "drain_order.firstcome.per_second",
        "drain_order.raw.per_second",
        AtLeast(0.6),
    ),
    ratio(
        "p99_at_half_vs_pessimistic_saturated",
        "p99 submit → settled at 50% of the maximum ÷ p99 of the pessimistic lock at saturation (64 connections)",
        "latency.firstcome.50.p99_ms",
        "hot_coupon.pessimistic.64.p99_ms",
        AtMost(0.2),
    ),
    ratio(
        "large_vs_empty",
        "one hot coupon, settled/s with many rows in the database ÷ with none, 256 connections",
        "large.firstcome.256.per_second",
        "large.firstcome-empty.256.per_second",
        AtLeast(0.85),
    ),
    ratio(
        "fifty_million_vs_empty",
        "one hot coupon, settled/s with 50 million outcomes and coupons in the database ÷ with none, 256 connections",
        "growth_coupon.firstcome-50M.256.per_second",
        "growth_coupon.firstcome-0.256.per_second",
        AtLeast(0.8),
    ),
    ratio(
        "sold_out_vs_hello",
        "sold-out storm, requests answered/s ÷ HTTP hello, 256 connections",
        "sold_out.firstcome.256.per_second",
        "hello.hello.256.per_second",
        AtLeast(0.4),
    ),
    ratio(
        "keyed_vs_unkeyed_coupon",
        "fresh database, one hot coupon, settled/s with an Idempotency-Key per request ÷ without, 256 connections",
        "fresh_coupon.firstcome-keyed.256.per_second",
        "fresh_coupon.firstcome.256.per_second",
        AtLeast(0.9),
    ),
    ratio(
        "keyed_vs_unkeyed_order",
        "the same, orders of one product",
        "fresh_order.firstcome-keyed.256.per_second",
        "fresh_order.firstcome.256.per_second",
        AtLeast(0.9),
    ),
    ratio(
        "coupon_order_vs_plain_order",
        "fresh database, orders of one product, settled/s with a coupon ÷ without, 256 connections",
        "fresh_order.firstcome-with-coupon.256.per_second",
        "fresh_order.firstcome.256.per_second",
        AtLeast(0.7),
    ),
    ratio(
        "cold_start_vs_warm",
        "the first 10 s of one hot coupon on a fresh database, nothing warmed up ÷ on one in use, warmed up, 256 connections",
        "cold_start.firstcome.256.per_second",
        "cold_start.firstcome-warm.256.per_second",
        AtLeast(0.8),
    ),
    ratio(
        "drain_keyed_vs_unkeyed_coupon",
        "fresh database, draining a backlog of one coupon, with keys ÷ without",
        "drain_fresh_coupon.firstcome-keyed.per_second",
        "drain_fresh_coupon.firstcome.per_second",
        AtLeast(0.85),
    ),
    ratio(
        "drain_keyed_vs_unkeyed_order",
        "the same, orders of one product",
        "drain_fresh_order.firstcome-keyed.per_second",
        "drain_fresh_order.firstcome.per_second",
        AtLeast(0.85),
    ),
    ratio(
        "drain_coupon_order_vs_plain_order",
        "fresh database, draining a backlog of orders, with a coupon ÷ without",
        "drain_fresh_order.firstcome-with-coupon.per_second",
        "drain_fresh_order.firstcome.per_second",
        AtLeast(0.7),
    ),
];

/// The same with the other number of connections, where only one of them has a target, and what has none at all.
pub(super) const FURTHER_RATIOS: [Ratio; 4] = [
    ratio(
        "hot_coupon_polled_vs_pessimistic_64",
        "polled, 64 connections",
        "hot_coupon.firstcome-polled.64.per_second",
        "hot_coupon.pessimistic.64.per_second",
        AtLeast(8.0),
    ),
    ratio(
        "hot_product_vs_sync_order_64",
        "hot product, 64 connections",
        "hot_product.firstcome.64.per_second",
        "hot_product.sync-order.64.per_second",
        AtLeast(10.0),
    ),
    ratio(
        "p99_at_half_vs_pessimistic_saturated_256",
        "p99 at 50%, ÷ the pessimistic lock with 256 connections, which is what the open loop has",
        "latency.firstcome.50.p99_ms",
        "hot_coupon.pessimistic.256.p99_ms",
        AtMost(0.2),
    ),
    ratio(
        "hot_coupon_through_fleet",
        "one hot coupon through 50 APIs ÷ through one, 256 connections",
        "fleet.firstcome-fleet.256.per_second",
        "fleet.firstcome.256.per_second",
        AtLeast(0.5),
    ),
];
