//! What the programs tell of themselves: figures that are true, and readiness that means work.

use std::{collections::BTreeMap, time::Duration};

use firstcome_broker::connect;
use firstcome_contract::{
    family::Family,
    line::{Line, LineName, Naming},
};
use firstcome_rig::Process;
use lapin::{options::BasicConsumeOptions, types::FieldTable};
use reqwest::Method;
use serde_json::{Value, json};

use super::processes::{api, environment, free_port, log};
use firstcome_tests::{Options, Shop, eventually, shop};

/// A worker process and where it tells how it is.
pub(super) struct Watched {
    pub(super) process: Process,
    pub(super) url: String,
}

impl Watched {
    /// With the broker behind the shop's proxy, which can be cut.
    pub(super) fn start(shop: &Shop, command: &str, more: Vec<(&'static str, String)>) -> Self {
        let port = free_port();
        let mut environment = environment(shop, 0);
        environment.push(("WORKER_ADDR", format!("127.0.0.1:{port}")));
        environment.push(("AMQP_URL", shop.broker.proxied.clone()));
        environment.extend(more);
        let process =
            Process::start("firstcome-worker", &[command], environment, &log(shop)).unwrap();
        Self { process, url: format!("http://127.0.0.1:{port}") }
    }

    /// Status and roles; `None` while it does not listen.
    async fn readiness(&self, shop: &Shop) -> Option<(u16, Value)> {
        let ready = format!("{}/health/ready", self.url);
        let answer = shop.anonymous(Method::GET, &ready).send().await.ok()?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["ready"], status == 200, "{body}");
        Some((status, body["roles"].clone()))
    }

    async fn is_ready(&self, shop: &Shop) -> bool {
        matches!(self.readiness(shop).await, Some((200, _)))
    }

    pub(super) async fn becomes_ready(&self, shop: &Shop) {
        eventually("the worker is ready", async || self.is_ready(shop).await).await;
    }

    /// The reasons of the roles that are not ready, once there are some; within 25 seconds.
    async fn ails(&self, shop: &Shop) -> BTreeMap<String, String> {
        let found = async {
            loop {
                if let Some((503, roles)) = self.readiness(shop).await {
                    let reason = |role: &Value| {
                        Some((
                            role["role"].as_str()?.to_owned(),
                            role["reason"].as_str()?.to_owned(),
                        ))
                    };
                    return roles.as_array().unwrap().iter().filter_map(reason).collect();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(25), found).await.expect("it stays ready")
    }

    async fn figures(&self, shop: &Shop) -> Figures {
        Figures::of(shop, &self.url).await
    }
}

/// A scrape: every series and its value.
#[derive(Debug)]
pub(super) struct Figures(BTreeMap<String, f64>);

impl Figures {
    pub(super) async fn of(shop: &Shop, url: &str) -> Self {
        let answer = shop.anonymous(Method::GET, &format!("{url}/metrics")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        let text = answer.text().await.unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        });
        Self(series.collect())
    }

    #[track_caller]
    pub(super) fn get(&self, series: &str) -> f64 {
        let known = || panic!("no {series} in {:#?}", self.0);
        *self.0.get(&format!("firstcome_{series}")).unwrap_or_else(known)
    }

    /// The sum over all series of a metric.
    fn sum(&self, metric: &str) -> f64 {
        let prefix = format!("firstcome_{metric}{{");
        self.0
            .iter()
            .filter(|(series, _)| series.starts_with(&prefix))
            .map(|(_, value)| value)
            .sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_are_what_happened() {
    let options = Options { users: 40, partitions: 2, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let port = free_port();
        let api = api(shop, port).await;
        let worker = Watched::start(shop, "all", Vec::new());
        worker.becomes_ready(shop).await;

        let coupon = shop.campaign(10).await;
        let url = format!("http://127.0.0.1:{port}");
        let issue = format!("{url}/api/coupons/{coupon}/issue");
        // Everybody once: 10 of 40 get one. Whoever comes when that is known is refused at once.
        let (mut accepted, mut refused) = (0.0, 0.0);
        for user in 1..=40 {
            let answer = shop.submit(user, shop.post(user, &issue)).await;
            match (answer.status, answer.code()) {
                (202, _) => accepted += 1.0,
                (409, "coupon-sold-out") => refused += 1.0,
                _ => panic!("{answer:?}"),
            }
        }
        let order = json!({"items": [{"productId": 1, "quantity": 1}]});
        for user in 1..=3 {
            let order = shop.post(user, &format!("{url}/api/orders")).json(&order);
            assert_eq!(shop.submit(user, order).await.status, 202);
        }
        let nowhere = shop.anonymous(Method::GET, &format!("{url}/nowhere/7")).send().await;
        assert_eq!(nowhere.unwrap().status(), 404);
        shop.settle_and_audit().await;
        eventually("the events are relayed and counted", async || {
            let told = worker.figures(shop).await;
            told.get("sales_events_counted_total") >= 3.0
                && told.get("outbox_events_relayed_total") >= 14.0
        })
        .await;

        let told = worker.figures(shop).await;
        let settled = |kind: &str, status: &str, code: &str| {
            told.get(&format!(
                r#"jobs_settled_total{{kind="{kind}",status="{status}",code="{code}"}}"#
            ))
        };
        assert_eq!(settled("issue-coupon", "succeeded", ""), 10.0);
        if accepted > 10.0 {
            assert_eq!(settled("issue-coupon", "rejected", "coupon-sold-out"), accepted - 10.0);
        }
        assert_eq!(settled("place-order", "succeeded", ""), 3.0);
        assert_eq!(told.sum("jobs_settled_total"), accepted + 3.0);
        assert_eq!(told.sum("line_settled_jobs_total"), accepted + 3.0);
        assert_eq!(told.sum("batch_jobs_sum"), accepted + 3.0);
        assert_eq!(told.sum("batch_duration_seconds_count"), told.sum("batch_jobs_count"));
        // 10 coupons, the last one, 3 orders; by default nobody gets those of coupons.
        assert_eq!(told.get("outbox_events_relayed_total"), 14.0);
        for role in ["update-sales-stats", "send-to-data-platform"] {
            assert_eq!(told.get(&format!(r#"outbox_events_routed_total{{role="{role}"}}"#)), 3.0);
        }
        assert_eq!(told.get("sales_events_counted_total"), 3.0);
        assert_eq!(told.sum("dead_letters_total"), 0.0);
        for family in Family::ALL.map(Family::as_str) {
            assert_eq!(told.get(&format!(r#"leases_held{{family="{family}"}}"#)), 2.0);
        }
        assert_eq!(told.get(r#"role_ready{role="relay-outbox"}"#), 1.0);
        for service in ["broker_up", "database_up", "redis_up"] {
            assert_eq!(told.get(service), 1.0, "{service}");
        }
        assert_eq!(told.get(r#"database_connections_limit{pool="settling"}"#), 8.0);
        assert!(told.sum("database_connections") >= 1.0);
        // Nobody has the data platform's role.
        eventually("the relay tells what waits for the data platform", async || {
            let told = worker.figures(shop).await;
            let depth = |role: &str| told.get(&format!(r#"event_queue_depth{{role="{role}"}}"#));
            depth("send-to-data-platform") >= 1.0 && depth("update-sales-stats") == 0.0
        })
        .await;

        let told = Figures::of(shop, &url).await;
        let requests = |method: &str, route: &str, status: u16| {
            told.get(&format!(
                r#"http_requests_total{{method="{method}",route="{route}",status="{status}"}}"#
            ))
        };
        let route = "/api/coupons/{couponId}/issue";
        assert_eq!(requests("POST", route, 202), accepted);
        if refused > 0.0 {
            assert_eq!(requests("POST", route, 409), refused);
            let reason = r#"jobs_refused_total{kind="issue-coupon",reason="coupon-sold-out"}"#;
            assert_eq!(told.get(reason), refused);
        }
        let count = format!(r#"http_request_duration_seconds_count{{route="{route}"}}"#);
        assert_eq!(told.get(&count), 40.0);
        assert_eq!(requests("POST", "/api/orders", 202), 3.0);
        assert_eq!(requests("GET", "unmatched", 404), 1.0);
        assert_eq!(told.get(r#"jobs_accepted_total{kind="issue-coupon"}"#), accepted);
        assert_eq!(told.get(r#"jobs_accepted_total{kind="place-order"}"#), 3.0);
        assert_eq!((told.get("broker_up"), told.get("broker_blocked")), (1.0, 0.0));
        assert_eq!((told.get("database_up"), told.get("redis_up")), (1.0, 1.0));
        eventually("the API has looked at the lines, which are empty", async || {
            let told = Figures::of(shop, &url).await;
            let consumed = told.sum("line_consumers") == 4.0;
            consumed
                && told.sum("line_ready_messages") == 0.0
                && told.sum("line_waiting_jobs") == 0.0
        })
        .await;

        assert!(worker.process.stop().await.unwrap().success());
        assert!(api.stop().await.unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_waits_is_counted_while_it_does() {
    let options = Options { worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(5).await;
        let job = shop.accepted_issue(1, coupon).await;
        let waiting = async || Figures::of(shop, "").await.get("waiting_polls");
        assert_eq!(waiting().await, 0.0);
        let watching = async {
            eventually("a poll waits", async || waiting().await == 1.0).await;
            shop.start_worker();
        };
        let (answer, ()) = tokio::join!(shop.poll(1, &job, 30), watching);
        assert_eq!(answer.body["status"], "succeeded");
        assert_eq!(waiting().await, 0.0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_its_broker_is_not_ready_until_it_is_back() {
    let options = Options { worker: false, ..Options::default() };
    shop(options, async |shop| {
        // Nobody listens there, which is the platform's trouble and not the role's.
        let platform = format!("http://127.0.0.1:{}/events", free_port());
        let platform = vec![("DATA_PLATFORM_URL", platform)];
        let worker = Watched::start(shop, "all", platform);
        worker.becomes_ready(shop).await;
        let ordered = shop.order(1, &json!({"items": [{"productId": 1, "quantity": 1}]})).await;
        shop.settled(1, ordered.job_id()).await;
        eventually("the circuit to the data platform is open", async || {
            worker.figures(shop).await.get("data_platform_circuit_open") == 1.0
        })
        .await;
        assert!(worker.is_ready(shop).await);

        shop.broker.proxy.cut();
        let roles = ["coupons", "products", "relay-outbox", "update-sales-stats"];
        eventually("every role notices, with a reason", async || {
            let ails = worker.ails(shop).await;
            roles.iter().all(|role| ails.contains_key(*role))
        })
        .await;
        let live = shop.anonymous(Method::GET, &format!("{}/health/live", worker.url));
        assert_eq!(live.send().await.unwrap().status(), 200);
        shop.broker.proxy.restore();
        worker.becomes_ready(shop).await;
        assert!(worker.process.stop().await.unwrap().success());
    })
    .await;
}

/// Connected, but not consuming: somebody else's consumer holds a line, so ours stands by. Nothing
/// tells so but the canary.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_connected_but_dead_shows() {
    let options = Options { worker: false, ..Options::default() };
    shop(options, async |shop| {
        let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let (family, name) = (Family::Coupon, LineName::Partition(1));
        let line = Line { family, generation: 1, name, naming: Naming::Family };
        let queue = line.queue(&shop.namespace);
        let options = BasicConsumeOptions::default();
        let consuming =
            channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let _intruder = consuming.await.unwrap();

        let worker = Watched::start(shop, "coupons", Vec::new());
        eventually("it listens", async || worker.readiness(shop).await.is_some()).await;
        let canary = r#"line_canary_age_seconds{family="coupon",line="1.01"}"#;
        eventually("the canary is overdue", async || {
            assert!(!worker.is_ready(shop).await);
            worker
                .figures(shop)
                .await
                .0
                .get(&format!("firstcome_{canary}"))
                .is_some_and(|age| *age > 10.0)
        })
        .await;
        let ails = worker.ails(shop).await;
        assert!(ails["coupons"].starts_with(&queue), "{ails:?}");
        let restarted = "connected, but nothing comes out of the line";
        eventually("the worker starts over", async || {
            std::fs::read_to_string(log(shop)).unwrap().contains(restarted)
        })
        .await;
        // A fresh connection is no proof either.
        eventually("it serves the line again", async || {
            let told = worker.figures(shop).await.0;
            told.get(&format!("firstcome_{canary}")).is_some_and(|age| *age < 5.0)
        })
        .await;
        assert!(!worker.is_ready(shop).await);

        connect::close(&connection).await;
        worker.becomes_ready(shop).await;
        let coupon = shop.campaign(5).await;
        for user in 1..=5 {
            shop.accepted_issue(user, coupon).await;
        }
        shop.settle_and_audit().await;
        assert!(worker.process.stop().await.unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_told_with_a_hint() {
    let options = Options { worker: false, ..Options::default() };
    shop(options, async |shop| {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut environment = environment(shop, 0);
        environment.push(("WORKER_ADDR", taken.local_addr().unwrap().to_string()));
        let mut worker =
            Process::start("firstcome-worker", &["all"], environment, &log(shop)).unwrap();
        eventually("it ends", async || worker.ended().unwrap().is_some()).await;
        assert!(!worker.ended().unwrap().unwrap().success());
        let log = std::fs::read_to_string(log(shop)).unwrap();
        assert!(log.contains("WORKER_ADDR") && log.contains("is another process there?"), "{log}");
    })
    .await;
}
