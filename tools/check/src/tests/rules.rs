//! The rules, by a part of their sentences; and what breaks one.

use super::shop::Shop;

pub(super) const ACCEPTED: &str = "every 202";
pub(super) const TOLD: &str = "what the polls told";
pub(super) const ASKED: &str = "was asked for";
pub(super) const KEYS: &str = "a key has one effect";
pub(super) const FAILED: &str = "no job failed";
pub(super) const COUPONS: &str = "no coupon is oversold";
pub(super) const STOCKS: &str = "a stock is what it was";
pub(super) const LIMITS: &str = "nobody has more";
pub(super) const MONEY: &str = "a balance is what it was";
pub(super) const STATISTICS: &str = "the statistics are";
pub(super) const DELIVERED: &str = "each event is delivered";
pub(super) const ORDER: &str = "who asks later";
pub(super) const LIVENESS: &str = "no line is idle";
pub(super) const SOLD_OUT: &str = "sold out is said";
pub(super) const ISSUED: &str = "already issued is said";
pub(super) const STOCK: &str = "out of stock is said";
pub(super) const LIMIT: &str = "a limit is said";
pub(super) const BALANCE: &str = "a balance is said";
pub(super) const OTHER: &str = "every other no";

/// A name, what is done to a sale that is right, and which rules complain.
pub(super) type Anomaly = (&'static str, fn(&mut Shop), &'static [&'static str]);
