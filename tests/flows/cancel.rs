//! A cancelled order: what comes back, to whom, and every way it is refused.

use firstcome_contract::{
    ids::{OrderId, ProductId, UserId},
    job::{CancelOrder, Envelope, Job},
    line::Place,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::poison::{outcome, publish_to};
use firstcome_tests::{
    Answer, Options, Shop,
    sale::{one, rejected, succeeded},
    shop,
};

/// The highest balance that a charge may lead to.
const CEILING: i64 = 1_000_000_000_000;

async fn order(shop: &Shop, user: i64, id: i64) -> Value {
    Answer::of(shop.get(user, &format!("/api/orders/{id}"))).await.body
}

async fn coupons(shop: &Shop, user: i64, status: &str) -> Value {
    let path = format!("/api/users/coupons?status={status}");
    Answer::of(shop.get(user, &path)).await.body["items"].clone()
}

/// The newest change of the balance.
async fn last_change(shop: &Shop, user: i64) -> Value {
    let history = shop.get(user, "/api/users/balance/history?limit=1");
    Answer::of(history).await.body["items"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_gives_everything_back() {
    shop(Options::default(), async |shop| {
        let product = shop.product(1_000, 5).await;
        let coupon = shop.coupon_of(7, &json!({"discountType": "fixed", "discountValue": 500})).await;
        let items = json!([{"productId": 1, "quantity": 1}, {"productId": product, "quantity": 2}]);
        let id = shop.bought(7, &json!({"items": items, "couponId": coupon})).await;
        let completed = order(shop, 7, id).await;
        assert_eq!((&completed["status"], &completed["cancelledAt"], &completed["cancelReason"]), (&json!("completed"), &json!(null), &json!(null)));
        assert_eq!((shop.balance(7).await, shop.stock(1).await, shop.stock(product).await), (997_500, 9_999, 3));

        let path = format!("/api/orders/{id}/cancel");
        let accepted = shop.submit(7, shop.post(7, &path).json(&json!({"reason": "Too large"}))).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        let job = accepted.job_id();
        let polled = format!("/api/jobs/{job}");
        assert_eq!(accepted.headers["location"], polled);
        accepted.retry_after();
        assert_eq!(accepted.body, json!({"jobId": job, "kind": "cancel-order", "status": "queued", "links": {"self": polled}}));
        let settled = shop.settled(7, job).await;
        succeeded(&settled);
        assert_eq!(settled["kind"], "cancel-order");
        assert_eq!(settled["result"], json!({"orderId": id, "refunded": 2_500, "couponReturned": true}));

        let mut expected = completed;
        let cancelled = order(shop, 7, id).await;
        assert!(cancelled["cancelledAt"].as_str() >= cancelled["completedAt"].as_str(), "{cancelled}");
        expected["status"] = json!("cancelled");
        expected["cancelledAt"] = cancelled["cancelledAt"].clone();
        expected["cancelReason"] = json!("Too large");
        assert_eq!(cancelled, expected);
        let history = Answer::of(shop.get(7, "/api/users/orders")).await.body;
        assert_eq!(history["items"], json!([expected]));

        assert_eq!((shop.balance(7).await, shop.stock(1).await, shop.stock(product).await), (1_000_000, 10_000, 5));
        let refund = last_change(shop, 7).await;
        assert_eq!((&refund["kind"], &refund["amount"], &refund["balanceAfter"], &refund["orderId"]), (&json!("refund"), &json!(2_500), &json!(1_000_000), &json!(id)));
        assert_eq!(coupons(shop, 7, "used").await, json!([]));
        let available = coupons(shop, 7, "available").await;
        assert_eq!((&available[0]["couponId"], &available[0]["usedAt"], &available[0]["orderId"]), (&json!(coupon), &json!(null), &json!(null)));

        // For another order, which gives it back once more.
        let again = shop.bought(7, &json!({"items": items, "couponId": coupon})).await;
        assert_eq!(coupons(shop, 7, "used").await[0]["orderId"], again);
        assert_eq!(shop.cancelled(7, again).await["result"]["couponReturned"], true);
        assert_eq!(order(shop, 7, again).await["cancelReason"], json!(null));
        shop.bought(7, &json!({"items": items, "couponId": coupon})).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cost_nothing_comes_back_without_a_history_row() {
    shop(Options::default(), async |shop| {
        let coupon =
            shop.coupon_of(7, &json!({"discountType": "fixed", "discountValue": 5_000})).await;
        let id = shop
            .bought(7, &json!({"items": [{"productId": 1, "quantity": 2}], "couponId": coupon}))
            .await;
        let job = shop.cancelled(7, id).await;
        assert_eq!(job["result"], json!({"orderId": id, "refunded": 0, "couponReturned": true}));
        // Without a coupon there is none to return.
        let other = shop.bought(7, &one(1, 1)).await;
        let job = shop.cancelled(7, other).await;
        assert_eq!(
            job["result"],
            json!({"orderId": other, "refunded": 1_000, "couponReturned": false})
        );
        let refunds: Vec<i64> =
            sqlx::query_scalar("SELECT amount FROM balance_transactions WHERE kind = 'refund'")
                .fetch_all(&shop.pool)
                .await
                .unwrap();
        assert_eq!(refunds, [1_000]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_whose_time_is_over_comes_back_expired() {
    shop(Options::default(), async |shop| {
        let coupon =
            shop.coupon_of(7, &json!({"discountType": "fixed", "discountValue": 500})).await;
        let with_coupon = json!({"items": [{"productId": 1, "quantity": 1}], "couponId": coupon});
        let id = shop.bought(7, &with_coupon).await;
        let end = format!(
            "UPDATE coupons SET valid_until = now() - interval '1 second' WHERE id = {coupon}"
        );
        sqlx::raw_sql(AssertSqlSafe(end)).execute(&shop.pool).await.unwrap();
        let job = shop.cancelled(7, id).await;
        assert_eq!(job["result"], json!({"orderId": id, "refunded": 500, "couponReturned": true}));
        assert_eq!(coupons(shop, 7, "available").await, json!([]));
        let expired = coupons(shop, 7, "expired").await;
        assert_eq!(
            (&expired[0]["couponId"], &expired[0]["orderId"]),
            (&json!(coupon), &json!(null))
        );
        rejected(&shop.ordered(7, &with_coupon).await, 409, "coupon-expired");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_product_gets_its_units_back() {
    shop(Options::default(), async |shop| {
        let product = shop.product(1_000, 5).await;
        let id = shop.bought(7, &one(product, 5)).await;
        let delete = shop.admin(Method::DELETE, &format!("/api/admin/products/{product}"));
        assert_eq!(Answer::of(delete).await.status, 204);
        succeeded(&shop.cancelled(7, id).await);
        let deleted = shop.admin(Method::GET, "/api/admin/products?deleted=true");
        assert_eq!(Answer::of(deleted).await.body["items"][0]["stock"], 5);
        let restored =
            shop.edited(&format!("products/{product}"), &json!({"deleted": false})).await;
        assert_eq!((&restored["stock"], &restored["soldOut"]), (&json!(5), &json!(false)));
        shop.bought(8, &one(product, 5)).await;
    })
    .await;
}

/// An order of some products is cancelled in its line, whatever was dropped of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_does_not_come_back() {
    shop(Options { partitions: 8, ..Options::default() }, async |shop| {
        let (scarce, plenty) = (shop.product(10, 2).await, shop.product(1_000, 10).await);
        let items =
            json!([{"productId": scarce, "quantity": 5}, {"productId": plenty, "quantity": 3}]);
        let id = shop.bought(7, &json!({"items": items, "fulfilment": "partial"})).await;
        assert_eq!((shop.stock(scarce).await, shop.stock(plenty).await), (2, 7));
        let dropped = order(shop, 7, id).await["dropped"].clone();
        assert_eq!(shop.cancelled(7, id).await["result"]["refunded"], 3_000);
        assert_eq!((shop.stock(scarce).await, shop.stock(plenty).await), (2, 10));
        assert_eq!(order(shop, 7, id).await["dropped"], dropped);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_a_cancellation() {
    shop(Options::default(), async |shop| {
        let id = shop.bought(7, &one(1, 1)).await;
        // Of an order of somebody else nobody learns that there is one.
        let (unknown, foreign) = (shop.cancel(7, 999_999).await, shop.cancel(8, id).await);
        for answer in [&unknown, &foreign] {
            answer.is_problem(404, "order-not-found");
        }
        assert_eq!(unknown.body["title"], foreign.body["title"]);
        // A customer's orders are no operator's, either, but for the operators' own route.
        let as_customer = shop.admin(Method::POST, &format!("/api/orders/{id}/cancel"));
        Answer::of(as_customer).await.is_problem(404, "order-not-found");
        let anonymous = shop.anonymous(Method::POST, &format!("/api/orders/{id}/cancel"));
        Answer::of(anonymous).await.is_problem(401, "unauthenticated");

        // Nobody has the time: every order is too old, for its customer.
        let strict = shop.start_api(|config| config.cancel_window = 0).await;
        let late = shop.post(7, &format!("{}/api/orders/{id}/cancel", strict.url));
        let late = shop.submit(7, late).await;
        assert_eq!(late.status, 202, "{late:?}");
        rejected(&shop.settled(7, late.job_id()).await, 409, "order-not-cancellable");
        assert_eq!(order(shop, 7, id).await["status"], "completed");
        let by_operator =
            shop.admin(Method::POST, &format!("{}/api/admin/orders/{id}/cancel", strict.url));
        let by_operator = shop.submit(1, by_operator.json(&json!({"reason": "A complaint"}))).await;
        succeeded(&shop.settled(1, by_operator.job_id()).await);

        // However old it is, what was cancelled is cancelled.
        rejected(&shop.cancelled(7, id).await, 409, "order-already-cancelled");
        let late = shop.post(7, &format!("{}/api/orders/{id}/cancel", strict.url));
        let late = shop.submit(7, late).await;
        rejected(&shop.settled(7, late.job_id()).await, 409, "order-already-cancelled");
        let again = shop.cancel_as_operator(id, &json!({"reason": "Once more"})).await;
        rejected(&shop.settled(1, again.job_id()).await, 409, "order-already-cancelled");
        assert_eq!(shop.balance(7).await, 1_000_000);
        strict.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_cancel_any_order_with_a_reason() {
    shop(Options::default(), async |shop| {
        let id = shop.bought(7, &one(1, 3)).await;
        let path = format!("/api/admin/orders/{id}/cancel");
        let reason = json!({"reason": "Damaged in stock"});
        Answer::of(shop.post(7, &path).json(&reason)).await.is_problem(403, "forbidden");
        let long = "x".repeat(501);
        for body in [
            json!({}),
            json!({"reason": null}),
            json!({"reason": ""}),
            json!({"reason": 7}),
            json!({"reason": long}),
        ] {
            let answer = shop.cancel_as_operator(id, &body).await;
            answer.is_problem(400, "validation-failed");
            assert_eq!(answer.body["errors"][0]["field"], "reason", "{answer:?}");
        }
        // A customer's is as long, if there is one, and nothing else is asked for.
        let own = format!("/api/orders/{id}/cancel");
        for body in [json!({"reason": ""}), json!({"reason": long}), json!({"why": "x"})] {
            Answer::of(shop.post(7, &own).json(&body)).await.is_problem(400, "validation-failed");
        }
        shop.cancel_as_operator(999_999, &reason).await.is_problem(404, "order-not-found");

        let accepted = shop.cancel_as_operator(id, &reason).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        // The job is the operator's, the money the customer's.
        let job = shop.settled(1, accepted.job_id()).await;
        assert_eq!(
            job["result"],
            json!({"orderId": id, "refunded": 3_000, "couponReturned": false})
        );
        shop.poll(7, accepted.job_id(), 0).await.is_problem(404, "job-not-found");
        assert_eq!((shop.balance(1).await, shop.balance(7).await), (1_000_000, 1_000_000));
        assert_eq!(last_change(shop, 7).await["orderId"], id);
        let told = order(shop, 7, id).await;
        assert_eq!(
            (&told["status"], &told["cancelReason"]),
            (&json!("cancelled"), &json!("Damaged in stock"))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_cancellation_is_one_job() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let order = shop.order(7, &one(1, 1)).await;
        shop.start_worker();
        let id = shop.settled(7, order.job_id()).await["result"]["orderId"].as_i64().unwrap();
        shop.stop_workers().await;
        let cancel = async |reason: Option<&str>| {
            let request = shop.post(7, &format!("/api/orders/{id}/cancel"));
            let request = request.header("Idempotency-Key", "k");
            let request = match reason {
                Some(reason) => request.json(&json!({"reason": reason})),
                None => request,
            };
            shop.submit(7, request).await
        };
        let first = cancel(Some("Too small")).await;
        assert_eq!(first.status, 202, "{first:?}");
        assert_eq!(cancel(Some("Too small")).await.body, first.body);
        for other in [Some("Too large"), None] {
            cancel(other).await.is_problem(422, "idempotency-key-reused");
        }
        shop.start_worker();
        succeeded(&shop.settled(7, first.job_id()).await);
        assert_eq!(cancel(Some("Too small")).await.job_id(), first.job_id());
        cancel(None).await.is_problem(422, "idempotency-key-reused");
        // The key is the kind's own.
        let request = shop.post(7, "/api/orders").header("Idempotency-Key", "k");
        assert_eq!(shop.submit(7, request.json(&one(1, 1))).await.status, 202);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_may_exceed_the_ceiling() {
    shop(Options::default(), async |shop| {
        let id = shop.bought(7, &one(1, 1)).await;
        let charge = format!(
            "INSERT INTO balance_transactions (user_id, kind, amount, balance_after)
             SELECT 7, 'charge', {CEILING} - amount, {CEILING} FROM balances WHERE user_id = 7;
             UPDATE balances SET amount = {CEILING} WHERE user_id = 7"
        );
        sqlx::raw_sql(AssertSqlSafe(charge)).execute(&shop.pool).await.unwrap();
        let more = shop.post(7, "/api/balance/charge").json(&json!({"amount": 1}));
        Answer::of(more).await.is_problem(409, "balance-ceiling");
        assert_eq!(shop.cancelled(7, id).await["result"]["refunded"], 1_000);
        assert_eq!(shop.balance(7).await, CEILING + 1_000);
    })
    .await;
}

/// The one before the cancellation finds nothing, the one behind it everything.
#[tokio::test(flavor = "multi_thread")]
async fn units_go_to_who_is_next_in_the_line() {
    shop(Options::default(), async |shop| {
        // The order's line is that of its lowest product.
        let (first, second) = (shop.product(10, 100).await, shop.product(10, 5).await);
        let both = json!({"items": [{"productId": first, "quantity": 1}, {"productId": second, "quantity": 5}]});
        let id = shop.bought(7, &both).await;
        shop.stop_workers().await;
        let early = shop.order(8, &both).await;
        let cancel = shop.cancel(7, id).await;
        let next = shop.order(9, &both).await;
        let late = shop.order(10, &both).await;
        shop.start_worker();
        rejected(&shop.settled(8, early.job_id()).await, 409, "out-of-stock");
        succeeded(&shop.settled(7, cancel.job_id()).await);
        succeeded(&shop.settled(9, next.job_id()).await);
        rejected(&shop.settled(10, late.job_id()).await, 409, "out-of-stock");
    })
    .await;
}

/// What it does not name it has not locked, and perhaps it stands in another line.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_does_not_name_the_products_is_set_aside() {
    shop(Options::default(), async |shop| {
        let order = shop.bought(7, &one(1, 1)).await;
        let user_id = UserId::new(7);
        let job = Job::CancelOrder(CancelOrder {
            order_id: OrderId::new(order),
            customer_id: user_id,
            product_ids: vec![ProductId::new(2)],
            reason: None,
            by_operator: false,
            max_age_seconds: None,
            request_id: None,
        });
        let queue = shop.queue_of(&job);
        let id = shop.signer().mint(user_id, job.kind(), Place::UNKNOWN);
        let envelope =
            Envelope { id, user_id, idempotency: None, trace: None, request_id: None, job };
        let mut record = Vec::new();
        envelope.encode(&mut record).unwrap();
        publish_to(shop, &queue, record).await;
        let failed = ("failed".to_owned(), Some("job-unprocessable".to_owned()));
        assert_eq!(outcome(shop, id).await, failed);
        assert_eq!((shop.balance(7).await, shop.stock(1).await), (999_000, 9_999));
        succeeded(&shop.cancelled(7, order).await);
    })
    .await;
}
