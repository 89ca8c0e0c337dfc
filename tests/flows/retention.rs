//! What is past its retention is deleted, and nothing of it happens again.

use chrono::{DateTime, TimeDelta, Utc};
use firstcome_broker::topology;
use firstcome_contract::{
    event::{Data, Event, OrderCompleted, SoldItem},
    ids::{CouponId, OrderId, ProductId, UserId},
    job::{Envelope, IssueCoupon, Job, JobId, PlaceOrder},
    line::Place,
    money::Money,
    order::{Fulfilment, Item},
};
use firstcome_process::database::Pool;
use firstcome_workers::commands::purge::{Purged, Since, purge};
use serde_json::{Value, json};

use super::{
    events::counted,
    poison::{outcome, publish_to},
};
use firstcome_tests::{Options, Shop, eventually, shop};

/// A week: what the tests purge by. The workers' own purge has nothing to do.
const WEEK: u32 = 7 * 24 * 3_600;

fn quiet() -> Options {
    Options { job_retention: 100 * WEEK, ..Options::default() }
}

/// A job of a user, submitted so many days ago.
pub(crate) fn old(user: i64, days: i64, job: &Job) -> (JobId, Vec<u8>) {
    let submitted: DateTime<Utc> = Utc::now() - TimeDelta::days(days);
    let millis = u64::try_from(submitted.timestamp_millis()).unwrap();
    let id = JobId::compose(millis, job.kind(), Place::UNKNOWN, u32::try_from(user).unwrap(), 0);
    let envelope = Envelope {
        id,
        user_id: UserId::new(user),
        idempotency: None,
        trace: None,
        request_id: None,
        job: job.clone(),
    };
    let mut line = Vec::new();
    envelope.encode(&mut line).unwrap();
    (id, line)
}

fn issue(coupon: i64) -> Job {
    Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) })
}

fn order(product: i64, quantity: i64) -> Job {
    Job::PlaceOrder(PlaceOrder {
        items: vec![Item { product_id: ProductId::new(product), quantity }],
        coupon_id: None,
        fulfilment: Fulfilment::All,
        from_cart: false,
    })
}

async fn deliver(shop: &Shop, job: &Job, line: &[u8]) {
    publish_to(shop, &shop.queue_of(job), line.to_vec()).await;
}

async fn purge_week(shop: &Shop, since: Since) -> Option<Purged> {
    purge(&Pool::from(shop.pool.clone()), "Asia/Seoul", WEEK, since).await.unwrap()
}

async fn number(shop: &Shop, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap()
}

/// The event of an order, once more.
pub(crate) async fn redeliver_event(shop: &Shop, job: JobId) {
    let event = serde_json::to_vec(&event(shop, job).await).unwrap();
    publish_to(shop, &topology::sales_stats(&shop.namespace), event).await;
}

/// The event of an order.
pub(crate) async fn event(shop: &Shop, job: JobId) -> Event {
    let (id, user, product, quantity, at): (i64, i64, i64, i64, DateTime<Utc>) = sqlx::query_as(
        "SELECT id, user_id, product_id, quantity, completed_at FROM orders JOIN order_items ON order_id = id
         WHERE job_id = $1",
    )
    .bind(job.get())
    .fetch_one(&shop.pool)
    .await
    .unwrap();
    let unit_price = Money::new(product * 1_000);
    let amount = unit_price.times(quantity);
    let order = OrderCompleted {
        order_id: OrderId::new(id),
        user_id: UserId::new(user),
        items: vec![SoldItem { product_id: ProductId::new(product), quantity, unit_price }],
        items_amount: amount,
        discount: Money::ZERO,
        paid: amount,
        coupon_id: None,
    };
    Event::new(job.get(), at, Data::OrderCompleted(order))
}

const SOLD: &str = "SELECT COALESCE(sum(quantity), 0)::bigint FROM product_sales";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_never_happens_again() {
    shop(quiet(), async |shop| {
        let coupon = shop.campaign(1).await;
        let jobs = [
            (issue(coupon), old(1, 10, &issue(coupon)), "succeeded"),
            (issue(coupon), old(2, 10, &issue(coupon)), "coupon-sold-out"),
            (order(1, 3), old(3, 10, &order(1, 3)), "succeeded"),
            (order(1, 1), old(99_999, 10, &order(1, 1)), "user-not-found"),
            // Within the retention.
            (issue(coupon), old(4, 6, &issue(coupon)), "coupon-sold-out"),
            (order(2, 2), old(5, 6, &order(2, 2)), "succeeded"),
        ];
        for (job, (id, line), expected) in &jobs {
            deliver(shop, job, line).await;
            let (status, code) = outcome(shop, *id).await;
            assert_eq!(code.as_deref().unwrap_or(&status), *expected);
        }
        let broken = String::from_utf8(old(6, 10, &issue(coupon)).1).unwrap();
        let broken_line = broken.replace("couponId", "coupon").into_bytes();
        deliver(shop, &issue(coupon), &broken_line).await;
        assert_eq!(outcome(shop, old_id(&broken)).await.0, "failed");
        for (user, age) in [(7, "10 days"), (8, "6 days")] {
            let charge = shop.post(user, "/api/balance/charge").header("Idempotency-Key", "k");
            assert_eq!(charge.json(&json!({"amount": 1})).send().await.unwrap().status(), 200);
            sqlx::query("UPDATE idempotent_answers SET created_at = now() - $2::text::interval WHERE user_id = $1")
                .bind(user)
                .bind(age)
                .execute(&shop.pool)
                .await
                .unwrap();
        }
        counted(shop).await;

        let purged = purge_week(shop, Since::LastPurge).await;
        assert_eq!(purged, Some(Purged { outcomes: 3, notes: 1, answers: 1 }));
        assert_eq!(purge_week(shop, Since::LastPurge).await, None, "nothing more is due");
        assert_eq!(purge_week(shop, Since::Ever).await, Some(Purged::default()));
        let kept = shop.outcomes().await;
        assert_eq!((kept["succeeded"], kept["coupon-sold-out"], kept.len()), (3, 1, 2));
        assert_eq!(number(shop, "SELECT count(*) FROM event_inbox").await, 1);
        assert_eq!(number(shop, "SELECT user_id FROM idempotent_answers").await, 8);
        assert_eq!(number(shop, "SELECT count(*) FROM dead_letters").await, 1);
        shop.settle_and_audit().await;

        // Now there would be coupons, and a user.
        sqlx::query("UPDATE coupons SET total = 10 WHERE id = $1").bind(coupon).execute(&shop.pool).await.unwrap();
        shop.sql("INSERT INTO users (id, name, email) VALUES (99999, 'x', 'x@y'); INSERT INTO balances (user_id) VALUES (99999)").await;
        for (job, (_, line), _) in &jobs {
            deliver(shop, job, line).await;
        }
        let overdue = ("failed".to_owned(), Some("job-overdue".to_owned()));
        for (at, expected) in [(1, overdue.clone()), (3, overdue)] {
            assert_eq!(outcome(shop, jobs[at].1.0).await, expected);
        }
        redeliver_event(shop, jobs[2].1.0).await;
        redeliver_event(shop, jobs[5].1.0).await;
        // Behind all of these, in every line.
        for product in 1..=4 {
            shop.ordered(7, &json!({"items": [{"productId": product, "quantity": 1}]})).await;
        }
        counted(shop).await;
        assert_eq!(number(shop, SOLD).await, 3 + 2 + 4);
        assert_eq!(number(shop, "SELECT count(*) FROM user_coupons").await, 1);
        assert_eq!(number(shop, "SELECT count(*) FROM orders").await, 2 + 4);
        let letters = "SELECT count(*) FROM dead_letters WHERE reason LIKE '%purged%' AND job_id IS NOT NULL";
        assert_eq!(number(shop, letters).await, 2);
        // By hand, what came late is found too; a longer retention reopens nothing.
        assert_eq!(purge_week(shop, Since::Ever).await.map(|purged| purged.outcomes), Some(2));
        purge(&Pool::from(shop.pool.clone()), "Asia/Seoul", 100 * WEEK, Since::Ever).await.unwrap();
        deliver(shop, &jobs[1].0, &jobs[1].1.1).await;
        assert_eq!(outcome(shop, jobs[1].1.0).await.1.as_deref(), Some("job-overdue"));
    })
    .await;
}

fn old_id(line: &str) -> JobId {
    let line: Value = serde_json::from_str(line).unwrap();
    serde_json::from_value(line["id"].clone()).unwrap()
}

/// Closing its day counts what is still on its way; when it arrives, it changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_after_its_day_was_purged_is_counted_once() {
    shop(quiet(), async |shop| {
        let (id, line) = old(3, 10, &order(1, 3));
        deliver(shop, &order(1, 3), &line).await;
        assert_eq!(outcome(shop, id).await.0, "succeeded");
        counted(shop).await;
        // As if it had not come yet; while no worker counts a second delivery of it.
        shop.stop_workers().await;
        shop.sql("DELETE FROM event_inbox; UPDATE product_sales SET quantity = 0, amount = 0")
            .await;
        assert_eq!(number(shop, SOLD).await, 0);
        purge_week(shop, Since::LastPurge).await;
        assert_eq!(number(shop, SOLD).await, 3);
        shop.start_worker();
        shop.settle_and_audit().await;
        // One that was settled while its day was closed: nothing but its event tells of it.
        shop.sql("UPDATE product_sales SET quantity = 0, amount = 0").await;
        redeliver_event(shop, id).await;
        eventually("its day is counted anew", async || number(shop, SOLD).await == 3).await;
        redeliver_event(shop, id).await;
        shop.ordered(7, &json!({"items": [{"productId": 1, "quantity": 1}]})).await;
        eventually("the next event is counted", async || number(shop, SOLD).await == 4).await;
        assert_eq!(number(shop, "SELECT count(*) FROM event_inbox").await, 1, "the new one's");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_purge_by_themselves() {
    shop(Options { job_retention: WEEK, worker: false, ..Options::default() }, async |shop| {
        // More than one statement deletes, in two processes.
        shop.sql(
            "INSERT INTO job_outcomes (job_id, user_id, kind, status, code)
             SELECT (lpad(to_hex((extract(epoch FROM now() - interval '10 days') * 1000)::bigint + n), 12, '0') || repeat('0', 20))::uuid,
                    7, 'issue-coupon', 'rejected', 'coupon-sold-out'
             FROM generate_series(1, 12000) AS n",
        )
        .await;
        shop.start_worker();
        shop.start_worker();
        eventually("they are gone", async || number(shop, "SELECT count(*) FROM job_outcomes").await == 0).await;
        eventually("the purge is noted", async || {
            number(shop, "SELECT count(*) FROM daily_runs WHERE job = 'purge'").await == 1
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overdue_job_is_told_to_who_still_asks() {
    shop(Options { worker: false, ..quiet() }, async |shop| {
        let coupon = shop.campaign(5).await;
        let job = shop.accepted_issue(7, coupon).await;
        // As if it had stood in line for longer than its outcome would have been kept.
        shop.sql("INSERT INTO daily_runs (job, day) VALUES ('close-day', (now() AT TIME ZONE 'UTC')::date)").await;
        shop.start_worker();
        let told = shop.settled(7, &job).await;
        assert_eq!((&told["status"], &told["error"]["code"]), (&json!("failed"), &json!("job-overdue")));
        assert_eq!(told["error"]["status"], 500);
        assert_eq!(number(shop, "SELECT count(*) FROM dead_letters").await, 1);
    })
    .await;
}
