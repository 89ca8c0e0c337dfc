//! The incident is seen: what waits, since when, and who waits where, while whoever should settle it hangs,
//! is gone, or cannot reach anything.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::metrics::Watched;
use firstcome_tests::{Answer, Options, Shop, eventually, shop, with_database};

/// Jobs that wait.
const JOBS: i64 = 300;
/// How old what is told may be.
const TRUTH: Duration = Duration::from_secs(1);

fn options() -> Options {
    Options { users: JOBS, partitions: 2, worker: false, ..Options::default() }
}

pub(super) async fn lines(shop: &Shop) -> Vec<Value> {
    let answer = Answer::of(shop.admin(Method::GET, "/api/admin/queues")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["items"].as_array().unwrap().clone()
}

fn sum(lines: &[Value], figure: &str) -> i64 {
    lines.iter().map(|line| line[figure].as_i64().unwrap()).sum()
}

fn oldest(lines: &[Value]) -> i64 {
    lines.iter().map(|line| line["oldestSeconds"].as_i64().unwrap()).max().unwrap()
}

pub(super) async fn metric(shop: &Shop, name: &str) -> f64 {
    let request = shop.anonymous(Method::GET, "/metrics");
    let text = request.send().await.unwrap().text().await.unwrap();
    let of = text.lines().filter(|line| line.starts_with(&format!("firstcome_{name}{{")));
    of.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// So many jobs, one after the other, in the order of the users.
async fn submit(shop: &Shop, coupon: i64) -> Vec<String> {
    let mut jobs = Vec::new();
    for user in 1..=JOBS {
        jobs.push(shop.accepted_issue(user, coupon).await);
    }
    jobs
}

/// Looks for so long: every look says that all of them wait, how long the first one has, and to each of
/// them its place and to come back later.
async fn told(shop: &Shop, jobs: &[String], since: Instant, how_long: Duration) {
    let (began, mut looks) = (Instant::now(), 0);
    while began.elapsed() < how_long {
        let lines = lines(shop).await;
        assert_eq!(sum(&lines, "waitingJobs"), JOBS, "{lines:?}");
        let age = since.elapsed().as_secs().cast_signed();
        let told = oldest(&lines);
        assert!((age - 1..=age + 1).contains(&told), "{told} instead of {age}: {lines:?}");
        for user in [1, 2, 50, 150, 299, 300] {
            let job = &jobs[usize::try_from(user - 1).unwrap()];
            let poll = shop.poll(user, job, 0).await;
            assert_eq!(poll.body["status"], "queued", "{poll:?}");
            let place = poll.body["position"].as_i64().unwrap();
            // Some are submitted in the same millisecond as others.
            assert!((place - user).abs() <= 5, "{user}: {poll:?}");
            assert!(poll.retry_after() >= 1, "{poll:?}");
        }
        looks += 1;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(looks >= 5, "{looks}");
}

/// The only worker hangs with all of it prefetched: the broker has nothing left to tell.
#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_of_a_hung_worker_is_told_and_moves_to_the_next_one() {
    shop(options(), async |shop| {
        let coupon = shop.campaign(JOBS).await;
        let hung = Watched::start(shop, "coupons", Vec::new());
        hung.becomes_ready(shop).await;
        hung.process.signal("STOP").await.unwrap();
        let since = Instant::now();
        let jobs = submit(shop, coupon).await;
        tokio::time::sleep(TRUTH).await;
        told(shop, &jobs, since, Duration::from_secs(20)).await;
        let all = lines(shop).await;
        let stalled = all.iter().filter(|line| line["family"] == "coupon");
        for line in stalled {
            assert_eq!(line["state"], "stalled", "{line}");
            assert!(line["owner"].is_string(), "{line}");
            assert_eq!(line["lastKnown"], serde_json::json!([]), "{line}");
        }
        // In its hands, or by now the broker's again.
        assert!(sum(&all, "unacked") + sum(&all, "ready") > 0, "{all:?}");
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let jobs_waiting = JOBS as f64;
        assert_eq!(metric(shop, "line_waiting_jobs").await, jobs_waiting);
        assert_eq!(metric(shop, "line_stalled").await, 2.0 * 2.0, "nobody serves orders at all");

        let healthy = Watched::start(shop, "coupons", Vec::new());
        let moving = Instant::now();
        shop.settle_and_audit().await;
        assert!(moving.elapsed() < Duration::from_secs(15), "{:?}", moving.elapsed());
        eventually("nothing waits", async || sum(&lines(shop).await, "waitingJobs") == 0).await;
        hung.process.signal("CONT").await.unwrap();
        for worker in [hung, healthy] {
            assert!(worker.process.stop().await.unwrap().success());
        }
    })
    .await;
}

/// A worker that is killed is gone at once; what it had in hand is still there.
#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_is_told_while_nobody_serves_the_line() {
    shop(options(), async |shop| {
        let coupon = shop.campaign(JOBS).await;
        let killed = Watched::start(shop, "coupons", Vec::new());
        killed.becomes_ready(shop).await;
        killed.process.signal("STOP").await.unwrap();
        let since = Instant::now();
        let jobs = submit(shop, coupon).await;
        killed.process.kill().await.unwrap();
        tokio::time::sleep(TRUTH).await;
        told(shop, &jobs, since, Duration::from_secs(8)).await;

        // Another API, that saw none of it come, says the same.
        let other = shop.start_api(|_| {}).await;
        let queues = format!("{}/api/admin/queues", other.url);
        let there = Answer::of(shop.admin(Method::GET, &queues)).await;
        let there = there.body["items"].as_array().unwrap().clone();
        assert_eq!(sum(&there, "waitingJobs"), JOBS, "{there:?}");
        let age = since.elapsed().as_secs().cast_signed();
        assert!((oldest(&there) - age).abs() <= 1, "{there:?}");
        let poll = format!("{}/api/jobs/{}", other.url, jobs[199]);
        let place = Answer::of(shop.get(200, &poll)).await.body["position"].as_i64().unwrap();
        assert!((place - 200).abs() <= 5, "{place}");
        other.stop().await;
        shop.start_worker();
    })
    .await;
}

/// Without the database nothing is settled, and jobs are accepted: told as what it is, the last known, and
/// what came since.
#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_is_told_while_the_database_is_away() {
    shop(options(), async |shop| {
        let coupon = shop.campaign(JOBS).await;
        shop.start_worker();
        shop.accepted_issue(JOBS, coupon).await;
        shop.settle_and_audit().await;
        eventually("the line is known", async || {
            sum(&lines(shop).await, "waitingJobs") == 0
                && lines(shop).await.iter().all(|line| line["state"] == "open")
        })
        .await;
        shop.database.proxy.cut();
        let since = Instant::now();
        let mut jobs = Vec::new();
        for user in 1..=60 {
            jobs.push(shop.accepted_issue(user, coupon).await);
        }
        while since.elapsed() < Duration::from_secs(8) {
            let lines = lines(shop).await;
            assert_eq!(sum(&lines, "waitingJobs"), 60, "{lines:?}");
            let age = since.elapsed().as_secs().cast_signed();
            assert!((oldest(&lines) - age).abs() <= 1, "{age}: {lines:?}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let now = lines(shop).await;
        assert!(
            now.iter().all(|line| line["lastKnown"] == serde_json::json!(["database"])),
            "{now:?}"
        );
        // Whether a job is settled nobody can say; where it stood, as what was known last.
        for (place, job) in (1..).zip(&jobs).step_by(20) {
            let poll = shop.poll(place, job, 0).await;
            poll.is_problem(503, "database-unavailable");
            let told = poll.body["lastKnown"]["position"].as_i64().unwrap_or_default();
            assert!((told - place).abs() <= 3, "{place}: {poll:?}");
            assert!(poll.retry_after() >= 1, "{poll:?}");
        }
        // It accepts, so it stays in rotation, and says what is missing.
        let ready = Answer::of(shop.anonymous(Method::GET, "/health/ready")).await;
        assert_eq!(
            (ready.status, &ready.body["database"]),
            (200, &Value::Bool(false)),
            "{ready:?}"
        );
        assert!(ready.took < Duration::from_millis(200), "{ready:?}");
        shop.database.proxy.restore();
        shop.settle_and_audit().await;
        eventually("nothing waits", async || {
            let lines = lines(shop).await;
            sum(&lines, "waitingJobs") == 0
                && lines.iter().all(|line| line["lastKnown"] == serde_json::json!([]))
        })
        .await;
    })
    .await;
}

/// Without the broker nothing comes in or out.
#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_is_told_while_the_broker_is_away() {
    shop(options(), async |shop| {
        let coupon = shop.campaign(JOBS).await;
        let since = Instant::now();
        let jobs = submit(shop, coupon).await;
        eventually("the broker has told", async || sum(&lines(shop).await, "ready") > 0).await;
        shop.broker.proxy.cut();
        told(shop, &jobs, since, Duration::from_secs(6)).await;
        let now = lines(shop).await;
        assert!(
            now.iter().all(|line| line["lastKnown"] == serde_json::json!(["broker"])),
            "{now:?}"
        );
        shop.broker.proxy.restore();
        shop.start_worker();
    })
    .await;
}

/// What was miscounted is put right, in a line that is calm and in one that never is: an API that is killed
/// has not told of its last jobs.
#[tokio::test(flavor = "multi_thread")]
async fn miscounts_are_put_right() {
    shop(Options { users: 3_000, partitions: 1, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(3_000).await;
        let is_right = async || {
            let right: bool = sqlx::query_scalar(
                "SELECT COALESCE(bool_and(abs(folded + arrived - progress.settled) <= 50), false)
                 FROM line_reports JOIN line_progress AS progress USING (family, generation, line)
                 CROSS JOIN LATERAL (SELECT COALESCE(sum(jobs), 0)::bigint AS arrived FROM line_arrivals AS a
                                     WHERE (a.kind, a.generation, a.line) = (progress.kind, progress.generation, progress.line)) AS a",
            )
            .fetch_one(&shop.pool)
            .await
            .unwrap();
            right
        };
        let miscounts = [
            "UPDATE line_reports SET folded = folded + 1000",
            "UPDATE line_progress SET settled = settled + 5000",
        ];
        let over = std::sync::atomic::AtomicBool::new(false);
        let customers = async {
            let mut user = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                user += 1;
                shop.accepted_issue(user, coupon).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let busy = async {
            eventually("some are settled", is_right).await;
            for miscount in miscounts {
                shop.sql(miscount).await;
                assert!(!is_right().await);
                eventually("it is right again", is_right).await;
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        tokio::join!(customers, busy);
        shop.settle_and_audit().await;
        for miscount in miscounts {
            shop.sql(miscount).await;
            eventually("nothing waits", async || {
                is_right().await && sum(&lines(shop).await, "waitingJobs") == 0
            })
            .await;
        }
    })
    .await;
}

/// What an API tells again, because it did not hear that it was understood, counts once; and one that stops
/// tells everything before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_again_counts_once() {
    shop(options(), async |shop| {
        let coupon = shop.campaign(JOBS).await;
        let other = shop.start_api(|_| {}).await;
        let path = format!("{}/api/coupons/{coupon}/issue", other.url);
        for user in 1..=20 {
            let answer = shop.submit(user, shop.post(user, &path)).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            if user % 5 == 0 {
                // The answers are lost, what was asked is not.
                shop.database.proxy.freeze();
                tokio::time::sleep(Duration::from_millis(700)).await;
                shop.database.proxy.restore();
            }
        }
        other.stop().await;
        eventually("all are told", async || sum(&lines(shop).await, "waitingJobs") >= 20).await;
        tokio::time::sleep(TRUTH).await;
        assert_eq!(sum(&lines(shop).await, "waitingJobs"), 20);
        shop.start_worker();
    })
    .await;
}

/// Wrong set-ups are named where an operator looks first.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_set_up_is_named() {
    shop(Options::default(), async |shop| {
        let named = async |api: &str, what: &str| {
            let mut last = String::new();
            let ready = format!("{api}/health/ready");
            eventually("it is named", async || {
                let answer = Answer::of(shop.anonymous(Method::GET, &ready)).await;
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
                last = answer.body["faults"].to_string();
                // It is connected, and says so.
                last.contains(what) && answer.body["broker"] == true
            })
            .await;
        };
        let elsewhere = shop
            .start_unready_api(|config| {
                config.broker.queue_namespace = format!("{}_elsewhere", shop.namespace);
            })
            .await;
        named(&elsewhere.url, "QUEUE_NAMESPACE").await;
        elsewhere.stop().await;

        // Every server has it, and nobody keeps anything in it.
        let empty = with_database(&shop.options.services.database_url, "postgres");
        let unmigrated = shop.start_unready_api(|config| config.database_url = empty).await;
        named(&unmigrated.url, "firstcome-worker migrate").await;
        unmigrated.stop().await;
    })
    .await;
}
