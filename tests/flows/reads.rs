//! Reads that anyone can ask for, as often as they like: what they may cost.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use firstcome_contract::ids::MAX_ID;
use futures_util::{StreamExt, stream};
use redis::AsyncTypedCommands;
use reqwest::Method;
use serde_json::Value;

use firstcome_tests::{Answer, Options, Shop, eventually, shop};

/// So many requests at a time.
const CONCURRENCY: usize = 32;

async fn get(shop: &Shop, path: &str) -> Answer {
    Answer::of(shop.anonymous(Method::GET, path)).await
}

async fn storm(shop: &Shop, paths: impl IntoIterator<Item = String>) -> Vec<Answer> {
    let answers = stream::iter(paths).map(async |path: String| get(shop, &path).await);
    answers.buffer_unordered(CONCURRENCY).collect().await
}

fn cursor(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// Bytes of the pages of products in Redis, and how many there are.
async fn kept(shop: &Shop) -> (usize, usize) {
    let client = redis::Client::open(shop.redis.direct.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let pages = redis.hgetall(format!("{}:product-pages", shop.namespace)).await.unwrap();
    (pages.values().map(String::len).sum(), pages.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_fill_redis() {
    shop(Options::default(), async |shop| {
        let forged =
            (1..=100).map(|n| format!("/api/products?cursor={}", cursor(&format!("-{n}"))));
        for answer in storm(shop, forged).await {
            answer.is_problem(400, "validation-failed");
        }
        // Ids far apart, so that each cursor in between would be a page of its own.
        shop.sql(
            "INSERT INTO products (id, name, price, stock, stocked)
             SELECT id, 'Product ' || id, 1, 1, 1 FROM generate_series(1000, 1000000, 10000) AS id",
        )
        .await;
        let next = |limit: i64, after: i64| {
            format!("/api/products?limit={limit}&cursor={}", cursor(&after.to_string()))
        };
        let beyond = (0..600).map(|n| next(20, MAX_ID - n));
        let between = (1..=700).map(|n| next(1 + n % 100, n * 1_300));
        let default = (1..=700).map(|n| next(20, n * 1_350));
        for answer in storm(shop, beyond.chain(between).chain(default)).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        // The pages that everyone opens are kept nevertheless.
        let first = get(shop, "/api/products").await.body;
        shop.sql("UPDATE products SET stock = 0, stocked = 0 WHERE id = 1").await;
        assert_eq!(get(shop, "/api/products").await.body, first);
        let (bytes, pages) = kept(shop).await;
        assert!(pages <= 600 && bytes < 3_000_000, "{pages} pages, {bytes} bytes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_are_taken_only_as_they_were_given() {
    shop(Options::default(), async |shop| {
        let lists = [
            "/api/products",
            "/api/coupons",
            "/api/users/coupons",
            "/api/users/orders",
            "/api/users/balance/history",
            "/api/admin/dead-letters",
        ];
        let forged = ["-1", "0", "+1", "01", " 1", "1e3", "9223372036854775808"].map(cursor);
        // "5" with bits that belong to nothing, and padded.
        let forged = forged.into_iter().chain(["NR", "NQ=="].map(str::to_owned));
        for forged in forged.collect::<Vec<_>>() {
            for list in lists {
                let request = shop.admin(Method::GET, &format!("{list}?cursor={forged}"));
                let answer = Answer::of(request).await;
                answer.is_problem(400, "validation-failed");
                assert_eq!(answer.body["errors"][0]["field"], "cursor", "{list} {forged}");
            }
        }
        assert_eq!(get(shop, &format!("/api/products?cursor={}", cursor("5"))).await.status, 200);
    })
    .await;
}

fn generated(answers: &[Answer]) -> BTreeSet<&str> {
    answers
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.body["generatedAt"].as_str().unwrap()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_what_is_popular_is_worked_out_once() {
    shop(Options::default(), async |shop| {
        let api = shop.start_api(|config| config.popular_ttl = 60).await;
        let popular = format!("{}/api/products/popular", api.url);
        shop.redis.proxy.cut();
        let answers = storm(shop, std::iter::repeat_n(popular, 200)).await;
        // Twice at most: when Redis went, and once for what was known then.
        let generated = generated(&answers);
        assert!(generated.len() <= 2, "{generated:?}");
        api.stop().await;
    })
    .await;
}

/// Nobody waits behind those who find out that the database is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_is_given_at_once() {
    shop(Options::default(), async |shop| {
        // This process has not worked it out itself: it was told by Redis.
        get(shop, "/api/products/popular").await;
        let api = shop.start_api(|config| config.popular_ttl = 1).await;
        let popular = format!("{}/api/products/popular", api.url);
        let known = get(shop, &popular).await.body;
        // The database takes connections and answers nothing.
        let mut lock = shop.pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE product_sales").execute(&mut *lock).await.unwrap();
        shop.redis.proxy.cut();
        eventually("it is renewed, and waits", async || {
            get(shop, &popular).await.took.as_millis() > 500
        })
        .await;
        let answers = storm(shop, std::iter::repeat_n(popular, 100)).await;
        assert_eq!(answers.iter().map(|answer| answer.status).max(), Some(200));
        let slow = answers.iter().filter(|answer| answer.took.as_millis() > 500).count();
        // Whoever has the turn to renew it; one turn after the other.
        assert!(slow <= 2, "{slow} of 100 waited");
        assert!(generated(&answers).contains(known["generatedAt"].as_str().unwrap()));
        lock.rollback().await.unwrap();
        api.stop().await;
    })
    .await;
}

/// However many ask for one thing, they take one connection to the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_on_one_row_leaves_the_database_to_others() {
    shop(Options::default(), async |shop| {
        let (coupon, product) = ("/api/coupons/1", "/api/products/1");
        for (table, asked_for, other) in [
            ("coupons", coupon, product),
            ("products", product, coupon),
            ("balances", "/api/balance/7", product),
        ] {
            let mut lock = shop.pool.begin().await.unwrap();
            let statement = format!("LOCK TABLE {table}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *lock).await.unwrap();
            let storm = async {
                let requests = std::iter::repeat_n(asked_for, 100);
                let answers = stream::iter(requests).map(|path| Answer::of(shop.get(7, path)));
                answers.buffer_unordered(100).collect::<Vec<_>>().await
            };
            let others = async {
                for _ in 0..20 {
                    assert_eq!(get(shop, other).await.status, 200, "while {table} is locked");
                }
                lock.rollback().await.unwrap();
            };
            let (answers, ()) = tokio::join!(storm, others);
            assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        }
    })
    .await;
}

/// A look-up that is shared shows what was committed before it was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn shared_look_ups_are_exact() {
    shop(Options::default(), async |shop| {
        let storm = async {
            stream::iter(0..2_000)
                .map(async |_| get(shop, "/api/products/1").await)
                .buffer_unordered(CONCURRENCY)
                .for_each(async |answer| assert_eq!(answer.status, 200))
                .await;
        };
        let reads = async {
            for stock in 0..200_i64 {
                sqlx::query("UPDATE products SET stock = $1, stocked = $1 WHERE id = 1")
                    .bind(stock)
                    .execute(&shop.pool)
                    .await
                    .unwrap();
                let read = get(shop, "/api/products/1").await.body;
                let expected: (Value, Value) = (stock.into(), (stock == 0).into());
                assert_eq!((&read["stock"], &read["soldOut"]), (&expected.0, &expected.1));
            }
        };
        tokio::join!(storm, reads);
        get(shop, "/api/products/101").await.is_problem(404, "product-not-found");
        Answer::of(shop.get(99, "/api/balance/99")).await.is_problem(404, "user-not-found");
    })
    .await;
}
