//! A user who is to be forgotten.

use reqwest::Method;
use serde_json::{Value, json};

use firstcome_tests::{Answer, Api, Options, Shop, eventually, sale::one, shop};

async fn remove(shop: &Shop, user: i64) -> Answer {
    Answer::of(shop.admin(Method::DELETE, &format!("/api/admin/users/{user}/personal-data"))).await
}

/// Every row of every table with this text in it.
async fn tables_with(shop: &Shop, text: &str) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let query = format!("SELECT EXISTS (SELECT FROM \"{table}\" AS t WHERE t::text ILIKE $1)");
        let has: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .bind(format!("%{text}%"))
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        if has {
            found.push(table);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_tells_any_more_who_it_was() {
    shop(Options::default(), async |shop| {
        let body = json!({"name": "Kim Minji", "email": "minji@example.com"});
        let create = || shop.admin(Method::POST, "/api/admin/users").header("Idempotency-Key", "k").json(&body);
        let created = Answer::of(create()).await;
        let user = created.body["id"].as_i64().unwrap();
        shop.sql("UPDATE balances SET amount = 1000 WHERE user_id = (SELECT max(id) FROM users);
                  INSERT INTO balance_transactions (user_id, kind, amount, balance_after) SELECT max(id), 'charge', 1000, 1000 FROM users")
            .await;
        let product = shop.product(100, 5).await;
        let kept = shop.bought(user, &one(product, 2)).await;
        let cancelled = shop.bought(user, &one(product, 1)).await;
        let reason = json!({"reason": "I, Kim Minji, ordered twice."});
        let job = shop.submit(user, shop.post(user, &format!("/api/orders/{cancelled}/cancel")).json(&reason)).await;
        shop.settled(user, job.job_id()).await;
        eventually("its event is sent", async || {
            let found = tables_with(shop, "Kim Minji").await;
            found == ["audit_log", "cancellations", "idempotent_answers", "users"]
        })
        .await;
        // What an operator gave as a reason stands in the log, too.
        let third = shop.bought(user, &one(product, 1)).await;
        let reason = json!({"reason": "Kim Minji asked for it."});
        let job = shop.cancel_as_operator(third, &reason).await;
        shop.settled(1, job.job_id()).await;
        let log = async || {
            let answer = Answer::of(shop.admin(Method::GET, "/api/admin/audit-log?action=cancel-order")).await;
            answer.body["items"][0]["after"].clone()
        };
        assert_eq!(log().await["reason"], reason["reason"]);

        assert_eq!(remove(shop, user).await.status, 204);
        eventually("the other event is sent, too", async || tables_with(shop, "Minji").await.is_empty()).await;
        let told = log().await;
        assert_eq!((&told["status"], &told["refunded"]), (&json!("cancelled"), &json!(100)), "what was done is still told");
        let (name, email): (String, String) = sqlx::query_as("SELECT name, email FROM users WHERE id = $1")
            .bind(user)
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!((name.as_str(), email), ("removed", format!("removed-{user}@invalid")));
        // What was bought and paid is as it was.
        assert_eq!(shop.balance(user).await, 800);
        let order = Answer::of(shop.get(user, &format!("/api/orders/{kept}"))).await;
        assert_eq!((&order.body["status"], &order.body["paid"]), (&json!("completed"), &json!(200)));
        let order = Answer::of(shop.get(user, &format!("/api/orders/{cancelled}"))).await;
        assert_eq!((&order.body["status"], &order.body["cancelReason"]), (&json!("cancelled"), &json!(null)));
        // A repeat tells of nobody either.
        let repeat = Answer::of(create()).await;
        assert_eq!((repeat.status, &repeat.body["name"]), (201, &json!("removed")));

        // Again, and another one; the address is free.
        assert_eq!(remove(shop, user).await.status, 204);
        assert_eq!(remove(shop, 3).await.status, 204);
        let again = Answer::of(shop.admin(Method::POST, "/api/admin/users").json(&body)).await;
        assert_eq!(again.status, 201, "{again:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_an_operator_and_a_user() {
    shop(Options::default(), async |shop| {
        remove(shop, 99_999).await.is_problem(404, "user-not-found");
        let own = shop.anonymous(Method::DELETE, "/api/admin/users/7/personal-data");
        Answer::of(own.bearer_auth(firstcome_tests::token(7, false)))
            .await
            .is_problem(403, "forbidden");
        // Nobody can have the address that is to stand there.
        let body = json!({"name": "Ann", "email": "removed-7@Invalid"});
        let answer = Answer::of(shop.admin(Method::POST, "/api/admin/users").json(&body)).await;
        answer.is_problem(400, "validation-failed");
        // Unless from before.
        shop.sql("UPDATE users SET email = 'removed-7@invalid' WHERE id = 8").await;
        remove(shop, 7).await.is_problem(409, "email-taken");
        assert_eq!(remove(shop, 8).await.status, 204);
        assert_eq!(remove(shop, 7).await.status, 204);
    })
    .await;
}

/// A token of somebody whom the issuer calls by a name, as development mode believes it.
fn named(claims: Value) -> String {
    let secret = jsonwebtoken::EncodingKey::from_secret(b"firstcome-development-only");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &secret).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_token_means_is_forgotten_by_every_api() {
    shop(Options { users: 3, ..Options::default() }, async |shop| {
        let start = || {
            shop.start_api(|config| {
                config.secrets.jwt_subjects = "map".to_owned();
                config.secrets.jwt_create_users = true;
            })
        };
        let (one, other) = (start().await, start().await);
        let token = named(json!({"sub": "auth0|ann", "name": "Ann", "email": "ann@example.com", "email_verified": true}));
        let cart = async |api: &Api| {
            Answer::of(shop.anonymous(Method::GET, &format!("{}/api/users/cart", api.url)).bearer_auth(&token)).await.status
        };
        assert_eq!([cart(&one).await, cart(&other).await], [200, 200]);
        let mapped = async || -> Option<i64> {
            sqlx::query_scalar("SELECT user_id FROM subjects WHERE subject = 'auth0|ann'")
                .fetch_optional(&shop.pool)
                .await
                .unwrap()
        };
        let first = mapped().await.unwrap();
        let path = format!("{}/api/admin/users/{first}/personal-data", one.url);
        assert_eq!(Answer::of(shop.admin(Method::DELETE, &path)).await.status, 204);
        assert_eq!(mapped().await, None);
        // Who comes with the token is somebody new.
        eventually("the other API has forgotten, too", async || {
            assert_eq!(cart(&other).await, 200);
            mapped().await.is_some_and(|second| second != first)
        })
        .await;
        let second = mapped().await;
        assert_eq!(cart(&one).await, 200);
        assert_eq!(mapped().await, second);
        one.stop().await;
        other.stop().await;
    })
    .await;
}
