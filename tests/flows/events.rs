//! What follows an order: events, statistics, popular products.

use std::time::{Duration, Instant};

use firstcome_process::database::Pool;
use firstcome_workers::events::update_sales_stats;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, postgres::PgListener};
use tokio::time::timeout;

use firstcome_tests::{Answer, DEADLINE, Options, Shop, eventually, shop};

fn one(product: i64, quantity: i64) -> Value {
    json!({"items": [{"productId": product, "quantity": quantity}]})
}

/// Every order, completed or cancelled, is counted, and nothing waits any more.
pub(crate) async fn counted(shop: &Shop) {
    eventually("every order is counted", async || {
        let (uncounted, waiting): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM orders
                     WHERE NOT EXISTS (SELECT FROM event_inbox WHERE event_id = job_id AND consumer = 'sales-stats')
                       AND NOT EXISTS (SELECT FROM daily_runs WHERE job = 'close-day' AND day >= created_at::date))
                    + (SELECT count(*) FROM cancellations
                       WHERE NOT EXISTS (SELECT FROM event_inbox WHERE event_id = job_id AND consumer = 'sales-stats')
                         AND NOT EXISTS (SELECT FROM daily_runs WHERE job = 'close-day' AND day >= submitted_at::date)),
                    (SELECT count(*) FROM outbox_parcels)",
        )
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        uncounted + waiting == 0
    })
    .await;
    shop.settle_and_audit().await;
}

async fn popular(shop: &Shop) -> Answer {
    Answer::of(shop.anonymous(Method::GET, "/api/products/popular")).await
}

async fn buy(shop: &Shop, orders: impl IntoIterator<Item = (i64, Value)>) -> Vec<Answer> {
    let orders: Vec<(i64, Value)> = orders.into_iter().collect();
    let buying = stream::iter(&orders).map(|(user, order)| shop.order(*user, order));
    buying.buffer_unordered(32).collect().await
}

/// PostgreSQL lets one transaction at a time commit that notifies: none of a batch may be one.
#[tokio::test(flavor = "multi_thread")]
async fn the_relay_is_notified_by_another_transaction_than_the_orders() {
    shop(Options::default(), async |shop| {
        shop.sql(
            "CREATE TABLE committers (process integer NOT NULL);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO committers VALUES (pg_backend_pid()); RETURN NULL; END';
             CREATE TRIGGER note AFTER INSERT ON outbox_parcels FOR EACH STATEMENT EXECUTE FUNCTION note()",
        )
        .await;
        let mut notifications = PgListener::connect_with(&shop.pool).await.unwrap();
        notifications.listen("outbox").await.unwrap();
        assert_eq!(shop.ordered(7, &one(1, 1)).await["status"], "succeeded");
        let notified = timeout(DEADLINE, notifications.recv()).await.unwrap().unwrap();
        let committers: Vec<i32> = sqlx::query_scalar("SELECT process FROM committers")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
        assert_eq!(committers.len(), 1);
        assert_ne!(i64::from(committers[0]), i64::from(notified.process_id()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn popular_products_follow_the_sales() {
    shop(Options::default(), async |shop| {
        assert_eq!(popular(shop).await.body["items"], json!([]));
        for (product, quantity) in [(1, 5), (2, 9), (3, 1), (4, 7), (5, 3), (6, 2)] {
            shop.ordered(7, &one(product, quantity)).await;
        }
        counted(shop).await;
        // Sold long ago: no longer popular.
        shop.sql(
            "INSERT INTO product_sales VALUES ((now() AT TIME ZONE 'Asia/Seoul')::date - 4, 9, 0, 0);
             UPDATE product_sales SET quantity = 1000 WHERE product_id = 9",
        )
        .await;
        let ids = |answer: &Answer| -> Vec<i64> {
            answer.body["items"].as_array().unwrap().iter().map(|item| item["productId"].as_i64().unwrap()).collect()
        };
        let sold = Instant::now();
        eventually("the list is renewed", async || ids(&popular(shop).await) == [2, 4, 1, 5, 6]).await;
        // POPULAR_TTL is a second here.
        assert!(sold.elapsed() < Duration::from_secs(5), "only after {:?}", sold.elapsed());
        shop.sql("DELETE FROM product_sales WHERE product_id = 9").await;
        let answer = popular(shop).await;
        assert_eq!(answer.body["items"][0], json!({"productId": 2, "name": "Product 2", "price": 2_000, "quantitySold": 9}));
        for field in ["from", "to", "generatedAt"] {
            assert!(answer.body[field].is_string(), "{answer:?}");
        }
        // The database is away: the old answer, for as long as it takes.
        shop.database.proxy.cut();
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        assert_eq!(ids(&popular(shop).await), [2, 4, 1, 5, 6]);
        shop.redis.proxy.cut();
        assert_eq!(ids(&popular(shop).await), [2, 4, 1, 5, 6]);
        shop.database.proxy.restore();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_is_counted_once_whatever_is_lost() {
    shop(Options { users: 200, ..Options::default() }, async |shop| {
        let sale = buy(shop, (0..600).map(|n| (n % 200 + 1, one(n % 7 + 1, 1))));
        let faults = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                // Relays and counters lose their connections in mid-batch: events are delivered again.
                shop.broker.proxy.cut();
                shop.broker.proxy.restore();
            }
        };
        let (answers, ()) = tokio::join!(sale, faults);
        assert!(answers.iter().all(|answer| [202, 503].contains(&answer.status)), "{answers:?}");
        shop.start_worker();
        counted(shop).await;
        let sold: i64 =
            sqlx::query_scalar("SELECT COALESCE(sum(quantity), 0)::bigint FROM product_sales")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
        let orders: i64 =
            sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&shop.pool).await.unwrap();
        assert!(orders > 0);
        assert_eq!(sold, orders);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recount_finds_and_repairs_drift() {
    shop(Options::default(), async |shop| {
        for product in 1..=3 {
            shop.ordered(7, &one(product, 2)).await;
        }
        counted(shop).await;
        let rebuild = async || update_sales_stats::rebuild(&Pool::from(shop.pool.clone()), "Asia/Seoul", 3).await.unwrap();
        assert_eq!(rebuild().await, []);
        shop.sql("UPDATE product_sales SET quantity = 99 WHERE product_id = 1; DELETE FROM product_sales WHERE product_id = 2").await;
        let drifts: Vec<_> = rebuild().await.into_iter().map(|drift| (drift.product_id, drift.counted.0, drift.sold.0)).collect();
        assert_eq!(drifts, [(1, 99, 2), (2, 0, 2)]);
        assert_eq!(rebuild().await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_recount_saw_first_is_not_counted_again() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let accepted = shop.order(7, &one(1, 2)).await;
        shop.start_worker();
        shop.settled(7, accepted.job_id()).await;
        // At the same time as the event may be on its way.
        update_sales_stats::rebuild(&Pool::from(shop.pool.clone()), "Asia/Seoul", 3).await.unwrap();
        counted(shop).await;
        shop.published().await;
        let sold: i64 =
            sqlx::query_scalar("SELECT quantity FROM product_sales WHERE product_id = 1")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
        assert_eq!(sold, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recount_runs_daily_by_one_of_the_workers() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let today = "(now() AT TIME ZONE 'Asia/Seoul')::date";
        let drift = format!("INSERT INTO product_sales (day, product_id, quantity, amount) VALUES ({today}, 1, 5, 5000)");
        sqlx::raw_sql(AssertSqlSafe(drift)).execute(&shop.pool).await.unwrap();
        shop.start_worker();
        shop.start_worker();
        eventually("the drift is repaired", async || {
            let counted: i64 = sqlx::query_scalar("SELECT quantity FROM product_sales")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
            counted == 0
        })
        .await;
        eventually("it is noted", async || {
            let runs: i64 = sqlx::query_scalar("SELECT count(*) FROM daily_runs WHERE job = 'rebuild-stats'")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
            runs == 1
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_product_is_not_popular() {
    shop(Options::default(), async |shop| {
        for (product, quantity) in [(1, 2), (2, 1)] {
            shop.ordered(7, &one(product, quantity)).await;
        }
        counted(shop).await;
        let deleted = Answer::of(shop.admin(Method::DELETE, "/api/admin/products/1")).await;
        assert_eq!(deleted.status, 204);
        eventually("the list is renewed", async || {
            popular(shop).await.body["items"]
                == json!([{"productId": 2, "name": "Product 2", "price": 2_000, "quantitySold": 1}])
        })
        .await;
    })
    .await;
}
