//! What hangs harms its own lines, and for seconds only.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use firstcome_broker::{connect, depth::Gauge, topology};
use firstcome_contract::{
    ids::CouponId,
    job::{IssueCoupon, Job},
};
use firstcome_rig::Process;
use lapin::{
    options::{BasicConsumeOptions, QueueDeleteOptions},
    types::FieldTable,
};

use super::{
    faults::two_lines,
    processes::{environment, log},
    scaling::{campaigns, shared_as, shares, worker},
    services::OwnServices,
};
use firstcome_tests::{Options, Shop, eventually, shop};

/// The lines of a worker, and the epoch of each.
async fn epochs(shop: &Shop, worker: &Process) -> BTreeMap<String, i64> {
    let epochs: Vec<(String, i64)> = sqlx::query_as(
        "SELECT line, epoch FROM partition_leases JOIN workers ON owner = id
         WHERE name LIKE '%:' || $1 AND workers.family = 'coupon'",
    )
    .bind(worker.id().unwrap().to_string())
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    epochs.into_iter().collect()
}

/// Hung, not dead: its connections are open. With the heartbeats that the programs have by default.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_a_hung_worker_move_within_seconds_and_no_others() {
    let options = Options { users: 10, partitions: 8, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupons = campaigns(shop, 24).await;
        let start = || {
            let environment = environment(shop, 0);
            Process::start("firstcome-worker", &["coupons"], environment, &log(shop)).unwrap()
        };
        let hung = start();
        shared_as(shop, &[8]).await;
        let healthy = start();
        shared_as(shop, &[4, 4]).await;
        let untouched = epochs(shop, &healthy).await;
        assert_eq!(untouched.len(), 4);

        hung.signal("STOP").await.unwrap();
        let started = Instant::now();
        for coupon in &coupons {
            shop.accepted_issue(7, *coupon).await;
        }
        shop.settle_and_audit().await;
        let took = started.elapsed();
        assert!(took < Duration::from_secs(15), "its lines moved only after {took:?}");

        let mut after = BTreeMap::new();
        eventually("the other one has all lines", async || {
            after = epochs(shop, &healthy).await;
            after.len() == 8
        })
        .await;
        after.retain(|line, _| untouched.contains_key(line));
        assert_eq!(after, untouched, "lines of its own were started over");
        hung.signal("CONT").await.unwrap();
        eventually("it rejoins", async || shares(shop).await == [4, 4]).await;
        for worker in [hung, healthy] {
            assert!(worker.stop().await.unwrap().success());
        }
    })
    .await;
}

/// A line that is connected but gets nothing is started over, alone; as is one whose queue is deleted,
/// and what the broker gives up on.
#[tokio::test(flavor = "multi_thread")]
async fn what_ails_one_line_ends_that_line_alone() {
    let options = Options { users: 10, partitions: 4, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(10).await;
        let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
        let queue = shop.queue_of(&job);
        let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
        // Whoever consumes first is the only one who gets anything.
        let channel = connection.create_channel().await.unwrap();
        let first = BasicConsumeOptions::default();
        let consumed = channel
            .basic_consume(queue.clone().into(), "".into(), first, FieldTable::default())
            .await
            .unwrap();
        let worker = worker(shop);
        shared_as(shop, &[4]).await;
        let before = epochs(shop, &worker).await;
        let changed = async |since: &BTreeMap<String, i64>| {
            let mut now = epochs(shop, &worker).await;
            now.retain(|line, epoch| since.get(line) != Some(epoch));
            now.into_keys().collect::<Vec<_>>()
        };
        let line = queue.rsplit('.').next().unwrap().to_owned();
        eventually("the silent line is started over", async || {
            changed(&before).await == [line.clone()]
        })
        .await;
        channel.close(200, "enough".into()).await.unwrap();
        drop(consumed);
        let issued = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &issued).await["status"], "succeeded");

        let before = epochs(shop, &worker).await;
        let channel = connection.create_channel().await.unwrap();
        for queue in [queue, topology::dead_letters(&shop.namespace)] {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        }
        let deleted = Instant::now();
        eventually("the line is made again", async || shop.issue(8, coupon).await.status == 202)
            .await;
        shop.settle_and_audit().await;
        assert!(deleted.elapsed() < Duration::from_secs(20), "only after {:?}", deleted.elapsed());
        assert_eq!(changed(&before).await, [line]);
        let connection = Arc::new(connection);
        let mut gauge = Gauge::open(Arc::clone(&connection)).await.unwrap();
        eventually("the dead letters are consumed", async || {
            let depth = gauge.depth(&topology::dead_letters(&shop.namespace)).await.unwrap();
            depth.is_some_and(|depth| depth.consumers == 1)
        })
        .await;
        connect::close(&connection).await;
        assert!(worker.stop().await.unwrap().success());
    })
    .await;
}

/// As when most of the queue's replicas are away. Its line stands still until they are back, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_a_leader_stands_still_alone() {
    /// How soon a line is served, from when it can be.
    const SERVED: Duration = Duration::from_secs(20);
    let own = OwnServices::start("leaderless");
    let services = own.services().await;
    let options = Options {
        users: 10,
        partitions: 4,
        worker: false,
        confirm_deadline_ms: 1_000,
        services,
        ..Options::default()
    };
    shop(options, async |shop| {
        let (sick, well) = two_lines(shop).await;
        let job = |coupon| Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
        let member = format!("'%2F_{}'", shop.queue_of(&job(sick)));
        let server = async |what: &str| {
            let eval = format!("ra:{what}_server(quorum_queues, {{{member}, node()}}).");
            own.call(&["rabbitmqctl", "eval", &eval]).await
        };
        let first = worker(shop);
        shared_as(shop, &[4]).await;
        server("stop").await;
        first.kill().await.unwrap();
        let second = worker(shop);
        let mut served = 0;
        let killed = Instant::now();
        while killed.elapsed() < SERVED + SERVED / 4 {
            let asked = Instant::now();
            let job = shop.accepted_issue(7, well).await;
            shop.settled(7, &job).await;
            let took = asked.elapsed();
            assert!(took < SERVED, "its neighbour waited for {took:?}");
            served += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(served > 10, "its neighbour was served {served} times only");
        let before = epochs(shop, &second).await;
        let others = |mut epochs: BTreeMap<String, i64>| {
            epochs.retain(|line, _| !member.contains(&format!(".{line}'")));
            epochs
        };
        server("restart").await;
        let restarted = Instant::now();
        eventually("the line is served", async || {
            let answer = shop.issue(8, sick).await;
            answer.status == 202
                && shop.poll(8, answer.job_id(), 1).await.body["status"] != "queued"
        })
        .await;
        let took = restarted.elapsed();
        assert!(took < SERVED, "it is served only after {took:?}");
        assert_eq!(others(epochs(shop, &second).await), others(before));
        assert!(second.stop().await.unwrap().success());
    })
    .await;
}
