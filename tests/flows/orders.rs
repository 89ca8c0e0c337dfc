//! Orders: every way they can end, and what they leave behind.

use firstcome_contract::{
    ids::{CouponId, OrderId, ProductId, UserId},
    job::{CancelOrder, Envelope, Idempotency, IssueCoupon, Job, PlaceOrder},
    line::Place,
    order::{Fulfilment, Item},
};
use firstcome_workers::line::settle_directly;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use firstcome_tests::{
    Answer, Options,
    sale::{one, rejected},
    shop,
};

/// A coupon is guarded by its holder's balance: orders of different lines want it at the same time, also in
/// one that has just been given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_used_once_by_orders_in_different_lines() {
    const USERS: i64 = 6;
    shop(Options { users: USERS, partitions: 8, ..Options::default() }, async |shop| {
        shop.start_worker();
        let coupon = shop.campaign(USERS).await;
        let mut products = Vec::new();
        for _ in 0..8 {
            products.push(shop.product(3_000, 1_000).await);
        }
        for user in 1..=USERS {
            let job = shop.accepted_issue(user, coupon).await;
            shop.settled(user, &job).await;
        }
        for round in 1..=5 {
            let orders = (1..=USERS).flat_map(|user| products.iter().map(move |product| (user, *product)));
            let placed: Vec<(i64, Value)> = stream::iter(orders)
                .map(async |(user, product)| {
                    let order = json!({"items": [{"productId": product, "quantity": 1}], "couponId": coupon});
                    (user, shop.ordered(user, &order).await)
                })
                .buffer_unordered(64)
                .collect()
                .await;
            let (won, lost): (Vec<_>, Vec<_>) =
                placed.iter().partition(|(_, job)| job["status"] == "succeeded");
            let winners: std::collections::BTreeSet<i64> = won.iter().map(|(user, _)| *user).collect();
            assert_eq!((won.len(), winners.len()), (6, 6), "round {round}");
            assert!(lost.iter().all(|(_, job)| job["error"]["code"] == "coupon-already-used"), "{lost:?}");
            for (user, job) in won {
                shop.cancelled(*user, job["result"]["orderId"].as_i64().unwrap()).await;
            }
        }
        shop.settle_and_audit().await;
    })
    .await;
}

/// A batch may hold jobs of several kinds: they are settled in their order, in one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_several_kinds_is_settled_in_order() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(10).await;
        let signer = shop.signer();
        let key = || Some(Idempotency { key: "one".to_owned(), fingerprint: "same".to_owned() });
        let envelope = |user: i64, job: Job, idempotency| {
            let user_id = UserId::new(user);
            let id = signer.mint(user_id, job.kind(), Place::UNKNOWN);
            Envelope { id, user_id, idempotency, trace: None, request_id: None, job }
        };
        let issue = || Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
        let order = |coupon_id| {
            let product_id = ProductId::new(1);
            Job::PlaceOrder(PlaceOrder {
                items: vec![Item { product_id, quantity: 1 }],
                coupon_id,
                fulfilment: Fulfilment::All,
                from_cart: false,
            })
        };
        // The order needs the coupon that is issued just before it; the last job repeats the first one's key.
        let jobs = vec![
            envelope(7, issue(), key()),
            envelope(7, order(Some(CouponId::new(coupon))), key()),
            envelope(7, issue(), key()),
            envelope(8, order(Some(CouponId::new(coupon))), None),
        ];
        let ids: Vec<uuid::Uuid> = jobs.iter().map(|job| job.id.get()).collect();
        settle_directly(&shop.pool, jobs).await.unwrap();
        let told: Vec<(String, Option<String>, bool, i64)> = sqlx::query_as(
            "SELECT kind, code, (replay_of IS NOT NULL AND replay_of = ($1::uuid[])[1]), (SELECT count(DISTINCT xmin::text) FROM job_outcomes)
             FROM UNNEST($1::uuid[]) WITH ORDINALITY AS asked (id, n) JOIN job_outcomes ON job_id = id ORDER BY n",
        )
        .bind(&ids)
        .fetch_all(&shop.pool)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
        let expected = [
            ("issue-coupon", None, false),
            ("place-order", None, false),
            ("issue-coupon", None, true),
            ("place-order", Some("coupon-not-owned"), false),
        ];
        let found: Vec<_> = told
            .iter()
            .map(|(kind, code, replays, _)| (kind.as_str(), code.as_deref(), *replays))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(told[0].3, 1, "one transaction");
    })
    .await;
}

/// Each batch locks one product for its order, and another one for its cancel; the batch beside it the other way
/// round.
#[tokio::test(flavor = "multi_thread")]
async fn batches_of_several_kinds_never_deadlock() {
    const ROUNDS: i64 = 20;
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let signer = shop.signer();
        let envelope = |user: i64, job: Job| {
            let user_id = UserId::new(user);
            let id = signer.mint(user_id, job.kind(), Place::UNKNOWN);
            Envelope { id, user_id, idempotency: None, trace: None, request_id: None, job }
        };
        let place = |product: i64| {
            Job::PlaceOrder(PlaceOrder {
                items: vec![Item { product_id: ProductId::new(product), quantity: 1 }],
                coupon_id: None,
                fulfilment: Fulfilment::All,
                from_cart: false,
            })
        };
        let cancel = |order: i64, product: i64| {
            Job::CancelOrder(CancelOrder {
                order_id: OrderId::new(order),
                customer_id: UserId::new(7),
                product_ids: vec![ProductId::new(product)],
                reason: None,
                by_operator: false,
                max_age_seconds: None,
                request_id: None,
            })
        };
        let first = (0..2 * ROUNDS).map(|n| envelope(7, place(if n % 2 == 0 { 1 } else { 2 })));
        settle_directly(&shop.pool, first.collect()).await.unwrap();
        let placed: Vec<(i64, i64)> =
            sqlx::query_as("SELECT order_id, product_id FROM order_items ORDER BY order_id")
                .fetch_all(&shop.pool)
                .await
                .unwrap();
        let side = async |own: i64, other: i64| {
            for (order, _) in placed.iter().filter(|(_, product)| *product == other) {
                let jobs = vec![envelope(8, place(own)), envelope(7, cancel(*order, other))];
                settle_directly(&shop.pool, jobs).await.unwrap();
            }
        };
        tokio::join!(side(1, 2), side(2, 1));
        let outcomes = shop.outcomes().await;
        assert_eq!((outcomes["succeeded"], outcomes.len()), (6 * ROUNDS, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_paid_and_remembered() {
    shop(Options::default(), async |shop| {
        let coupon = shop.coupon_of(7, &json!({"discountType": "percent", "discountValue": 15, "maxDiscount": 1000})).await;
        // Items of one product are merged.
        let items = json!([
            {"productId": 2, "quantity": 1}, {"productId": 1, "quantity": 2}, {"productId": 2, "quantity": 2}
        ]);
        let job = shop.ordered(7, &json!({"items": items, "couponId": coupon})).await;
        assert_eq!(job["kind"], "place-order");
        let id = job["result"]["orderId"].as_i64().unwrap_or_else(|| panic!("{job}"));
        assert_eq!(
            job["result"],
            json!({"orderId": id, "itemsAmount": 8_000, "discount": 1_000, "paid": 7_000, "dropped": []})
        );
        let order = Answer::of(shop.get(7, &format!("/api/orders/{id}"))).await.body;
        assert_eq!(
            order["lines"],
            json!([
                {"productId": 1, "name": "Product 1", "quantity": 2, "unitPrice": 1_000, "amount": 2_000},
                {"productId": 2, "name": "Product 2", "quantity": 3, "unitPrice": 2_000, "amount": 6_000},
            ])
        );
        assert_eq!((&order["status"], &order["couponId"], &order["dropped"]), (&json!("completed"), &json!(coupon), &json!([])));
        assert_eq!((&order["itemsAmount"], &order["discount"], &order["paid"]), (&json!(8_000), &json!(1_000), &json!(7_000)));
        assert!(order["createdAt"].as_str() <= order["completedAt"].as_str());
        let history = Answer::of(shop.get(7, "/api/users/orders")).await.body;
        assert_eq!(history, json!({"items": [order], "next": null}));
        Answer::of(shop.get(8, &format!("/api/orders/{id}"))).await.is_problem(404, "order-not-found");

        let stock = Answer::of(shop.get(7, "/api/products/2")).await.body["stock"].clone();
        assert_eq!(stock, 9_997);
        let paid = Answer::of(shop.get(7, "/api/users/balance/history?limit=1")).await.body["items"][0].clone();
        assert_eq!((&paid["kind"], &paid["amount"], &paid["balanceAfter"], &paid["orderId"]), (&json!("payment"), &json!(-7_000), &json!(993_000), &json!(id)));
        let used = Answer::of(shop.get(7, "/api/users/coupons?status=used")).await.body["items"][0].clone();
        assert_eq!((&used["couponId"], &used["orderId"]), (&json!(coupon), &json!(id)));
        assert!(used["usedAt"].is_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rejection_comes_out_of_the_line() {
    shop(Options::default(), async |shop| {
        rejected(&shop.ordered(999, &one(1, 1)).await, 404, "user-not-found");

        let scarce = shop.product(1_000, 2).await;
        let job = shop.ordered(7, &one(scarce, 3)).await;
        rejected(&job, 409, "out-of-stock");
        assert_eq!(job["error"]["lines"], json!([{"productId": scarce, "requested": 3, "available": 2}]));

        let with = |coupon: i64, product: i64| {
            json!({"items": [{"productId": product, "quantity": 1}], "couponId": coupon})
        };
        rejected(&shop.ordered(7, &with(1, 1)).await, 409, "coupon-not-owned");
        rejected(&shop.ordered(7, &with(99_999, 1)).await, 409, "coupon-not-owned");

        let fixed = json!({"discountType": "fixed", "discountValue": 500});
        let used = shop.coupon_of(7, &fixed).await;
        assert_eq!(shop.ordered(7, &with(used, 1)).await["status"], "succeeded");
        rejected(&shop.ordered(7, &with(used, 1)).await, 409, "coupon-already-used");

        let expired = shop.coupon_of(7, &fixed).await;
        let end = format!("UPDATE coupons SET valid_until = now() - interval '1 second' WHERE id = {expired}");
        sqlx::raw_sql(AssertSqlSafe(end)).execute(&shop.pool).await.unwrap();
        rejected(&shop.ordered(7, &with(expired, 1)).await, 409, "coupon-expired");

        let dear = shop.product(1_000_000_000, 10).await;
        rejected(&shop.ordered(7, &one(dear, 1)).await, 409, "insufficient-balance");
        // Precedence: stock before coupon before balance.
        rejected(&shop.ordered(7, &with(used, dear)).await, 409, "coupon-already-used");
        let stock_first = json!({"items": [{"productId": dear, "quantity": 11}], "couponId": used});
        rejected(&shop.ordered(7, &stock_first).await, 409, "out-of-stock");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_product_is_refused_early_and_in_the_line() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let both = json!({"fulfilment": "partial", "items": [{"productId": 1, "quantity": 1}, {"productId": 999, "quantity": 1}]});
        shop.order(7, &both).await.is_problem(404, "product-not-found");
        let accepted = shop.order(7, &one(1, 1)).await;
        shop.sql("UPDATE products SET deleted_at = now() WHERE id = 1").await;
        shop.start_worker();
        rejected(&shop.settled(7, accepted.job_id()).await, 404, "product-not-found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_order_drops_its_short_items_whole() {
    shop(Options::default(), async |shop| {
        let (plenty, scarce) = (shop.product(100, 10).await, shop.product(1_000, 2).await);
        let items =
            json!([{"productId": plenty, "quantity": 3}, {"productId": scarce, "quantity": 5}]);
        let coupon =
            shop.coupon_of(7, &json!({"discountType": "percent", "discountValue": 33})).await;
        let job = shop
            .ordered(7, &json!({"items": items, "fulfilment": "partial", "couponId": coupon}))
            .await;
        let dropped = json!([{"productId": scarce, "quantity": 5}]);
        let result = &job["result"];
        // 33% of what is left, rounded down.
        assert_eq!(
            (&result["itemsAmount"], &result["discount"], &result["paid"]),
            (&json!(300), &json!(99), &json!(201)),
            "{job}"
        );
        assert_eq!(result["dropped"], dropped);
        let order =
            Answer::of(shop.get(7, &format!("/api/orders/{}", result["orderId"]))).await.body;
        assert_eq!((&order["dropped"], order["lines"].as_array().unwrap().len()), (&dropped, 1));
        // All of it short: rejected.
        let items =
            json!([{"productId": plenty, "quantity": 30}, {"productId": scarce, "quantity": 5}]);
        let job = shop.ordered(7, &json!({"items": items, "fulfilment": "partial"})).await;
        rejected(&job, 409, "out-of-stock");
        assert_eq!(job["error"]["lines"].as_array().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_costs_nothing_is_paid_without_a_history_row() {
    shop(Options::default(), async |shop| {
        let coupon = shop.coupon_of(7, &json!({"discountType": "fixed", "discountValue": 5_000})).await;
        let job = shop.ordered(7, &json!({"items": [{"productId": 1, "quantity": 2}], "couponId": coupon})).await;
        let result = &job["result"];
        assert_eq!((&result["itemsAmount"], &result["discount"], &result["paid"]), (&json!(2_000), &json!(2_000), &json!(0)));
        let (payments, history): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM payments WHERE amount = 0), (SELECT count(*) FROM balance_transactions WHERE kind = 'payment')",
        )
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        assert_eq!((payments, history), (1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_orders_name_every_field() {
    shop(Options::default(), async |shop| {
        let many: Vec<Value> = (1..=51).map(|product| json!({"productId": product, "quantity": 1})).collect();
        let cases = [
            (json!({}), vec!["items"]),
            (json!({"items": []}), vec!["items"]),
            (json!({"items": many}), vec!["items"]),
            (json!({"items": [{"productId": 1, "quantity": 9_999}, {"productId": 1, "quantity": 2}]}), vec!["items"]),
            (json!({"items": [{"productId": 0, "quantity": 1.5}, 7, {"productId": 1, "size": 3}]}),
             vec!["items[0].productId", "items[0].quantity", "items[1]", "items[2].quantity", "items[2].size"]),
            (json!({"items": [{"productId": 1, "quantity": 1}], "fulfilment": "some", "couponId": "1", "gift": true}),
             vec!["couponId", "fulfilment", "gift"]),
            (json!({"items": [{"productId": 1, "quantity": 1}], "fromCart": "yes"}), vec!["fromCart"]),
        ];
        for (body, fields) in cases {
            let answer = shop.order(7, &body).await;
            answer.is_problem(400, "validation-failed");
            let mut named: Vec<&str> = answer.body["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
            named.sort_unstable();
            assert_eq!(named, fields, "{body}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_cannot_spend_more_than_the_balance() {
    shop(Options { partitions: 4, ..Options::default() }, async |shop| {
        // 1,000,000 buys 20 of these, whatever lines they stand in.
        let products: Vec<i64> =
            stream::iter(0..8).then(async |_| shop.product(50_000, 1_000).await).collect().await;
        let orders = (0..100usize).map(|n| {
            let product = products[n % products.len()];
            async move { shop.order(7, &one(product, 1)).await }
        });
        let answers: Vec<Answer> = stream::iter(orders).buffer_unordered(32).collect().await;
        assert!(answers.iter().all(|answer| answer.status == 202));
        shop.settle_and_audit().await;
        let outcomes = shop.outcomes().await;
        assert_eq!((outcomes["succeeded"], outcomes["insufficient-balance"]), (20, 80));
        let balance: i64 = sqlx::query_scalar("SELECT amount FROM balances WHERE user_id = 7")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(balance, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_orders_over_twenty_products_in_random_order() {
    shop(Options { users: 1_000, partitions: 8, ..Options::default() }, async |shop| {
        let mut products = Vec::new();
        for n in 0..20 {
            products.push(shop.product(100 + n, 300).await);
        }
        let mut state = 42u64;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let orders: Vec<(i64, Value)> = (0..5_000)
            .map(|n| {
                let count = 1 + random(4);
                let items: Vec<Value> = (0..count)
                    .map(|_| json!({"productId": products[random(20)], "quantity": 1 + random(3)}))
                    .collect();
                let fulfilment = ["all", "partial"][random(2)];
                (n % 1_000 + 1, json!({"items": items, "fulfilment": fulfilment}))
            })
            .collect();
        let answers: Vec<Answer> = stream::iter(&orders)
            .map(|(user, order)| shop.order(*user, order))
            .buffer_unordered(128)
            .collect()
            .await;
        assert!(answers.iter().all(|answer| answer.status == 202));
        shop.settle_and_audit().await;
        let outcomes = shop.outcomes().await;
        assert!(
            outcomes.keys().all(|code| ["succeeded", "out-of-stock"].contains(&code.as_str())),
            "{outcomes:?}"
        );
        assert!(outcomes["succeeded"] > 1_000 && outcomes["out-of-stock"] > 100, "{outcomes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_order_is_one_order_and_its_job_is_like_any_other() {
    shop(Options::default(), async |shop| {
        let place = async |body: Value| {
            let request = shop.post(7, "/api/orders").header("Idempotency-Key", "k");
            shop.submit(7, request.json(&body)).await
        };
        let first = place(one(1, 2)).await;
        let id = first.job_id();
        assert_eq!(first.headers["location"], format!("/api/jobs/{id}"));
        first.retry_after();
        assert_eq!(
            first.body,
            json!({"jobId": id, "kind": "place-order", "status": "queued", "links": {"self": format!("/api/jobs/{id}")}})
        );
        assert_eq!(place(one(1, 2)).await.job_id(), id);
        place(one(1, 3)).await.is_problem(422, "idempotency-key-reused");
        shop.settled(7, id).await;
        assert_eq!(place(one(1, 2)).await.job_id(), id);
        // The key is the kind's own: a coupon may have the same.
        assert_ne!(shop.issue_keyed(7, 1, "k").await.job_id(), id);
        shop.settle_and_audit().await;
        let orders: i64 = sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&shop.pool).await.unwrap();
        assert_eq!(orders, 1);
    })
    .await;
}
