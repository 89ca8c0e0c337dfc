//! Cancelled orders in the sales statistics: taken back once, whatever comes first and whatever happens in between.

use std::time::Duration;

use chrono::{DateTime, Utc};
use firstcome_broker::topology;
use firstcome_contract::{
    event::{Data, Event, OrderCancelled, SoldItem},
    ids::{OrderId, ProductId, UserId},
    job::{CancelOrder, Job, JobId, PlaceOrder},
    money::Money,
    order::{Fulfilment, Item},
};
use firstcome_process::database::Pool;
use firstcome_workers::{
    commands::purge::{Purged, Since, purge},
    events::update_sales_stats::{Drift, rebuild},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    events::counted,
    poison::{outcome, publish_to},
    retention::{event, old},
};
use firstcome_tests::{Answer, Options, Shop, eventually, shop};

/// A week: what the test purges by. The workers' own purge has nothing to do.
const WEEK: u32 = 7 * 24 * 3_600;

/// An order of so many of one product.
pub(crate) fn one(product: i64, quantity: i64) -> Value {
    json!({"items": [{"productId": product, "quantity": quantity}]})
}

async fn cancel(shop: &Shop, user: i64, order: i64) -> Answer {
    let path = format!("/api/orders/{order}/cancel");
    shop.submit(user, shop.post(user, &path).json(&json!({"reason": "too late"}))).await
}

/// Cancels an order, and waits for it; the job.
pub(crate) async fn cancelled(shop: &Shop, user: i64, order: i64) -> Value {
    let answer = cancel(shop, user, order).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let job = shop.settled(user, answer.job_id()).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    job
}

/// The event of an order's cancellation, of one product.
async fn cancel_event(shop: &Shop, order: i64) -> Event {
    type Row = (Uuid, i64, i64, i64, i64, DateTime<Utc>, DateTime<Utc>, Option<String>, bool);
    let row = sqlx::query_as::<_, Row>(
        "SELECT cancellations.job_id, user_id, product_id, quantity, unit_price, completed_at, cancelled_at, reason, by_operator
         FROM cancellations JOIN orders ON orders.id = cancellations.order_id
         JOIN order_items ON order_items.order_id = orders.id WHERE orders.id = $1",
    );
    let row = row.bind(order).fetch_one(&shop.pool).await.unwrap();
    let (id, user, product, quantity, price, completed_at, time, reason, by_operator) = row;
    let unit_price = Money::new(price);
    let order = OrderCancelled {
        order_id: OrderId::new(order),
        user_id: UserId::new(user),
        items: vec![SoldItem { product_id: ProductId::new(product), quantity, unit_price }],
        refunded: unit_price.times(quantity),
        coupon_id: None,
        completed_at,
        reason,
        by_operator,
    };
    Event::new(id, time, Data::OrderCancelled(order))
}

async fn deliver(shop: &Shop, event: &Event) {
    let event = serde_json::to_vec(event).unwrap();
    publish_to(shop, &topology::sales_stats(&shop.namespace), event).await;
}

async fn number(shop: &Shop, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap()
}

async fn sold(shop: &Shop) -> i64 {
    number(shop, "SELECT COALESCE(sum(quantity), 0)::bigint FROM product_sales").await
}

const NOTES: &str = "SELECT count(*) FROM event_inbox";

async fn recount(shop: &Shop) -> Vec<Drift> {
    rebuild(&Pool::from(shop.pool.clone()), "Asia/Seoul", 3).await.unwrap()
}

/// The events of an order of two units that was cancelled. No worker runs, and it is as if they had not come yet.
async fn uncounted(shop: &Shop) -> [Event; 2] {
    let placed = shop.ordered(7, &one(1, 2)).await;
    let order = placed["result"]["orderId"].as_i64().unwrap();
    cancelled(shop, 7, order).await;
    counted(shop).await;
    assert_eq!((sold(shop).await, number(shop, NOTES).await), (0, 2));
    shop.stop_workers().await;
    shop.sql("DELETE FROM event_inbox; UPDATE product_sales SET quantity = 0, amount = 0").await;
    let job = serde_json::from_value(placed["jobId"].clone()).unwrap();
    [event(shop, job).await, cancel_event(shop, order).await]
}

/// Another order: when it is counted, so is all that came before it.
async fn another_is_counted(shop: &Shop) {
    assert_eq!(shop.ordered(8, &one(2, 1)).await["status"], "succeeded");
    counted(shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_is_counted_before_its_order_takes_it_back() {
    shop(Options::default(), async |shop| {
        let [completed, cancelled] = uncounted(shop).await;
        shop.start_worker();
        deliver(shop, &cancelled).await;
        eventually("the cancel is counted", async || sold(shop).await == -2).await;
        // Neither of both is drift.
        shop.settle_and_audit().await;
        deliver(shop, &completed).await;
        eventually("the order is counted", async || number(shop, NOTES).await == 2).await;
        assert_eq!(sold(shop).await, 0);
        // Once each.
        for again in [&cancelled, &completed, &cancelled] {
            deliver(shop, again).await;
        }
        another_is_counted(shop).await;
        assert_eq!(sold(shop).await, 1);
        assert_eq!(number(shop, "SELECT count(*) FROM dead_letters").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recount_between_a_cancel_and_its_order_changes_nothing() {
    shop(Options::default(), async |shop| {
        let [completed, cancelled] = uncounted(shop).await;
        shop.start_worker();
        deliver(shop, &cancelled).await;
        eventually("the cancel is counted", async || sold(shop).await == -2).await;
        // It counts the order, whose event is still on its way.
        assert_eq!(recount(shop).await, []);
        assert_eq!((sold(shop).await, number(shop, NOTES).await), (0, 2));
        deliver(shop, &completed).await;
        another_is_counted(shop).await;
        assert_eq!(sold(shop).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recount_counts_cancellations_whose_events_were_lost_and_repairs_drift() {
    shop(Options::default(), async |shop| {
        let [completed, cancelled] = uncounted(shop).await;
        // The order is counted, its cancel is not.
        shop.start_worker();
        deliver(shop, &completed).await;
        eventually("the order is counted", async || sold(shop).await == 2).await;
        assert_eq!(recount(shop).await, []);
        assert_eq!((sold(shop).await, number(shop, NOTES).await), (0, 2));
        deliver(shop, &cancelled).await;
        another_is_counted(shop).await;
        shop.sql("UPDATE product_sales SET quantity = 99 WHERE product_id = 1").await;
        let drifts = recount(shop).await;
        let drifts: Vec<_> =
            drifts.iter().map(|drift| (drift.product_id, drift.counted.0, drift.sold.0)).collect();
        assert_eq!(drifts, [(1, 99, 0)]);
        assert_eq!(recount(shop).await, []);
        assert_eq!(sold(shop).await, 1);
    })
    .await;
}

async fn purge_week(shop: &Shop) -> Purged {
    let purged = purge(&Pool::from(shop.pool.clone()), "Asia/Seoul", WEEK, Since::LastPurge).await;
    purged.unwrap().unwrap()
}

async fn settled(shop: &Shop, user: i64, days: i64, job: &Job) -> JobId {
    let (id, line) = old(user, days, job);
    publish_to(shop, &shop.queue_of(job), line).await;
    assert_eq!(outcome(shop, id).await, ("succeeded".to_owned(), None));
    id
}

/// An order of three units of product 1, and its cancellation, of so many days ago; the order's number.
async fn long_ago(shop: &Shop, user: i64, days: (i64, i64)) -> (JobId, JobId, i64) {
    let product_id = ProductId::new(1);
    let order = Job::PlaceOrder(PlaceOrder {
        items: vec![Item { product_id, quantity: 3 }],
        coupon_id: None,
        fulfilment: Fulfilment::All,
        from_cart: false,
    });
    let placed = settled(shop, user, days.0, &order).await;
    let order: i64 = sqlx::query_scalar("SELECT id FROM orders WHERE job_id = $1")
        .bind(placed.get())
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    let cancel = Job::CancelOrder(CancelOrder {
        order_id: OrderId::new(order),
        customer_id: UserId::new(user),
        product_ids: vec![product_id],
        reason: None,
        by_operator: false,
        max_age_seconds: None,
        request_id: None,
    });
    (placed, settled(shop, user, days.1, &cancel).await, order)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_before_a_purge_stays_taken_back() {
    let quiet = Options { job_retention: 100 * WEEK, ..Options::default() };
    shop(quiet, async |shop| {
        let (placed, cancelled, order) = long_ago(shop, 3, (10, 9)).await;
        // Only its order is forgotten.
        long_ago(shop, 4, (10, 6)).await;
        counted(shop).await;
        assert_eq!((sold(shop).await, number(shop, NOTES).await), (0, 4));
        // As if the first cancel's event were still on its way when its day is closed.
        shop.stop_workers().await;
        sqlx::query("DELETE FROM event_inbox WHERE event_id = $1")
            .bind(cancelled.get())
            .execute(&shop.pool)
            .await
            .unwrap();
        shop.sql("UPDATE product_sales SET quantity = 3, amount = 3000").await;
        assert_eq!(purge_week(shop).await.notes, 3);
        assert_eq!((sold(shop).await, number(shop, NOTES).await), (0, 1));
        assert_eq!(recount(shop).await, []);

        shop.start_worker();
        let (completed, cancelled) = (event(shop, placed).await, cancel_event(shop, order).await);
        for late in [&cancelled, &completed, &cancelled] {
            deliver(shop, late).await;
        }
        another_is_counted(shop).await;
        assert_eq!((sold(shop).await, number(shop, NOTES).await), (1, 2));
        // One that was settled while its day was closed: nothing but its event tells of it.
        shop.sql("UPDATE product_sales SET quantity = 3, amount = 3000 WHERE product_id = 1").await;
        deliver(shop, &cancelled).await;
        eventually("its order's day is counted anew", async || sold(shop).await == 1).await;
    })
    .await;
}

const WRONG: &str = "SELECT count(*)
    FROM (SELECT product_id, sum(quantity) AS units FROM product_sales GROUP BY product_id) AS counted
    FULL JOIN (SELECT product_id, sum(quantity) AS units FROM order_items
               WHERE NOT EXISTS (SELECT FROM cancellations WHERE cancellations.order_id = order_items.order_id)
               GROUP BY product_id) AS sold USING (product_id)
    WHERE COALESCE(counted.units, 0) <> COALESCE(sold.units, 0)";

#[tokio::test(flavor = "multi_thread")]
async fn every_cancellation_is_counted_once_whatever_is_lost() {
    shop(Options { users: 100, ..Options::default() }, async |shop| {
        let orders = stream::iter(0..300).map(async |n| {
            let (user, order) = (n % 100 + 1, one(n % 7 + 1, n % 3 + 1));
            let placed = shop.ordered(user, &order).await;
            (user, placed["result"]["orderId"].as_i64().unwrap())
        });
        let orders: Vec<(i64, i64)> = orders.buffer_unordered(32).collect().await;
        // Two of three are cancelled, while their events come, or do not, and all is counted anew.
        let cancels = orders.iter().filter(|(_, order)| order % 3 != 0);
        let cancels = stream::iter(cancels).map(|(user, order)| cancel(shop, *user, *order));
        let cancels = cancels.buffer_unordered(16).collect::<Vec<Answer>>();
        let faults = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                shop.broker.proxy.cut();
                shop.broker.proxy.restore();
                assert_eq!(recount(shop).await, []);
            }
        };
        let (answers, ()) = tokio::join!(cancels, faults);
        assert!(answers.iter().all(|answer| [202, 503].contains(&answer.status)), "{answers:?}");
        shop.start_worker();
        shop.settle_and_audit().await;
        counted(shop).await;
        assert!(number(shop, "SELECT count(*) FROM cancellations").await > 0);
        assert_eq!(number(shop, WRONG).await, 0);
        assert_eq!(recount(shop).await, []);
    })
    .await;
}
