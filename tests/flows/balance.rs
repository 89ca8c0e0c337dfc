//! Balance: show, charge, history.

use serde_json::{Value, json};

use firstcome_tests::{Answer, Options, Shop, shop};

async fn charge(shop: &Shop, user: i64, amount: Value, key: Option<&str>) -> Answer {
    let mut request = shop.post(user, "/api/balance/charge").json(&json!({"amount": amount}));
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    Answer::of(request).await
}

async fn balance(shop: &Shop, user: i64) -> i64 {
    let answer = Answer::of(shop.get(user, &format!("/api/balance/{user}"))).await;
    assert_eq!((answer.status, &answer.body["userId"]), (200, &json!(user)), "{answer:?}");
    answer.body["balance"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_seen_in_balance_and_history() {
    shop(Options::default(), async |shop| {
        let charged = charge(shop, 7, json!(500), None).await;
        assert_eq!(charged.status, 200, "{charged:?}");
        assert_eq!(
            (&charged.body["userId"], &charged.body["balance"]),
            (&json!(7), &json!(1_000_500))
        );
        assert_eq!(balance(shop, 7).await, 1_000_500);
        let history = Answer::of(shop.get(7, "/api/users/balance/history")).await.body;
        let entry = &history["items"][0];
        assert_eq!(entry["id"], charged.body["transactionId"]);
        assert_eq!((&entry["kind"], &entry["amount"]), (&json!("charge"), &json!(500)));
        assert_eq!((&entry["balanceAfter"], &entry["orderId"]), (&json!(1_000_500), &json!(null)));
        assert_eq!(history["items"].as_array().unwrap().len(), 2, "with the opening row");
        let page = Answer::of(shop.get(7, "/api/users/balance/history?limit=1")).await.body;
        let rest = format!("/api/users/balance/history?cursor={}", page["next"].as_str().unwrap());
        assert_eq!(
            Answer::of(shop.get(7, &rest)).await.body["items"][0]["balanceAfter"],
            1_000_000
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_charges_once() {
    shop(Options::default(), async |shop| {
        let repeated = (0..10).map(|_| charge(shop, 7, json!(100), Some("k")));
        let answers = futures_util::future::join_all(repeated).await;
        assert!(
            answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body),
            "{answers:?}"
        );
        assert_eq!(balance(shop, 7).await, 1_000_100);
        charge(shop, 7, json!(200), Some("k")).await.is_problem(422, "idempotency-key-reused");
        // The key is the caller's own.
        assert_eq!(charge(shop, 8, json!(200), Some("k")).await.status, 200);
        // A refused charge leaves the key free.
        charge(shop, 7, json!(0), Some("free")).await.is_problem(400, "amount-out-of-range");
        assert_eq!(charge(shop, 7, json!(1), Some("free")).await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_stay_in_their_bounds() {
    shop(Options::default(), async |shop| {
        for out_of_range in [json!(0), json!(-1), json!(10_000_001)] {
            charge(shop, 7, out_of_range, None).await.is_problem(400, "amount-out-of-range");
        }
        for invalid in [json!(1.0), json!("1"), json!(null), json!([])] {
            let answer = charge(shop, 7, invalid.clone(), None).await;
            answer.is_problem(400, "validation-failed");
            let told = answer.body["errors"][0]["detail"].as_str().unwrap();
            let range = "must be an integer from 1 to 10000000";
            assert!(told == range || invalid.is_null(), "{told}");
        }
        charge(shop, 99, json!(1), None).await.is_problem(404, "user-not-found");
        shop.sql(
            "UPDATE balances SET amount = 999999999999 WHERE user_id = 7;
             INSERT INTO balance_transactions (user_id, kind, amount, balance_after)
             VALUES (7, 'charge', 999998999999, 999999999999)",
        )
        .await;
        charge(shop, 7, json!(2), None).await.is_problem(409, "balance-ceiling");
        assert_eq!(charge(shop, 7, json!(1), None).await.body["balance"], 1_000_000_000_000i64);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_charges_all_count() {
    shop(Options::default(), async |shop| {
        let charges = (0..40).map(|_| charge(shop, 7, json!(10), None));
        let answers = futures_util::future::join_all(charges).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(balance(shop, 7).await, 1_000_400);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_is_its_owners() {
    shop(Options::default(), async |shop| {
        Answer::of(shop.get(8, "/api/balance/7")).await.is_problem(403, "forbidden");
        let admin = shop.admin(reqwest::Method::GET, "/api/balance/7");
        Answer::of(admin).await.is_problem(403, "forbidden");
        Answer::of(shop.get(99, "/api/balance/99")).await.is_problem(404, "user-not-found");
    })
    .await;
}
