//! What operators create and change.

use reqwest::Method;
use serde_json::{Value, json};

use firstcome_tests::{Answer, Options, Shop, eventually, shop};

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
async fn a_user_has_a_name_and_an_address_of_their_own() {
    shop(Options { users: 5, ..Options::default() }, async |shop| {
        let user = async |name: &str, email: &str| {
            create(shop, "users", &json!({"name": name, "email": email})).await
        };
        let created = user(" 김 민지 ", " Minji@example.com ").await;
        assert_eq!(created.status, 201, "{created:?}");
        assert_eq!(
            (&created.body["name"], &created.body["email"]),
            (&json!("김 민지"), &json!("Minji@example.com"))
        );
        user("Bob", "minji@EXAMPLE.com").await.is_problem(409, "email-taken");
        for (name, email, field) in [
            ("\u{200b}\u{2060}", "a@example.com", "name"),
            ("ann\u{202e}gpj", "a@example.com", "name"),
            ("Ann", " @ ", "email"),
            ("Ann", "a@", "email"),
            ("Ann", "a b@example.com", "email"),
            ("Ann", "a\u{200b}@example.com", "email"),
        ] {
            let answer = user(name, email).await;
            answer.is_problem(400, "validation-failed");
            assert_eq!(answer.body["errors"][0]["field"], field, "{answer:?}");
        }
    })
    .await;
}

/// An import took the ids, past the sequence.
#[tokio::test(flavor = "multi_thread")]
async fn a_free_id_is_found_however_many_were_given_by_hand() {
    shop(Options { users: 5, ..Options::default() }, async |shop| {
        shop.sql(
            "INSERT INTO users (id, name, email) SELECT n, 'x', n || '@x' FROM generate_series(6, 40005) AS n;
             INSERT INTO balances (user_id) SELECT generate_series(6, 40005)",
        )
        .await;
        for name in ["a", "b", "c"] {
            let user = json!({"name": name, "email": format!("{name}@example.com")});
            let created = create(shop, "users", &user).await;
            assert_eq!(created.status, 201, "{created:?}");
            assert!(created.body["id"].as_i64().unwrap() > 40_005, "{created:?}");
        }
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
        for (what, body) in [
            ("users", json!({"name": "Ann", "email": "ann@example.com"})),
            ("products", json!({"name": "Ann", "price": 1, "stock": 1})),
            ("coupons", campaign(1)),
        ] {
            let path = format!("/api/admin/{what}");
            // One key for all: it is scoped to the kind of the request.
            let post = |body: &Value| {
                let request = shop.admin(Method::POST, &path).header("Idempotency-Key", "k");
                Answer::of(request.json(body))
            };
            let (first, second) = tokio::join!(post(&body), post(&body));
            assert_eq!((first.status, second.status), (201, 201), "{first:?} {second:?}");
            assert_eq!(first.body, second.body);
            let mut other = body;
            other["name"] = json!("Bob");
            post(&other).await.is_problem(422, "idempotency-key-reused");
        }
        let created: (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM users WHERE name = 'Ann'),
                    (SELECT count(*) FROM products WHERE name = 'Ann'),
                    (SELECT count(*) FROM coupons WHERE name = 'A drop')",
        )
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        assert_eq!(created, (1, 1, 1));
    })
    .await;
}

fn campaign(total: i64) -> Value {
    json!({
        "name": "A drop", "discountType": "percent", "discountValue": 10, "maxDiscount": 500, "total": total,
        "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_total_ends_a_sold_out_at_once() {
    shop(Options::default(), async |shop| {
        let other = shop.start_api(|_| {}).await;
        let coupon = shop.campaign(1).await;
        let job = shop.accepted_issue(7, coupon).await;
        shop.settled(7, &job).await;
        let at_other = |user: i64| {
            let path = format!("{}/api/coupons/{coupon}/issue", other.url);
            shop.submit(user, shop.post(user, &path))
        };
        eventually("both APIs know that it is sold out", async || {
            let answers = [shop.issue(8, coupon).await, at_other(8).await];
            answers.iter().all(|answer| answer.code() == "coupon-sold-out")
        })
        .await;
        let path = format!("/api/admin/coupons/{coupon}");
        let edit =
            async |body: Value| Answer::of(shop.admin(Method::PATCH, &path).json(&body)).await;
        let edited = edit(json!({"total": 3})).await;
        assert_eq!(
            (edited.status, &edited.body["total"], &edited.body["remaining"]),
            (200, &json!(3), &json!(2))
        );
        // Here at once; the other API is told.
        let job = shop.accepted_issue(8, coupon).await;
        assert_eq!(shop.settled(8, &job).await["result"]["issueNumber"], 2);
        eventually("the other API accepts again", async || at_other(9).await.status == 202).await;
        shop.settle_and_audit().await;

        edit(json!({"total": 2})).await.is_problem(409, "total-below-issued");
        assert_eq!(edit(json!({"total": 3})).await.body["remaining"], 0);
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_edited_field_by_field() {
    shop(Options::default(), async |shop| {
        let created = create(shop, "coupons", &campaign(5)).await.body;
        let path = format!("/api/admin/coupons/{}", created["id"]);
        let edit =
            async |body: Value| Answer::of(shop.admin(Method::PATCH, &path).json(&body)).await;
        assert_eq!(edit(json!({})).await.body, created);
        let mut expected = created.clone();
        for (field, value) in [
            ("name", json!("Renamed")),
            ("discountValue", json!(20)),
            ("maxDiscount", json!(null)),
            ("discountType", json!("fixed")),
            ("discountValue", json!(2_000)),
            ("total", json!(6)),
            ("startsAt", json!("2021-01-01T00:00:00Z")),
            // Earlier: what is issued stays good. Later than that: so does what is issued then.
            ("endsAt", json!("2099-01-01T00:00:00Z")),
            ("validUntil", json!("2098-01-01T00:00:00Z")),
            ("validUntil", json!("2101-01-01T00:00:00Z")),
            ("endsAt", json!("2100-06-01T00:00:00Z")),
        ] {
            expected[field] = value.clone();
            expected["remaining"] = expected["total"].clone();
            let answer = edit(json!({field: value})).await;
            assert_eq!((answer.status, &answer.body), (200, &expected));
        }
        for (body, field) in [
            (json!({"maxDiscount": 1}), "maxDiscount"),
            (json!({"discountType": "percent"}), "discountValue"),
            (json!({"endsAt": "2020-01-01T00:00:00Z"}), "endsAt"),
            (json!({"total": 0}), "total"),
            (json!({"remaining": 1}), "remaining"),
        ] {
            let answer = edit(body).await;
            answer.is_problem(400, "validation-failed");
            assert_eq!(answer.body["errors"][0]["field"], field, "{answer:?}");
        }
        let read = shop.anonymous(Method::GET, &format!("/api/coupons/{}", created["id"]));
        assert_eq!(Answer::of(read).await.body, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_ends_early_takes_nothing_back() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        for user in [7, 8] {
            let job = shop.accepted_issue(user, coupon).await;
            shop.settled(user, &job).await;
        }
        let path = format!("/api/admin/coupons/{coupon}");
        let edit =
            async |body: Value| Answer::of(shop.admin(Method::PATCH, &path).json(&body)).await;
        let past = "2021-01-01T00:00:00Z";
        assert_eq!(edit(json!({"endsAt": past})).await.body["endsAt"], past);
        shop.issue(9, coupon).await.is_problem(409, "coupon-ended");
        let available = "/api/users/coupons?status=available";
        let held = Answer::of(shop.get(7, available)).await.body;
        assert_eq!(held["items"][0]["couponId"], coupon);
        let order = json!({"items": [{"productId": 1, "quantity": 1}], "couponId": coupon});
        assert_eq!(shop.ordered(7, &order).await["result"]["discount"], 1_000);

        // Unless that is what is meant.
        assert_eq!(edit(json!({"validUntil": past})).await.body["validUntil"], past);
        assert_eq!(Answer::of(shop.get(8, available)).await.body["items"], json!([]));
        assert_eq!(shop.ordered(8, &order).await["error"]["code"], "coupon-expired");

        let mut new = campaign(5);
        assert_eq!(create(shop, "coupons", &new).await.body["validUntil"], new["endsAt"]);
        new["validUntil"] = json!("2100-02-01T00:00:00Z");
        assert_eq!(create(shop, "coupons", &new).await.body["validUntil"], new["validUntil"]);
        new["validUntil"] = json!("2099-12-31T00:00:00Z");
        create(shop, "coupons", &new).await.is_problem(400, "validation-failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_campaign_is_gone_but_its_coupons_stay_good() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(7, coupon).await;
        shop.settled(7, &job).await;
        let path = format!("/api/admin/coupons/{coupon}");
        let delete = async || Answer::of(shop.admin(Method::DELETE, &path)).await;
        assert_eq!(delete().await.status, 204);

        delete().await.is_problem(404, "coupon-not-found");
        let edit = shop.admin(Method::PATCH, &path).json(&json!({"total": 20}));
        Answer::of(edit).await.is_problem(404, "coupon-not-found");
        shop.issue(8, coupon).await.is_problem(404, "coupon-not-found");
        let get = async |path: &str| Answer::of(shop.anonymous(Method::GET, path)).await;
        get(&format!("/api/coupons/{coupon}")).await.is_problem(404, "coupon-not-found");
        let list = get("/api/coupons?limit=100").await.body;
        let ids = list["items"].as_array().unwrap().iter().map(|item| &item["id"]);
        assert!(!ids.into_iter().any(|id| *id == coupon));

        let held = Answer::of(shop.get(7, "/api/users/coupons?status=available")).await.body;
        assert_eq!(held["items"][0]["couponId"], coupon);
        // All that there is to know of it: its campaign is not shown any more.
        assert_eq!(
            (&held["items"][0]["discountType"], &held["items"][0]["discountValue"]),
            (&json!("fixed"), &json!(1_000))
        );
        assert_eq!(held["items"][0]["validUntil"], "2100-01-01T00:00:00Z");
        let order = json!({"items": [{"productId": 1, "quantity": 1}], "couponId": coupon});
        assert_eq!(shop.ordered(7, &order).await["result"]["discount"], 1_000);
    })
    .await;
}

/// On every API, and as it was: with what was issued.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_campaign_can_be_restored() {
    shop(Options::default(), async |shop| {
        let other = shop.start_api(|_| {}).await;
        let coupon = shop.campaign(10).await;
        let path = format!("/api/admin/coupons/{coupon}");
        let edit =
            async |body: Value| Answer::of(shop.admin(Method::PATCH, &path).json(&body)).await;
        let at_other = |user: i64| {
            let path = format!("{}/api/coupons/{coupon}/issue", other.url);
            shop.submit(user, shop.post(user, &path))
        };
        let first = at_other(7).await;
        assert_eq!(shop.settled(7, first.job_id()).await["result"]["issueNumber"], 1);
        let listed = async |query: &str| {
            let path = format!("/api/admin/coupons?limit=100&{query}");
            Answer::of(shop.admin(Method::GET, &path)).await.body["items"].clone()
        };
        let as_it_is = edit(json!({})).await.body;
        assert_eq!(listed("deleted=true").await, json!([]));
        assert_eq!(Answer::of(shop.admin(Method::DELETE, &path)).await.status, 204);

        assert_eq!(listed("deleted=true").await, json!([as_it_is]));
        let others = listed("deleted=false").await;
        assert!(!others.as_array().unwrap().is_empty() && !others.to_string().contains("A drop"));
        eventually("the other API knows", async || at_other(9).await.status == 404).await;
        shop.settle_and_audit().await;

        let restored = edit(json!({"deleted": false, "name": "Once more"})).await;
        let mut expected = as_it_is;
        expected["name"] = json!("Once more");
        assert_eq!((restored.status, &restored.body), (200, &expected));
        assert_eq!(edit(json!({"deleted": false})).await.body, expected, "a second time");
        let shown = shop.anonymous(Method::GET, &format!("/api/coupons/{coupon}"));
        assert_eq!(Answer::of(shown).await.body, expected);
        let job = shop.accepted_issue(8, coupon).await;
        assert_eq!(shop.settled(8, &job).await["result"]["issueNumber"], 2);
        eventually("the other API accepts again", async || at_other(10).await.status == 202).await;
        assert_eq!(listed("deleted=true").await, json!([]));

        assert_eq!(edit(json!({"deleted": true})).await.status, 200);
        edit(json!({"deleted": true})).await.is_problem(404, "coupon-not-found");
        shop.issue(11, coupon).await.is_problem(404, "coupon-not-found");
        shop.settle_and_audit().await;
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_see_what_was_deleted() {
    shop(Options::default(), async |shop| {
        for what in ["coupons", "products"] {
            let public = format!("/api/{what}?deleted=true");
            Answer::of(shop.admin(Method::GET, &public)).await.is_problem(400, "validation-failed");
            let admin = format!("/api/admin/{what}?deleted=true");
            Answer::of(shop.get(7, &admin)).await.is_problem(403, "forbidden");
            for query in ["deleted=yes", "deleted=", "deleted=true&deleted=true", "removed=true"] {
                let answer = shop.admin(Method::GET, &format!("/api/admin/{what}?{query}"));
                Answer::of(answer).await.is_problem(400, "validation-failed");
            }
            let text = shop.admin(Method::PATCH, &format!("/api/admin/{what}/1"));
            let text = text.json(&json!({"deleted": "false"}));
            Answer::of(text).await.is_problem(400, "validation-failed");
        }
    })
    .await;
}
