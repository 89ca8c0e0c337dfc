//! A limit per customer for life: never more, and never fewer than demand and stock allow.

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};

use firstcome_tests::{
    Answer, Options, Shop,
    sale::{one, rejected, succeeded},
    shop,
};

fn limited(limit: i64) -> Value {
    json!({"perCustomer": limit})
}

/// Sends these orders, many at once; each is accepted.
async fn place(shop: &Shop, orders: impl IntoIterator<Item = (i64, Value)>) {
    let orders: Vec<(i64, Value)> = orders.into_iter().collect();
    let placing = stream::iter(&orders).map(|(user, order)| shop.order(*user, order));
    let answers: Vec<Answer> = placing.buffer_unordered(64).collect().await;
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    shop.settle_and_audit().await;
}

#[track_caller]
fn over_the_limit(job: &Value, product: i64, requested: i64, bought: i64, limit: i64) {
    rejected(job, 409, "limit-exceeded");
    let line =
        json!({"productId": product, "requested": requested, "bought": bought, "limit": limit});
    assert_eq!(job["error"]["lines"], json!([line]), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_as_many_as_the_limit_and_nobody_more() {
    shop(Options { users: 20, ..Options::default() }, async |shop| {
        shop.start_worker();
        let product = shop.product_with(&limited(2)).await;
        place(shop, (0..200).map(|n| (n % 20 + 1, one(product, 1)))).await;
        let outcomes = shop.outcomes().await;
        assert_eq!((outcomes["succeeded"], outcomes["limit-exceeded"]), (40, 160));
        for user in 1..=20 {
            assert_eq!(shop.units(user, product).await, 2, "user {user}");
        }
        assert_eq!(shop.stock(product).await, 60);
        over_the_limit(&shop.ordered(7, &one(product, 1)).await, product, 1, 2, 2);
    })
    .await;
}

/// The stock is what ends it: what the limit refused is left for others, and nothing lies about.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_leaves_no_unit_unsold() {
    shop(Options { users: 40, ..Options::default() }, async |shop| {
        let product = shop.product_with(&json!({"stock": 50, "perCustomer": 2})).await;
        place(shop, (0..200).map(|n| (n % 40 + 1, one(product, 1)))).await;
        assert_eq!((shop.outcomes().await["succeeded"], shop.stock(product).await), (50, 0));
        for user in 1..=40 {
            assert!(shop.units(user, product).await <= 2, "user {user}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_while_orders_are_cancelled_again_and_again() {
    shop(Options { users: 20, ..Options::default() }, async |shop| {
        shop.start_worker();
        let product = shop.product_with(&limited(2)).await;
        // Nobody may have three, not even for a moment.
        shop.sql(
            "CREATE TABLE seen (most bigint NOT NULL);
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen SELECT COALESCE(max(units), 0) FROM (
                     SELECT sum(quantity) AS units FROM orders JOIN order_items ON order_id = orders.id
                     WHERE NOT EXISTS (SELECT FROM cancellations WHERE cancellations.order_id = orders.id)
                     GROUP BY user_id, product_id) AS held;
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER look AFTER INSERT ON order_items
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look()",
        )
        .await;
        let windows = (0..40).map(async |window: i64| {
            let user = window % 20 + 1;
            for step in 0..8 {
                let job = shop.ordered(user, &one(product, 1)).await;
                let Some(order) = job["result"]["orderId"].as_i64() else {
                    rejected(&job, 409, "limit-exceeded");
                    continue;
                };
                if step % 2 == 0 {
                    // Twice: it frees one unit all the same.
                    let (first, second) = tokio::join!(shop.cancel(user, order), shop.cancel(user, order));
                    shop.settled(user, first.job_id()).await;
                    shop.settled(user, second.job_id()).await;
                }
            }
        });
        join_all(windows).await;
        let most: i64 = sqlx::query_scalar("SELECT max(most) FROM seen").fetch_one(&shop.pool).await.unwrap();
        assert_eq!(most, 2);
        place(shop, (0..60).map(|n| (n % 20 + 1, one(product, 1)))).await;
        for user in 1..=20 {
            assert_eq!(shop.units(user, product).await, 2, "user {user}");
        }
        assert_eq!(shop.stock(product).await, 60);
    })
    .await;
}

/// What one batch holds of a customer's orders counts in its order.
#[tokio::test(flavor = "multi_thread")]
async fn orders_and_cancellations_of_one_batch_count_in_their_order() {
    shop(Options::default(), async |shop| {
        let product = shop.product_with(&limited(3)).await;
        let first = shop.bought(7, &one(product, 2)).await;
        shop.stop_workers().await;
        let mut jobs = Vec::new();
        for quantity in [2, 1, 1] {
            jobs.push(shop.order(7, &one(product, quantity)).await);
        }
        jobs.push(shop.cancel(7, first).await);
        for quantity in [2, 1] {
            jobs.push(shop.order(7, &one(product, quantity)).await);
        }
        shop.start_worker();
        let mut ended = Vec::new();
        for job in &jobs {
            ended.push(shop.settled(7, job.job_id()).await);
        }
        over_the_limit(&ended[0], product, 2, 2, 3);
        succeeded(&ended[1]);
        over_the_limit(&ended[2], product, 1, 3, 3);
        succeeded(&ended[3]);
        succeeded(&ended[4]);
        over_the_limit(&ended[5], product, 1, 3, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_bought_before_the_limit_counts() {
    shop(Options::default(), async |shop| {
        let product = shop.product_with(&json!({})).await;
        let much = shop.bought(7, &one(product, 3)).await;
        shop.bought(8, &one(product, 1)).await;
        let given_back = shop.bought(9, &one(product, 2)).await;
        succeeded(&shop.cancelled(9, given_back).await);
        shop.edited(&format!("products/{product}"), &limited(2)).await;

        over_the_limit(&shop.ordered(7, &one(product, 1)).await, product, 1, 3, 2);
        succeeded(&shop.ordered(8, &one(product, 1)).await);
        over_the_limit(&shop.ordered(8, &one(product, 1)).await, product, 1, 2, 2);
        succeeded(&shop.ordered(9, &one(product, 2)).await);
        // An order of before the limit frees what it took.
        succeeded(&shop.cancelled(7, much).await);
        succeeded(&shop.ordered(7, &one(product, 2)).await);
        over_the_limit(&shop.ordered(7, &one(product, 1)).await, product, 1, 2, 2);
    })
    .await;
}

/// Nobody has asked for the limited product when their order of before is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_before_the_first_limited_order_counts() {
    shop(Options::default(), async |shop| {
        let product = shop.product_with(&json!({})).await;
        let before = shop.bought(7, &one(product, 2)).await;
        shop.edited(&format!("products/{product}"), &limited(2)).await;
        succeeded(&shop.cancelled(7, before).await);
        over_the_limit(&shop.ordered(7, &one(product, 3)).await, product, 3, 0, 2);
        succeeded(&shop.ordered(7, &one(product, 2)).await);
        over_the_limit(&shop.ordered(7, &one(product, 1)).await, product, 1, 2, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_was_taken_away_and_put_back_counts_all_the_same() {
    shop(Options::default(), async |shop| {
        let product = shop.product_with(&limited(2)).await;
        let path = format!("products/{product}");
        let first = shop.bought(7, &one(product, 2)).await;
        let without = shop.edited(&path, &json!({"perCustomer": null})).await;
        assert_eq!(without["perCustomer"], json!(null));
        shop.bought(7, &one(product, 3)).await;
        succeeded(&shop.cancelled(7, first).await);

        assert_eq!(shop.edited(&path, &limited(4)).await["perCustomer"], 4);
        over_the_limit(&shop.ordered(7, &one(product, 2)).await, product, 2, 3, 4);
        let last = shop.bought(7, &one(product, 1)).await;
        over_the_limit(&shop.ordered(7, &one(product, 1)).await, product, 1, 4, 4);
        // Another number is the same limit: what was counted stays.
        shop.edited(&path, &limited(5)).await;
        over_the_limit(&shop.ordered(7, &one(product, 2)).await, product, 2, 4, 5);
        succeeded(&shop.cancelled(7, last).await);
        succeeded(&shop.ordered(7, &one(product, 2)).await);
        // One below what somebody has takes nothing away.
        shop.edited(&path, &limited(1)).await;
        over_the_limit(&shop.ordered(7, &one(product, 1)).await, product, 1, 5, 1);
        assert_eq!(shop.units(7, product).await, 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_order_drops_what_is_over_the_limit() {
    shop(Options::default(), async |shop| {
        let few = shop.product_with(&limited(2)).await;
        let scarce = shop.product_with(&json!({"stock": 1})).await;
        let plenty = shop.product_with(&json!({})).await;
        let partial = |items: &[(i64, i64)]| {
            let item = |(product, quantity): &(i64, i64)| json!({"productId": product, "quantity": quantity});
            json!({"fulfilment": "partial", "items": items.iter().map(item).collect::<Vec<_>>()})
        };
        let job = shop.ordered(7, &partial(&[(few, 3), (plenty, 4)])).await;
        succeeded(&job);
        assert_eq!((&job["result"]["dropped"], &job["result"]["paid"]), (&json!([{"productId": few, "quantity": 3}]), &json!(4)));
        let job = shop.ordered(7, &partial(&[(few, 3), (scarce, 2), (plenty, 1)])).await;
        assert_eq!(job["result"]["dropped"], json!([{"productId": few, "quantity": 3}, {"productId": scarce, "quantity": 2}]));

        // Nothing is left of these.
        over_the_limit(&shop.ordered(7, &partial(&[(few, 3)])).await, few, 3, 0, 2);
        rejected(&shop.ordered(7, &partial(&[(few, 3), (scarce, 2)])).await, 409, "out-of-stock");
        // All or nothing: the limit comes before the stock.
        let both = json!({"items": [{"productId": scarce, "quantity": 2}, {"productId": few, "quantity": 3}]});
        over_the_limit(&shop.ordered(7, &both).await, few, 3, 0, 2);
        assert_eq!(shop.units(7, few).await, 0);
    })
    .await;
}

/// An order of several products stands in one line: others sell the same product at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn orders_in_different_lines_share_a_limit() {
    shop(Options { users: 10, partitions: 8, ..Options::default() }, async |shop| {
        shop.start_worker();
        let mut others = Vec::new();
        for _ in 0..8 {
            others.push(shop.product_with(&json!({"stock": 1_000})).await);
        }
        let product = shop.product_with(&limited(3)).await;
        place(shop, (0..240).map(|n: i64| {
            let other = others[usize::try_from(n / 10 % 8).unwrap()];
            let items = json!([{"productId": other, "quantity": 1}, {"productId": product, "quantity": 1}]);
            (n % 10 + 1, json!({"items": items}))
        }))
        .await;
        let outcomes = shop.outcomes().await;
        assert_eq!((outcomes["succeeded"], outcomes["limit-exceeded"]), (30, 210));
        for user in 1..=10 {
            assert_eq!(shop.units(user, product).await, 3, "user {user}");
        }
    })
    .await;
}
