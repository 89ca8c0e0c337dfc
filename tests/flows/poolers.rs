//! PgBouncer between the programs and PostgreSQL: one that pools sessions is as none, any other is refused.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use firstcome_rig::{Process, binary};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::process::{Child, Command};

use super::{
    alerts::tool,
    processes::{api_with, environment, free_port, log},
};
use firstcome_tests::{Answer, DEADLINE, Options, Shop, eventually, run, shop, with_database};

/// As the documents have it.
const SESSIONS: &str = "pool_mode = session
    server_reset_query = DISCARD ALL
    ignore_startup_parameters = extra_float_digits,options
    default_pool_size = 100";
/// The same but for the mode.
const TRANSACTIONS: &str = "pool_mode = transaction
    ignore_startup_parameters = extra_float_digits,options
    default_pool_size = 100";
const STATEMENTS: &str = "pool_mode = statement
    ignore_startup_parameters = extra_float_digits,options
    default_pool_size = 100";
/// Whoever is next gets a session as the last one left it.
const WITHOUT_A_RESET: &str = "pool_mode = session
    server_reset_query =
    ignore_startup_parameters = extra_float_digits,options
    default_pool_size = 1";

/// One of this test's own, before the shop's database.
struct PgBouncer {
    folder: PathBuf,
    port: u16,
    url: String,
    /// All of its file but for the settings that a test chooses.
    config: String,
    /// Killed when dropped.
    server: Child,
}

impl PgBouncer {
    async fn start(shop: &Shop, settings: &str) -> Self {
        let (_, rest) = shop.database.direct.split_once("://").unwrap();
        let (user, rest) = rest.split_once('@').unwrap();
        // user or user:password, as PgBouncer says it.
        let login = format!("user={}", user.replacen(':', " password=", 1));
        let user = user.split(':').next().unwrap();
        let (host, port) = rest.split_once('/').unwrap().0.rsplit_once(':').unwrap();
        let own = free_port();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("pgbouncer-{}-{own}", shop.namespace));
        fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "[databases]
* = host={host} port={port} {login}
[pgbouncer]
    listen_addr = 127.0.0.1
    listen_port = {own}
    unix_socket_dir =
    auth_type = any
    max_client_conn = 200
    server_login_retry = 1
"
        );
        let url = with_database(&format!("postgres://{user}@127.0.0.1:{own}/"), &shop.namespace);
        let server = Self::launch(&folder, own, &format!("{config}{settings}\n")).await;
        Self { folder, port: own, url, config, server }
    }

    /// When it returns, it listens.
    async fn launch(folder: &Path, port: u16, config: &str) -> Child {
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new(tool("pgbouncer").await);
        // It refuses to run as root.
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.args(["-u", "nobody"]);
        }
        let server = command
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .unwrap();
        eventually("PgBouncer listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        server
    }

    async fn kill(&mut self) {
        self.server.kill().await.unwrap();
    }

    /// The same once more, after it was killed.
    async fn restart(&mut self, settings: &str) {
        self.server =
            Self::launch(&self.folder, self.port, &format!("{}{settings}\n", self.config)).await;
    }

    fn setting(&self) -> [(&'static str, String); 1] {
        [("DATABASE_URL", self.url.clone())]
    }

    /// What a program says that has to end by itself.
    async fn run(&self, shop: &Shop, program: &str, command: &str) -> Output {
        program_on(shop, &self.url, program, command).await
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn program_on(shop: &Shop, database: &str, program: &str, command: &str) -> Output {
    let output = Command::new(binary(program).unwrap())
        .arg(command)
        .envs(environment(shop, 0))
        .env("DATABASE_URL", database)
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(DEADLINE, output).await.expect("it ends").unwrap()
}

/// It did not start, and says what to change.
#[track_caller]
fn is_refused(output: &Output, hint: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(hint), "{hint}: {output:?}");
}

const PROGRAMS: [(&str, &str); 4] = [
    ("firstcome-worker", "all"),
    ("firstcome-api", "serve"),
    ("firstcome-worker", "migrate"),
    ("firstcome-worker", "audit"),
];

/// What sessions begin with does not get through: their settings are as they are without a pooler all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_sale_through_a_pooler_of_sessions() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        shop.sql(
            "CREATE TABLE seen (setting text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO seen SELECT concat_ws('' '', TG_TABLE_NAME, current_setting(''application_name''),
                      current_setting(''synchronous_commit''), current_setting(''statement_timeout''),
                      current_setting(''idle_in_transaction_session_timeout''), current_setting(''enable_seqscan'')); RETURN NULL; END';
             CREATE TRIGGER see AFTER INSERT ON balance_transactions FOR EACH STATEMENT EXECUTE FUNCTION see();
             CREATE TRIGGER see AFTER INSERT ON user_coupons FOR EACH STATEMENT EXECUTE FUNCTION see();
             CREATE TRIGGER see AFTER INSERT ON workers FOR EACH STATEMENT EXECUTE FUNCTION see()",
        )
        .await;
        let server = &shop.options.services.database_url;
        run(server, format!("ALTER DATABASE {} SET synchronous_commit = off", shop.namespace)).await;
        let pooler = PgBouncer::start(shop, SESSIONS).await;
        let migrated = pooler.run(shop, "firstcome-worker", "migrate").await;
        assert!(migrated.status.success(), "{migrated:?}");

        let variables = environment(shop, 0).into_iter().chain(pooler.setting());
        let worker =
            Process::start("firstcome-worker", &["all"], variables, &log(shop)).unwrap();
        let port = free_port();
        let api = api_with(shop, port, &pooler.setting()).await;
        let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
        let charged = shop.post(7, &at("/api/balance/charge")).json(&json!({"amount": 10_000}));
        assert_eq!(Answer::of(charged).await.status, 200);
        let (coupon, product) = (shop.campaign(10).await, shop.product(1_000, 10).await);
        let issue = shop.post(7, &at(&format!("/api/coupons/{coupon}/issue")));
        let issued = shop.submit(7, issue.header("Idempotency-Key", "one")).await;
        let order = json!({"items": [{"productId": product, "quantity": 1}]});
        let ordered = shop.submit(7, shop.post(7, &at("/api/orders")).json(&order)).await;
        for accepted in [issued, ordered] {
            assert_eq!(accepted.status, 202, "{accepted:?}");
            let job = shop.get(7, &at(&format!("/api/jobs/{}", accepted.job_id())));
            let polled = Answer::of(job.header("Prefer", "wait=20")).await;
            assert_eq!(polled.body["status"], "succeeded", "{polled:?}");
        }
        shop.published().await;
        let seen: Vec<String> = sqlx::query_scalar("SELECT DISTINCT setting FROM seen ORDER BY setting")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
        assert_eq!(
            seen,
            [
                "balance_transactions firstcome-api on 5s 10s off",
                "balance_transactions firstcome-worker on 5s 10s off",
                "user_coupons firstcome-worker on 5s 10s off",
                "workers firstcome-worker on 5s 10s off",
            ]
        );
        let audited = pooler.run(shop, "firstcome-worker", "audit").await;
        assert!(audited.status.success(), "{audited:?}");
        for program in [worker, api] {
            assert!(program.stop().await.unwrap().success());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poolers_that_do_not_give_a_session_to_each_connection_are_refused() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        for ((program, command), settings) in PROGRAMS
            .into_iter()
            .flat_map(|program| [TRANSACTIONS, STATEMENTS].map(|mode| (program, mode)))
        {
            // One that nobody has used before.
            let pooler = PgBouncer::start(shop, settings).await;
            // The second time it finds what the first one has left.
            for _ in 0..2 {
                let refused = pooler.run(shop, program, command).await;
                is_refused(&refused, "PgBouncer needs pool_mode = session");
            }
        }
        let pooler = PgBouncer::start(shop, WITHOUT_A_RESET).await;
        pooler.run(shop, "firstcome-worker", "audit").await;
        let hint = "server_reset_query = DISCARD ALL";
        let mut refused = pooler.run(shop, "firstcome-worker", "audit").await;
        if !String::from_utf8_lossy(&refused.stderr).contains(hint) {
            // On a busy machine the pooler may not be done with the session that the first one has left.
            refused = pooler.run(shop, "firstcome-worker", "audit").await;
        }
        is_refused(&refused, hint);
        let pooler = PgBouncer::start(shop, "pool_mode = session").await;
        for (program, command) in PROGRAMS {
            let refused = pooler.run(shop, program, command).await;
            is_refused(&refused, "ignore_startup_parameters = extra_float_digits,options");
        }
    })
    .await;
}

/// Coupons of a campaign for users who ask the API at this port.
async fn sell(shop: &Shop, port: u16, users: std::ops::Range<i64>) {
    let coupon = shop.campaign(1_000).await;
    let asking = users.map(async |user| {
        let issue = shop.post(user, &format!("http://127.0.0.1:{port}/api/coupons/{coupon}/issue"));
        let accepted = shop.submit(user, issue).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        let job = format!("http://127.0.0.1:{port}/api/jobs/{}", accepted.job_id());
        let polled = Answer::of(shop.get(user, &job).header("Prefer", "wait=20")).await;
        assert_eq!(polled.body["status"], "succeeded", "{polled:?}");
    });
    futures_util::future::join_all(asking).await;
}

/// Waits until readiness says whether the database answers.
async fn readiness_says(shop: &Shop, port: u16, database: bool) {
    let ready = format!("http://127.0.0.1:{port}/health/ready");
    eventually(&format!("readiness says database: {database}"), async || {
        let Ok(answer) = shop.anonymous(reqwest::Method::GET, &ready).send().await else {
            return false;
        };
        answer.json::<Value>().await.is_ok_and(|body| body["database"] == database)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_restarts_is_found_again() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let mut pooler = PgBouncer::start(shop, SESSIONS).await;
        let variables = environment(shop, 0).into_iter().chain(pooler.setting());
        let worker = Process::start("firstcome-worker", &["all"], variables, &log(shop)).unwrap();
        let port = free_port();
        let api = api_with(shop, port, &pooler.setting()).await;
        sell(shop, port, 1..20).await;
        pooler.kill().await;
        readiness_says(shop, port, false).await;
        pooler.restart(SESSIONS).await;
        readiness_says(shop, port, true).await;
        sell(shop, port, 1..20).await;
        let audited = pooler.run(shop, "firstcome-worker", "audit").await;
        assert!(audited.status.success(), "{audited:?}");
        for program in [worker, api] {
            assert!(program.stop().await.unwrap().success());
        }
    })
    .await;
}

/// Whoever waits for a session of the pooler is answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_without_a_free_session_is_a_database_that_is_away() {
    shop(Options::default(), async |shop| {
        let few = format!("{SESSIONS}\n    default_pool_size = 1");
        let pooler = PgBouncer::start(shop, &few).await;
        let mut taken = PgConnection::connect(&pooler.url).await.unwrap();
        // PgBouncer gives a session to whoever says something.
        taken.ping().await.unwrap();
        let port = free_port();
        let [url] = pooler.setting();
        let settings = [url, ("DATABASE_CONNECTIONS", "1".to_owned())];
        let variables = environment(shop, port).into_iter().chain(settings);
        let api = Process::start("firstcome-api", &["serve"], variables, &log(shop)).unwrap();
        readiness_says(shop, port, false).await;
        let balance = format!("http://127.0.0.1:{port}/api/balance/7");
        let read = tokio::time::timeout(DEADLINE, Answer::of(shop.get(7, &balance)));
        let read = read.await.expect("it does not wait as long as the pooler lets it");
        assert_eq!(read.status, 503, "{read:?}");
        taken.close().await.unwrap();
        readiness_says(shop, port, true).await;
        sell(shop, port, 1..5).await;
        assert!(api.stop().await.unwrap().success());
    })
    .await;
}

/// As with poolers that know who has prepared what: all else is the session's as another connection left it.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_somebody_had_before_is_refused() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let server = &shop.options.services.database_url;
        let left = format!("ALTER DATABASE {} SET firstcome.session = taken", shop.namespace);
        run(server, left).await;
        for (program, command) in PROGRAMS {
            let refused = program_on(shop, &shop.database.direct, program, command).await;
            is_refused(&refused, "PgBouncer needs pool_mode = session");
        }
        run(server, format!("ALTER DATABASE {} RESET firstcome.session", shop.namespace)).await;
    })
    .await;
}
