//! The programs, run as docker-compose.yml says, on the tests' services.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    path::PathBuf,
    process::Stdio,
    sync::Mutex,
    time::{Duration, Instant},
};

use firstcome_broker::{BrokerArgs, connect, topology};
use firstcome_contract::line::Line;
use firstcome_rig::{Process, binary};
use futures_util::FutureExt;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::process::Command;

use super::{
    compose::{Service, programs},
    image,
};

/// How long anything may take before the test gives up on it.
const DEADLINE: Duration = Duration::from_secs(60);

/// The services and what takes the place of their network.
struct Network {
    /// Of the database and the queues.
    name: String,
    services: BTreeMap<String, Service>,
    /// For a service and a port in its container: one of this machine.
    ports: Mutex<BTreeMap<(String, String), u16>>,
}

fn given(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests with `make test`"))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Network {
    fn new() -> Self {
        let name = format!("compose_{}", std::process::id());
        Self { name, services: programs(), ports: Mutex::default() }
    }

    fn database_url(&self) -> String {
        let url = given("DATABASE_URL");
        let (server, _) = url.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    fn address(&self, service: &str, port: &str) -> String {
        let mut ports = self.ports.lock().unwrap();
        let port = ports.entry((service.to_owned(), port.to_owned())).or_insert_with(free_port);
        format!("127.0.0.1:{port}")
    }

    /// The environment of a service's container, with addresses of this machine.
    fn environment(&self, service: &str) -> BTreeMap<String, String> {
        let mut environment = image::environment();
        environment.extend(self.services[service].environment.clone());
        for (variable, value) in &mut environment {
            match variable.as_str() {
                "DATABASE_URL" => *value = self.database_url(),
                "AMQP_URL" | "REDIS_URL" => *value = given(variable),
                _ => {
                    let start = value.find("://").map_or(0, |scheme| scheme + 3);
                    let end = value[start..].find('/').map_or(value.len(), |slash| start + slash);
                    if let Some((host, port)) = value[start..end].split_once(':') {
                        let host = if host == "0.0.0.0" { service } else { host };
                        let local = self.address(host, port);
                        value.replace_range(start..end, &local);
                    }
                }
            }
        }
        environment.insert("QUEUE_NAMESPACE".to_owned(), self.name.clone());
        environment
    }

    /// Runs a program in a service's environment to its end and gives what it printed.
    async fn completed(&self, service: &str, command: &[String]) -> String {
        let mut program = Command::new(binary(&command[0]).unwrap());
        program.args(&command[1..]).envs(self.environment(service)).stderr(Stdio::inherit());
        let output = program.output().await.unwrap();
        assert!(output.status.success(), "{command:?} ended with {}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&self, service: &str) -> Process {
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", self.name));
        let command: Vec<&str> =
            self.services[service].command.iter().map(String::as_str).collect();
        let environment = self.environment(service);
        let environment = environment.iter().map(|(name, value)| (name.as_str(), value.clone()));
        Process::start(command[0], &command[1..], environment, &log).unwrap()
    }

    /// What the health check says, if there is one.
    async fn healthy(&self, service: &str) -> Option<bool> {
        let arguments = self.services[service].health()?;
        // In the container it would ask on loopback.
        let arguments = arguments.iter().map(|argument| {
            let port = argument.strip_prefix("127.0.0.1:");
            port.map_or_else(|| argument.clone(), |port| self.address(service, port))
        });
        let mut check = Command::new(binary("firstcome-worker").unwrap());
        check.args(arguments).envs(self.environment(service));
        let output = check.output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        Some(output.status.success())
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "did not happen within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The lines that came to be.
async fn lines(database: &str) -> Vec<Line> {
    let server = given("DATABASE_URL");
    let (base, _) = server.rsplit_once('/').unwrap();
    let pool = PgPool::connect(&format!("{base}/{database}")).await.unwrap();
    let lines = firstcome_workers::crew::lines(&pool).await.unwrap();
    pool.close().await;
    lines
}

async fn sql(statement: String) {
    let mut connection = PgConnection::connect(&given("DATABASE_URL")).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

/// From an empty database to an order that the data platform hears of.
#[tokio::test(flavor = "multi_thread")]
async fn the_services_are_a_shop() {
    let network = Network::new();
    sql(format!("CREATE DATABASE {}", network.name)).await;
    let outcome = AssertUnwindSafe(open_and_close(&network)).catch_unwind().await;
    let lines = lines(&network.name).await;
    let connection =
        connect::connect(&BrokerArgs::new(&given("AMQP_URL"), ""), "test").await.unwrap();
    topology::delete(&connection, &network.name, lines).await.unwrap();
    connect::close(&connection).await;
    sql(format!("DROP DATABASE {} WITH (FORCE)", network.name)).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn open_and_close(network: &Network) {
    for service in ["migrate", "sample-data"] {
        network.completed(service, &network.services[service].command).await;
    }
    let lasting = network.services.iter().filter(|(_, service)| !service.ends());
    let lasting: Vec<&String> = lasting.map(|(name, _)| name).collect();
    for service in &lasting {
        assert_ne!(network.healthy(service).await, Some(true), "{service} before it runs");
    }
    let processes: Vec<Process> = lasting.iter().map(|service| network.start(service)).collect();
    for service in &lasting {
        eventually(service, async || network.healthy(service).await != Some(false)).await;
    }
    // As `docker compose exec api …` does.
    let token = ["firstcome-api", "token", "--user", "7"].map(str::to_owned);
    let token = network.completed("api", &token).await;
    buy(network, token.trim()).await;
    for (service, process) in lasting.iter().zip(processes) {
        assert!(process.stop().await.unwrap().success(), "{service}");
    }
}

/// A coupon, an order with it, and the event of that: every role has its part.
async fn buy(network: &Network, token: &str) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
    let api = format!("http://{}", network.address("api", "8080"));
    let settled = async |request: reqwest::RequestBuilder| {
        let job: Value = request.bearer_auth(token).send().await.unwrap().json().await.unwrap();
        let poll = client.get(format!("{api}/api/jobs/{}", job["jobId"].as_str().unwrap()));
        let poll = poll.bearer_auth(token).header("Prefer", "wait=30").send().await.unwrap();
        poll.json::<Value>().await.unwrap()
    };
    let issued = settled(client.post(format!("{api}/api/coupons/2/issue"))).await;
    assert_eq!(issued["status"], "succeeded", "{issued}");
    let order = json!({"items": [{"productId": 1, "quantity": 3}], "couponId": 2});
    let ordered = settled(client.post(format!("{api}/api/orders")).json(&order)).await;
    assert_eq!(ordered["status"], "succeeded", "{ordered}");

    let events = format!("http://{}/events", network.address("mock-data-platform", "9090"));
    eventually("the data platform hears of the order", async || {
        let report: Value = client.get(&events).send().await.unwrap().json().await.unwrap();
        report["distinct"] == 1
    })
    .await;
    let mut database = PgConnection::connect(&network.database_url()).await.unwrap();
    eventually("the sale is counted", async || {
        let sold = "SELECT count(*) FROM product_sales WHERE product_id = 1 AND quantity = 3";
        let sold: i64 = sqlx::query_scalar(sold).fetch_one(&mut database).await.unwrap();
        sold == 1
    })
    .await;
}
