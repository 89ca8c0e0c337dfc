//! A sold-out that ends: stock is added, an order is cancelled, a total is raised, a product is restored. Whoever was
//! told "sold out" gets through, at every API.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use firstcome_tests::{
    Answer, Api, DEADLINE, Options, Shop, eventually,
    sale::{one, rejected, succeeded},
    shop,
};

/// How the processes hear of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hearing {
    /// As they should.
    Everything,
    /// The APIs have Redis, the workers have lost it: nothing that they announce is heard.
    NoWorker,
    /// There is no Redis.
    Nothing,
}

use Hearing::{Everything, NoWorker, Nothing};

impl Hearing {
    /// How long an API may go on telling what is not so any more.
    const fn known_within(self) -> Duration {
        match self {
            // 2 s, and what a busy machine takes: less than what ends by itself.
            Everything => Duration::from_secs(10),
            NoWorker | Nothing => Duration::from_secs(30),
        }
    }
}

/// Two APIs, and this test of both of them.
async fn with_two_apis(hearing: Hearing, test: impl AsyncFnOnce(&Shop, [&Api; 2])) {
    shop(Options::default(), async |shop| {
        let redis = match hearing {
            Everything | Nothing => shop.redis.proxied.clone(),
            NoWorker => shop.redis.direct.clone(),
        };
        let start = || shop.start_api(|config| config.redis.redis_url = redis.clone());
        let apis = [start().await, start().await];
        if hearing != Everything {
            shop.redis.proxy.cut();
        }
        test(shop, [&apis[0], &apis[1]]).await;
        for api in apis {
            api.stop().await;
        }
    })
    .await;
}

/// Every API comes to show it so, in the list and by itself.
async fn is_shown(shop: &Shop, apis: [&Api; 2], product: i64, sold_out: bool, within: Duration) {
    for api in apis {
        let shown = async || {
            let list = shop.anonymous(Method::GET, &format!("{}/api/products?limit=5", api.url));
            let list = Answer::of(list).await.body["items"].clone();
            let listed = list.as_array().unwrap().iter().find(|item| item["id"] == product);
            let listed = listed.map(|item| item["soldOut"].clone());
            let one = shop.anonymous(Method::GET, &format!("{}/api/products/{product}", api.url));
            let one = Answer::of(one).await.body["soldOut"].clone();
            // Alone it is exact.
            assert_eq!(one, sold_out);
            listed == Some(json!(sold_out))
        };
        let known = timeout(within, eventually("the list is right", shown)).await;
        assert!(known.is_ok(), "still wrong after {within:?}");
    }
}

async fn order_at(shop: &Shop, api: &Api, user: i64, product: i64) -> serde_json::Value {
    let request = shop.post(user, &format!("{}/api/orders", api.url)).json(&one(product, 1));
    let answer = shop.submit(user, request).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    shop.settled(user, answer.job_id()).await
}

/// Product 2 with these units, all of them bought by user 7; the order.
async fn sold_out(shop: &Shop, apis: [&Api; 2], stock: i64) -> i64 {
    shop.edited("products/2", &json!({"stock": stock})).await;
    let order = shop.bought(7, &one(2, stock)).await;
    is_shown(shop, apis, 2, true, DEADLINE).await;
    for (user, api) in [8, 9].into_iter().zip(apis) {
        rejected(&order_at(shop, api, user, 2).await, 409, "out-of-stock");
    }
    order
}

async fn stock_is_added(hearing: Hearing) {
    with_two_apis(hearing, async |shop, apis| {
        sold_out(shop, apis, 3).await;
        assert_eq!(Answer::of(shop.restocking(2, 2)).await.body["soldOut"], false);
        for (user, api) in [8, 9].into_iter().zip(apis) {
            succeeded(&order_at(shop, api, user, 2).await);
        }
        assert_eq!(Answer::of(shop.restocking(2, 2)).await.body["stock"], 2);
        is_shown(shop, apis, 2, false, hearing.known_within()).await;
    })
    .await;
}

async fn an_order_is_cancelled(hearing: Hearing) {
    with_two_apis(hearing, async |shop, apis| {
        let order = sold_out(shop, apis, 3).await;
        succeeded(&shop.cancelled(7, order).await);
        is_shown(shop, apis, 2, false, hearing.known_within()).await;
        for (user, api) in [8, 9].into_iter().zip(apis) {
            succeeded(&order_at(shop, api, user, 2).await);
        }
        assert_eq!(shop.stock(2).await, 1);
    })
    .await;
}

async fn a_total_is_raised(hearing: Hearing) {
    with_two_apis(hearing, async |shop, apis| {
        let coupon = shop.campaign(1).await;
        let ask = async |user: i64, api: &Api| {
            let path = format!("{}/api/coupons/{coupon}/issue", api.url);
            shop.submit(user, shop.post(user, &path)).await
        };
        let first = ask(7, apis[0]).await;
        succeeded(&shop.settled(7, first.job_id()).await);
        eventually("both APIs know that it is sold out", async || {
            let answers = [ask(8, apis[0]).await, ask(8, apis[1]).await];
            answers.iter().all(|answer| answer.code() == "coupon-sold-out")
        })
        .await;
        shop.edited(&format!("coupons/{coupon}"), &json!({"total": 3})).await;
        for (user, api) in [(8, apis[1]), (9, apis[0])] {
            let through = eventually("it gets through", async || {
                let answer = ask(user, api).await;
                if answer.status != 202 {
                    answer.is_problem(409, "coupon-sold-out");
                    return false;
                }
                succeeded(&shop.settled(user, answer.job_id()).await);
                true
            });
            let within = hearing.known_within();
            let known = timeout(within, through).await;
            assert!(known.is_ok(), "still sold out after {within:?}");
        }
    })
    .await;
}

async fn a_product_is_restored(hearing: Hearing) {
    with_two_apis(hearing, async |shop, apis| {
        let delete = shop.admin(Method::DELETE, "/api/admin/products/2");
        assert_eq!(Answer::of(delete).await.status, 204);
        let ask = async |user: i64, api: &Api| {
            let request = shop.post(user, &format!("{}/api/orders", api.url)).json(&one(2, 1));
            shop.submit(user, request).await
        };
        eventually("both APIs know that it is gone", async || {
            let answers = [ask(8, apis[0]).await, ask(8, apis[1]).await];
            answers.iter().all(|answer| answer.code() == "product-not-found")
        })
        .await;
        shop.settle_and_audit().await;
        shop.edited("products/2", &json!({"deleted": false, "stock": 5})).await;
        for (user, api) in [(8, apis[1]), (9, apis[0])] {
            let through = eventually("it gets through", async || {
                let answer = ask(user, api).await;
                if answer.status != 202 {
                    answer.is_problem(404, "product-not-found");
                    return false;
                }
                succeeded(&shop.settled(user, answer.job_id()).await);
                true
            });
            let within = hearing.known_within();
            let known = timeout(within, through).await;
            assert!(known.is_ok(), "still gone after {within:?}");
        }
        is_shown(shop, apis, 2, false, hearing.known_within()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn added_stock_is_sold() {
    stock_is_added(Everything).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn added_stock_is_sold_without_redis() {
    stock_is_added(Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_is_sold() {
    an_order_is_cancelled(Everything).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_is_sold_though_no_worker_is_heard() {
    an_order_is_cancelled(NoWorker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_is_sold_without_redis() {
    an_order_is_cancelled(Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_total_is_issued() {
    a_total_is_raised(Everything).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_total_is_issued_without_redis() {
    a_total_is_raised(Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_product_is_sold() {
    a_product_is_restored(Everything).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_product_is_sold_without_redis() {
    a_product_is_restored(Nothing).await;
}
