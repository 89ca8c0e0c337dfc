//! The cart, and orders from it.

use reqwest::Method;
use serde_json::{Value, json};

use firstcome_tests::{Answer, Options, Shop, shop};

async fn put(shop: &Shop, user: i64, product: i64, quantity: Value) -> Answer {
    let path = format!("/api/users/cart/{product}");
    let request =
        shop.anonymous(Method::PUT, &path).bearer_auth(firstcome_tests::token(user, false));
    Answer::of(request.json(&json!({"quantity": quantity}))).await
}

async fn cart(shop: &Shop, user: i64) -> Value {
    Answer::of(shop.get(user, "/api/users/cart")).await.body["items"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_holds_what_was_put_into_it() {
    shop(Options::default(), async |shop| {
        for (product, quantity) in [(2, 3), (1, 1), (2, 5)] {
            assert_eq!(put(shop, 7, product, json!(quantity)).await.status, 204);
        }
        assert_eq!(
            cart(shop, 7).await,
            json!([
                {"productId": 1, "name": "Product 1", "price": 1000, "quantity": 1},
                {"productId": 2, "name": "Product 2", "price": 2000, "quantity": 5},
            ])
        );
        assert_eq!(cart(shop, 8).await, json!([]));
        put(shop, 7, 999, json!(1)).await.is_problem(404, "product-not-found");
        put(shop, 99, 1, json!(1)).await.is_problem(404, "user-not-found");
        for quantity in [json!(0), json!(10_001), json!("1")] {
            put(shop, 7, 1, quantity).await.is_problem(400, "validation-failed");
        }
        let delete = |path: &str| {
            Answer::of(
                shop.anonymous(Method::DELETE, path).bearer_auth(firstcome_tests::token(7, false)),
            )
        };
        assert_eq!(delete("/api/users/cart/1").await.status, 204);
        assert_eq!(cart(shop, 7).await.as_array().unwrap().len(), 1);
        assert_eq!(delete("/api/users/cart").await.status, 204);
        assert_eq!(cart(shop, 7).await, json!([]));
        for product in 1..=50 {
            assert_eq!(put(shop, 7, product, json!(1)).await.status, 204);
        }
        put(shop, 7, 51, json!(1)).await.is_problem(400, "validation-failed");
        // What is not shown takes no room.
        let gone = shop.admin(Method::DELETE, "/api/admin/products/50");
        assert_eq!(Answer::of(gone).await.status, 204);
        assert_eq!(cart(shop, 7).await.as_array().unwrap().len(), 49);
        assert_eq!(put(shop, 7, 51, json!(1)).await.status, 204);
        put(shop, 7, 52, json!(1)).await.is_problem(400, "validation-failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_takes_what_it_bought_out_of_the_cart() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        shop.order(7, &json!({"fromCart": true})).await.is_problem(400, "cart-empty");
        put(shop, 7, 1, json!(2)).await;
        put(shop, 7, 2, json!(1)).await;
        let accepted = shop.order(7, &json!({"fromCart": true})).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        // Read at accept: what is put in later stays.
        put(shop, 7, 1, json!(5)).await;
        put(shop, 7, 3, json!(1)).await;
        shop.start_worker();
        let job = shop.settled(7, accepted.job_id()).await;
        assert_eq!(job["result"]["itemsAmount"], 4_000, "{job}");
        let left: Vec<(Value, Value)> = cart(shop, 7)
            .await
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (item["productId"].clone(), item["quantity"].clone()))
            .collect();
        assert_eq!(left, [(json!(1), json!(3)), (json!(3), json!(1))]);
        let both = json!({"fromCart": true, "items": [{"productId": 1, "quantity": 1}]});
        shop.order(7, &both).await.is_problem(400, "validation-failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_order_from_the_cart_is_one_order() {
    shop(Options::default(), async |shop| {
        put(shop, 7, 1, json!(2)).await;
        let order = async || {
            let request = shop.post(7, "/api/orders").header("Idempotency-Key", "k");
            shop.submit(7, request.json(&json!({"fromCart": true}))).await
        };
        let first = order().await;
        shop.settled(7, first.job_id()).await;
        // The cart is empty now, and the answer is the same all the same.
        assert_eq!(cart(shop, 7).await, json!([]));
        assert_eq!(order().await.job_id(), first.job_id());
    })
    .await;
}
