//! A pause: nobody submits any more, at any API; whoever stands in line is served.

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use firstcome_tests::{
    Answer, Api, Options, Shop, eventually,
    sale::{one, rejected, succeeded},
    shop,
};

fn issuing(shop: &Shop, api: &Api, user: i64, coupon: i64) -> RequestBuilder {
    shop.post(user, &format!("{}/api/coupons/{coupon}/issue", api.url))
}

fn ordering(shop: &Shop, api: &Api, user: i64, body: &Value) -> RequestBuilder {
    shop.post(user, &format!("{}/api/orders", api.url)).json(body)
}

/// Early and told when to ask again, or by the job: no other way.
async fn is_refused(shop: &Shop, user: i64, answer: &Answer) {
    if answer.status == 202 {
        rejected(&shop.settled(user, answer.job_id()).await, 409, "sale-paused");
    } else {
        answer.is_problem(409, "sale-paused");
        assert!(answer.retry_after() > 0, "{answer:?}");
    }
}

/// Pauses `what`, with two in line for it, and lets it go on: `ask` asks for it at an API.
async fn pause_and_resume(shop: &Shop, what: &str, ask: impl Fn(&Api, i64) -> RequestBuilder) {
    let other = shop.start_api(|_| {}).await;
    let apis = [&shop.api, &other];
    shop.stop_workers().await;
    let first = shop.submit(7, ask(&other, 7)).await;
    let second = shop.submit(8, ask(&shop.api, 8)).await;

    let paused = shop.edited(what, &json!({"paused": true})).await;
    assert_eq!(paused["paused"], true);
    shop.start_worker();
    // From now on nobody gets through, whatever the other API knows.
    for (user, api) in (9..=12).zip(apis.into_iter().cycle()) {
        let answer = shop.submit(user, ask(api, user)).await;
        is_refused(shop, user, &answer).await;
    }
    eventually("both know of the pause", async || {
        let mut early = true;
        for api in apis {
            let answer = shop.submit(9, ask(api, 9)).await;
            is_refused(shop, 9, &answer).await;
            early &= answer.status == 409;
        }
        early
    })
    .await;
    for (user, job) in [(7, first), (8, second)] {
        assert_eq!(job.status, 202, "{job:?}");
        succeeded(&shop.settled(user, job.job_id()).await);
    }

    assert_eq!(shop.edited(what, &json!({"paused": true})).await["paused"], true, "a second time");
    assert_eq!(shop.edited(what, &json!({"paused": false})).await["paused"], false);
    for (user, api) in (13..=14).zip(apis) {
        eventually("it goes on", async || {
            let answer = shop.submit(user, ask(api, user)).await;
            if answer.status != 202 {
                answer.is_problem(409, "sale-paused");
                return false;
            }
            succeeded(&shop.settled(user, answer.job_id()).await);
            true
        })
        .await;
    }
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_campaign_accepts_nobody_and_settles_who_waits() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(100).await;
        // What was issued before can be used meanwhile.
        let job = shop.accepted_issue(6, coupon).await;
        succeeded(&shop.settled(6, &job).await);
        let what = format!("coupons/{coupon}");
        pause_and_resume(shop, &what, |api, user| issuing(shop, api, user, coupon)).await;

        shop.edited(&what, &json!({"paused": true})).await;
        let mut order = one(1, 1);
        order["couponId"] = json!(coupon);
        succeeded(&shop.ordered(6, &order).await);
        let shown = shop.anonymous(reqwest::Method::GET, &format!("/api/{what}"));
        let shown = Answer::of(shown).await.body;
        assert_eq!((&shown["paused"], &shown["remaining"]), (&json!(true), &json!(95)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_product_accepts_nobody_and_settles_who_waits() {
    shop(Options::default(), async |shop| {
        let product = shop.product(1, 100).await;
        let both = json!({"items": [{"productId": 1, "quantity": 1}, {"productId": product, "quantity": 1}]});
        let what = format!("products/{product}");
        pause_and_resume(shop, &what, |api, user| ordering(shop, api, user, &both)).await;
        assert_eq!(shop.stock(product).await, 96);
        // Other products are sold, and what was sold is taken back.
        let order = shop.bought(7, &one(product, 1)).await;
        shop.edited(&what, &json!({"paused": true})).await;
        succeeded(&shop.ordered(7, &one(1, 1)).await);
        succeeded(&shop.cancelled(7, order).await);
        assert_eq!(shop.stock(product).await, 96);
    })
    .await;
}

/// The API that accepted did not know: the line decides, by when it was submitted.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_judged_at_submission() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        for (since, is_paused) in
            [("now() - interval '1 hour'", true), ("now() + interval '1 hour'", false)]
        {
            let (coupon, product) = (shop.campaign(5).await, shop.product(1, 5).await);
            let issue = shop.accepted_issue(7, coupon).await;
            let order = shop.order(7, &one(product, 1)).await;
            // Before both there is no early answer, so the jobs know no better.
            let pause = format!(
                "UPDATE coupons SET paused_at = {since} WHERE id = {coupon};
                 UPDATE products SET paused_at = {since} WHERE id = {product}"
            );
            sqlx::raw_sql(AssertSqlSafe(pause)).execute(&shop.pool).await.unwrap();
            shop.start_worker();
            for job in [issue.as_str(), order.job_id()] {
                let job = shop.settled(7, job).await;
                if is_paused {
                    rejected(&job, 409, "sale-paused");
                } else {
                    succeeded(&job);
                }
            }
            shop.stop_workers().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_comes_before_the_window() {
    shop(Options::default(), async |shop| {
        // The sample coupon 3 has ended, 4 has not started.
        let over = shop.product_with(&json!({"onSaleUntil": "2021-01-01T00:00:00Z"})).await;
        let paused = shop.product(1, 5).await;
        for what in ["coupons/3", "coupons/4", &format!("products/{paused}")] {
            shop.edited(what, &json!({"paused": true})).await;
        }
        // Else who submits in what is left of it might still get through.
        let with_its_millisecond: bool = sqlx::query_scalar(
            "SELECT bool_and(paused_at = date_trunc('milliseconds', paused_at))
             FROM (SELECT paused_at FROM coupons UNION ALL SELECT paused_at FROM products) AS pauses",
        )
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        assert!(with_its_millisecond, "a pause begins with its millisecond");
        let both = json!({"items": [{"productId": over, "quantity": 1}, {"productId": paused, "quantity": 1}]});
        eventually("the API knows", async || {
            let answers = [shop.issue(7, 3).await, shop.issue(7, 4).await, shop.order(7, &both).await];
            answers.iter().all(|answer| answer.code() == "sale-paused")
        })
        .await;
        for answer in [shop.issue(7, 3).await, shop.issue(7, 4).await, shop.order(7, &both).await] {
            answer.is_problem(409, "sale-paused");
            assert!(answer.is_for_later(), "{answer:?}");
        }
        // What does not exist cannot be paused.
        let unknown = json!({"items": [{"productId": paused, "quantity": 1}, {"productId": 99_999, "quantity": 1}]});
        shop.order(7, &unknown).await.is_problem(404, "product-not-found");
        let delete = shop.admin(reqwest::Method::DELETE, "/api/admin/coupons/3");
        assert_eq!(Answer::of(delete).await.status, 204);
        shop.issue(7, 3).await.is_problem(404, "coupon-not-found");
    })
    .await;
}
