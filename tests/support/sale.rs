//! What the tests of sales do again and again: buy, cancel, edit, look.

use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{Answer, Shop};

/// An order of one product.
pub fn one(product: i64, quantity: i64) -> Value {
    json!({"items": [{"productId": product, "quantity": quantity}]})
}

/// The job was rejected with this code, which is told with this status.
#[track_caller]
pub fn rejected(job: &Value, status: u16, code: &str) {
    assert_eq!((&job["status"], &job["result"]), (&json!("rejected"), &json!(null)), "{job}");
    assert_eq!(
        (&job["error"]["code"], &job["error"]["status"]),
        (&json!(code), &json!(status)),
        "{job}"
    );
}

/// The job came to what was asked for.
#[track_caller]
pub fn succeeded(job: &Value) {
    assert_eq!(job["status"], "succeeded", "{job}");
}

/// An instant of an answer.
#[track_caller]
pub fn instant(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

impl Answer {
    /// Whether it asks to come back later.
    pub fn is_for_later(&self) -> bool {
        self.headers.contains_key("retry-after")
    }

    pub fn etag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }
}

impl Shop {
    /// Places an order that is surely completed; its id.
    pub async fn bought(&self, user: i64, body: &Value) -> i64 {
        let job = self.ordered(user, body).await;
        succeeded(&job);
        job["result"]["orderId"].as_i64().unwrap()
    }

    /// A coupon with this discount in the user's hands; its campaign.
    pub async fn coupon_of(&self, user: i64, discount: &Value) -> i64 {
        let mut body = json!({
            "name": "A coupon", "total": 100,
            "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
        });
        body.as_object_mut().unwrap().extend(discount.as_object().unwrap().clone());
        let created = Answer::of(self.admin(Method::POST, "/api/admin/coupons").json(&body)).await;
        let id = created.body["id"].as_i64().unwrap_or_else(|| panic!("{created:?}"));
        let job = self.accepted_issue(user, id).await;
        succeeded(&self.settled(user, &job).await);
        id
    }

    /// Creates a product that is sold on these terms.
    pub async fn product_with(&self, terms: &Value) -> i64 {
        let mut body = json!({"name": "A product", "price": 1, "stock": 100});
        body.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
        let answer = Answer::of(self.admin(Method::POST, "/api/admin/products").json(&body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["id"].as_i64().unwrap()
    }

    /// An edit of `products/7` or `coupons/7`.
    pub fn editing(&self, what: &str, body: &Value) -> RequestBuilder {
        self.admin(Method::PATCH, &format!("/api/admin/{what}")).json(body)
    }

    /// Edits `products/7` or `coupons/7`; as it is then.
    pub async fn edited(&self, what: &str, body: &Value) -> Value {
        let answer = Answer::of(self.editing(what, body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// A change of a stock by a difference.
    pub fn restocking(&self, product: i64, delta: i64) -> RequestBuilder {
        let path = format!("/api/admin/products/{product}/stock");
        self.admin(Method::POST, &path).json(&json!({"delta": delta}))
    }

    /// Asks to cancel an order: the answer, noted if it is a 202.
    pub async fn cancel(&self, user: i64, order: i64) -> Answer {
        self.submit(user, self.post(user, &format!("/api/orders/{order}/cancel"))).await
    }

    /// Cancels an order and waits for the outcome.
    pub async fn cancelled(&self, user: i64, order: i64) -> Value {
        let answer = self.cancel(user, order).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        self.settled(user, answer.job_id()).await
    }

    /// Asks for it as an operator, who is user 1.
    pub async fn cancel_as_operator(&self, order: i64, body: &Value) -> Answer {
        let path = format!("/api/admin/orders/{order}/cancel");
        self.submit(1, self.admin(Method::POST, &path).json(body)).await
    }

    pub async fn balance(&self, user: i64) -> i64 {
        let answer = Answer::of(self.get(user, &format!("/api/balance/{user}"))).await;
        answer.body["balance"].as_i64().unwrap_or_else(|| panic!("{answer:?}"))
    }

    pub async fn stock(&self, product: i64) -> i64 {
        let path = format!("/api/products/{product}");
        let answer = Answer::of(self.anonymous(Method::GET, &path)).await;
        answer.body["stock"].as_i64().unwrap_or_else(|| panic!("{answer:?}"))
    }

    /// Units of a product in the user's hands: of orders that were not cancelled.
    pub async fn units(&self, user: i64, product: i64) -> i64 {
        sqlx::query_scalar(
            "SELECT COALESCE(sum(quantity), 0)::bigint FROM orders JOIN order_items ON order_id = orders.id
             WHERE user_id = $1 AND product_id = $2
               AND NOT EXISTS (SELECT FROM cancellations WHERE cancellations.order_id = orders.id)",
        )
        .bind(user)
        .bind(product)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }
}

/// The same numbers in every run.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: i64) -> i64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % bound
    }
}
