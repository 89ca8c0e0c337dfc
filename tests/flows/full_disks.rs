//! Disks that are full to the last byte.

use std::time::Duration;

use firstcome_tests::{Answer, Options, eventually, shop};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::services::OwnServices;

/// How long the disk stays full: RabbitMQ looks at it every 10 s, if not more often.
const FULL: Duration = Duration::from_secs(12);
/// How long it is asked once there is room again.
const ROOM: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

/// What cannot be stored is refused, as what it is: no line is full. RabbitMQ 3.10 has to be started again: its
/// quorum queues do not survive that they cannot write.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_disk_refuses_and_loses_nothing() {
    let own = OwnServices::start_on_small_disks("broker-disk");
    let services = own.services().await;
    let options =
        Options { users: 400, confirm_deadline_ms: 1_000, services, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(1_000).await;
        let answers = shop.storm((1..=100).map(|user| (user, coupon)), 32).await;
        let mut accepted = answers.iter().filter(|answer| answer.status == 202).count();
        assert_eq!(accepted, 100);

        own.call(&["fill", "rabbitmq"]).await;
        let mut users = 101..;
        let mut ask_for = async |how_long: Duration| {
            let (begun, mut refused) = (Instant::now(), 0);
            while begun.elapsed() < how_long {
                let answer = shop.issue(users.next().unwrap(), coupon).await;
                if answer.status == 202 {
                    accepted += 1;
                } else {
                    answer.is_problem(503, "broker-unavailable");
                    assert!(answer.retry_after() >= 1);
                    refused += 1;
                }
                sleep(PAUSE).await;
            }
            refused
        };
        assert!(ask_for(FULL).await > 0, "is the disk full?");
        own.call(&["free", "rabbitmq"]).await;
        eventually("the alarm is over", async || {
            own.call(&["rabbitmqctl", "-q", "eval", "rabbit_alarm:get_alarms()."]).await.trim()
                == "[]"
        })
        .await;
        ask_for(ROOM).await;

        own.call(&["kill", "rabbitmq"]).await;
        own.call(&["start", "rabbitmq"]).await;
        eventually("it takes jobs again", async || shop.issue(400, coupon).await.status == 202)
            .await;
        shop.settle_and_audit().await;
        let settled = shop.outcomes().await["succeeded"];
        assert!(settled > i64::try_from(accepted).unwrap(), "{settled} of {accepted} and one");
    })
    .await;
    // Takes a while.
    tokio::task::spawn_blocking(move || drop(own)).await.unwrap();
}

/// Jobs are accepted and wait; what has to be written at once is refused; nothing has to be started again but
/// PostgreSQL, if it has stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_disk_lets_jobs_wait_and_loses_nothing() {
    let own = OwnServices::start_on_small_disks("database-disk");
    let services = own.services().await;
    shop(Options { users: 400, services, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(1_000).await;
        let first = shop.accepted_issue(1, coupon).await;
        shop.settled(1, &first).await;

        own.call(&["fill", "postgres"]).await;
        let answers = shop.storm((2..=300).map(|user| (user, coupon)), 32).await;
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        let charge = async |user| {
            let charge = shop.post(user, "/api/balance/charge");
            Answer::of(charge.json(&json!({"amount": 1}))).await
        };
        let mut refused = 0;
        for user in 1..=300 {
            match charge(user).await {
                answer if answer.status == 200 => {}
                answer => {
                    answer.is_problem(503, "database-unavailable");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "is the disk full?");
        own.call(&["free", "postgres"]).await;
        own.call(&["start", "postgres"]).await;
        eventually("it can be written to", async || charge(1).await.status == 200).await;
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], 300);
    })
    .await;
    // Takes a while.
    tokio::task::spawn_blocking(move || drop(own)).await.unwrap();
}
