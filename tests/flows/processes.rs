//! The real programs, killed.

use std::{path::PathBuf, time::Duration};

use firstcome_rig::{Process, binary};
use futures_util::{StreamExt, stream};
use serde_json::json;

use firstcome_tests::{Answer, DEADLINE, Options, Shop, eventually, shop};

pub(super) fn log(shop: &Shop) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", shop.namespace))
}

pub(super) fn environment(shop: &Shop, port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("DATABASE_URL", shop.database.direct.clone()),
        ("AMQP_URL", shop.broker.direct.clone()),
        ("REDIS_URL", shop.redis.direct.clone()),
        ("QUEUE_NAMESPACE", shop.namespace.clone()),
        ("API_ADDR", format!("127.0.0.1:{port}")),
        ("FIRSTCOME_DEV", "true".to_owned()),
        // Nobody is sent to them by their readiness.
        ("DRAIN_SECONDS", "0".to_owned()),
    ]
}

pub(super) fn worker(shop: &Shop) -> Process {
    Process::start("firstcome-worker", &["all"], environment(shop, 0), &log(shop)).unwrap()
}

/// Kills one worker after the other; the last one lives.
async fn kill_workers(shop: &Shop) -> Process {
    for pause in [300, 50, 500, 150, 250] {
        let worker = worker(shop);
        // Long enough to connect and be in the middle of it.
        tokio::time::sleep(Duration::from_millis(400 + pause)).await;
        worker.kill().await.unwrap();
    }
    worker(shop)
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(super) async fn api(shop: &Shop, port: u16) -> Process {
    api_with(shop, port, &[]).await
}

/// One with other settings.
pub(super) async fn api_with(
    shop: &Shop,
    port: u16,
    settings: &[(&'static str, String)],
) -> Process {
    let variables = environment(shop, port).into_iter().chain(settings.iter().cloned());
    let api = Process::start("firstcome-api", &["serve"], variables, &log(shop)).unwrap();
    let ready = format!("http://127.0.0.1:{port}/health/ready");
    eventually("the API process is ready", async || {
        shop.anonymous(reqwest::Method::GET, &ready)
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_forget_nothing_and_do_nothing_twice() {
    let options = Options { users: 2_000, partitions: 4, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupons =
            [shop.campaign(300).await, shop.campaign(2_000).await, shop.campaign(700).await];
        let drop = shop.storm(
            (0..8_000i64).map(|n| (n % 2_000 + 1, coupons[usize::try_from(n).unwrap() % 3])),
            64,
        );
        let (answers, last) = tokio::join!(drop, kill_workers(shop));
        assert!(
            answers.iter().all(|answer| answer.status == 202 || answer.code() == "coupon-sold-out")
        );
        shop.settle_and_audit().await;
        let outcomes = shop.outcomes().await;
        let known = ["succeeded", "coupon-already-issued", "coupon-sold-out"];
        assert!(outcomes.keys().all(|code| known.contains(&code.as_str())), "{outcomes:?}");
        assert!(last.stop().await.unwrap().success());
    })
    .await;
}

/// The same for orders, up to the statistics: nobody pays twice, nothing is sold or counted twice.
#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_sell_and_count_every_order_once() {
    let options = Options { users: 500, partitions: 4, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let orders: Vec<(i64, serde_json::Value)> = (0..3_000)
            .map(|n| {
                let items = [n % 9 + 1, n % 7 + 10].map(|product| json!({"productId": product, "quantity": n % 3 + 1}));
                (n % 500 + 1, json!({"items": items}))
            })
            .collect();
        let sale = stream::iter(&orders).map(|(user, order)| shop.order(*user, order));
        let sale = sale.buffer_unordered(32).collect::<Vec<Answer>>();
        let (answers, last) = tokio::join!(sale, kill_workers(shop));
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        super::events::counted(shop).await;
        let outcomes = shop.outcomes().await;
        assert_eq!(outcomes.values().sum::<i64>(), 3_000, "{outcomes:?}");
        let known = ["succeeded", "insufficient-balance"];
        assert!(outcomes.keys().all(|code| known.contains(&code.as_str())), "{outcomes:?}");
        let (sold, counted): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT sum(quantity)::bigint FROM order_items), (SELECT sum(quantity)::bigint FROM product_sales)",
        )
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        assert_eq!(sold, counted);
        assert!(last.stop().await.unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_api_forgets_no_accepted_request() {
    let options = Options { users: 8_000, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(6_000).await;
        let port = free_port();
        let running = api(shop, port).await;
        let url = format!("http://127.0.0.1:{port}/api/coupons/{coupon}/issue");
        let clients = futures_util::future::join_all((0..32).map(async |client| {
            let mut unanswered = 0;
            for user in (1..=8_000).filter(|user| user % 32 == client) {
                // A client that gets no answer does not know, and tries again.
                for _attempt in 0..200 {
                    match shop.try_submit(user, shop.post(user, &url)).await {
                        Ok(answer) => {
                            assert!([202, 409, 503].contains(&answer.status), "{answer:?}");
                            break;
                        }
                        Err(_) => {
                            unanswered += 1;
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
            }
            unanswered
        }));
        let killing = async {
            eventually("the drop is on", async || shop.accepted_ids().len() > 200).await;
            running.kill().await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            api(shop, port).await
        };
        let (unanswered, again) = tokio::join!(clients, killing);
        assert!(unanswered.iter().sum::<i32>() > 0, "the kill came too late to be noticed");
        shop.settle_and_audit().await;
        // The new process answers for what the old one accepted.
        let (job, user): (uuid::Uuid, i64) =
            sqlx::query_as("SELECT job_id, user_id FROM job_outcomes ORDER BY job_id LIMIT 1")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
        let answer =
            Answer::of(shop.get(user, &format!("http://127.0.0.1:{port}/api/jobs/{job}"))).await;
        assert_eq!(answer.status, 200);
        assert_ne!(answer.body["status"], "queued");
        assert!(again.stop().await.unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_the_batch_in_hand_settles_and_the_exit_code_is_0() {
    let options = Options { users: 3_000, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(3_000).await;
        shop.storm((1..=3_000).map(|user| (user, coupon)), 64).await;
        let stopped = worker(shop);
        eventually("the worker is at it", async || !shop.outcomes().await.is_empty()).await;
        assert!(stopped.stop().await.unwrap().success());
        let rest = worker(shop);
        shop.settle_and_audit().await;
        assert!(rest.stop().await.unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_zone_that_nobody_knows_is_refused_at_the_start() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        for (program, command) in
            [("firstcome-api", "serve"), ("firstcome-worker", "update-sales-stats")]
        {
            let started = tokio::process::Command::new(binary(program).unwrap())
                .arg(command)
                .envs(environment(shop, 0))
                .env("BUSINESS_TIME_ZONE", "Asia/Soul")
                .kill_on_drop(true)
                .output();
            let ended = tokio::time::timeout(DEADLINE, started).await.unwrap().unwrap();
            let told = String::from_utf8(ended.stderr).unwrap();
            assert!(!ended.status.success() && told.contains("BUSINESS_TIME_ZONE"), "{told}");
            assert!(told.contains("Asia/Soul") && told.contains("pg_timezone_names"), "{told}");
        }
    })
    .await;
}

/// Kilobytes of memory that the process holds (`VmRSS`).
fn memory(process: &Process) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Thousands of refused requests leave nothing behind in the API.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_line_takes_no_memory_of_the_api() {
    let options = Options { users: 20_000, partitions: 1, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(1_000_000).await;
        let port = free_port();
        let settings = [("LINE_CAPACITY", "500".to_owned()), ("RATE_LIMIT", "0".to_owned())];
        let api = api_with(shop, port, &settings).await;
        let url = format!("http://127.0.0.1:{port}/api/coupons/{coupon}/issue");
        let storm = async |users: std::ops::Range<i64>| {
            let requests = users.map(|user| shop.submit(user, shop.post(user, &url)));
            let answers: Vec<Answer> = stream::iter(requests).buffer_unordered(64).collect().await;
            for answer in answers.iter().filter(|answer| answer.status != 202) {
                answer.is_problem(503, "line-full");
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
            }
            answers.iter().filter(|answer| answer.status == 202).count()
        };
        assert!(storm(1..5_000).await > 0);
        let before = memory(&api);
        assert_eq!(storm(5_000..20_000).await, 0, "the line is full");
        let after = memory(&api);
        assert!(after < before + 10_000, "{before} kB before, {after} kB after");
        let worker = worker(shop);
        shop.settle_and_audit().await;
        for process in [worker, api] {
            assert!(process.stop().await.unwrap().success());
        }
    })
    .await;
}
