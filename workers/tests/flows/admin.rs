//! What operators create.

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{Answer, Options, Shop, shop};

async fn create(shop: &Shop, what: &str, body: &Value) -> Answer {
    Answer::of(shop.admin(Method::POST, &format!("/api/admin/{what}")).json(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_can_take_part() {
    shop(Options { users: 5, ..Options::default() }, async |shop| {
        let given =
            create(shop, "users", &json!({"id": 7, "name": "Ann", "email": "ann@example.com"}))
                .await;
        assert_eq!(given.status, 201, "{given:?}");
        assert_eq!((&given.body["id"], &given.body["balance"]), (&json!(7), &json!(0)));
        create(shop, "users", &json!({"id": 7, "name": "Bob", "email": "b@example.com"}))
            .await
            .is_problem(409, "user-exists");
        create(shop, "users", &json!({"name": "Bob", "email": "ann@example.com"}))
            .await
            .is_problem(409, "email-taken");
        // The sequence passes the id that was given by hand.
        for (email, id) in [("c@example.com", 6), ("d@example.com", 8)] {
            let next = create(shop, "users", &json!({"name": "Next", "email": email})).await;
            // Ids of failed attempts are not used again.
            assert!(next.body["id"].as_i64().unwrap() >= id, "{next:?}");
            assert_ne!(next.body["id"], 7);
        }
        let coupon = shop.campaign(1).await;
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_validated_as_a_whole() {
    shop(Options::default(), async |shop| {
        let valid = json!({
            "name": "Ten percent", "discountType": "percent", "discountValue": 10, "maxDiscount": 500, "total": 3,
            "startsAt": "2026-01-01T09:00:00+09:00", "endsAt": "2099-01-01T00:00:00Z",
        });
        let created = create(shop, "coupons", &valid).await;
        assert_eq!(created.status, 201, "{created:?}");
        assert_eq!(created.body["startsAt"], "2026-01-01T00:00:00Z");
        let id = &created.body["id"];
        let read = Answer::of(shop.anonymous(Method::GET, &format!("/api/coupons/{id}"))).await;
        assert_eq!(read.body, created.body);

        for (field, value) in [
            ("name", json!("")),
            ("name", json!("a\u{0}b")),
            ("discountType", json!("gift")),
            ("discountType", json!(null)),
            ("discountValue", json!(101)),
            ("discountValue", json!(0)),
            ("maxDiscount", json!(-1)),
            ("total", json!(0)),
            ("total", json!("3")),
            ("total", json!(1e10)),
            ("startsAt", json!("tomorrow")),
            ("endsAt", json!("2026-01-01T00:00:00Z")),
            ("colour", json!("red")),
        ] {
            let mut body = valid.clone();
            body[field] = value;
            let answer = create(shop, "coupons", &body).await;
            answer.is_problem(400, "validation-failed");
            assert_eq!(answer.body["errors"][0]["field"], field, "{answer:?}");
        }
        create(shop, "coupons", &json!({"maxDiscount": 5, "discountType": "fixed"})).await.is_problem(400, "validation-failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_honour_the_idempotency_key() {
    shop(Options::default(), async |shop| {
        let body = json!({"name": "Ann", "email": "ann@example.com"});
        let post = |body: &Value| {
            Answer::of(
                shop.admin(Method::POST, "/api/admin/users")
                    .header("Idempotency-Key", "k")
                    .json(body),
            )
        };
        let (first, second) = tokio::join!(post(&body), post(&body));
        assert_eq!((first.status, second.status), (201, 201));
        assert_eq!(first.body, second.body);
        post(&json!({"name": "Bob", "email": "bob@example.com"}))
            .await
            .is_problem(422, "idempotency-key-reused");
        let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE name = 'Ann'")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(users, 1);
    })
    .await;
}
