//! The faults: each begins in calm weather and ends with a shop that is well again.

use std::{collections::BTreeSet, time::Instant};

use firstcome_broker::connect;
use firstcome_contract::{
    ids::CouponId,
    job::{IssueCoupon, Job},
};
use firstcome_workers::commands::mock_data_platform::Mode;
use futures_util::future::join_all;
use lapin::{options::BasicConsumeOptions, types::FieldTable};
use reqwest::Method;
use serde_json::json;

use super::{
    super::{
        data_platform::mock,
        lost::{Accepted, OLD},
        metrics::Watched,
        services::OwnServices,
    },
    INCIDENT_BOUND,
    prometheus::Prometheus,
    rules,
};
use firstcome_tests::{Answer, Options, Shop, shop};

/// Users of each shop.
const USERS: i64 = 300;

fn options() -> Options {
    Options { users: USERS, worker: false, ..Options::default() }
}

/// A worker with every role, and everything scraped.
async fn calm(prometheus: &Prometheus, shop: &Shop, more: Vec<(&'static str, String)>) -> Watched {
    let worker = Watched::start(shop, "all", more);
    worker.becomes_ready(shop).await;
    prometheus.watch(shop, &[&shop.api.url], &[&worker.url]);
    prometheus.is_calm(shop).await;
    worker
}

/// Everything accepted is settled before the worker stops.
async fn well_again(prometheus: &Prometheus, shop: &Shop, worker: Watched) {
    prometheus.forget(shop);
    shop.settle_and_audit().await;
    assert!(worker.process.stop().await.unwrap().success());
}

fn an_order() -> serde_json::Value {
    json!({"items": [{"productId": 1, "quantity": 1}]})
}

/// The incident: nothing is connected less than before, and 300 jobs wait.
pub(super) async fn a_worker_hangs(prometheus: &Prometheus) {
    shop(options(), async |shop| {
        let worker = calm(prometheus, shop, Vec::new()).await;
        let coupon = shop.campaign(USERS).await;
        worker.process.signal("STOP").await.unwrap();
        let hung = Instant::now();
        let jobs = shop.storm((1..=USERS).map(|user| (user, coupon)), 32).await;
        assert!(jobs.iter().all(|answer| answer.status == 202), "{jobs:?}");
        prometheus.fires(Some(shop), "FirstcomeProcessDown").await;
        assert!(hung.elapsed() < INCIDENT_BOUND, "only after {:?}", hung.elapsed());
        prometheus.fires(Some(shop), "FirstcomeLineStalled").await;
        prometheus.fires(Some(shop), "FirstcomeLinesUnserved").await;
        worker.process.signal("CONT").await.unwrap();
        well_again(prometheus, shop, worker).await;
    })
    .await;
}

pub(super) async fn a_line_has_no_worker(prometheus: &Prometheus) {
    shop(options(), async |shop| {
        let worker = calm(prometheus, shop, Vec::new()).await;
        let small = shop.start_api(|config| config.line_capacity = 10).await;
        prometheus.watch(shop, &[&shop.api.url, &small.url], &[&worker.url]);
        prometheus.is_calm(shop).await;
        worker.process.kill().await.unwrap();
        let coupon = shop.campaign(USERS).await;
        let issue = format!("{}/api/coupons/{coupon}/issue", small.url);
        for user in 1..=30 {
            shop.submit(user, shop.post(user, &issue)).await;
        }
        prometheus.fires(Some(shop), "FirstcomeLineFull").await;
        prometheus.fires(Some(shop), "FirstcomeLineStalled").await;

        // As on a database on which no worker has ever run.
        shop.sql("UPDATE partition_leases SET generation = generation + 1000").await;
        prometheus.fires(Some(shop), "FirstcomeLinesUnknown").await;
        shop.sql("UPDATE partition_leases SET generation = generation - 1000").await;
        prometheus.forget(shop);
        shop.start_worker();
        shop.settle_and_audit().await;
        small.stop().await;
    })
    .await;
}

pub(super) async fn a_batch_waits_for_a_row(prometheus: &Prometheus) {
    shop(options(), async |shop| {
        let worker = calm(prometheus, shop, Vec::new()).await;
        let coupon = shop.campaign(USERS).await;
        let mut locked = shop.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM coupons FOR UPDATE").execute(&mut *locked).await.unwrap();
        shop.accepted_issue(1, coupon).await;
        // Each of these has a connection, or waits for one.
        let mut held = shop.pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE balances").execute(&mut *held).await.unwrap();
        let charge = |user| shop.post(user, "/api/balance/charge").json(&json!({"amount": 1}));
        join_all((1..=12).map(|user| charge(user).send())).await;
        prometheus.fires(Some(shop), "FirstcomeDatabasePoolExhausted").await;
        held.rollback().await.unwrap();
        prometheus.fires(Some(shop), "FirstcomeJobsWaitLong").await;
        locked.rollback().await.unwrap();
        // Of another one, there is no message.
        Accepted::ago(shop, OLD, 2, coupon, None).is_lost(shop).await;
        prometheus.fires(Some(shop), "FirstcomeJobsLost").await;
        well_again(prometheus, shop, worker).await;
    })
    .await;
}

/// Connected, but somebody else consumes: our worker stands by.
pub(super) async fn a_line_is_dead(prometheus: &Prometheus) {
    shop(options(), async |shop| {
        let worker = calm(prometheus, shop, Vec::new()).await;
        assert!(worker.process.stop().await.unwrap().success());
        let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(1) });
        let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let (queue, options) = (shop.queue_of(&job), BasicConsumeOptions::default());
        let consuming =
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        let _intruder = consuming.await.unwrap();

        let worker = Watched::start(shop, "all", Vec::new());
        prometheus.watch(shop, &[&shop.api.url], &[&worker.url]);
        shop.redis.proxy.cut();
        prometheus.fires(Some(shop), "FirstcomeCanaryLate").await;
        prometheus.fires(Some(shop), "FirstcomeRoleNotReady").await;
        prometheus.fires(Some(shop), "FirstcomeRedisAway").await;
        shop.redis.proxy.restore();
        connect::close(&connection).await;
        worker.becomes_ready(shop).await;
        well_again(prometheus, shop, worker).await;
    })
    .await;
}

/// Away for the API and the relay; orders go on being settled.
pub(super) async fn the_broker_is_away(prometheus: &Prometheus) {
    shop(options(), async |shop| {
        let direct = || vec![("AMQP_URL", shop.broker.direct.clone())];
        let workers = [
            Watched::start(shop, "coupons", direct()),
            Watched::start(shop, "products", direct()),
            Watched::start(shop, "relay-outbox", Vec::new()),
        ];
        for worker in &workers {
            worker.becomes_ready(shop).await;
        }
        let connected = shop.broker.direct.clone();
        let other = shop.start_api(|config| config.broker.amqp_url = connected).await;
        let urls = workers.each_ref().map(|worker| worker.url.as_str());
        prometheus.watch(shop, &[&shop.api.url], &urls);
        prometheus.is_calm(shop).await;

        shop.broker.proxy.cut();
        let orders = format!("{}/api/orders", other.url);
        let order = shop.submit(1, shop.post(1, &orders).json(&an_order())).await;
        assert_eq!(order.status, 202, "{order:?}");
        shop.order(1, &an_order()).await.is_problem(503, "broker-unavailable");
        prometheus.fires(Some(shop), "FirstcomeSubmissionsRefused").await;
        prometheus.fires(Some(shop), "FirstcomeBrokerDown").await;
        prometheus.fires(Some(shop), "FirstcomeOutboxStalled").await;
        let waiting =
            format!("max(firstcome_outbox_waiting_events{{shop=\"{}\"}})", shop.namespace);
        assert_eq!(prometheus.query(&waiting).await.as_deref(), Some("1"));
        shop.broker.proxy.restore();
        prometheus.forget(shop);
        shop.settle_and_audit().await;
        for worker in workers {
            assert!(worker.process.stop().await.unwrap().success());
        }
        other.stop().await;
    })
    .await;
}

/// There, but without memory.
pub(super) async fn the_broker_takes_nothing(prometheus: &Prometheus) {
    let own = OwnServices::start("alerts");
    let services = own.services().await;
    shop(Options { services, ..options() }, async |shop| {
        let worker = calm(prometheus, shop, Vec::new()).await;
        let coupon = shop.campaign(USERS).await;
        own.call(&["rabbitmqctl", "set_vm_memory_high_watermark", "absolute", "1MB"]).await;
        // The broker tells who publishes.
        shop.issue(1, coupon).await.is_problem(503, "broker-unavailable");
        prometheus.fires(Some(shop), "FirstcomeBrokerBlocked").await;
        own.call(&["rabbitmqctl", "set_vm_memory_high_watermark", "absolute", "1GB"]).await;
        well_again(prometheus, shop, worker).await;
    })
    .await;
    // Takes a while, and not the others' time.
    tokio::task::spawn_blocking(move || drop(own)).await.unwrap();
}

pub(super) async fn the_database_is_away(prometheus: &Prometheus) {
    shop(options(), async |shop| {
        let database = vec![("DATABASE_URL", shop.database.proxied.clone())];
        let worker = calm(prometheus, shop, database).await;
        let coupon = shop.campaign(USERS).await;
        // A batch is in hand, and stays there.
        let mut locked = shop.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM coupons FOR UPDATE").execute(&mut *locked).await.unwrap();
        shop.accepted_issue(1, coupon).await;
        shop.is_waiting_for_a_row().await;
        shop.database.proxy.cut();
        locked.rollback().await.unwrap();
        prometheus.fires(Some(shop), "FirstcomeBatchRetries").await;
        prometheus.fires(Some(shop), "FirstcomeDatabaseDown").await;
        shop.database.proxy.restore();
        well_again(prometheus, shop, worker).await;
    })
    .await;
}

/// The platform refuses one event and then answers no more; a lock stops the statistics.
pub(super) async fn events_wait_for_their_consumers(prometheus: &Prometheus) {
    const REFUSED: i64 = 42;
    let (platform, with_platform, _stop) = mock().await;
    let url = with_platform.data_platform_url.unwrap();
    shop(options(), async |shop| {
        let worker = calm(prometheus, shop, vec![("DATA_PLATFORM_URL", url.clone())]).await;
        let mut locked = shop.pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE product_sales IN SHARE MODE").execute(&mut *locked).await.unwrap();
        platform.refuse_user(REFUSED);
        shop.ordered(REFUSED, &an_order()).await;
        prometheus.fires(Some(shop), "FirstcomeDeadLetters").await;
        shop.sql("UPDATE dead_letters SET dead_lettered_at = now() - interval '2 hours'").await;
        prometheus.fires(Some(shop), "FirstcomeDeadLettersStay").await;
        platform.set_mode(Mode::Error);
        shop.ordered(1, &an_order()).await;
        prometheus.fires(Some(shop), "FirstcomeSalesStatsStalled").await;
        prometheus.fires(Some(shop), "FirstcomeDataPlatformStalled").await;
        prometheus.fires(Some(shop), "FirstcomeDataPlatformAway").await;
        platform.set_mode(Mode::Ok);
        locked.rollback().await.unwrap();
        halt(shop, "halt").await;
        prometheus.fires(Some(shop), "FirstcomeLinesHalted").await;
        halt(shop, "resume").await;
        well_again(prometheus, shop, worker).await;
    })
    .await;
}

async fn halt(shop: &Shop, what: &str) {
    let path = format!("/api/admin/queues/product/{what}");
    assert_eq!(Answer::of(shop.admin(Method::POST, &path)).await.status, 200);
}

/// Everything is there, down to each series that an alert looks at; then nothing is.
pub(super) async fn nobody_is_there(prometheus: &Prometheus) {
    let (_platform, with_platform, _stop) = mock().await;
    let url = with_platform.data_platform_url.unwrap();
    shop(options(), async |shop| {
        let worker = calm(prometheus, shop, vec![("DATA_PLATFORM_URL", url.clone())]).await;
        prometheus.is_calm_for_all().await;
        let conditions: String = rules().into_iter().map(|rule| rule.condition + " ").collect();
        let words = conditions.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let looked_at: BTreeSet<&str> =
            words.filter(|word| word.starts_with("firstcome_")).collect();
        assert!(looked_at.len() > 10, "is this test blind? {looked_at:?}");
        for metric in looked_at {
            let found = prometheus.query(&format!("count({metric})")).await;
            assert!(found.is_some(), "there is no {metric} in calm weather");
        }
        prometheus.forget(shop);
        prometheus.fires(None, "FirstcomeJobAbsent").await;
        prometheus.fires(None, "FirstcomeRoleAbsent").await;
        assert!(worker.process.stop().await.unwrap().success());
    })
    .await;
}
