//! `Idempotency-Key`: one effect and one answer, whatever is lost in between.

use reqwest::Method;
use serde_json::json;

use firstcome_tests::{Answer, Options, eventually, shop};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_gets_the_same_job() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let (coupon, other) = (shop.campaign(5).await, shop.campaign(5).await);
        let first = shop.issue_keyed(7, coupon, "a-key").await;
        let queued = shop.issue_keyed(7, coupon, "a-key").await;
        assert_eq!((queued.status, &queued.body), (202, &first.body));
        shop.issue_keyed(7, other, "a-key").await.is_problem(422, "idempotency-key-reused");
        // Scoped to the caller.
        let someone_else = shop.issue_keyed(8, coupon, "a-key").await;
        assert_ne!(someone_else.job_id(), first.job_id());

        shop.start_worker();
        shop.settled(7, first.job_id()).await;
        let settled = shop.issue_keyed(7, coupon, "a-key").await;
        assert_eq!(settled.job_id(), first.job_id());
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_with_one_key_are_one_job() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(5).await;
        let requests = (0..20).map(|_| shop.issue_keyed(7, coupon, "a-key"));
        let answers = futures_util::future::join_all(requests).await;
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        assert_eq!(shop.accepted_ids().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_survives_the_loss_of_redis() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let (coupon, other) = (shop.campaign(5).await, shop.campaign(5).await);
        let first = shop.issue_keyed(7, coupon, "a-key").await;
        shop.redis.proxy.cut();
        // Still queued, and Redis has forgotten it: the repeat may get a second job …
        let same = shop.issue_keyed(7, coupon, "a-key").await;
        let different = shop.issue_keyed(7, other, "a-key").await;
        assert_eq!((same.status, different.status), (202, 202));
        shop.start_worker();
        // … which ends with the first one's outcome, or is told that the key is taken.
        let outcome = shop.settled(7, first.job_id()).await;
        let repeated = shop.settled(7, same.job_id()).await;
        assert_eq!(outcome["status"], "succeeded");
        assert_eq!(outcome["result"], repeated["result"]);
        let reused = shop.settled(7, different.job_id()).await;
        assert_eq!(
            (&reused["status"], &reused["error"]["code"]),
            (&"rejected".into(), &"idempotency-key-reused".into())
        );

        // Settled: PostgreSQL knows the key, also where Redis is away or was emptied.
        let settled = shop.issue_keyed(7, coupon, "a-key").await;
        assert_eq!(settled.job_id(), first.job_id());
        shop.issue_keyed(7, other, "a-key").await.is_problem(422, "idempotency-key-reused");
        shop.settle_and_audit().await;
        let held: i64 = sqlx::query_scalar("SELECT count(*) FROM user_coupons WHERE user_id = 7")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(held, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_repeated_after_the_retention_ends_with_the_first_outcome() {
    shop(Options::default(), async |shop| {
        // Long enough to ask for the second job.
        let brief = shop.start_api(|config| config.job_retention = 3).await;
        let product = shop.product(1_000, 10).await;
        let order = async |quantity: i64| {
            let body = json!({"items": [{"productId": product, "quantity": quantity}]});
            let request = shop.post(7, &format!("{}/api/orders", brief.url)).json(&body);
            shop.submit(7, request.header("Idempotency-Key", "a-key")).await
        };
        let poll = async |job: &str| {
            Answer::of(shop.get(7, &format!("{}/api/jobs/{job}", brief.url))).await
        };
        let first = order(2).await;
        let outcome = shop.settled(7, first.job_id()).await;
        eventually("it is gone", async || poll(first.job_id()).await.status == 410).await;

        let repeat = order(2).await;
        assert_eq!(repeat.status, 202, "{repeat:?}");
        assert_eq!(poll(repeat.job_id()).await.status, 200);
        let repeated = shop.settled(7, repeat.job_id()).await;
        assert_eq!(
            (&repeated["status"], &repeated["result"]),
            (&json!("succeeded"), &outcome["result"])
        );
        order(3).await.is_problem(422, "idempotency-key-reused");
        // Also where a first request would be refused by now.
        let path = format!("/api/admin/products/{product}");
        assert_eq!(Answer::of(shop.admin(Method::DELETE, &path)).await.status, 204);
        let late = order(2).await;
        assert_eq!(late.status, 202, "{late:?}");
        assert_eq!(shop.settled(7, late.job_id()).await["result"], outcome["result"]);
        let orders: i64 =
            sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&shop.pool).await.unwrap();
        assert_eq!(orders, 1);
        brief.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_acceptance_does_not_consume_the_key() {
    shop(Options { confirm_deadline_ms: 500, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(5).await;
        // 4 has not started: 409.
        shop.issue_keyed(7, 4, "a-key").await.is_problem(409, "coupon-not-started");
        shop.broker.proxy.cut();
        let refused = shop.issue_keyed(7, coupon, "b-key").await;
        refused.is_problem(503, "broker-unavailable");
        shop.broker.proxy.restore();
        firstcome_tests::eventually("the broker is back", async || {
            Answer::of(shop.anonymous(reqwest::Method::GET, "/health/ready")).await.status == 200
        })
        .await;
        // Both keys are free for another request.
        assert_eq!(shop.issue_keyed(7, coupon, "a-key").await.status, 202);
        let other = shop.campaign(5).await;
        assert_eq!(shop.issue_keyed(7, other, "b-key").await.status, 202);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_keys_are_refused() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(5).await;
        for bad in ["", "two words", &"k".repeat(256)] {
            let answer = shop.issue_keyed(7, coupon, bad).await;
            answer.is_problem(400, "validation-failed");
            assert_eq!(answer.body["errors"][0]["field"], "Idempotency-Key");
        }
        assert_eq!(shop.issue_keyed(7, coupon, &"k".repeat(255)).await.status, 202);
    })
    .await;
}
