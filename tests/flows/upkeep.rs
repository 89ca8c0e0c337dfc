//! What connects a line is looked after: whoever deletes it, submissions work again without a restart.

use std::time::{Duration, Instant};

use firstcome_broker::{
    connect::{self, Connection},
    topology,
};
use firstcome_contract::{
    family::Family,
    ids::CouponId,
    job::{IssueCoupon, Job},
};
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions},
    types::FieldTable,
};

use super::processes::{self, free_port, log};
use firstcome_tests::{Options, Shop, eventually, shop};

/// How soon.
const MENDED: Duration = Duration::from_secs(20);

async fn accepted_again(shop: &Shop, coupon: i64, what: &str) {
    let started = Instant::now();
    eventually(&format!("accepted again without {what}"), async || {
        shop.issue(7, coupon).await.status == 202
    })
    .await;
    assert!(started.elapsed() < MENDED, "without {what} only after {:?}", started.elapsed());
}

async fn delete_exchange(connection: &Connection, name: &str) {
    let channel = connection.create_channel().await.unwrap();
    channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
}

async fn is_there(connection: &Connection, exchange: &str, kind: ExchangeKind) -> bool {
    // What is not there closes the channel.
    let channel = connection.create_channel().await.unwrap();
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(exchange.into(), kind, passive, FieldTable::default()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_and_exchanges_are_made_again() {
    shop(Options { confirm_deadline_ms: 1_000, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(1_000).await;
        let (connection, _) = unbind(shop, coupon).await;
        accepted_again(shop, coupon, "a binding").await;

        for exchange in topology::exchanges(&shop.namespace, Family::Coupon) {
            delete_exchange(&connection, &exchange).await;
        }
        accepted_again(shop, coupon, "an exchange").await;

        // Nothing is published to it while all is well.
        let dead_letters = topology::dead_letters(&shop.namespace);
        delete_exchange(&connection, &dead_letters).await;
        eventually("dead letters have an exchange again", async || {
            is_there(&connection, &dead_letters, ExchangeKind::Fanout).await
        })
        .await;
        connect::close(&connection).await;
    })
    .await;
}

/// No worker runs that would mend it: whoever looks for the reason of the 503s finds it in the log, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_nothing_reaches_is_told_of() {
    /// Longer than a change of the routing takes, which sends jobs back, too.
    const UNREACHABLE: Duration = Duration::from_secs(4);
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(1_000).await;
        let port = free_port();
        let deadline = [("CONFIRM_DEADLINE_MS", "300".to_owned())];
        let api = processes::api_with(shop, port, &deadline).await;
        let path = format!("http://127.0.0.1:{port}/api/coupons/{coupon}/issue");
        let issue = async || shop.submit(7, shop.post(7, &path)).await;
        let told = || {
            let log = std::fs::read_to_string(log(shop)).unwrap();
            log.matches("jobs come back from a line").count()
        };
        assert_eq!(issue().await.status, 202);

        let (connection, unbound) = unbind(shop, coupon).await;
        let started = Instant::now();
        while started.elapsed() < UNREACHABLE {
            issue().await.is_problem(503, "broker-unavailable");
        }
        assert_eq!(told(), 1);
        let log = std::fs::read_to_string(log(shop)).unwrap();
        assert!(log.lines().any(|line| line.contains("come back") && line.contains(&unbound)));

        shop.start_worker();
        eventually("accepted again", async || issue().await.status == 202).await;
        connect::close(&connection).await;
        api.stop().await.unwrap();
    })
    .await;
}

/// Takes the binding of a campaign's line away; the name of its queue.
async fn unbind(shop: &Shop, coupon: i64) -> (Connection, String) {
    let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
    let [exchange, _] = topology::exchanges(&shop.namespace, Family::Coupon);
    let queue = shop.queue_of(&job);
    let key = queue.strip_prefix(&format!("{exchange}.")).unwrap();
    let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (from, to) = (exchange.as_str().into(), queue.as_str().into());
    channel.queue_unbind(to, from, key.into(), FieldTable::default()).await.unwrap();
    (connection, queue)
}
