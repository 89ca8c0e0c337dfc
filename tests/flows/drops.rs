//! Sales that begin and end: refused outside of the window, told when to come back before it, and judged by when
//! the request was sent.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use firstcome_tests::{
    Answer, DEADLINE, Options, Shop, eventually,
    sale::{instant, one, rejected, succeeded},
    shop,
};

/// The most that is added to the seconds until the start.
const MAX_JITTER: u64 = 2;

fn soon(seconds: i64) -> DateTime<Utc> {
    Utc::now() + TimeDelta::seconds(seconds)
}

/// An answer, and between which instants it was made.
struct Asked {
    sent: DateTime<Utc>,
    received: DateTime<Utc>,
    answer: Answer,
}

impl Asked {
    async fn of(shop: &Shop, user: i64, request: RequestBuilder) -> Self {
        let sent = Utc::now();
        let answer = shop.submit(user, request).await;
        Self { sent, received: Utc::now(), answer }
    }

    /// When a client that obeys comes back.
    fn back_at(&self) -> DateTime<Utc> {
        self.received + TimeDelta::seconds(i64::try_from(self.answer.retry_after()).unwrap())
    }

    /// Refused, and told to come back when the sale has started, hardly later.
    #[track_caller]
    fn is_early_for(&self, start: DateTime<Utc>, code: &str) {
        self.answer.is_problem(409, code);
        assert!(self.back_at() >= start, "too early: {:?}", self.answer);
        // It was submitted in the millisecond in which it was sent, at the earliest.
        let left = (start - self.sent).num_milliseconds() + 2;
        let most = u64::try_from(left).unwrap().div_ceil(1_000) + MAX_JITTER;
        assert!(self.answer.retry_after() <= most, "later than {most} s: {:?}", self.answer);
    }
}

fn buying(shop: &Shop, user: i64, body: &Value) -> RequestBuilder {
    shop.post(user, "/api/orders").json(body)
}

/// Returns when the API answers such an order early.
async fn is_known(shop: &Shop, body: &Value, code: &str) {
    eventually("the API knows the sale", async || {
        let answer = shop.order(7, body).await;
        assert!(answer.status == 202 || answer.code() == code, "{answer:?}");
        answer.code() == code
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_start_everybody_is_told_when_to_come_back() {
    shop(Options::default(), async |shop| {
        let (start, later) = (soon(3_600), soon(7_200));
        let product = shop.product_with(&json!({"onSaleFrom": start})).await;
        let other = shop.product_with(&json!({"onSaleFrom": later})).await;
        let order = one(product, 1);
        is_known(shop, &order, "product-not-on-sale").await;
        for _ in 0..20 {
            Asked::of(shop, 7, buying(shop, 7, &order)).await.is_early_for(start, "product-not-on-sale");
        }
        // Both are needed: the later one counts.
        is_known(shop, &one(other, 1), "product-not-on-sale").await;
        let both = json!({"items": [{"productId": product, "quantity": 1}, {"productId": other, "quantity": 1}, {"productId": 1, "quantity": 1}]});
        Asked::of(shop, 7, buying(shop, 7, &both)).await.is_early_for(later, "product-not-on-sale");

        // Earlier than was told is fine.
        let path = format!("products/{product}");
        shop.edited(&path, &json!({"onSaleFrom": "2020-01-01T00:00:00Z"})).await;
        eventually("it is sold", async || {
            let answer = shop.order(7, &order).await;
            answer.status == 202 && shop.settled(7, answer.job_id()).await["status"] == "succeeded"
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_as_told_is_served() {
    shop(Options { users: 50, ..Options::default() }, async |shop| {
        let start = soon(6);
        let product = shop.product_with(&json!({"onSaleFrom": start})).await;
        let order = one(product, 1);
        is_known(shop, &order, "product-not-on-sale").await;
        let clients = (1..=50).map(async |user| {
            let mut asked = Asked::of(shop, user, buying(shop, user, &order)).await;
            if asked.answer.status != 202 {
                asked.is_early_for(start, "product-not-on-sale");
                tokio::time::sleep((asked.back_at() - Utc::now()).to_std().unwrap_or_default())
                    .await;
                asked = Asked::of(shop, user, buying(shop, user, &order)).await;
            }
            // The second time at the latest.
            assert_eq!(asked.answer.status, 202, "{:?}", asked.answer);
            shop.settled(user, asked.answer.job_id()).await
        });
        for job in futures_util::future::join_all(clients).await {
            succeeded(&job);
            assert!(instant(&job["submittedAt"]) >= start - TimeDelta::milliseconds(1), "{job}");
        }
        assert_eq!(shop.stock(product).await, 50);
    })
    .await;
}

/// Many ask before the start and obey: none has to ask more than twice, and they do not come all at once.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_clients_come_back_spread() {
    shop(Options { users: 10_000, worker: false, ..Options::default() }, async |shop| {
        // Later than it takes to ask them all.
        let start = soon(600);
        let product = shop.product_with(&json!({"onSaleFrom": start})).await;
        let campaign = json!({
            "name": "A drop", "discountType": "fixed", "discountValue": 1, "total": 10, "startsAt": start, "endsAt": "2100-01-01T00:00:00Z",
        });
        let campaign = Answer::of(shop.admin(Method::POST, "/api/admin/coupons").json(&campaign)).await;
        let issue = format!("/api/coupons/{}/issue", campaign.body["id"]);
        let order = one(product, 1);
        is_known(shop, &order, "product-not-on-sale").await;
        eventually("the API knows the campaign", async || {
            shop.submit(7, shop.post(7, &issue)).await.code() == "coupon-not-started"
        })
        .await;

        for code in ["product-not-on-sale", "coupon-not-started"] {
            let clients = stream::iter(1..=10_000).map(async |user| {
                let request = if code == "coupon-not-started" { shop.post(user, &issue) } else { buying(shop, user, &order) };
                let asked = Asked::of(shop, user, request).await;
                // While the database does not say in time what is so, the line decides.
                (asked.answer.status != 202).then(|| {
                    asked.is_early_for(start, code);
                    asked.back_at()
                })
            });
            let back: Vec<Option<DateTime<Utc>>> = clients.buffer_unordered(64).collect().await;
            let back: Vec<DateTime<Utc>> = back.into_iter().flatten().collect();
            assert!(back.len() >= 5_000, "{code}: only {} of 10,000 were told", back.len());
            let first_second = back.iter().filter(|at| **at < start + TimeDelta::seconds(1)).count();
            assert!(
                first_second * 10 <= back.len() * 6,
                "{code}: {first_second} of {} come in the first second",
                back.len()
            );
        }
        // What was accepted before the API knew better ends as it should.
        shop.start_worker();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_end_there_is_no_coming_back() {
    shop(Options::default(), async |shop| {
        let over = json!({"onSaleFrom": "2020-01-01T00:00:00Z", "onSaleUntil": "2021-01-01T00:00:00Z"});
        let product = shop.product_with(&over).await;
        let later = shop.product_with(&json!({"onSaleFrom": soon(3_600)})).await;
        for order in [one(product, 1), one(later, 1)] {
            is_known(shop, &order, "product-not-on-sale").await;
        }
        let answer = shop.order(7, &one(product, 1)).await;
        answer.is_problem(409, "product-not-on-sale");
        assert!(!answer.is_for_later(), "{answer:?}");
        // Nor for both together.
        let both = json!({"items": [{"productId": product, "quantity": 1}, {"productId": later, "quantity": 1}]});
        let answer = shop.order(7, &both).await;
        answer.is_problem(409, "product-not-on-sale");
        assert!(!answer.is_for_later(), "{answer:?}");
        // An unknown product comes first.
        let unknown = json!({"items": [{"productId": product, "quantity": 1}, {"productId": 99_999, "quantity": 1}]});
        shop.order(7, &unknown).await.is_problem(404, "product-not-found");
        // Still shown: it is not gone.
        let shown = Answer::of(shop.anonymous(Method::GET, &format!("/api/products/{product}"))).await;
        assert_eq!(shown.body["onSaleUntil"], "2021-01-01T00:00:00Z");
    })
    .await;
}

/// Edits a product by SQL: the API that accepted does not know.
async fn set(shop: &Shop, product: i64, change: &str) {
    let change = format!("UPDATE products SET {change} WHERE id = {product}");
    sqlx::raw_sql(AssertSqlSafe(change)).execute(&shop.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_submitted_in_the_window_is_sold_after_it() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let product = shop.product_with(&json!({"onSaleFrom": "2020-01-01T00:00:00Z"})).await;
        let in_time = shop.order(7, &one(product, 1)).await;
        // Ends after the submission, before the settlement.
        set(shop, product, "on_sale_until = clock_timestamp()").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        shop.start_worker();
        succeeded(&shop.settled(7, in_time.job_id()).await);
    })
    .await;
}

/// Windows are judged at submission: moving them afterwards is what makes these early and late.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_submitted_outside_of_the_window_is_refused_in_the_line() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        for (change, fulfilment) in [
            ("on_sale_from = now() + interval '1 hour'", "all"),
            ("on_sale_until = now() - interval '1 hour'", "all"),
            // Not short: nothing that could be dropped.
            ("on_sale_until = now() - interval '1 hour', stock = 0, stocked = 0", "partial"),
        ] {
            let (product, other) =
                (shop.product_with(&json!({})).await, shop.product_with(&json!({})).await);
            let items =
                json!([{"productId": product, "quantity": 1}, {"productId": other, "quantity": 1}]);
            let accepted = shop.order(7, &json!({"items": items, "fulfilment": fulfilment})).await;
            assert_eq!(accepted.status, 202, "{accepted:?}");
            set(shop, product, change).await;
            shop.start_worker();
            let job = shop.settled(7, accepted.job_id()).await;
            rejected(&job, 409, "product-not-on-sale");
            shop.stop_workers().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_has_not_begun_tells_when() {
    shop(Options::default(), async |shop| {
        // The sample coupon 4 has not started, 3 has ended.
        let coupon = Answer::of(shop.anonymous(Method::GET, "/api/coupons/4")).await.body;
        let start = instant(&coupon["startsAt"]);
        eventually("the API knows the campaigns", async || {
            shop.issue(7, 4).await.code() == "coupon-not-started"
                && shop.issue(7, 3).await.code() == "coupon-ended"
        })
        .await;
        let asked = Asked::of(shop, 7, shop.post(7, "/api/coupons/4/issue")).await;
        asked.is_early_for(start, "coupon-not-started");
        assert!(!shop.issue(7, 3).await.is_for_later());

        // It starts, and whoever comes then gets one.
        let path = "coupons/4";
        let start = soon(2);
        shop.edited(path, &json!({"startsAt": start})).await;
        let mut asked = Asked::of(shop, 7, shop.post(7, "/api/coupons/4/issue")).await;
        let deadline = Utc::now() + DEADLINE;
        while asked.answer.status != 202 {
            asked.answer.is_problem(409, "coupon-not-started");
            assert!(Utc::now() < deadline, "{:?}", asked.answer);
            // The old start may be known for a moment.
            let pause = (asked.back_at().min(start) - Utc::now()).to_std().unwrap_or_default();
            tokio::time::sleep(pause.max(Duration::from_millis(50))).await;
            asked = Asked::of(shop, 7, shop.post(7, "/api/coupons/4/issue")).await;
        }
        succeeded(&shop.settled(7, asked.answer.job_id()).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terms_of_a_sale_are_shown_and_edited() {
    shop(Options::default(), async |shop| {
        let terms = json!({"onSaleFrom": "2030-01-01T09:00:00+09:00", "onSaleUntil": "2030-01-02T00:00:00Z", "perCustomer": 2});
        let product = shop.product_with(&terms).await;
        let (path, public) = (format!("products/{product}"), format!("/api/products/{product}"));
        let mut expected = json!({
            "id": product, "name": "A product", "price": 1, "stock": 100, "soldOut": false,
            "onSaleFrom": "2030-01-01T00:00:00Z", "onSaleUntil": "2030-01-02T00:00:00Z", "perCustomer": 2, "paused": false,
        });
        let shown = async || Answer::of(shop.anonymous(Method::GET, &public)).await.body;
        assert_eq!(shown().await, expected);
        for (field, value) in [
            ("onSaleUntil", json!(null)),
            ("onSaleFrom", json!("2031-01-01T00:00:00Z")),
            ("onSaleUntil", json!("2032-01-01T00:00:00Z")),
            ("onSaleFrom", json!(null)),
            ("perCustomer", json!(7)),
            ("perCustomer", json!(null)),
            ("paused", json!(true)),
            ("paused", json!(false)),
        ] {
            expected[field] = value.clone();
            assert_eq!(shop.edited(&path, &json!({field: value})).await, expected);
            assert_eq!(shown().await, expected);
        }
        for body in [
            json!({"perCustomer": 0}),
            json!({"perCustomer": 1.5}),
            json!({"perCustomer": 1_000_001}),
            json!({"paused": "yes"}),
            json!({"onSaleFrom": "tomorrow"}),
            // It ends before that.
            json!({"onSaleFrom": "2033-01-01T00:00:00Z"}),
            json!({"onSaleFrom": "2030-01-01T00:00:00Z", "onSaleUntil": "2030-01-01T00:00:00Z"}),
        ] {
            let answer = Answer::of(shop.editing(&path, &body)).await;
            answer.is_problem(400, "validation-failed");
            let field = answer.body["errors"][0]["field"].as_str().unwrap();
            assert!(body.get(field).is_some() || field == "onSaleUntil", "{answer:?}");
        }
        assert_eq!(shown().await, expected);
        let refused = json!({"name": "A product", "price": 1, "stock": 1, "onSaleFrom": "2030-01-02T00:00:00Z", "onSaleUntil": "2030-01-01T00:00:00Z"});
        let refused = shop.admin(Method::POST, "/api/admin/products").json(&refused);
        Answer::of(refused).await.is_problem(400, "validation-failed");
    })
    .await;
}
