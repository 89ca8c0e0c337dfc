//! Dead letters: listed, given another attempt, forgotten.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use firstcome_broker::{connect, topology};
use firstcome_rig::binary;
use lapin::options::{BasicGetOptions, BasicRejectOptions};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{events::counted, retention::redeliver_event};
use firstcome_tests::{Answer, Options, Shop, eventually, shop};

async fn letters(shop: &Shop) -> Vec<Value> {
    let answer = Answer::of(shop.admin(Method::GET, "/api/admin/dead-letters")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["items"].as_array().unwrap().clone()
}

async fn redrive(shop: &Shop, what: &str) -> Answer {
    Answer::of(shop.admin(Method::POST, &format!("/api/admin/dead-letters/{what}"))).await
}

/// User 42's coupons are refused by the database until [`heal`].
async fn poison(shop: &Shop) {
    shop.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF NEW.user_id = 42 THEN RAISE EXCEPTION ''user 42 is poison''; END IF; RETURN NEW; END';
         CREATE TRIGGER refuse BEFORE INSERT ON user_coupons FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
}

async fn heal(shop: &Shop) {
    shop.sql("DROP FUNCTION refuse CASCADE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_job_keeps_its_id_and_its_single_outcome() {
    shop(Options { users: 50, ..Options::default() }, async |shop| {
        poison(shop).await;
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(42, coupon).await;
        assert_eq!(shop.settled(42, &job).await["status"], "failed");
        let letter = letters(shop).await.pop().unwrap();
        assert_eq!((&letter["jobId"], &letter["userId"]), (&json!(job), &json!(42)));
        assert!(letter["reason"].as_str().unwrap().contains("user 42 is poison"), "{letter}");

        // Still poison: another dead letter, the same outcome.
        let asked = redrive(shop, &format!("{}/redrive", letter["id"])).await;
        assert_eq!((asked.status, &asked.body["requested"]), (202, &json!(1)));
        eventually("it failed once more", async || {
            let letters = letters(shop).await;
            letters.len() == 1 && letters[0]["id"] != letter["id"]
        })
        .await;
        assert_eq!(shop.settled(42, &job).await["error"]["code"], "job-unprocessable");
        // What was tried before counts.
        let again = letters(shop).await.pop().unwrap();
        assert_eq!((&letter["attempts"], &again["attempts"]), (&json!(1), &json!(2)));

        heal(shop).await;
        assert_eq!(redrive(shop, "redrive").await.body["requested"], 1);
        // Failed until it succeeds, and never queued again.
        eventually("it succeeds", async || {
            let polled = shop.poll(42, &job, 0).await;
            assert_ne!(polled.body["status"], "queued", "{polled:?}");
            polled.body["status"] == "succeeded"
        })
        .await;
        eventually("no letter is left", async || letters(shop).await.is_empty()).await;
        let outcomes: i64 = sqlx::query_scalar("SELECT count(*) FROM job_outcomes")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(outcomes, 1);
    })
    .await;
}

/// A name that we made is nobody's, and so tells nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_tells_what_the_client_called_its_request() {
    shop(Options { users: 50, ..Options::default() }, async |shop| {
        poison(shop).await;
        let coupon = shop.campaign(10).await;
        let issue = |name: Option<&str>| {
            let request = shop.post(42, &format!("/api/coupons/{coupon}/issue"));
            name.into_iter().fold(request, |request, name| request.header("X-Request-Id", name))
        };
        for (name, told) in [
            (Some("edge/1~\"x\""), json!("edge/1~\"x\"")),
            (Some("two words"), json!(null)),
            (None, json!(null)),
        ] {
            let accepted = shop.submit(42, issue(name)).await;
            assert_eq!(accepted.status, 202, "{accepted:?}");
            let job = accepted.job_id();
            assert_eq!(shop.settled(42, job).await["status"], "failed");
            let newest = letters(shop).await.swap_remove(0);
            assert_eq!((&newest["jobId"], &newest["requestId"]), (&json!(job), &told));
        }

        // It is still known once an operator has asked for another attempt.
        let first = letters(shop).await.pop().unwrap();
        assert_eq!(redrive(shop, &format!("{}/redrive", first["id"])).await.status, 202);
        eventually("it failed once more", async || {
            let newest = letters(shop).await.swap_remove(0);
            newest["id"] != first["id"]
                && newest["jobId"] == first["jobId"]
                && newest["requestId"] == first["requestId"]
        })
        .await;

        // And where nothing else of the job can be read.
        let line = json!({"id": first["jobId"], "userId": 42, "kind": "from-the-future", "requestId": "edge-2", "job": {}});
        super::poison::publish(shop, coupon, line.to_string().into_bytes()).await;
        eventually("it is set aside", async || letters(shop).await[0]["requestId"] == "edge-2").await;
    })
    .await;
}

/// Who was told "failed" is not told so for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_job_is_polled_without_redis() {
    shop(Options { users: 50, ..Options::default() }, async |shop| {
        poison(shop).await;
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(42, coupon).await;
        assert_eq!(shop.settled(42, &job).await["status"], "failed");
        shop.redis.proxy.cut();
        heal(shop).await;
        assert_eq!(redrive(shop, "redrive").await.body["requested"], 1);
        eventually("the poll says so", async || {
            shop.poll(42, &job, 0).await.body["status"] == "succeeded"
        })
        .await;
        shop.redis.proxy.restore();
    })
    .await;
}

/// An event that the broker gave up on goes back to the queue in which it died.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_the_brokers_dead_letters_is_redriven() {
    shop(Options::default(), async |shop| {
        let order = json!({"items": [{"productId": 1, "quantity": 1}]});
        let placed = shop.ordered(1, &order).await;
        counted(shop).await;
        shop.stop_workers().await;
        redeliver_event(shop, serde_json::from_value(placed["jobId"].clone()).unwrap()).await;
        let queue = topology::sales_stats(&shop.namespace);
        let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: false });
        let event = got.await.unwrap().unwrap();
        event.reject(BasicRejectOptions { requeue: false }).await.unwrap();
        connect::close(&connection).await;

        shop.start_worker();
        eventually("it is set aside", async || letters(shop).await.len() == 1).await;
        assert_eq!(letters(shop).await[0]["queue"], queue);
        assert_eq!(redrive(shop, "redrive").await.body["requested"], 1);
        eventually("no letter is left", async || letters(shop).await.is_empty()).await;
        shop.settle_and_audit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_stays_failed() {
    shop(Options { users: 50, ..Options::default() }, async |shop| {
        poison(shop).await;
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(42, coupon).await;
        shop.settled(42, &job).await;
        let path = format!("/api/admin/dead-letters/{}", letters(shop).await[0]["id"]);
        assert_eq!(Answer::of(shop.admin(Method::DELETE, &path)).await.status, 204);
        Answer::of(shop.admin(Method::DELETE, &path))
            .await
            .is_problem(404, "dead-letter-not-found");
        redrive(shop, "1/redrive").await.is_problem(404, "dead-letter-not-found");
        assert_eq!(redrive(shop, "redrive").await.body["requested"], 0);
        assert_eq!(shop.settled(42, &job).await["status"], "failed");
        heal(shop).await;
    })
    .await;
}

/// An operator discards the letter at the moment in which another one asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_meanwhile_is_not_redriven() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO dead_letters (queue, message_id, line, reason, attempts, payload)
             VALUES ($1, 'id', 1, 'refused', 1, '{}') RETURNING id",
        )
        .bind(topology::sales_stats(&shop.namespace))
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        let mut discarding = shop.pool.begin().await.unwrap();
        sqlx::query("UPDATE dead_letters SET discarded_at = now()")
            .execute(&mut *discarding)
            .await
            .unwrap();
        let discarded = async {
            eventually("the redrive waits for it", async || {
                let waiting: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'",
                )
                .fetch_one(&shop.pool)
                .await
                .unwrap();
                waiting == 1
            })
            .await;
            discarding.commit().await.unwrap();
        };
        let what = format!("{id}/redrive");
        let (redriven, ()) = tokio::join!(redrive(shop, &what), discarded);
        redriven.is_problem(404, "dead-letter-not-found");
        let requested: Option<bool> =
            sqlx::query_scalar("SELECT redrive_requested_at IS NOT NULL FROM dead_letters")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
        assert_eq!(requested, Some(false));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_version_cannot_read_stays_a_dead_letter() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        super::poison::publish(shop, coupon, b"garbage".to_vec()).await;
        eventually("it is set aside", async || letters(shop).await.len() == 1).await;
        let letter = letters(shop).await.pop().unwrap();
        assert_eq!(letter["payload"], "garbage");
        let answer = redrive(shop, &format!("{}/redrive", letter["id"])).await;
        answer.is_problem(409, "dead-letter-undecodable");
        assert_eq!(redrive(shop, "redrive").await.status, 202);
        eventually("the workers gave it up", async || {
            letters(shop).await[0]["redriveRequestedAt"].is_null()
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_refused_is_sent_again() {
    let (mock, options, stop) = super::data_platform::mock().await;
    shop(options, async |shop| {
        mock.refuse_user(1);
        let order = json!({"items": [{"productId": 1, "quantity": 1}]});
        assert_eq!(shop.ordered(1, &order).await["status"], "succeeded");
        eventually("it is set aside", async || letters(shop).await.len() == 1).await;
        let first = letters(shop).await.pop().unwrap();
        assert_eq!(redrive(shop, "redrive").await.body["requested"], 1);
        eventually("it is refused once more", async || {
            let again = letters(shop).await;
            again.len() == 1 && again[0]["id"] != first["id"] && again[0]["attempts"] == 2
        })
        .await;
        mock.refuse_user(0);
        assert_eq!(redrive(shop, "redrive").await.body["requested"], 1);
        eventually("it is there", async || mock.received().len() == 1).await;
        eventually("no letter is left", async || letters(shop).await.is_empty()).await;
    })
    .await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_the_same() {
    shop(Options { users: 50, ..Options::default() }, async |shop| {
        let cli = async |arguments: &[&str]| {
            let done = Command::new(binary("firstcome-worker").unwrap())
                .arg("dead-letters")
                .args(arguments)
                .env("DATABASE_URL", &shop.database.direct)
                .stdin(Stdio::null())
                .output()
                .await
                .unwrap();
            (done.status.code(), String::from_utf8(done.stdout).unwrap())
        };
        assert_eq!(cli(&["list"]).await, (Some(0), "0 dead letters\n".to_owned()));
        poison(shop).await;
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(42, coupon).await;
        shop.settled(42, &job).await;
        let (code, list) = cli(&["list"]).await;
        assert!(
            code == Some(0) && list.contains(&job) && list.contains("1 dead letters"),
            "{list}"
        );
        heal(shop).await;
        assert_eq!(cli(&["redrive", "999"]).await.0, Some(1));
        assert_eq!(cli(&["redrive"]).await.0, Some(0));
        eventually("it succeeds", async || {
            shop.poll(42, &job, 0).await.body["status"] == "succeeded"
        })
        .await;
        assert_eq!(cli(&["discard", "1"]).await.0, Some(1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_letters_are_listed_by_their_beginnings() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        shop.sql(
            "INSERT INTO dead_letters (queue, message_id, line, reason, attempts, payload)
             SELECT 'a queue', 'id', n, repeat(E'x\\n', 1000000), 1, decode(repeat('61', 1000000), 'hex')
             FROM generate_series(1, 5) AS n",
        )
        .await;
        let letters = letters(shop).await;
        assert_eq!(letters.len(), 5);
        for letter in letters {
            assert_eq!(letter["reason"].as_str().unwrap().len(), 1_000);
            assert_eq!(letter["payload"].as_str().unwrap().len(), 16 * 1024);
        }
        let listed = Command::new(binary("firstcome-worker").unwrap())
            .args(["dead-letters", "list"])
            .env("DATABASE_URL", &shop.database.direct)
            .output()
            .await
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(listed.lines().count(), 5 + 1);
        assert!(listed.lines().all(|line| line.len() < 500), "{listed}");
        shop.sql("DELETE FROM dead_letters").await;
    })
    .await;
}

/// One job among thousands that always fails: it alone is set aside, and the line goes on at half
/// its pace or better.
#[tokio::test(flavor = "multi_thread")]
async fn one_poison_job_among_ten_thousand() {
    const JOBS: i64 = 10_000;
    let options = Options { users: JOBS, partitions: 1, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let drain = async |coupon: i64| {
            shop.storm((1..=JOBS).map(|user| (user, coupon)), 64).await;
            let waiting = shop.accepted_ids().len();
            let started = Instant::now();
            shop.start_worker();
            let settled = async || {
                let settled: i64 = sqlx::query_scalar("SELECT count(*) FROM job_outcomes")
                    .fetch_one(&shop.pool)
                    .await
                    .unwrap();
                usize::try_from(settled).unwrap() == waiting
            };
            while !settled().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert!(started.elapsed() < firstcome_tests::DEADLINE);
            }
            let took = started.elapsed();
            shop.stop_workers().await;
            took
        };
        // Half a second each: whatever else the machine does can only make one look slower, so the
        // fastest of a few tells.
        let (mut healthy, mut poisoned) = (Vec::new(), Vec::new());
        for round in 1..=5 {
            healthy.push(drain(shop.campaign(JOBS).await).await);
            poison(shop).await;
            poisoned.push(drain(shop.campaign(JOBS).await).await);
            heal(shop).await;
            let outcomes = shop.outcomes().await;
            let expected = (round * (2 * JOBS - 1), round);
            assert_eq!((outcomes["succeeded"], outcomes["job-unprocessable"]), expected);
            assert_eq!(i64::try_from(letters(shop).await.len()), Ok(round));
            if *poisoned.iter().min().unwrap() < *healthy.iter().min().unwrap() * 2 {
                return;
            }
        }
        panic!("healthy {healthy:?}, with one poison job {poisoned:?}");
    })
    .await;
}
