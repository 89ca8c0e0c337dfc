//! The version before and this one, side by side, as while a deployment rolls: `scripts/upgrade-test` builds
//! the older programs.

use std::path::{Path, PathBuf};

use firstcome_contract::line::Naming;
use firstcome_rig::Process;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::json;

use super::processes::{environment, free_port, log};
use firstcome_tests::{Answer, Options, Shop, eventually, sale::succeeded, shop};

const USERS: i64 = 600;
const JOBS: i64 = 1_200;

fn start(shop: &Shop, folder: &Path, program: &str, command: &str, port: u16) -> Process {
    let program = folder.join(program);
    Process::start(program.to_str().unwrap(), &[command], environment(shop, port), &log(shop))
        .unwrap()
}

async fn older_api(shop: &Shop, folder: &Path) -> (Process, String) {
    let port = free_port();
    let api = start(shop, folder, "firstcome-api", "serve", port);
    let url = format!("http://127.0.0.1:{port}");
    eventually("the older API is ready", async || is_ready(shop, &url).await).await;
    (api, url)
}

/// Coupons and orders, every other one at each API, with a key each; asks for each outcome at the other.
async fn sale(shop: &Shop, coupon: i64, product: i64, apis: [&str; 2], round: i64) {
    let requests = stream::iter(0..JOBS).map(async |n| {
        let (user, which) = (n % USERS + 1, usize::try_from(n % 2).unwrap());
        let (here, there) = (apis[which], apis[1 - which]);
        let submit = async |api: &str| {
            let request = if n % 3 == 0 {
                let items = json!({"items": [{"productId": product, "quantity": 1}]});
                shop.post(user, &format!("{api}/api/orders")).json(&items)
            } else {
                shop.post(user, &format!("{api}/api/coupons/{coupon}/issue"))
            };
            shop.submit(user, request.header("Idempotency-Key", format!("{round}-{n}"))).await
        };
        let answer = submit(here).await;
        assert!([202, 409].contains(&answer.status), "{answer:?}");
        if answer.status == 202 {
            // The same request is the same one for either.
            assert_eq!(submit(there).await.job_id(), answer.job_id());
            let job = format!("{there}/api/jobs/{}", answer.job_id());
            let poll = Answer::of(shop.get(user, &job).header("Prefer", "wait=30")).await;
            assert_eq!(poll.status, 200, "{poll:?}");
            assert!(
                ["succeeded", "rejected"].contains(&poll.body["status"].as_str().unwrap()),
                "{poll:?}"
            );
        }
    });
    requests.buffer_unordered(32).collect::<Vec<()>>().await;
}

/// Whether all new jobs go into lines that are named so, each of them open, and all others are drained.
async fn all_are_named(shop: &Shop, naming: Naming) -> bool {
    let (current, others): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE l.generation = routing.generation AND naming = $1 AND opened_at IS NOT NULL),
                count(*) FILTER (WHERE naming <> $1 AND drained_at IS NULL
                                 OR l.generation = routing.generation AND opened_at IS NULL)
         FROM partition_leases AS l JOIN routing USING (family)",
    )
    .bind(naming.as_str())
    .fetch_one(&shop.pool)
    .await
    .unwrap();
    current > 0 && others == 0
}

async fn named(shop: &Shop, naming: Naming) {
    let what = format!("the lines are named after their {}", naming.as_str());
    eventually(&what, async || all_are_named(shop, naming).await).await;
}

/// Units, by the statistics.
async fn sold(shop: &Shop) -> i64 {
    sqlx::query_scalar("SELECT sum(quantity)::bigint FROM product_sales")
        .fetch_one(&shop.pool)
        .await
        .unwrap()
}

async fn is_ready(shop: &Shop, api: &str) -> bool {
    let ready = shop.anonymous(Method::GET, &format!("{api}/health/ready"));
    ready.send().await.is_ok_and(|answer| answer.status() == 200)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the programs of an older version: make upgrade-test"]
async fn two_versions_serve_one_sale() {
    let folder = std::env::var("FIRSTCOME_OLDER").map(PathBuf::from);
    let folder = folder.expect("run it with `make upgrade-test`");
    let options =
        Options { users: USERS, partitions: 4, worker: false, lines: false, ..Options::default() };
    shop(options, async |shop| {
        // The schema is the newer one: `migrate` comes first. The lines are of the older programs.
        let older_worker = start(shop, &folder, "firstcome-worker", "all", 0);
        let (older_api, older) = older_api(shop, &folder).await;
        let newer = shop.api.url.clone();
        eventually("the newer API is ready", async || is_ready(shop, &newer).await).await;
        let coupon = shop.campaign(USERS).await;
        let product = shop.product(1, 5 * JOBS).await;
        sale(shop, coupon, product, [&older, &newer], 1).await;
        // Both share the lines, while these change.
        shop.start_worker();
        let path = format!("/api/admin/pins/coupon/{coupon}");
        assert_eq!(Answer::of(shop.admin(Method::PUT, &path)).await.status, 200);
        sale(shop, coupon, product, [&older, &newer], 2).await;
        assert!(all_are_named(shop, Naming::Kind).await, "the older worker knows no other");
        // Without the older worker the lines get their new names, while the sale goes on.
        let takeover = async {
            assert!(older_worker.stop().await.unwrap().success());
            named(shop, Naming::Family).await;
        };
        tokio::join!(takeover, sale(shop, coupon, product, [&newer, &older], 3));
        sale(shop, coupon, product, [&newer, &older], 4).await;
        assert!(is_ready(shop, &older).await, "there is a queue that the older API knows");
        // The deployment is rolled back: the lines get their former names, and the older worker serves them alone.
        let older_worker = start(shop, &folder, "firstcome-worker", "all", 0);
        let rollback = async {
            named(shop, Naming::Kind).await;
            shop.stop_workers().await;
        };
        tokio::join!(rollback, sale(shop, coupon, product, [&older, &newer], 5));
        assert!(older_worker.stop().await.unwrap().success());
        shop.start_worker();
        assert!(older_api.stop().await.unwrap().success());
        named(shop, Naming::Family).await;
        super::events::counted(shop).await;
        let outcomes = shop.outcomes().await;
        let known = ["succeeded", "coupon-already-issued", "coupon-sold-out"];
        assert!(outcomes.keys().all(|code| known.contains(&code.as_str())), "{outcomes:?}");
        // Two of three requests are for a coupon, again and again by the same two of three users.
        assert_eq!(outcomes["succeeded"], USERS / 3 * 2 + 5 * JOBS / 3, "{outcomes:?}");
        // What the older worker has sold is taken back, and counted once, whoever told of it.
        assert_eq!(sold(shop).await, 5 * JOBS / 3);
        let (order, user): (i64, i64) =
            sqlx::query_as("SELECT id, user_id FROM orders ORDER BY id LIMIT 1")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
        succeeded(&shop.cancelled(user, order).await);
        super::events::counted(shop).await;
        assert_eq!(sold(shop).await, 5 * JOBS / 3 - 1);
    })
    .await;
}
