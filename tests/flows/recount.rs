//! The recount: exact, piece by piece, and in nobody's way.

use std::{collections::BTreeMap, time::Duration};

use chrono::NaiveDate;
use firstcome_broker::topology;
use firstcome_process::database::Pool;
use firstcome_workers::events::update_sales_stats::{Drift, rebuild};
use serde_json::json;
use tokio::time::timeout;

use super::{events::counted, poison::publish_to, retention::event};
use firstcome_tests::{DEADLINE, Options, Shop, eventually, shop};

/// How long counting may wait for a recount: far less than that takes.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

fn quiet() -> Options {
    Options { worker: false, ..Options::default() }
}

async fn sales(shop: &Shop) -> BTreeMap<(NaiveDate, i64), i64> {
    let rows: Vec<(NaiveDate, i64, i64)> =
        sqlx::query_as("SELECT day, product_id, quantity FROM product_sales WHERE quantity <> 0")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
    rows.into_iter().map(|(day, product, quantity)| ((day, product), quantity)).collect()
}

/// Orders without their jobs, which the audit would miss.
async fn forget_orders(shop: &Shop) {
    shop.sql(
        "BEGIN; SET LOCAL session_replication_role = replica;
         DELETE FROM order_items; DELETE FROM orders; DELETE FROM product_sales; DELETE FROM event_inbox; COMMIT",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_day_is_recounted_piece_by_piece() {
    shop(quiet(), async |shop| {
        // Some pieces, and more than one of one instant, over the last two days.
        shop.sql(
            "BEGIN; SET LOCAL session_replication_role = replica;
             INSERT INTO orders (id, job_id, user_id, items_amount, discount, paid, created_at, completed_at)
             OVERRIDING SYSTEM VALUE
             SELECT n, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || lpad(to_hex(n), 20, '0'))::uuid,
                    1, 20, 0, 20, at, at
             FROM (SELECT n, date_trunc('day', now()) - interval '1 day'
                             + CASE WHEN n <= 3000 THEN n * interval '25 seconds' ELSE interval '10 hours' END AS at
                   FROM generate_series(1, 5500) AS n) AS orders;
             INSERT INTO order_items (order_id, product_id, name, unit_price, quantity)
             SELECT n, 1 + n % 7, 'A product', 10, 2 FROM generate_series(1, 5500) AS n;
             COMMIT",
        )
        .await;
        let recount = async || rebuild(&Pool::from(shop.pool.clone()), "Asia/Seoul", 3).await.unwrap();
        assert_eq!(recount().await, []);
        let expected: Vec<(NaiveDate, i64, i64)> = sqlx::query_as(
            "SELECT (completed_at AT TIME ZONE 'Asia/Seoul')::date, product_id, sum(quantity)::bigint
             FROM orders JOIN order_items ON order_id = id GROUP BY 1, 2",
        )
        .fetch_all(&shop.pool)
        .await
        .unwrap();
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|(day, product, sold)| ((day, product), sold)).collect();
        assert_eq!(expected.values().sum::<i64>(), 11_000);
        assert_eq!(sales(shop).await, expected);

        shop.sql("UPDATE product_sales SET quantity = quantity + 5 WHERE product_id = 2").await;
        shop.sql("DELETE FROM product_sales WHERE product_id = 3").await;
        let drifts = recount().await;
        let wrong = |drift: &Drift| match drift.product_id {
            2 => drift.counted.0 == drift.sold.0 + 5,
            3 => drift.counted.0 == 0,
            _ => false,
        };
        assert!(!drifts.is_empty() && drifts.iter().all(wrong), "{drifts:?}");
        assert_eq!(sales(shop).await, expected);
        assert_eq!(recount().await, []);
        forget_orders(shop).await;
    })
    .await;
}

/// In Havana on this day the clock goes from 01:00 back to 00:00: both hours are the new day's.
#[tokio::test(flavor = "multi_thread")]
async fn a_midnight_that_comes_twice_is_of_one_day() {
    shop(quiet(), async |shop| {
        shop.sql(
            "BEGIN; SET LOCAL session_replication_role = replica;
             INSERT INTO orders (id, job_id, user_id, items_amount, discount, paid, created_at, completed_at)
             OVERRIDING SYSTEM VALUE
             SELECT n, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || lpad(to_hex(n), 20, '0'))::uuid,
                    1, 10, 0, 10, at, at
             FROM UNNEST(ARRAY['2024-11-03 03:30Z', '2024-11-03 04:30Z', '2024-11-03 05:30Z']::timestamptz[])
               WITH ORDINALITY AS orders (at, n);
             INSERT INTO order_items (order_id, product_id, name, unit_price, quantity)
             SELECT n, 1, 'A product', 10, 1 FROM generate_series(1, 3) AS n;
             COMMIT",
        )
        .await;
        let since: i32 = sqlx::query_scalar(
            "SELECT (now() AT TIME ZONE 'America/Havana')::date - date '2024-11-01'",
        )
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        let recount = async || rebuild(&Pool::from(shop.pool.clone()), "America/Havana", since).await.unwrap();
        recount().await;
        let day = |day| NaiveDate::from_ymd_opt(2024, 11, day).unwrap();
        assert_eq!(sales(shop).await, BTreeMap::from([((day(2), 1), 1), ((day(3), 1), 2)]));
        assert_eq!(recount().await, []);
        forget_orders(shop).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_does_not_wait_for_a_recount() {
    shop(Options::default(), async |shop| {
        let order = json!({"items": [{"productId": 1, "quantity": 2}]});
        let job = shop.ordered(7, &order).await;
        counted(shop).await;
        shop.stop_workers().await;
        // As if it had not been counted yet.
        shop.sql("DELETE FROM event_inbox; UPDATE product_sales SET quantity = 0, amount = 0")
            .await;
        let event = event(shop, serde_json::from_value(job["jobId"].clone()).unwrap()).await;
        let event = serde_json::to_vec(&event).unwrap();
        let mut locked = shop.pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE order_items").execute(&mut *locked).await.unwrap();
        let pool = Pool::from(shop.pool.clone());
        let recounting = rebuild(&pool, "Asia/Seoul", 3);
        let counting = async {
            eventually("the recount waits", async || {
                let waiting: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'",
                )
                .fetch_one(&shop.pool)
                .await
                .unwrap();
                waiting > 0
            })
            .await;
            shop.start_worker();
            publish_to(shop, &topology::sales_stats(&shop.namespace), event).await;
            let counted = eventually("the event is counted", async || {
                sales(shop).await.values().sum::<i64>() == 2
            });
            let in_time = timeout(COUNTED_WITHIN, counted).await.is_ok();
            locked.rollback().await.unwrap();
            in_time
        };
        let both = async { tokio::join!(recounting, counting) };
        let (_, in_time) = timeout(DEADLINE, both).await.unwrap();
        assert!(in_time, "counting waited for the recount");
    })
    .await;
}
