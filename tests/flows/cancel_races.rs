//! Cancellations that race: each other, orders, the counting of both.

use std::{collections::BTreeMap, time::Duration};

use firstcome_process::database::Pool;
use firstcome_workers::events::update_sales_stats;
use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};

use super::events::counted;
use firstcome_tests::{
    Answer, Options, Shop, eventually,
    sale::{Random, one, succeeded},
    shop,
};

/// Units and won by product: of what was completed and not cancelled, and by the statistics.
async fn sold_and_told(shop: &Shop) -> [BTreeMap<i64, (i64, i64)>; 2] {
    let read = async |query: &'static str| {
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(query).fetch_all(&shop.pool).await.unwrap();
        rows.into_iter()
            .map(|(product, units, won)| (product, (units, won)))
            .collect::<BTreeMap<_, _>>()
    };
    [
        read(
            "SELECT product_id, sum(quantity)::bigint, sum(quantity * unit_price)::bigint FROM order_items
             WHERE NOT EXISTS (SELECT FROM cancellations WHERE cancellations.order_id = order_items.order_id)
             GROUP BY 1",
        )
        .await,
        read(
            "SELECT product_id, sum(quantity)::bigint, sum(amount)::bigint FROM product_sales
             GROUP BY 1 HAVING sum(quantity) <> 0 OR sum(amount) <> 0",
        )
        .await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_clients_cancel_one_order_once() {
    shop(Options::default(), async |shop| {
        shop.start_worker();
        let other = shop.start_api(|_| {}).await;
        let product = shop.product(1_000, 5).await;
        let coupon =
            shop.coupon_of(7, &json!({"discountType": "fixed", "discountValue": 500})).await;
        let mut body = one(product, 2);
        body["couponId"] = json!(coupon);
        let id = shop.bought(7, &body).await;
        let cancels = (0..20).map(|client| {
            let api = if client % 2 == 0 { &shop.api } else { &other };
            shop.submit(7, shop.post(7, &format!("{}/api/orders/{id}/cancel", api.url)))
        });
        let answers = join_all(cancels).await;
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        let jobs = join_all(answers.iter().map(|answer| shop.settled(7, answer.job_id()))).await;
        let won: Vec<&Value> = jobs.iter().filter(|job| job["status"] == "succeeded").collect();
        assert_eq!(won.len(), 1, "{jobs:?}");
        assert_eq!(
            won[0]["result"],
            json!({"orderId": id, "refunded": 1_500, "couponReturned": true})
        );
        assert_eq!(shop.outcomes().await["order-already-cancelled"], 19);
        assert_eq!((shop.balance(7).await, shop.stock(product).await), (1_000_000, 5));
        counted(shop).await;
        let [sold, told] = sold_and_told(shop).await;
        assert!(sold.is_empty() && told.is_empty(), "{sold:?} {told:?}");
        other.stop().await;
    })
    .await;
}

/// One of both comes first, whoever that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_customer_and_an_operator_cancel_at_once() {
    shop(Options::default(), async |shop| {
        for _ in 0..10 {
            let id = shop.bought(7, &one(1, 1)).await;
            let reason = json!({"reason": "A complaint"});
            let (own, theirs) =
                tokio::join!(shop.cancel(7, id), shop.cancel_as_operator(id, &reason));
            let own = shop.settled(7, own.job_id()).await;
            let theirs = shop.settled(1, theirs.job_id()).await;
            let lost = if own["status"] == "succeeded" { &theirs } else { &own };
            assert_eq!(lost["error"]["code"], "order-already-cancelled", "{own} {theirs}");
            let order = Answer::of(shop.get(7, &format!("/api/orders/{id}"))).await.body;
            let by_operator = theirs["status"] == "succeeded";
            assert_eq!(order["cancelReason"].as_str(), by_operator.then_some("A complaint"));
        }
        assert_eq!(shop.balance(7).await, 1_000_000);
    })
    .await;
}

/// While events are delivered late and twice, and the statistics are recounted again and again.
#[tokio::test(flavor = "multi_thread")]
async fn the_statistics_are_the_completed_orders_less_the_cancelled_ones() {
    let options = Options { users: 100, partitions: 4, ..Options::default() };
    shop(options, async |shop| {
        let buyers = stream::iter(0..400).map(async |n: i64| {
            let (user, items) = (
                n % 100 + 1,
                [n % 5 + 1, n % 3 + 6]
                    .map(|product| json!({"productId": product, "quantity": n % 2 + 1})),
            );
            let placed = until_accepted(|| {
                let key = format!("order-{n}");
                shop.submit(
                    user,
                    shop.post(user, "/api/orders")
                        .header("Idempotency-Key", key)
                        .json(&json!({"items": items})),
                )
            });
            let job = placed.await;
            let order = shop.settled(user, &job).await["result"]["orderId"].as_i64().unwrap();
            // Some at once, so that the order is hardly counted; a third of them not at all.
            if n % 3 == 0 {
                return;
            }
            if n % 3 == 1 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let cancelled = until_accepted(|| {
                let request = shop.post(user, &format!("/api/orders/{order}/cancel"));
                shop.submit(user, request.header("Idempotency-Key", format!("cancel-{n}")))
            });
            let job = cancelled.await;
            succeeded(&shop.settled(user, &job).await);
        });
        let sale = buyers.buffer_unordered(24).collect::<Vec<()>>();
        let faults = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                // Relays and counters lose their connections in mid-batch: events are delivered again.
                shop.broker.proxy.cut();
                shop.broker.proxy.restore();
                recount(shop).await;
            }
        };
        tokio::join!(sale, faults);
        shop.start_worker();
        counted(shop).await;
        let [sold, told] = sold_and_told(shop).await;
        assert_eq!(sold, told);
        assert_eq!(
            sold.values().map(|(units, _)| units).sum::<i64>(),
            2 * (0..400).filter(|n| n % 3 == 0).map(|n| n % 2 + 1).sum::<i64>()
        );
        assert_eq!(recount(shop).await, 0, "nothing is left to repair");
        shop.settle_and_audit().await;
    })
    .await;
}

/// Days whose statistics had drifted.
async fn recount(shop: &Shop) -> usize {
    update_sales_stats::rebuild(&Pool::from(shop.pool.clone()), "Asia/Seoul", 3)
        .await
        .unwrap()
        .len()
}

/// Under one key, so that a repeat is the same job; the job.
async fn until_accepted<F: Future<Output = Answer>>(submit: impl Fn() -> F) -> String {
    let mut job = None;
    eventually("the request is accepted", async || {
        let answer = submit().await;
        assert!([202, 503].contains(&answer.status), "{answer:?}");
        job = (answer.status == 202).then(|| answer.job_id().to_owned());
        job.is_some()
    })
    .await;
    job.unwrap()
}

/// Some users buy and cancel whatever comes to their minds, each in two windows at once.
#[tokio::test(flavor = "multi_thread")]
async fn random_orders_and_cancellations_leave_clean_books() {
    const USERS: i64 = 6;
    const STOCK: i64 = 40;
    let options = Options { partitions: 4, ..Options::default() };
    shop(options, async |shop| {
        shop.start_worker();
        let limited = shop.product_with(&json!({"price": 700, "stock": STOCK, "perCustomer": 9})).await;
        let other = shop.product_with(&json!({"price": 30_000, "stock": STOCK})).await;
        let percent = json!({"discountType": "percent", "discountValue": 33});
        let coupons: Vec<i64> = stream::iter(1..=USERS).then(|user| shop.coupon_of(user, &percent)).collect().await;
        let windows = (0..2 * USERS).map(async |window: i64| {
            let (user, coupon) = (window % USERS + 1, coupons[usize::try_from(window % USERS).unwrap()]);
            let mut random = Random::new(u64::try_from(window).unwrap() + 1);
            let mut orders: Vec<i64> = Vec::new();
            for _ in 0..40 {
                let bought = i64::try_from(orders.len()).unwrap();
                if bought > 0 && random.below(2) == 0 {
                    // Perhaps one that was cancelled before, perhaps twice at once.
                    let id = orders[usize::try_from(random.below(bought)).unwrap()];
                    let answers = join_all((0..=random.below(2)).map(|_| shop.cancel(user, id))).await;
                    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
                    continue;
                }
                let quantity = [1, 2, 3, 8][usize::try_from(random.below(4)).unwrap()];
                let item = |product: i64| json!({"productId": product, "quantity": quantity});
                let items = match random.below(3) {
                    0 => json!([item(limited)]),
                    1 => json!([item(other)]),
                    _ => json!([item(limited), item(other)]),
                };
                let fulfilment = ["all", "partial"][usize::try_from(random.below(2)).unwrap()];
                let mut body = json!({"items": items, "fulfilment": fulfilment});
                if random.below(3) == 0 {
                    body["couponId"] = json!(coupon);
                }
                orders.extend(shop.ordered(user, &body).await["result"]["orderId"].as_i64());
            }
        });
        join_all(windows).await;
        // Whoever cancelled last did not wait.
        shop.settle_and_audit().await;
        counted(shop).await;
        let outcomes = shop.outcomes().await;
        for ending in ["succeeded", "order-already-cancelled", "limit-exceeded", "out-of-stock", "coupon-already-used"] {
            assert!(outcomes.contains_key(ending), "this test does not see {ending}: {outcomes:?}");
        }
        let [sold, told] = sold_and_told(shop).await;
        assert_eq!(sold, told);
        for product in [limited, other] {
            let units = sold.get(&product).map_or(0, |(units, _)| *units);
            assert_eq!(shop.stock(product).await, STOCK - units);
        }
        for user in 1..=USERS {
            assert!(shop.units(user, limited).await <= 9, "user {user}");
            let spent: i64 = sqlx::query_scalar(
                "SELECT COALESCE(sum(paid), 0)::bigint FROM orders
                 WHERE user_id = $1 AND NOT EXISTS (SELECT FROM cancellations WHERE order_id = orders.id)",
            )
            .bind(user)
            .fetch_one(&shop.pool)
            .await
            .unwrap();
            assert_eq!(shop.balance(user).await, 1_000_000 - spent);
        }
    })
    .await;
}
