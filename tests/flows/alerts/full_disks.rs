//! What fires while a disk is full to the last byte.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{
    super::{metrics::Watched, services::OwnServices},
    prometheus::Prometheus,
};
use firstcome_tests::{Answer, Options, Shop, eventually, shop};

const PAUSE: Duration = Duration::from_millis(100);
/// What tells of lines that stand still, one way or another.
const LINES: [&str; 2] = ["FirstcomeCanaryLate", "FirstcomeLineStalled"];

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_are_told() {
    let own = OwnServices::start_on_small_disks("alerts-disks");
    let services = own.services().await;
    let prometheus = Prometheus::start("disks").await;
    let options = Options { users: 3_000, worker: false, services, ..Options::default() };
    shop(options, async |shop| {
        let worker = Watched::start(shop, "all", Vec::new());
        worker.becomes_ready(shop).await;
        prometheus.watch(shop, &[&shop.api.url], &[&worker.url]);
        prometheus.is_calm(shop).await;
        let coupon = shop.campaign(3_000).await;
        let fires = async |alerts: &[&str]| {
            for alert in alerts {
                prometheus.fires(Some(shop), alert).await;
            }
        };
        let stand = || LINES.iter().any(|alert| prometheus.firing(shop).contains(*alert));
        tokio::select! {
            () = customers(shop, coupon) => {}
            () = async {
                own.call(&["fill", "postgres"]).await;
                fires(&["FirstcomeBatchRetries", "FirstcomeJobsWaitLong"]).await;
                own.call(&["free", "postgres"]).await;
                own.call(&["start", "postgres"]).await;
                eventually("its alerts are over", async || {
                    !stand() && !prometheus.firing(shop).contains("FirstcomeJobsWaitLong")
                })
                .await;

                own.call(&["fill", "rabbitmq"]).await;
                fires(&["FirstcomeSubmissionsRefused", "FirstcomeBrokerBlocked"]).await;
                // The worker keeps its lines, and their canaries are late; or, as was seen once, it loses them.
                eventually("its lines are told of", async || stand()).await;
                let firing = prometheus.firing(shop);
                assert!(!firing.contains("FirstcomeLineFull"), "no line is full: {firing:?}");
                own.call(&["free", "rabbitmq"]).await;
                own.call(&["kill", "rabbitmq"]).await;
                own.call(&["start", "rabbitmq"]).await;
            } => {}
        }
        eventually("it takes jobs again", async || shop.issue(1, coupon).await.status == 202).await;
        prometheus.forget(shop);
        shop.settle_and_audit().await;
        assert!(worker.process.stop().await.unwrap().success());
    })
    .await;
    // Takes a while.
    tokio::task::spawn_blocking(move || drop(own)).await.unwrap();
}

/// Coupons and charges are asked for, for ever.
async fn customers(shop: &Shop, coupon: i64) {
    for user in (1..=3_000).cycle() {
        shop.issue(user, coupon).await;
        let charge = shop.post(user, "/api/balance/charge");
        Answer::of(charge.json(&json!({"amount": 1}))).await;
        sleep(PAUSE).await;
    }
}
