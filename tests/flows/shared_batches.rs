//! Small batches of several lines share a transaction, and nothing else: what is wrong with one of them is its own
//! line's trouble.

use std::time::{Duration, Instant};

use firstcome_rig::Process;
use sqlx::{PgConnection, Postgres, Transaction};

use super::{
    processes::log,
    scaling::{campaigns, shared_as, worker},
};
use firstcome_tests::{Options, Shop, eventually, shop};

const LINES: i64 = 8;
/// Enough of them for jobs in every line, and few enough for small batches.
const CAMPAIGNS: usize = 40;
/// How soon a line's jobs are settled whatever a neighbour waits for, also beside everything else that runs on two cores.
const SOON: Duration = Duration::from_secs(10);

/// A worker has all lines, and there are campaigns in each of them.
async fn with_all_lines(test: impl AsyncFnOnce(&Shop, &Process, &[i64])) {
    let options = Options { users: 10, partitions: 8, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupons = campaigns(shop, CAMPAIGNS).await;
        let worker = worker(shop);
        shared_as(shop, &[LINES]).await;
        test(shop, &worker, &coupons).await;
        assert!(worker.stop().await.unwrap().success());
    })
    .await;
}

/// One job for each of them stands in its line, and a worker has just begun to take them.
async fn jobs_in_all_lines(shop: &Shop, worker: &Process, coupons: &[i64]) {
    worker.signal("STOP").await.unwrap();
    let answers = shop.storm(coupons.iter().map(|coupon| (7, *coupon)), 64).await;
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    worker.signal("CONT").await.unwrap();
}

async fn count(shop: &Shop, select: &'static str) -> i64 {
    sqlx::query_scalar(select).fetch_one(&shop.pool).await.unwrap()
}

async fn settled(shop: &Shop) -> i64 {
    count(shop, "SELECT count(*) FROM job_outcomes").await
}

async fn held<'a>(shop: &Shop, row: &'static str) -> Transaction<'a, Postgres> {
    let mut held = shop.pool.begin().await.unwrap();
    let connection: &mut PgConnection = &mut held;
    sqlx::query(row).execute(connection).await.unwrap();
    held
}

/// The most lines in one transaction, as their outcomes tell.
const MOST_LINES: &str = "SELECT COALESCE(max(lines), 0) FROM (
    SELECT count(DISTINCT line) AS lines FROM job_outcomes GROUP BY taken_up_at) AS transactions";

#[tokio::test(flavor = "multi_thread")]
async fn small_batches_of_several_lines_share_a_transaction() {
    with_all_lines(async |shop, worker, coupons| {
        jobs_in_all_lines(shop, worker, coupons).await;
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], coupons.len() as i64);
        let together = count(shop, MOST_LINES).await;
        assert!(together > 1, "{together} lines in a transaction");
        // Each line is told how far it has come, and each job where it stood.
        let counted = "SELECT count(*) FROM line_progress JOIN (
                           SELECT line, count(*) AS outcomes FROM job_outcomes GROUP BY line) AS stored
                       ON stored.line = line_progress.generation || '.' || line_progress.line
                       WHERE family = 'coupon' AND settled = outcomes";
        assert_eq!(count(shop, counted).await, LINES);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_campaign_holds_up_no_other_line() {
    with_all_lines(async |shop, worker, coupons| {
        let row = "SELECT FROM coupons WHERE id = (SELECT min(id) FROM coupons WHERE name = 'A drop') FOR UPDATE";
        let held = held(shop, row).await;
        jobs_in_all_lines(shop, worker, coupons).await;
        let started = Instant::now();
        let of_others = "SELECT count(DISTINCT line) FROM job_outcomes";
        eventually("all other lines are settled", async || {
            count(shop, of_others).await == LINES - 1
        })
        .await;
        let took = started.elapsed();
        assert!(took < SOON, "only after {took:?}");
        assert!(settled(shop).await < coupons.len() as i64, "the locked one waits");
        held.rollback().await.unwrap();
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], coupons.len() as i64);
    })
    .await;
}

/// The lease of one line goes to another worker while the batches of all of them begin.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_lost_is_fenced_alone() {
    with_all_lines(async |shop, worker, coupons| {
        let row = "SELECT FROM partition_leases WHERE family = 'coupon' AND line = '03' FOR UPDATE";
        let mut held = held(shop, row).await;
        jobs_in_all_lines(shop, worker, coupons).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FOR SHARE%'";
        eventually("a batch waits for the lease", async || count(shop, waiting).await > 0).await;
        let lost = "UPDATE partition_leases SET epoch = epoch + 1 WHERE family = 'coupon' AND line = '03'";
        sqlx::query(lost).execute(&mut *held).await.unwrap();
        held.commit().await.unwrap();
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], coupons.len() as i64);
        let log = std::fs::read_to_string(log(shop)).unwrap();
        let abandoned = log.lines().filter(|line| line.contains("batch abandoned"));
        assert_eq!(abandoned.count(), 1, "{log}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_contradicts_the_data_fails_alone() {
    with_all_lines(async |shop, worker, coupons| {
        let first = shop.accepted_issue(1, coupons[0]).await;
        shop.settled(1, &first).await;
        shop.sql("UPDATE coupons SET issued = 0 WHERE issued = 1").await;
        jobs_in_all_lines(shop, worker, coupons).await;
        let all = coupons.len() as i64 + 1;
        eventually("all are settled", async || settled(shop).await == all).await;
        let outcomes = shop.outcomes().await;
        assert_eq!((outcomes["succeeded"], outcomes.len()), (all - 1, 2), "{outcomes:?}");
        let restored = "UPDATE coupons SET issued = 1 WHERE issued = 0 AND id = (SELECT min(coupon_id) FROM user_coupons)";
        shop.sql(restored).await;
        shop.settle_and_audit().await;
    })
    .await;
}
