//! The real programs, each as a user of the database with its role's rights (`deploy/postgres/roles.sql`).

use firstcome_rig::Process;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};

use super::processes::{api_with, environment, free_port, log};
use firstcome_tests::{
    Answer, Options, Shop, eventually,
    sale::{one, rejected, succeeded},
    shop, token,
};

/// A user of the database in this role; its URL.
async fn user_in(shop: &Shop, role: &str) -> String {
    let name =
        format!("{role}_{}", shop.namespace.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let made = format!("CREATE ROLE \"{name}\" LOGIN IN ROLE {role}");
    sqlx::raw_sql(AssertSqlSafe(made)).execute(&shop.pool).await.unwrap();
    let owner: PgConnectOptions = shop.database.direct.parse().unwrap();
    shop.database.direct.replacen(&format!("{}@", owner.get_username()), &format!("{name}@"), 1)
}

async fn forget(shop: &Shop, url: &str) {
    let user: PgConnectOptions = url.parse().unwrap();
    let forgotten = format!("DROP ROLE \"{}\"", user.get_username());
    sqlx::raw_sql(AssertSqlSafe(forgotten)).execute(&shop.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_held_with_no_more_rights_than_needed() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        sqlx::raw_sql(include_str!("../../deploy/postgres/roles.sql")).execute(&shop.pool).await.unwrap();
        let (as_api, as_worker) =
            (user_in(shop, "firstcome_api").await, user_in(shop, "firstcome_worker").await);
        let port = free_port();
        let settings = [("DATABASE_URL", as_api.clone()), ("JWT_SUBJECTS", "map".to_owned()), ("JWT_CREATE_USERS", "true".to_owned())];
        let api = api_with(shop, port, &settings).await;
        let variables = environment(shop, 0).into_iter().chain([("DATABASE_URL", as_worker.clone())]);
        let worker = Process::start("firstcome-worker", &["all"], variables, &log(shop)).unwrap();

        let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
        let ask = async |request: RequestBuilder| {
            let answer = Answer::of(request).await;
            assert!((200..300).contains(&answer.status), "{answer:?}");
            answer.body
        };
        let operator = |method: Method, path: &str| shop.admin(method, &at(path));
        let outcome = async |user: i64, request: RequestBuilder| {
            let job = ask(request).await["jobId"].as_str().unwrap().to_owned();
            let mut told = json!(null);
            eventually("the job is settled", async || {
                told = ask(shop.get(user, &at(&format!("/api/jobs/{job}")))).await;
                told["status"] != "queued"
            })
            .await;
            told
        };

        // What operators prepare.
        let users = "id,name,email,balance\n9001,Ada,ada@shop.example,500000\n";
        let import = operator(Method::POST, "/api/admin/imports/users").header("content-type", "text/csv");
        ask(import.body(users)).await;
        let terms = json!({"name": "Drop", "discountType": "fixed", "discountValue": 10, "total": 5,
            "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z"});
        let coupon = ask(operator(Method::POST, "/api/admin/coupons").json(&terms)).await["id"].clone();
        let product = json!({"name": "Console", "price": 100, "stock": 5});
        let product = ask(operator(Method::POST, "/api/admin/products").json(&product)).await["id"].as_i64().unwrap();
        ask(operator(Method::PATCH, &format!("/api/admin/products/{product}")).json(&json!({"perCustomer": 3}))).await;
        ask(operator(Method::POST, &format!("/api/admin/products/{product}/stock")).json(&json!({"delta": 2}))).await;
        ask(operator(Method::PATCH, &format!("/api/admin/coupons/{coupon}")).json(&json!({"total": 6}))).await;
        ask(operator(Method::PUT, &format!("/api/admin/pins/product/{product}"))).await;

        // What customers do.
        let key = |request: RequestBuilder| request.header("idempotency-key", uuid::Uuid::new_v4().to_string());
        let charge = json!({"amount": 1_000});
        ask(key(shop.post(9001, &at("/api/balance/charge"))).json(&charge)).await;
        let cart = json!({"quantity": 1});
        let in_cart = shop.anonymous(Method::PUT, &at(&format!("/api/users/cart/{product}")));
        ask(in_cart.bearer_auth(token(9001, false)).json(&cart)).await;
        let issued = outcome(9001, key(shop.post(9001, &at(&format!("/api/coupons/{coupon}/issue"))))).await;
        succeeded(&issued);
        let mut order = one(product, 2);
        order["couponId"] = coupon.clone();
        let sold = outcome(9001, key(shop.post(9001, &at("/api/orders"))).json(&order)).await;
        succeeded(&sold);
        let cancel = at(&format!("/api/orders/{}/cancel", sold["result"]["orderId"]));
        let cancelled = outcome(9001, shop.post(9001, &cancel)).await;
        succeeded(&cancelled);
        let none_left = outcome(9001, shop.post(9001, &at("/api/orders")).json(&one(product, 4))).await;
        rejected(&none_left, 409, "limit-exceeded");

        // What operators do meanwhile and afterwards.
        ask(operator(Method::POST, "/api/admin/queues/coupon/halt")).await;
        ask(operator(Method::POST, "/api/admin/queues/coupon/resume")).await;
        ask(operator(Method::DELETE, &format!("/api/admin/pins/product/{product}"))).await;
        ask(operator(Method::DELETE, "/api/admin/users/9001/personal-data")).await;
        eventually("the events are published and counted", async || {
            let left: i64 = sqlx::query_scalar(
                "SELECT (SELECT count(*) FROM outbox_parcels) + abs((SELECT count(*) FROM event_inbox) - 2)",
            )
            .fetch_one(&shop.pool)
            .await
            .unwrap();
            left == 0
        })
        .await;

        // What neither may do.
        for (url, refused) in [
            (&as_api, "UPDATE coupons SET issued = 0"),
            (&as_api, "DELETE FROM job_outcomes"),
            (&as_api, "UPDATE orders SET paid = 0"),
            (&as_api, "DELETE FROM audit_log"),
            (&as_worker, "UPDATE users SET name = 'x'"),
            (&as_worker, "UPDATE coupons SET total = 1000"),
            (&as_worker, "DELETE FROM audit_log"),
        ] {
            let mut session = PgConnection::connect(url).await.unwrap();
            let error = sqlx::raw_sql(refused).execute(&mut session).await.unwrap_err();
            let code = error.as_database_error().and_then(|error| error.code().map(String::from));
            assert_eq!(code.as_deref(), Some("42501"), "{refused}: {error}");
            session.close().await.unwrap();
        }
        for program in [worker, api] {
            assert!(program.stop().await.unwrap().success());
        }
        let written = std::fs::read_to_string(log(shop)).unwrap();
        assert!(!written.contains("permission denied"), "{written}");
        forget(shop, &as_api).await;
        forget(shop, &as_worker).await;
    })
    .await;
}
