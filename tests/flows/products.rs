//! Products: list, detail, and what operators do to them.

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use firstcome_tests::{Answer, Options, Shop, shop, token};

async fn get(shop: &Shop, path: &str) -> Answer {
    Answer::of(shop.anonymous(Method::GET, path)).await
}

/// One that is always sold, without a limit.
fn product(id: i64, name: &str, price: i64, stock: i64) -> Value {
    json!({
        "id": id, "name": name, "price": price, "stock": stock, "soldOut": stock == 0,
        "onSaleFrom": null, "onSaleUntil": null, "perCustomer": null, "paused": false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn products_are_listed_and_shown() {
    shop(Options::default(), async |shop| {
        let list = get(shop, "/api/products?limit=2").await;
        assert_eq!(
            list.body["items"],
            json!([product(1, "Product 1", 1000, 10000), product(2, "Product 2", 2000, 10000),])
        );
        let next =
            format!("/api/products?limit=100&cursor={}", list.body["next"].as_str().unwrap());
        let rest = get(shop, &next).await.body;
        assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (98, &json!(null)));
        assert_eq!(get(shop, "/api/products/1").await.body, list.body["items"][0]);
        get(shop, "/api/products/101").await.is_problem(404, "product-not-found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_cached_but_the_detail_is_exact() {
    shop(Options::default(), async |shop| {
        let first = get(shop, "/api/products?limit=1").await.body;
        shop.sql("UPDATE products SET stock = 0, stocked = 0 WHERE id = 1").await;
        assert_eq!(get(shop, "/api/products?limit=1").await.body, first, "within its time to live");
        let exact = get(shop, "/api/products/1").await.body;
        assert_eq!((&exact["stock"], &exact["soldOut"]), (&json!(0), &json!(true)));
        // An operator's change is seen at once, and without Redis everything is exact.
        let patch = shop.admin(Method::PATCH, "/api/admin/products/1").json(&json!({"stock": 5}));
        assert_eq!(Answer::of(patch).await.body["stock"], 5);
        assert_eq!(get(shop, "/api/products?limit=1").await.body["items"][0]["stock"], 5);
        shop.redis.proxy.cut();
        shop.sql("UPDATE products SET stock = 4, stocked = 4 WHERE id = 1").await;
        assert_eq!(get(shop, "/api/products?limit=1").await.body["items"][0]["stock"], 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_create_edit_and_delete_products() {
    shop(Options::default(), async |shop| {
        let body = json!({"name": "New", "price": 0, "stock": 0});
        let created = Answer::of(shop.admin(Method::POST, "/api/admin/products").json(&body)).await;
        assert_eq!(created.status, 201);
        let id = created.body["id"].as_i64().unwrap();
        assert_eq!(created.body, product(id, "New", 0, 0));
        let path = format!("/api/admin/products/{id}");
        let edit =
            async |body: Value| Answer::of(shop.admin(Method::PATCH, &path).json(&body)).await;
        let edited = edit(json!({"name": "Newer", "price": 7})).await;
        assert_eq!((edited.status, &edited.body), (200, &product(id, "Newer", 7, 0)));
        assert_eq!(edit(json!({})).await.body, edited.body);
        assert_eq!(edit(json!({"stock": -1})).await.code(), "validation-failed");
        assert_eq!(edit(json!({"colour": "red"})).await.code(), "validation-failed");
        assert_eq!(Answer::of(shop.admin(Method::DELETE, &path)).await.status, 204);
        Answer::of(shop.admin(Method::DELETE, &path)).await.is_problem(404, "product-not-found");
        edit(json!({"stock": 1})).await.is_problem(404, "product-not-found");
        get(shop, &format!("/api/products/{id}")).await.is_problem(404, "product-not-found");
        let list = get(shop, "/api/products?limit=100").await.body;
        assert_eq!(list["items"].as_array().unwrap().last().unwrap()["id"], 100);
        Answer::of(shop.post(7, "/api/admin/products").json(&body))
            .await
            .is_problem(403, "forbidden");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_product_can_be_restored() {
    shop(Options::default(), async |shop| {
        let other = shop.start_api(|_| {}).await;
        let listed = async |path: &str| {
            let list = Answer::of(shop.admin(Method::GET, path)).await.body;
            let items = list["items"].as_array().unwrap().iter();
            (
                items.map(|item| item["id"].as_i64().unwrap()).collect::<Vec<_>>(),
                list["next"].clone(),
            )
        };
        let at_other = format!("{}/api/products?limit=2", other.url);
        let order = json!({"items": [{"productId": 2, "quantity": 1}]});
        let put = shop.anonymous(Method::PUT, "/api/users/cart/2").bearer_auth(token(7, false));
        assert_eq!(Answer::of(put.json(&json!({"quantity": 1}))).await.status, 204);
        assert_eq!(listed(&at_other).await.0, [1, 2]);
        for product in [2, 5] {
            let delete = shop.admin(Method::DELETE, &format!("/api/admin/products/{product}"));
            assert_eq!(Answer::of(delete).await.status, 204);
        }

        let (first, next) = listed("/api/admin/products?deleted=true&limit=1").await;
        let next = format!("/api/admin/products?deleted=true&cursor={}", next.as_str().unwrap());
        assert_eq!((first, listed(&next).await.0), (vec![2], vec![5]));
        assert_eq!(listed("/api/admin/products?limit=3").await.0, [1, 3, 4]);
        assert_eq!(listed(&at_other).await.0, [1, 3]);
        shop.order(7, &order).await.is_problem(404, "product-not-found");

        let restore = shop.admin(Method::PATCH, "/api/admin/products/2");
        let restored = Answer::of(restore.json(&json!({"deleted": false, "stock": 9}))).await;
        assert_eq!((restored.status, &restored.body["stock"]), (200, &json!(9)));
        assert_eq!(get(shop, "/api/products/2").await.body, restored.body);
        assert_eq!(listed(&at_other).await.0, [1, 2]);
        assert_eq!(listed("/api/admin/products?deleted=true").await.0, [5]);
        let cart = Answer::of(shop.get(7, "/api/users/cart")).await.body;
        assert_eq!(cart["items"][0]["productId"], 2);
        assert_eq!(shop.ordered(7, &order).await["status"], "succeeded");

        // Exact for operators, however old the public list is.
        let exact = Answer::of(shop.admin(Method::GET, "/api/admin/products?limit=2")).await.body;
        assert_eq!(exact["items"][1]["stock"], 8);
        shop.settle_and_audit().await;
        other.stop().await;
    })
    .await;
}

/// An operator sets the stock in the middle of a sale: edits and sales take turns, so nothing that
/// was set is sold twice and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_stock_is_set_between_sales() {
    shop(Options { users: 200, ..Options::default() }, async |shop| {
        let product = shop.product(1, 20).await;
        let order = json!({"items": [{"productId": product, "quantity": 1}]});
        let sale = stream::iter(1..=200)
            .map(|user| shop.order(user, &order))
            .buffer_unordered(16)
            .collect::<Vec<_>>();
        let edits = async {
            for stock in [10, 0, 30] {
                let path = format!("/api/admin/products/{product}");
                let edit = shop.admin(Method::PATCH, &path).json(&json!({"stock": stock}));
                assert_eq!(Answer::of(edit).await.body["stock"], stock);
            }
        };
        let (answers, ()) = tokio::join!(sale, edits);
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        // However the two met, these find at most what was set last.
        for user in 1..=30 {
            assert_eq!(shop.order(user, &order).await.status, 202);
        }
        shop.settle_and_audit().await;
        // 30 after the last edit, and at most 20 + 10 before it.
        let sold = shop.outcomes().await["succeeded"];
        assert!((30..=60).contains(&sold), "{sold}");
        let left = get(shop, &format!("/api/products/{product}")).await.body;
        assert_eq!((&left["stock"], &left["soldOut"]), (&json!(0), &json!(true)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_price_is_the_one_at_settlement() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let order = json!({"items": [{"productId": 1, "quantity": 2}]});
        let accepted = shop.order(7, &order).await;
        let edit = shop.admin(Method::PATCH, "/api/admin/products/1").json(&json!({"price": 7}));
        assert_eq!(Answer::of(edit).await.body["price"], 7);
        shop.start_worker();
        assert_eq!(shop.settled(7, accepted.job_id()).await["result"]["paid"], 14);
    })
    .await;
}
