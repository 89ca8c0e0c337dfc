//! Workers come and go: the lines are shared evenly, nothing is lost, nothing is done twice, and
//! nobody overtakes within a key.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use firstcome_broker::{connect, depth::Gauge};
use firstcome_contract::{
    ids::CouponId,
    job::{Envelope, IssueCoupon, Job},
};
use firstcome_rig::Process;
use futures_util::{StreamExt, future::join_all};
use lapin::{options::BasicConsumeOptions, types::FieldTable};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::processes::{environment, log};
use firstcome_tests::{Answer, Options, Shop, eventually, shop};

/// What the issue of a scaling worker promises: shares are even, and orphans are adopted, by then.
const BOUND: Duration = Duration::from_secs(10);

pub(super) fn worker(shop: &Shop) -> Process {
    worker_with(shop, Vec::new())
}

pub(super) fn worker_with(shop: &Shop, more: Vec<(&'static str, String)>) -> Process {
    // A paused process is found out by its heartbeats: within seconds here.
    let amqp_url = format!("{}?heartbeat=2", shop.broker.direct);
    let environment = environment(shop, 0).into_iter().chain([("AMQP_URL", amqp_url)]).chain(more);
    Process::start("firstcome-worker", &["coupons"], environment, &log(shop)).unwrap()
}

/// How many lines each live worker of the kind has.
pub(super) async fn shares(shop: &Shop) -> Vec<i64> {
    sqlx::query_scalar(
        "SELECT count(line) FROM workers LEFT JOIN partition_leases ON owner = id
         WHERE workers.family = 'coupon' AND expires_at > now() GROUP BY id ORDER BY 1",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap()
}

async fn owner(shop: &Shop) -> Option<uuid::Uuid> {
    sqlx::query_scalar("SELECT owner FROM partition_leases WHERE family = 'coupon'")
        .fetch_one(&shop.pool)
        .await
        .unwrap()
}

pub(super) async fn shared_as(shop: &Shop, wanted: &[i64]) {
    let started = Instant::now();
    eventually(&format!("the shares are {wanted:?}"), async || shares(shop).await == wanted).await;
    let took = started.elapsed();
    assert!(took < BOUND, "shared as {wanted:?} only after {took:?}");
}

/// Users buy one after the other, each campaign by one client: who is later here gets the later
/// number.
pub(super) async fn queue_up(
    shop: &Shop,
    coupons: &[i64],
    stop: &CancellationToken,
) -> BTreeMap<i64, i64> {
    let clients = coupons.iter().map(async |coupon| {
        let mut user = 0;
        while !stop.is_cancelled() {
            user += 1;
            assert_eq!(shop.issue(user, *coupon).await.status, 202);
        }
        (*coupon, user)
    });
    join_all(clients).await.into_iter().collect()
}

pub(super) async fn nobody_overtook(shop: &Shop, issued: &BTreeMap<i64, i64>) {
    for (coupon, users) in issued {
        let numbers: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT user_id, issue_number FROM user_coupons WHERE coupon_id = $1 ORDER BY user_id",
        )
        .bind(coupon)
        .fetch_all(&shop.pool)
        .await
        .unwrap();
        let in_order: Vec<(i64, i64)> = (1..=*users).map(|user| (user, user)).collect();
        assert_eq!(numbers, in_order, "coupon {coupon}");
    }
}

pub(super) async fn campaigns(shop: &Shop, count: usize) -> Vec<i64> {
    let mut coupons = Vec::new();
    for _ in 0..count {
        coupons.push(shop.campaign(1_000_000).await);
    }
    coupons
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_then_three_then_two_share_the_lines_evenly_and_in_order() {
    let options = Options { users: 20_000, partitions: 16, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupons = campaigns(shop, 24).await;
        let first = worker(shop);
        let stop = CancellationToken::new();
        let scaling = async {
            shared_as(shop, &[16]).await;
            let (second, third) = (worker(shop), worker(shop));
            shared_as(shop, &[5, 5, 6]).await;
            assert!(second.stop().await.unwrap().success());
            shared_as(shop, &[8, 8]).await;
            first.kill().await.unwrap();
            shared_as(shop, &[16]).await;
            // All of them are consumed, not just owned.
            let before = shop.accepted_ids();
            let orphans: Vec<uuid::Uuid> = before.iter().map(|id| id.parse().unwrap()).collect();
            let started = Instant::now();
            eventually("the orphaned lines are consumed", async || {
                let settled: i64 =
                    sqlx::query_scalar("SELECT count(*) FROM job_outcomes WHERE job_id = ANY($1)")
                        .bind(&orphans)
                        .fetch_one(&shop.pool)
                        .await
                        .unwrap();
                usize::try_from(settled).unwrap() == orphans.len()
            })
            .await;
            assert!(started.elapsed() < BOUND, "consumed only after {:?}", started.elapsed());
            let fourth = worker(shop);
            shared_as(shop, &[8, 8]).await;
            stop.cancel();
            [third, fourth]
        };
        let (issued, last) = tokio::join!(queue_up(shop, &coupons, &stop), scaling);
        shop.settle_and_audit().await;
        nobody_overtook(shop, &issued).await;
        for worker in last {
            assert!(worker.stop().await.unwrap().success());
        }
        assert!(shares(shop).await.is_empty());
    })
    .await;
}

/// Paused in the middle of a transaction, beyond its lease; another worker takes over; the paused
/// one wakes up.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_paused_in_mid_batch_changes_nothing_any_more() {
    let options = Options { users: 500, partitions: 2, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(300).await;
        let paused = worker(shop);
        shared_as(shop, &[2]).await;
        // Its batch gets as far as the campaign's row, and waits there for us.
        let mut lock = shop.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM coupons WHERE id = $1 FOR UPDATE")
            .bind(coupon)
            .execute(&mut *lock)
            .await
            .unwrap();
        shop.storm((1..=500).map(|user| (user, coupon)), 64).await;
        shop.is_waiting_for_a_row().await;
        paused.signal("STOP").await.unwrap();
        lock.rollback().await.unwrap();
        let other = worker(shop);
        // The paused one's transaction ends by the database's own timeout; then the lease is free.
        shop.settle_and_audit().await;
        let settled = shop.outcomes().await;
        assert_eq!(settled["succeeded"], 300);
        assert_eq!(settled["coupon-sold-out"], 200);

        paused.signal("CONT").await.unwrap();
        eventually("it rejoins", async || shares(shop).await == [1, 1]).await;
        let second = shop.campaign(100).await;
        shop.storm((1..=100).map(|user| (user, second)), 64).await;
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], 400);
        for worker in [paused, other] {
            assert!(worker.stop().await.unwrap().success());
        }
    })
    .await;
}

/// A worker that cannot reach the database keeps its batch while its lease goes to another; when
/// the database is back it is told by the epoch, not by luck.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_lost_lease_is_fenced() {
    let options = Options { users: 500, partitions: 1, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(300).await;
        let cut_off = worker_with(shop, vec![("DATABASE_URL", shop.database.proxied.clone())]);
        shared_as(shop, &[1]).await;
        let first_owner = owner(shop).await;
        shop.database.proxy.cut();
        // The API of the shop shares the proxy: without the database it accepts all the same.
        let answers = shop.storm((1..=500).map(|user| (user, coupon)), 64).await;
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        let other = worker(shop);
        eventually("the other one has the lease", async || owner(shop).await != first_owner).await;
        shop.database.proxy.restore();
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], 300);
        let log = std::fs::read_to_string(log(shop)).unwrap();
        assert!(log.contains("the line is another worker's by now"), "{log}");
        for worker in [cut_off, other] {
            assert!(worker.stop().await.unwrap().success());
        }
    })
    .await;
}

/// A worker that reaches the broker but not the database has messages in its hands that nobody else
/// gets: it must let them go.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_the_database_gives_its_lines_up() {
    let options = Options { users: 300, partitions: 1, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(300).await;
        let cut_off = worker_with(shop, vec![("DATABASE_URL", shop.database.proxied.clone())]);
        shared_as(shop, &[1]).await;
        shop.database.proxy.cut();
        let answers = shop.storm((1..=300).map(|user| (user, coupon)), 64).await;
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        let other = worker(shop);
        // The cut lasts: only the other one can settle them.
        eventually("the other one settles all", async || {
            shop.outcomes().await.get("succeeded") == Some(&300)
        })
        .await;
        shop.database.proxy.restore();
        eventually("it rejoins", async || shares(shop).await == [0, 1]).await;
        for worker in [cut_off, other] {
            assert!(worker.stop().await.unwrap().success());
        }
    })
    .await;
}

/// The length of the pauses comes from a generator with a fixed seed: any moment may be hit.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_at_random_moments_of_a_sale() {
    let options = Options { users: 20_000, partitions: 4, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupons = campaigns(shop, 8).await;
        let stop = CancellationToken::new();
        let kills = async {
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            let mut workers: Vec<Process> = (0..3).map(|_| worker(shop)).collect();
            for kill in 0..100 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                tokio::time::sleep(Duration::from_millis(random % 400)).await;
                workers.push(worker(shop));
                workers.remove(kill % 3).kill().await.unwrap();
            }
            stop.cancel();
            workers
        };
        // Slow enough that the sale lasts as long as the kills do.
        let selling = coupons.iter().map(async |coupon| {
            let mut user = 0;
            while !stop.is_cancelled() {
                user += 1;
                let answer: Answer = shop.issue(user, *coupon).await;
                assert_eq!(answer.status, 202, "{answer:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (*coupon, user)
        });
        let (issued, workers) = tokio::join!(join_all(selling), kills);
        shop.settle_and_audit().await;
        nobody_overtook(shop, &issued.into_iter().collect()).await;
        let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(letters, 0);
        for worker in workers {
            assert!(worker.stop().await.unwrap().success());
        }
    })
    .await;
}

/// Acknowledgements keep a pace: the last of them is sent all the same, be it before the line is handed
/// over or when nothing more comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_settled_is_not_delivered_to_the_next_one() {
    shop(Options { users: 20, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(20).await;
        let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
        let queue = shop.queue_of(&job);
        let connection =
            Arc::new(connect::connect(&shop.broker.as_broker(), "test").await.unwrap());
        let mut gauge = Gauge::open(Arc::clone(&connection)).await.unwrap();
        let mut left_behind = async || loop {
            let depth = gauge.depth(&queue).await.unwrap().unwrap();
            if depth.consumers == 0 {
                return depth.ready;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let settle = async |users: RangeInclusive<i64>| {
            let settling = users.map(async |user| {
                let job = shop.accepted_issue(user, coupon).await;
                assert_eq!(shop.poll(user, &job, 10).await.body["status"], "succeeded");
            });
            join_all(settling).await;
        };

        settle(1..=10).await;
        shop.stop_workers().await;
        assert_eq!(left_behind().await, 0, "by one that stopped");

        let crashing = worker(shop);
        settle(11..=20).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        crashing.kill().await.unwrap();
        assert_eq!(left_behind().await, 0, "by one that was killed while it had nothing to do");
        connect::close(&connection).await;
    })
    .await;
}

/// The broker gives a line to the next consumer with all that the last one had not settled, and so in
/// order: a consumer is never cancelled, its channel is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_handed_over_in_order() {
    // More messages than the broker pushes ahead.
    const USERS: i64 = 400;
    shop(Options { users: USERS, worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(USERS).await;
        for user in 1..=USERS {
            shop.accepted_issue(user, coupon).await;
        }
        let mut locked = shop.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM coupons FOR UPDATE").execute(&mut *locked).await.unwrap();
        shop.start_worker();
        shop.is_waiting_for_a_row().await;

        let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
        let queue = shop.queue_of(&job);
        let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let standby = BasicConsumeOptions::default();
        let mut next = channel
            .basic_consume(queue.into(), "".into(), standby, FieldTable::default())
            .await
            .unwrap();
        let handing_over = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            locked.commit().await.unwrap();
        };
        tokio::join!(shop.stop_workers(), handing_over);

        let settled = shop.outcomes().await.get("succeeded").copied().unwrap_or_default();
        assert!(settled > 0 && settled < USERS, "{settled} of {USERS} before the handing over");
        for user in settled + 1..=USERS {
            let delivery = timeout(BOUND, next.next()).await.unwrap().unwrap().unwrap();
            let envelope = Envelope::decode(delivery.data.trim_ascii_end()).unwrap();
            assert_eq!(envelope.user_id.get(), user, "it came too soon, or twice");
        }
        connect::close(&connection).await;
        shop.start_worker();
        shop.settle_and_audit().await;
    })
    .await;
}
