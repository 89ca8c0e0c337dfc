//! What operators changed is told: who, when, what, before and after.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{imports::NDJSON, uploads::Slow};
use firstcome_tests::{
    Answer, Options, Shop, eventually,
    sale::{instant, one},
    shop, token,
};

/// A page of the log, as an auditor reads it.
async fn changes(shop: &Shop, query: &str) -> Answer {
    let answer = Answer::of(shop.audit(&format!("/api/admin/audit-log?{query}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn items(answer: &Answer) -> &Vec<Value> {
    answer.body["items"].as_array().unwrap()
}

/// The operations of operators that change something.
async fn operations(shop: &Shop) -> BTreeSet<String> {
    let document = Answer::of(shop.admin(Method::GET, "/openapi.json")).await.body;
    let paths = document["paths"].as_object().unwrap().iter();
    let of_operators = paths.filter(|(path, _)| path.starts_with("/api/admin/"));
    let operations = of_operators.flat_map(|(_, item)| item.as_object().unwrap());
    let changing = operations
        .filter(|(method, _)| ["post", "put", "patch", "delete"].contains(&method.as_str()));
    changing.map(|(_, operation)| operation["operationId"].as_str().unwrap().to_owned()).collect()
}

/// Dead letters that nothing else made.
async fn letters(shop: &Shop) -> Vec<i64> {
    sqlx::query_scalar(
        "INSERT INTO dead_letters (queue, message_id, line, reason, attempts, payload)
         SELECT current_database() || '.order-completed.sales-stats', n::text, 0, 'a reason', 1, '{}' FROM generate_series(1, 3) AS n RETURNING id",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_an_operator_is_told() {
    shop(Options::default(), async |shop| {
        let (product, coupon) = (shop.product(100, 5).await, shop.campaign(10).await);
        let order = shop.bought(7, &one(product, 1)).await;
        let letters = letters(shop).await;
        shop.stop_workers().await;
        let post = |path: &str| shop.admin(Method::POST, &format!("/api/admin/{path}"));
        let delete = |path: &str| shop.admin(Method::DELETE, &format!("/api/admin/{path}"));
        let import = |what: &str, line: &str| {
            post(&format!("imports/{what}")).header("Content-Type", NDJSON).body(line.to_owned())
        };
        let (product_path, coupon_path) =
            (format!("products/{product}"), format!("coupons/{coupon}"));
        let letter = |n: usize| format!("dead-letters/{}", letters[n]);
        let terms = json!({"name": "C", "discountType": "fixed", "discountValue": 1, "total": 1,
                           "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z"});
        // Each operation, what it is called in the log, and what it is done to (where that is known before).
        let requests: Vec<(&str, &str, Option<String>, RequestBuilder)> = vec![
            (
                "createUser",
                "create-user",
                Some("users/900".to_owned()),
                post("users").json(&json!({"id": 900, "name": "Ann", "email": "ann@example.com"})),
            ),
            (
                "removePersonalData",
                "remove-personal-data",
                Some("users/3".to_owned()),
                delete("users/3/personal-data"),
            ),
            (
                "createProduct",
                "create-product",
                None,
                post("products").json(&json!({"name": "P", "price": 1, "stock": 1})),
            ),
            (
                "editProduct",
                "edit-product",
                Some(product_path.clone()),
                shop.editing(&product_path, &json!({"price": 200})),
            ),
            ("addStock", "add-stock", Some(product_path.clone()), shop.restocking(product, 3)),
            ("deleteProduct", "delete-product", Some(product_path.clone()), delete(&product_path)),
            ("createCoupon", "create-coupon", None, post("coupons").json(&terms)),
            (
                "editCoupon",
                "edit-coupon",
                Some(coupon_path.clone()),
                shop.editing(&coupon_path, &json!({"paused": true})),
            ),
            (
                "pin",
                "pin",
                Some(format!("pins/coupon/{coupon}")),
                shop.admin(Method::PUT, &format!("/api/admin/pins/coupon/{coupon}")),
            ),
            (
                "unpin",
                "unpin",
                Some(format!("pins/coupon/{coupon}")),
                delete(&format!("pins/coupon/{coupon}")),
            ),
            ("deleteCoupon", "delete-coupon", Some(coupon_path.clone()), delete(&coupon_path)),
            (
                "haltLines",
                "halt-lines",
                Some("queues/coupon".to_owned()),
                post("queues/coupon/halt"),
            ),
            (
                "resumeLines",
                "resume-lines",
                Some("queues/coupon".to_owned()),
                post("queues/coupon/resume"),
            ),
            (
                "redriveDeadLetter",
                "redrive-dead-letter",
                Some(letter(0)),
                post(&format!("{}/redrive", letter(0))),
            ),
            ("discardDeadLetter", "discard-dead-letter", Some(letter(1)), delete(&letter(1))),
            (
                "redriveDeadLetters",
                "redrive-dead-letters",
                Some("dead-letters".to_owned()),
                post("dead-letters/redrive"),
            ),
            (
                "importUsers",
                "import-users",
                Some("imports/users".to_owned()),
                import("users", r#"{"id": 901, "name": "Bob", "email": "bob@example.com"}"#),
            ),
            (
                "importProducts",
                "import-products",
                Some("imports/products".to_owned()),
                import("products", r#"{"name": "Q", "price": 1, "stock": 1}"#),
            ),
            (
                "importCoupons",
                "import-coupons",
                Some("imports/coupons".to_owned()),
                import("coupons", &format!("{terms}\nwhat")),
            ),
            (
                "cancelAnyOrder",
                "cancel-order",
                Some(format!("orders/{order}")),
                post(&format!("orders/{order}/cancel")).json(&json!({"reason": "Lost."})),
            ),
        ];
        let done: BTreeSet<String> =
            requests.iter().map(|(operation, ..)| (*operation).to_owned()).collect();
        assert_eq!(
            done,
            operations(shop).await,
            "each operation that changes something is tried here"
        );

        let mut expected = Vec::new();
        for (number, (operation, action, target, request)) in requests.into_iter().enumerate() {
            let id = format!("request-{number}");
            let request = request.header("X-Request-Id", &id);
            let answer = shop.submit(1, request).await;
            assert!((200..300).contains(&answer.status), "{operation}: {answer:?}");
            expected.push((action, target, id));
        }
        shop.sql("DELETE FROM dead_letters").await;
        shop.start_worker();
        eventually("the order is cancelled", async || {
            items(&changes(shop, "action=cancel-order").await).len() == 1
        })
        .await;
        let answer = changes(shop, "limit=100").await;
        // The others were there before: a product and a campaign.
        let told: Vec<&Value> = items(&answer).iter().rev().skip(2).collect();
        assert_eq!(told.len(), expected.len(), "{answer:?}");
        for (row, (action, target, id)) in told.iter().zip(&expected) {
            assert_eq!(
                (&row["action"], &row["who"], &row["requestId"]),
                (&json!(action), &json!(1), &json!(id)),
                "{row}"
            );
            assert!(target.as_ref().is_none_or(|target| row["target"] == *target), "{row}");
        }
        let of = |action: &str| *told.iter().find(|row| row["action"] == action).unwrap();
        let edit = of("edit-product");
        assert_eq!((&edit["before"]["price"], &edit["after"]["price"]), (&json!(100), &json!(200)));
        let stock = of("add-stock");
        assert_eq!((&stock["before"]["stock"], &stock["after"]["stock"]), (&json!(4), &json!(7)));
        assert_eq!(
            (&of("delete-coupon")["before"]["paused"], &of("delete-coupon")["after"]),
            (&json!(true), &json!(null))
        );
        assert_eq!(
            of("import-coupons")["after"],
            json!({"created": 1, "updated": 0, "unchanged": 0, "faulty": 1, "complete": true})
        );
        let cancel = of("cancel-order");
        assert_eq!(
            (&cancel["after"]["status"], &cancel["after"]["reason"]),
            (&json!("cancelled"), &json!("Lost."))
        );
        assert_eq!(cancel["after"]["refunded"], 100);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_changed_is_not_told() {
    shop(Options::default(), async |shop| {
        let product = shop.product(100, 5).await;
        let path = format!("products/{product}");
        let stale = shop.editing(&path, &json!({"price": 1})).header("If-Match", "\"stale\"");
        Answer::of(stale).await.is_problem(412, "precondition-failed");
        Answer::of(shop.restocking(product, -6)).await.is_problem(409, "stock-too-low");
        Answer::of(shop.editing("coupons/99999", &json!({"total": 1})))
            .await
            .is_problem(404, "coupon-not-found");
        // A repeat is the first request once more; a second pin is none.
        for _ in 0..2 {
            let answer =
                Answer::of(shop.restocking(product, 1).header("Idempotency-Key", "once")).await;
            assert_eq!(answer.body["stock"], 6, "{answer:?}");
            let pin = shop.admin(Method::PUT, &format!("/api/admin/pins/product/{product}"));
            assert_eq!(Answer::of(pin).await.status, 200);
        }
        // A cancel that the line refuses, and a customer's own.
        let orders =
            [shop.bought(7, &one(product, 1)).await, shop.bought(7, &one(product, 1)).await];
        for order in orders {
            shop.cancelled(7, order).await;
        }
        let refused = shop.cancel_as_operator(orders[0], &json!({"reason": "Again."})).await;
        let refused = shop.settled(1, refused.job_id()).await;
        assert_eq!(refused["error"]["code"], "order-already-cancelled");
        // An import that is refused as a whole.
        let table =
            shop.admin(Method::POST, "/api/admin/imports/users").header("Content-Type", "text/csv");
        Answer::of(table.body("what\n1\n")).await.is_problem(400, "validation-failed");

        let answer = changes(shop, "").await;
        let told: Vec<&str> =
            items(&answer).iter().map(|row| row["action"].as_str().unwrap()).collect();
        assert_eq!(told, ["pin", "add-stock", "create-product"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_breaks_off_is_told_with_what_it_did() {
    shop(Options::default(), async |shop| {
        // A whole batch, and then silence until the client is gone.
        let lines: String =
            (1_000..2_500).map(|id| format!("{id},N,{id}@example.com\n")).collect();
        let mut slow = Slow::begin(&shop.api.url).await;
        slow.send("id,name,email\n").await;
        slow.send(&lines).await;
        eventually("a batch is stored", async || {
            let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE id BETWEEN 1000 AND 2500").fetch_one(&shop.pool).await.unwrap();
            stored == 1_000
        })
        .await;
        let row = items(&changes(shop, "").await)[0].clone();
        assert_eq!((&row["action"], &row["after"]), (&json!("import-users"), &json!(null)), "while it is under way");
        drop(slow);
        eventually("its counts are told", async || {
            let row = items(&changes(shop, "").await)[0].clone();
            row["after"] == json!({"created": 1_000, "updated": 0, "unchanged": 0, "faulty": 0, "complete": false})
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_searched_and_paged_while_it_grows() {
    shop(Options::default(), async |shop| {
        let product = shop.product(100, 5).await;
        let other = shop.product(100, 5).await;
        for price in 1..=12 {
            shop.edited(&format!("products/{product}"), &json!({"price": price})).await;
        }
        let by_another = shop
            .anonymous(Method::PATCH, &format!("/api/admin/products/{other}"))
            .bearer_auth(token(5, true));
        assert_eq!(Answer::of(by_another.json(&json!({"price": 7}))).await.status, 200);
        let count = async |query: &str| items(&changes(shop, query).await).len();
        assert_eq!(count("who=5").await, 1);
        assert_eq!(count("who=1").await, 14);
        assert_eq!(count("action=create-product").await, 2);
        assert_eq!(count(&format!("target=products/{product}")).await, 13);
        assert_eq!(
            count(&format!("target=products/{product}&action=create-product&who=1")).await,
            1
        );
        assert_eq!(count("who=5&action=create-product").await, 0);
        let all = changes(shop, "").await;
        let at = items(&all)[4]["at"].as_str().unwrap().to_owned();
        assert_eq!(count(&format!("from={at}")).await, 5);
        assert_eq!(count(&format!("to={at}")).await, 10);
        assert_eq!(count(&format!("from={at}&to={at}")).await, 0);

        // Page by page, while there is more to tell: each row that was there once, newest first.
        let target = format!("target=products/{product}");
        let (mut told, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = changes(shop, &format!("{target}&limit=5{cursor}")).await;
            told.extend(items(&page).clone());
            shop.edited(&format!("products/{product}"), &json!({"stock": 9})).await;
            let Some(next) = page.body["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(told.len(), 13);
        assert!(told.windows(2).all(|pair| (instant(&pair[0]["at"]), pair[0]["id"].as_i64())
            > (instant(&pair[1]["at"]), pair[1]["id"].as_i64())));
        // A cursor leads on in its own list only.
        for path in [
            format!("/api/admin/audit-log?who=1{cursor}"),
            format!("/api/admin/audit-log?{}", &cursor[1..]),
        ] {
            Answer::of(shop.audit(&path)).await.is_problem(400, "validation-failed");
        }
        for bad in ["who=0", "from=yesterday", "what=1", "limit=101", "action="] {
            Answer::of(shop.audit(&format!("/api/admin/audit-log?{bad}")))
                .await
                .is_problem(400, "validation-failed");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_stays() {
    shop(Options::default(), async |shop| {
        shop.product(1, 1).await;
        for statement in
            ["DELETE FROM audit_log", "TRUNCATE audit_log", "UPDATE audit_log SET who = 2"]
        {
            let refused =
                sqlx::raw_sql(statement).execute(&shop.pool).await.unwrap_err().to_string();
            assert!(refused.contains("what was done stays told"), "{refused}");
        }
    })
    .await;
}
