//! A whole shop per test.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use firstcome_api::{
    Doors,
    config::{SecretArgs, ServeArgs, TokenArgs},
};
use firstcome_broker::{BrokerArgs, connect, topology};
use firstcome_contract::{
    event::EventType,
    job::Job,
    line::{Line, Naming, Routing},
};
use firstcome_process::redis::RedisArgs;
use firstcome_rig::Proxy;
use firstcome_workers::{
    RoleName,
    commands::{audit, sample_data},
    config::{DatabaseArgs, RetentionArgs, TimeZoneArgs, WorkerArgs},
    monitor::Monitor,
};
use futures_util::{FutureExt, StreamExt, stream};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub mod contract;
pub mod sale;

/// How long anything may take before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What a test wants to be different.
#[derive(Debug, Clone)]
pub struct Options {
    pub partitions: u16,
    /// The most messages in a line.
    pub line_capacity: i32,
    /// Users 1..=users exist.
    pub users: i64,
    pub confirm_deadline_ms: u32,
    pub job_retention: u32,
    /// Without one, the test starts it when it wants.
    pub worker: bool,
    /// Without them, the first worker makes the lines, and the API is not ready before.
    pub lines: bool,
    /// Where events are sent, if anywhere.
    pub data_platform_url: Option<String>,
    /// Of which types.
    pub data_platform_events: Vec<EventType>,
    pub data_platform_ca_file: Option<PathBuf>,
    pub data_platform_signing_secret: Option<String>,
    pub data_platform_token: Option<String>,
    pub services: Services,
}

/// Where the services are.
#[derive(Debug, Clone)]
pub struct Services {
    pub database_url: String,
    pub amqp_url: String,
    pub redis_url: String,
}

impl Services {
    /// Those that all tests share.
    fn shared() -> Self {
        let url = |variable: &str| {
            std::env::var(variable)
                .unwrap_or_else(|_| panic!("{variable} is not set: run the tests with `make test`"))
        };
        Self {
            database_url: url("DATABASE_URL"),
            amqp_url: url("AMQP_URL"),
            redis_url: url("REDIS_URL"),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 2,
            line_capacity: 100_000,
            users: 20,
            confirm_deadline_ms: 3_000,
            job_retention: 24 * 3_600,
            worker: true,
            lines: true,
            data_platform_url: None,
            data_platform_events: vec![EventType::OrderCompleted, EventType::OrderCancelled],
            data_platform_ca_file: None,
            data_platform_signing_secret: None,
            data_platform_token: None,
            services: Services::shared(),
        }
    }
}

/// A shop of its own: database, queues, Redis prefix, API, worker.
pub struct Shop {
    pub options: Options,
    pub namespace: String,
    pub pool: PgPool,
    pub database: Link,
    pub broker: Link,
    pub redis: Link,
    client: reqwest::Client,
    pub api: Api,
    workers: Mutex<Vec<Worker>>,
    /// Every job that was answered with 202: at the end each must have exactly one outcome.
    accepted: Mutex<HashMap<String, i64>>,
}

/// A service, as the shop's programs reach it (through a proxy) and as the test does (directly).
pub struct Link {
    pub direct: String,
    pub proxied: String,
    pub proxy: Proxy,
}

/// One API process-to-be, in this process.
pub struct Api {
    pub url: String,
    /// If operators have a door of their own.
    pub operators_url: Option<String>,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

/// One worker process-to-be, in this process.
struct Worker {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// Runs a test in a shop of its own and cleans up after it, whether it passed or not. A test that
/// passed must leave no accepted job without its outcome, and a clean audit.
pub async fn shop(options: Options, test: impl AsyncFnOnce(&Shop)) {
    let shop = Shop::open(options).await;
    let outcome = AssertUnwindSafe(test(&shop)).catch_unwind().await;
    let outcome = match outcome {
        Ok(()) => AssertUnwindSafe(shop.settle_and_audit()).catch_unwind().await,
        failed => failed,
    };
    shop.close().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl Shop {
    async fn open(options: Options) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let namespace =
            format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let services = &options.services;
        let direct = with_database(&services.database_url, &namespace);
        create_database(&services.database_url, &namespace).await;
        let pool = PgPoolOptions::new().max_connections(5).connect(&direct).await.unwrap();
        sample_data::create(&pool, options.users).await.unwrap();

        let database = Link::to(direct).await;
        sqlx::query("UPDATE routing SET partitions = $1, line_capacity = $2")
            .bind(i32::from(options.partitions))
            .bind(options.line_capacity)
            .execute(&pool)
            .await
            .unwrap();
        let broker = Link::to(services.amqp_url.clone()).await;
        let redis = Link::to(services.redis_url.clone()).await;
        let config = api_config(&options, &namespace, &database, &broker, &redis);
        // Whoever is first in this process: the workers do the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
        if options.lines {
            let lines = broker_args(&namespace, &broker);
            firstcome_workers::crew::make_lines(&lines, &pool).await.unwrap();
        }
        let shop = Self {
            api: Api::start(config).await,
            options,
            namespace,
            pool,
            database,
            broker,
            redis,
            client,
            workers: Mutex::default(),
            accepted: Mutex::default(),
        };
        if shop.options.worker {
            shop.start_worker();
        }
        if shop.options.lines {
            shop.ready(&shop.api).await;
        }
        shop
    }

    async fn close(self) {
        self.stop_workers().await;
        let lines = self.lines().await;
        self.api.stop().await;
        let connection = connect::connect(&self.broker.as_broker(), "test").await.unwrap();
        topology::delete(&connection, &self.namespace, lines).await.unwrap();
        connect::close(&connection).await;
        self.pool.close().await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.namespace);
        run(&self.options.services.database_url, drop).await;
    }

    /// Makes job ids as the API does.
    pub fn signer(&self) -> firstcome_api::known::job_ids::Signer {
        let config =
            api_config(&self.options, &self.namespace, &self.database, &self.broker, &self.redis);
        firstcome_api::known::job_ids::Signer::new(&config.job_id_keys().unwrap())
    }

    /// Every line there is.
    pub async fn lines(&self) -> Vec<Line> {
        firstcome_workers::crew::lines(&self.pool).await.unwrap()
    }

    /// The queue in which such a job stands, unless the routing was changed.
    pub fn queue_of(&self, job: &Job) -> String {
        let routing = Routing {
            generation: 1,
            partitions: self.options.partitions,
            pins: std::collections::BTreeMap::new(),
            naming: Naming::Family,
        };
        routing.named(job.kind().family(), routing.line(job.keys())).queue(&self.namespace)
    }

    /// Waits until every accepted job has its outcome, then audits.
    pub async fn settle_and_audit(&self) {
        let accepted = self.accepted.lock().unwrap().clone();
        let ids: Vec<uuid::Uuid> = accepted.keys().map(|id| id.parse().unwrap()).collect();
        let missing = async || {
            let settled: i64 =
                sqlx::query_scalar("SELECT count(*) FROM job_outcomes WHERE job_id = ANY($1)")
                    .bind(&ids)
                    .fetch_one(&self.pool)
                    .await
                    .unwrap();
            ids.len() - usize::try_from(settled).unwrap()
        };
        eventually("every accepted job has its outcome", async || missing().await == 0).await;
        for finding in audit::audit(&self.pool).await.unwrap() {
            assert_eq!(finding.violations, 0, "{finding:?}");
        }
    }

    /// Waits until a worker's batch waits for a row that another transaction has locked.
    pub async fn is_waiting_for_a_row(&self) {
        eventually("a batch waits for a row", async || {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND application_name = 'firstcome-worker' AND query LIKE '%FOR NO KEY UPDATE%'",
            )
            .fetch_one(&self.pool)
            .await
            .unwrap();
            waiting > 0
        })
        .await;
    }

    /// Another API on the same services.
    pub async fn start_api(&self, change: impl FnOnce(&mut ServeArgs)) -> Api {
        let api = self.start_unready_api(change).await;
        self.ready(&api).await;
        api
    }

    /// One that need not become ready.
    pub async fn start_unready_api(&self, change: impl FnOnce(&mut ServeArgs)) -> Api {
        let mut config =
            api_config(&self.options, &self.namespace, &self.database, &self.broker, &self.redis);
        change(&mut config);
        Api::start(config).await
    }

    async fn ready(&self, api: &Api) {
        let url = format!("{}/health/ready", api.url);
        eventually("the API is ready", async || {
            self.client.get(&url).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
    }

    /// Starts another worker in this process, with every role.
    pub fn start_worker(&self) {
        self.start_worker_with(|_| {});
    }

    /// The same with other settings.
    pub fn start_worker_with(&self, change: impl FnOnce(&mut WorkerArgs)) {
        let stop = CancellationToken::new();
        let database =
            DatabaseArgs { database_url: self.database.proxied.clone(), database_connections: 6 };
        let mut args = WorkerArgs {
            database,
            broker: broker_args(&self.namespace, &self.broker),
            redis: redis_args(&self.redis),
            worker_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            time_zone: TimeZoneArgs { business_time_zone: "Asia/Seoul".to_owned() },
            retention: RetentionArgs { job_retention: self.options.job_retention },
            data_platform_url: self.options.data_platform_url.clone(),
            data_platform_ca_file: self.options.data_platform_ca_file.clone(),
            data_platform_signing_secret: self.options.data_platform_signing_secret.clone(),
            data_platform_token: self.options.data_platform_token.clone(),
            data_platform_events: self.options.data_platform_events.clone(),
            data_platform_timeout_ms: 500,
        };
        change(&mut args);
        let mut roles =
            firstcome_workers::start(&RoleName::ALL, &args, &Monitor::default(), &stop).unwrap();
        let running = tokio::spawn(async move {
            while let Some(ended) = roles.join_next().await {
                ended.expect("a role does not panic");
            }
        });
        self.workers.lock().unwrap().push(Worker { stop, running });
    }

    /// Stops all workers of this process, gracefully.
    pub async fn stop_workers(&self) {
        let workers: Vec<Worker> = self.workers.lock().unwrap().drain(..).collect();
        for Worker { stop, running } in workers {
            stop.cancel();
            tokio::time::timeout(DEADLINE, running).await.expect("the worker stops").unwrap();
        }
    }

    /// A request without a token, at any API.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.api.url)
        };
        self.client.request(method, url)
    }

    pub fn get(&self, user: i64, path: &str) -> RequestBuilder {
        self.anonymous(Method::GET, path).bearer_auth(token(user, false))
    }

    pub fn post(&self, user: i64, path: &str) -> RequestBuilder {
        self.anonymous(Method::POST, path).bearer_auth(token(user, false))
    }

    pub fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(token(1, true))
    }

    pub fn audit(&self, path: &str) -> RequestBuilder {
        self.anonymous(Method::GET, path).bearer_auth(auditor_token(2))
    }

    /// Asks for a coupon: the answer, noted if it is a 202.
    pub async fn issue(&self, user: i64, coupon: i64) -> Answer {
        self.submit(user, self.post(user, &format!("/api/coupons/{coupon}/issue"))).await
    }

    /// Asks for a coupon with an idempotency key.
    pub async fn issue_keyed(&self, user: i64, coupon: i64, key: &str) -> Answer {
        let request = self.post(user, &format!("/api/coupons/{coupon}/issue"));
        self.submit(user, request.header("Idempotency-Key", key)).await
    }

    pub async fn submit(&self, user: i64, request: RequestBuilder) -> Answer {
        self.try_submit(user, request).await.unwrap()
    }

    pub async fn try_submit(&self, user: i64, request: RequestBuilder) -> reqwest::Result<Answer> {
        let answer = Answer::try_of(request).await?;
        // What operators ask for is accepted too, without a job; one that was settled while its answer was held is like any.
        if let (200 | 202, Some(job)) = (answer.status, answer.body["jobId"].as_str()) {
            self.accepted.lock().unwrap().insert(job.to_owned(), user);
        }
        Ok(answer)
    }

    /// Places an order: the answer, noted if it is a 202.
    pub async fn order(&self, user: i64, body: &Value) -> Answer {
        self.submit(user, self.post(user, "/api/orders").json(body)).await
    }

    /// Places an order and waits for its outcome.
    pub async fn ordered(&self, user: i64, body: &Value) -> Value {
        let answer = self.order(user, body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        self.settled(user, answer.job_id()).await
    }

    /// Creates a product.
    pub async fn product(&self, price: i64, stock: i64) -> i64 {
        let body = json!({"name": "A product", "price": price, "stock": stock});
        let answer = Answer::of(self.admin(Method::POST, "/api/admin/products").json(&body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["id"].as_i64().unwrap()
    }

    /// Asks for a coupon that is surely accepted; the job's id.
    pub async fn accepted_issue(&self, user: i64, coupon: i64) -> String {
        let answer = self.issue(user, coupon).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.job_id().to_owned()
    }

    /// Waits until no event is in the outbox any more: each is in its queues.
    pub async fn published(&self) {
        eventually("the events are published", async || {
            let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox_parcels")
                .fetch_one(&self.pool)
                .await
                .unwrap();
            waiting == 0
        })
        .await;
    }

    /// The job, once it is settled.
    pub async fn settled(&self, user: i64, job: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.poll(user, job, 10).await;
            // 503 while the database is away is honest; anything else must be a job.
            if answer.status == 200 && answer.body["status"] != "queued" {
                return answer.body;
            }
            assert!(answer.status == 200 || answer.status == 503, "{answer:?}");
            assert!(Instant::now() < deadline, "not settled: {answer:?}");
        }
    }

    pub async fn poll(&self, user: i64, job: &str, wait: u32) -> Answer {
        Answer::of(
            self.get(user, &format!("/api/jobs/{job}")).header("Prefer", format!("wait={wait}")),
        )
        .await
    }

    /// A campaign that is open now.
    pub async fn campaign(&self, total: i64) -> i64 {
        let body = json!({
            "name": "A drop", "discountType": "fixed", "discountValue": 1000, "total": total,
            "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
        });
        let answer = Answer::of(self.admin(Method::POST, "/api/admin/coupons").json(&body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["id"].as_i64().unwrap()
    }

    /// Many requests, `concurrency` at a time, in order of start; their answers.
    pub async fn storm(
        &self,
        requests: impl IntoIterator<Item = (i64, i64)>,
        concurrency: usize,
    ) -> Vec<Answer> {
        stream::iter(requests)
            .map(|(user, coupon)| self.issue(user, coupon))
            .buffer_unordered(concurrency)
            .collect()
            .await
    }

    /// How many outcomes there are, by status or code.
    pub async fn outcomes(&self) -> HashMap<String, i64> {
        let counts: Vec<(String, i64)> =
            sqlx::query_as("SELECT COALESCE(code, status), count(*) FROM job_outcomes GROUP BY 1")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        counts.into_iter().collect()
    }

    pub async fn sql(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }

    pub fn accepted_ids(&self) -> HashSet<String> {
        self.accepted.lock().unwrap().keys().cloned().collect()
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
    pub took: Duration,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        Self::try_of(request).await.unwrap()
    }

    /// An error where no answer came, or not all of it.
    pub async fn try_of(request: RequestBuilder) -> reqwest::Result<Self> {
        let started = Instant::now();
        let (client, request) = request.build_split();
        let request = request?;
        let method = request.method().clone();
        let response = client.execute(request).await?;
        let path = response.url().path().to_owned();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        contract::check(&method, &path, status, &headers, &body);
        Ok(Self { status, headers, body, took: started.elapsed() })
    }

    pub fn job_id(&self) -> &str {
        self.body["jobId"].as_str().unwrap()
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Seconds.
    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        self.headers["retry-after"].to_str().unwrap().parse().unwrap()
    }

    /// It is a problem with this status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(
                self.body[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {self:?}"
            );
        }
    }
}

impl Api {
    async fn start(config: ServeArgs) -> Self {
        let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let operators = match config.api_admin_addr {
            Some(address) => Some(TcpListener::bind(address).await.unwrap()),
            None => None,
        };
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (url, operators_url) = (url(&public), operators.as_ref().map(url));
        let stop = CancellationToken::new();
        let doors = Doors { public, operators };
        let serving = tokio::spawn(firstcome_api::serve(config, doors, stop.clone()));
        Self { url, operators_url, stop, serving }
    }

    /// What SIGTERM does.
    pub fn begin_to_stop(&self) {
        self.stop.cancel();
    }

    pub async fn stop(self) {
        self.begin_to_stop();
        tokio::time::timeout(DEADLINE, self.serving)
            .await
            .expect("the API stops")
            .unwrap()
            .unwrap();
    }
}

impl Link {
    /// A broker, as a test asks it.
    pub fn as_broker(&self) -> BrokerArgs {
        BrokerArgs::new(&self.direct, "")
    }

    pub async fn to(direct: String) -> Self {
        // scheme://[user[:password]@]host:port/…
        let start = direct.find('@').map_or_else(|| direct.find("://").unwrap() + 3, |at| at + 1);
        let end = direct[start..].find('/').map_or(direct.len(), |slash| start + slash);
        let proxy = Proxy::start(direct[start..end].to_owned()).await.unwrap();
        let proxied = format!("{}{}{}", &direct[..start], proxy.address(), &direct[end..]);
        Self { direct, proxied, proxy }
    }
}

pub fn token(user: i64, admin: bool) -> String {
    firstcome_api::http::auth::token(&TokenArgs {
        user,
        admin,
        auditor: false,
        expires_in: 3600,
        secrets: secrets(),
    })
    .unwrap()
}

/// Of a user who may see what operators see.
pub fn auditor_token(user: i64) -> String {
    firstcome_api::http::auth::token(&TokenArgs {
        user,
        admin: false,
        auditor: true,
        expires_in: 3600,
        secrets: secrets(),
    })
    .unwrap()
}

pub fn secrets() -> SecretArgs {
    SecretArgs { dev: true, ..SecretArgs::default() }
}

fn broker_args(namespace: &str, broker: &Link) -> BrokerArgs {
    BrokerArgs::new(&broker.proxied, namespace)
}

fn redis_args(redis: &Link) -> RedisArgs {
    RedisArgs::new(&redis.proxied)
}

fn api_config(
    options: &Options,
    namespace: &str,
    database: &Link,
    broker: &Link,
    redis: &Link,
) -> ServeArgs {
    ServeArgs {
        api_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        api_admin_addr: None,
        max_connections: 1_000,
        max_streams: 100,
        cors_origins: vec!["https://shop.example".parse().unwrap()],
        drain_seconds: 0,
        database_url: database.proxied.clone(),
        database_connections: 4,
        broker: broker_args(namespace, broker),
        redis: redis_args(redis),
        secrets: secrets(),
        job_id_key: None,
        job_retention: options.job_retention,
        products_ttl: 60,
        popular_ttl: 1,
        business_time_zone: "Asia/Seoul".to_owned(),
        line_capacity: 500_000,
        rate_limit: 0,
        address_rate_limit: None,
        trusted_proxies: Vec::new(),
        confirm_deadline_ms: options.confirm_deadline_ms,
        cancel_window: 7 * 24 * 3_600,
    }
}

/// Waits for something to become true; fails the test if it does not.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "did not happen within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn with_database(server: &str, name: &str) -> String {
    let (base, _) = server.rsplit_once('/').unwrap();
    format!("{base}/{name}")
}

/// A database with all migrations, cheap: a copy of a template, which the first run with these
/// migrations makes and later ones find.
async fn create_database(server: &str, name: &str) {
    let migrations = sqlx::migrate!("../migrations");
    let digest = migrations.iter().fold(0u32, |digest, migration| {
        let fold = |digest: u32, byte: &u8| digest.wrapping_mul(31) ^ u32::from(*byte);
        migration.checksum.iter().fold(digest, fold)
    });
    let template = format!("test_template_{digest:08x}");
    let mut connection = PgConnection::connect(server).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(4711)").execute(&mut connection).await.unwrap();
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&template)
            .fetch_one(&mut connection)
            .await
            .unwrap();
    if !exists {
        // Renamed when complete: whatever bears the name is whole.
        run(server, "DROP DATABASE IF EXISTS test_template_making".to_owned()).await;
        run(server, "CREATE DATABASE test_template_making".to_owned()).await;
        let pool = PgPool::connect(&with_database(server, "test_template_making")).await.unwrap();
        firstcome_workers::schema::migrate(&pool).await.unwrap();
        pool.close().await;
        run(server, format!("ALTER DATABASE test_template_making RENAME TO {template}")).await;
    }
    connection.close().await.unwrap();
    run(server, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
}

/// On the server itself.
pub async fn run(server: &str, statement: String) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}
