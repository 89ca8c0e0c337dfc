//! The coupon or product itself: whether it can be had when the sale begins.

use chrono::{DateTime, TimeDelta, Utc};
use firstcome_contract::family::Family;
use firstcome_process::database::Pool;

use super::Check;

/// What is sold, on which terms.
#[derive(Debug)]
pub(super) struct Sale {
    name: String,
    is_deleted: bool,
    is_paused: bool,
    starts_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    /// Units that nobody has.
    pub(super) left: i64,
    /// By the database's clock.
    now: DateTime<Utc>,
}

impl Sale {
    /// Reads it; `None` if there is no such thing.
    pub(super) async fn read(
        pool: &Pool,
        family: Family,
        key: i64,
    ) -> Result<Option<Self>, sqlx::Error> {
        match family {
            Family::Coupon => {
                sqlx::query_as!(
                    Self,
                    r#"SELECT name, deleted_at IS NOT NULL AS "is_deleted!", paused_at IS NOT NULL AS "is_paused!",
                              starts_at AS "starts_at?", ends_at AS "ends_at?", total - issued AS "left!",
                              clock_timestamp() AS "now!"
                       FROM coupons WHERE id = $1"#,
                    key,
                )
                .fetch_optional(pool)
                .await
            }
            Family::Product => {
                sqlx::query_as!(
                    Self,
                    r#"SELECT name, deleted_at IS NOT NULL AS "is_deleted!", paused_at IS NOT NULL AS "is_paused!",
                              on_sale_from AS starts_at, on_sale_until AS ends_at, stock AS "left!",
                              clock_timestamp() AS "now!"
                       FROM products WHERE id = $1"#,
                    key,
                )
                .fetch_optional(pool)
                .await
            }
        }
    }
}

/// Whether it can be had.
pub(super) fn checks(sale: Option<&Sale>, family: Family, key: i64) -> Vec<Check> {
    let family = family.as_str();
    let Some(sale) = sale else {
        let hint = "look at its id, and at DATABASE_URL";
        return vec![Check::failed("sale", format!("there is no {family} {key}: {hint}"))];
    };
    let named = format!("{family} {key}, “{}”", sale.name);
    let edit = format!("PATCH /api/admin/{family}s/{key}");
    vec![
        if sale.is_deleted {
            Check::failed("sale", format!("{named} is deleted: {edit} {{\"deleted\": false}}"))
        } else {
            Check::ok("sale", named)
        },
        if sale.is_paused {
            Check::failed("pause", format!("nobody can submit: {edit} {{\"paused\": false}}"))
        } else {
            Check::ok("pause", "it is not paused")
        },
        window(sale, &edit),
        if sale.left > 0 {
            Check::ok("stock", format!("{} left", sale.left))
        } else {
            Check::failed("stock", format!("none left: {edit}, or POST …/stock of a product"))
        },
    ]
}

fn window(sale: &Sale, edit: &str) -> Check {
    let until = |at: DateTime<Utc>| told(at - sale.now);
    let end = |end: Option<DateTime<Utc>>| {
        end.map_or("and has no end".to_owned(), |end| format!("and ends in {}", until(end)))
    };
    match (sale.starts_at, sale.ends_at) {
        (_, Some(ended)) if ended <= sale.now => {
            let ago = told(sale.now - ended);
            Check::failed("window", format!("it ended {ago} ago: give it another end with {edit}"))
        }
        (Some(start), ends) if start > sale.now => Check::ok(
            "window",
            format!("it begins in {}, at {start:?}, {}", until(start), end(ends)),
        ),
        (_, ends) => Check::ok("window", format!("it is open {}", end(ends))),
    }
}

/// A length of time, as people read it.
fn told(time: TimeDelta) -> String {
    let (days, hours, minutes) = (time.num_days(), time.num_hours() % 24, time.num_minutes() % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", time.num_seconds() % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::preflight::Verdict;

    fn sale(change: impl FnOnce(&mut Sale)) -> Vec<(&'static str, Verdict)> {
        let now = Utc::now();
        let mut sale = Sale {
            name: "A drop".to_owned(),
            is_deleted: false,
            is_paused: false,
            starts_at: Some(now + TimeDelta::hours(1)),
            ends_at: Some(now + TimeDelta::days(1)),
            left: 5,
            now,
        };
        change(&mut sale);
        let checks = checks(Some(&sale), Family::Coupon, 1).into_iter();
        checks
            .filter(|check| check.verdict > Verdict::Ok)
            .map(|check| (check.what, check.verdict))
            .collect()
    }

    #[test]
    fn what_keeps_a_sale_from_beginning_is_found() {
        assert_eq!(sale(|_| ()), []);
        assert_eq!(sale(|sale| (sale.starts_at, sale.ends_at) = (None, None)), []);
        assert_eq!(sale(|sale| sale.starts_at = Some(sale.now)), []);
        let failed = |what| vec![(what, Verdict::Failed)];
        assert_eq!(sale(|sale| sale.is_deleted = true), failed("sale"));
        assert_eq!(sale(|sale| sale.is_paused = true), failed("pause"));
        assert_eq!(sale(|sale| sale.ends_at = Some(sale.now)), failed("window"));
        assert_eq!(sale(|sale| sale.left = 0), failed("stock"));
        assert_eq!(checks(None, Family::Product, 7)[0].verdict, Verdict::Failed);
    }

    #[test]
    fn times_are_told_in_two_units() {
        for (seconds, expected) in [(59, "0 min 59 s"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(told(TimeDelta::seconds(seconds)), expected);
        }
    }
}
