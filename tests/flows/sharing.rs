//! Lines are shared whatever else stands still: what is published, the routing, the database.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use firstcome_broker::{connect, topology};
use firstcome_contract::family::Family;
use firstcome_rig::Process;
use lapin::{
    options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::json;

use super::{
    processes,
    routing::pin,
    scaling::{shared_as, shares, worker, worker_with},
    services::OwnServices,
};
use firstcome_tests::{Options, Shop, eventually, shop};

/// Longer than anything in a worker waits for the broker, twice.
const ALARM: Duration = Duration::from_secs(35);
/// How soon the lines of a worker that was killed are others', with a worker that joins meanwhile: long before the
/// alarm ends, also beside everything else that runs on two cores.
const TAKEN_OVER: Duration = Duration::from_secs(25);
/// What a shop's API and workers need, each its own; a leak would take dozens.
const CONNECTIONS: usize = 20;

/// As [`shares`], of the lines that take jobs: a drained one into which two workers got a message each, before the alarm
/// stopped them, is opened once more.
async fn current_shares(shop: &Shop) -> Vec<i64> {
    sqlx::query_scalar(
        "SELECT count(line) FROM workers
         LEFT JOIN partition_leases ON owner = id AND generation = (SELECT generation FROM routing WHERE family = 'coupon')
         WHERE workers.family = 'coupon' AND expires_at > now() GROUP BY id ORDER BY 1",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap()
}

async fn serves(shop: &Shop, worker: &Process) -> bool {
    let lines: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM partition_leases JOIN workers ON owner = id
         WHERE workers.family = 'coupon' AND name LIKE '%:' || $1",
    )
    .bind(worker.id().unwrap().to_string())
    .fetch_one(&shop.pool)
    .await
    .unwrap();
    lines > 0
}

/// With old lines to be deleted, an event to be published, and idle lines to be looked after: all that a
/// worker publishes. Each of them tries; what they published is once enough.
#[tokio::test(flavor = "multi_thread")]
async fn under_a_long_alarm_lines_are_taken_over_and_connections_stay_few() {
    let own = OwnServices::start("long-alarm");
    let services = own.services().await;
    let options = Options {
        partitions: 4,
        confirm_deadline_ms: 1_000,
        worker: false,
        services,
        ..Options::default()
    };
    shop(options, async |shop| {
        let (coupon, product) = (shop.campaign(100).await, shop.product(100, 10).await);
        let [lost, other] = [processes::worker(shop), processes::worker(shop)];
        shared_as(shop, &[2, 2]).await;
        assert_eq!(pin(shop, "coupon", coupon).await.status, 200);
        eventually("the old lines are drained, the new ones open", async || {
            let others: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM partition_leases WHERE family = 'coupon'
                 AND CASE generation WHEN 1 THEN drained_at IS NULL ELSE opened_at IS NULL END",
            )
            .fetch_one(&shop.pool)
            .await
            .unwrap();
            let lines = shop.lines().await;
            others == 0 && lines.iter().any(|line| line.generation == 2)
        })
        .await;
        let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let (queue, events) =
            (format!("{}.test", shop.namespace), topology::events(&shop.namespace));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
        let (to, bind) = (queue.as_str().into(), QueueBindOptions::default());
        // Not of the coupon that is issued when the alarm is over.
        let (orders, none) = ("order.*".into(), FieldTable::default());
        channel.queue_bind(to, events.into(), orders, bind, none).await.unwrap();
        // Its event is written when nothing can be published any more.
        let mut locked = shop.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM products WHERE id = $1 FOR UPDATE")
            .bind(product)
            .execute(&mut *locked)
            .await
            .unwrap();
        let order = json!({"items": [{"productId": product, "quantity": 1}]});
        assert_eq!(shop.order(7, &order).await.status, 202);
        own.call(&["rabbitmqctl", "set_vm_memory_high_watermark", "absolute", "1MB"]).await;
        let raised = Instant::now();
        locked.commit().await.unwrap();
        shop.sql(
            "UPDATE partition_leases SET drained_at = drained_at - interval '1 minute', owner = NULL
             WHERE family = 'coupon' AND generation = 1",
        )
        .await;
        // So long that nobody does anything for the first time any more.
        tokio::time::sleep(Duration::from_secs(5)).await;

        lost.kill().await.unwrap();
        let joined = processes::worker(shop);
        let killed = Instant::now();
        eventually("its lines are taken over", async || {
            serves(shop, &joined).await && current_shares(shop).await == [2, 3]
        })
        .await;
        assert!(killed.elapsed() < TAKEN_OVER, "only after {:?}", killed.elapsed());
        while raised.elapsed() < ALARM {
            assert_eq!(current_shares(shop).await, [2, 3], "after {:?}", raised.elapsed());
            let connections = own.connections().await;
            assert!(connections < CONNECTIONS, "{connections} after {:?}", raised.elapsed());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }

        own.call(&["rabbitmqctl", "set_vm_memory_high_watermark", "absolute", "1GB"]).await;
        eventually("it takes requests again", async || shop.issue(7, coupon).await.status == 202)
            .await;
        shop.settle_and_audit().await;
        super::events::counted(shop).await;
        eventually("the old lines are deleted", async || {
            shop.lines()
                .await
                .iter()
                .all(|line| line.family != Family::Coupon || line.generation == 2)
        })
        .await;
        let mut published = 0;
        while let Some(message) = channel
            .basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true })
            .await
            .unwrap()
        {
            published += message.data.trim_ascii_end().split(|byte| *byte == b'\n').count();
        }
        assert_eq!(published, 1, "of one event");
        connect::close(&connection).await;
        for worker in [other, joined] {
            assert!(worker.stop().await.unwrap().success());
        }
    })
    .await;
}

/// Another worker may be in the middle of a step, with the lines of any family, for as long as the broker
/// takes.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_step_of_the_routing() {
    let options = Options { partitions: 8, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(10).await;
        let mut stepping = shop.pool.begin().await.unwrap();
        for family in Family::ALL {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtext('firstcome.routing.' || $1))")
                .bind(family.former_name())
                .execute(&mut *stepping)
                .await
                .unwrap();
        }
        let first = worker(shop);
        shared_as(shop, &[8]).await;
        let second = worker(shop);
        shared_as(shop, &[4, 4]).await;
        first.kill().await.unwrap();
        shared_as(shop, &[8]).await;
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        stepping.rollback().await.unwrap();
        assert!(second.stop().await.unwrap().success());
    })
    .await;
}

async fn epochs(shop: &Shop) -> BTreeMap<String, i64> {
    let epochs: Vec<(String, i64)> =
        sqlx::query_as("SELECT line, epoch FROM partition_leases WHERE family = 'coupon'")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
    epochs.into_iter().collect()
}

/// A worker does in a tick what takes longer than its lease lasts. It is alive all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_moves_no_lines() {
    /// More than twice a lease.
    const LONG: Duration = Duration::from_secs(12);
    let options = Options { partitions: 8, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let start = || worker_with(shop, vec![("DATABASE_URL", shop.database.proxied.clone())]);
        let workers = [start(), start()];
        shared_as(shop, &[4, 4]).await;
        let before = epochs(shop).await;
        shop.database.proxy.slow_down(Duration::from_millis(500));
        let slow = Instant::now();
        while slow.elapsed() < LONG {
            assert_eq!(shares(shop).await, [4, 4], "after {:?}", slow.elapsed());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(epochs(shop).await, before, "lines were started over");
        shop.database.proxy.slow_down(Duration::ZERO);
        for worker in workers {
            assert!(worker.stop().await.unwrap().success());
        }
    })
    .await;
}
