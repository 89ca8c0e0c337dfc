//! Connections to PostgreSQL that are open and of no use: dead, frozen, of a server that cannot be written
//! to. Everything is served again within seconds.

use std::time::{Duration, Instant};

use firstcome_rig::Process;
use firstcome_workers::{commands::audit, config::DatabaseArgs};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::{
    processes::{environment, log},
    scaling::{campaigns, shares, worker, worker_with},
    services::OwnServices,
};
use firstcome_tests::{Answer, Link, Options, Shop, eventually, run, shop, token};

/// How long anything may last that a connection is to blame for, once there are better ones.
const BOUND: Duration = Duration::from_secs(20);
/// The longest that a request hangs, and a little.
const REQUEST_BOUND: Duration = Duration::from_secs(25);

/// Does something to the test's own database; its new sessions notice.
async fn alter(shop: &Shop, what: &str) {
    let statement = format!("ALTER DATABASE {} {what}", shop.namespace);
    run(&shop.options.services.database_url, statement).await;
}

/// How many sessions of a program are so.
async fn sessions(shop: &Shop, program: &str, which: &str) -> i64 {
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = '{program}' AND {which}"
    );
    sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&shop.pool).await.unwrap()
}

/// Waits until the workers have so many lines each.
async fn have_lines(shop: &Shop, wanted: &[i64]) {
    eventually(&format!("the shares are {wanted:?}"), async || shares(shop).await == wanted).await;
}

/// What an API says of the database.
async fn database(shop: &Shop, url: &str) -> bool {
    let answer = Answer::of(shop.anonymous(Method::GET, &format!("{url}/health/ready"))).await;
    assert_eq!(answer.status, 200, "it accepts: {answer:?}");
    answer.body["database"] == true
}

async fn charge(shop: &Shop, url: &str) -> Answer {
    let request = shop.post(7, &format!("{url}/api/balance/charge"));
    Answer::of(request.json(&json!({"amount": 1_000}))).await
}

/// As during a failover: what is connected meanwhile reaches a server that cannot be written to.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_written_to_counts_as_away() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(1, coupon).await;
        shop.settled(1, &job).await;

        alter(shop, "SET default_transaction_read_only = on").await;
        shop.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'firstcome-%'",
        )
        .await;
        let job = counts_as_away(shop, coupon).await;
        alter(shop, "RESET default_transaction_read_only").await;
        is_found_again(shop, &job).await;
    })
    .await;
}

/// A failover, as seen from here: where the primary was, there is a standby that becomes one.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_counts_as_away_until_it_is_promoted() {
    let own = OwnServices::start_database("standby");
    let services = own.services().await;
    shop(Options { services, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(10).await;
        own.demote_database().await;
        let job = counts_as_away(shop, coupon).await;
        shop.sql("SELECT pg_promote()").await;
        is_found_again(shop, &job).await;
    })
    .await;
}

/// Everything but what can do without it is refused, and one job is accepted.
async fn counts_as_away(shop: &Shop, coupon: i64) -> String {
    let url = &shop.api.url;
    eventually("it is missed", async || !database(shop, url).await).await;
    let job = shop.accepted_issue(7, coupon).await;
    // As many as the API has connections.
    for refused in join_all((0..4).map(async |_| charge(shop, url).await)).await {
        refused.is_problem(503, "database-unavailable");
    }
    Answer::of(shop.get(7, "/api/users/coupons")).await.is_problem(503, "database-unavailable");
    // For the audit it will do.
    let database_url = shop.database.direct.clone();
    let standby = DatabaseArgs { database_url, database_connections: 1 };
    audit::audit(&standby.reading_pool().unwrap()).await.unwrap();
    job
}

async fn is_found_again(shop: &Shop, job: &str) {
    let (url, started) = (&shop.api.url, Instant::now());
    for charged in join_all((0..4).map(async |_| charge(shop, url).await)).await {
        assert_eq!(charged.status, 200, "{charged:?}");
    }
    assert_eq!(shop.settled(7, job).await["status"], "succeeded");
    eventually("it is found again", async || database(shop, url).await).await;
    assert!(started.elapsed() < BOUND, "only after {:?}", started.elapsed());
}

/// All idle connections are dead, as after a firewall's restart, and nobody is told.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_are_dead_are_replaced_at_once() {
    let options = Options { users: 500, partitions: 4, ..Options::default() };
    shop(options, async |shop| {
        let url = &shop.api.url;
        let coupons = campaigns(shop, 8).await;
        let everybody =
            (1..=500).flat_map(|user| coupons.iter().map(move |coupon| (user, *coupon)));
        shop.storm(everybody, 64).await;
        shop.settle_and_audit().await;
        let read = async || Answer::of(shop.get(7, "/api/users/coupons")).await;
        join_all((0..8).map(|_| read())).await;

        shop.database.proxy.freeze();
        let started = Instant::now();
        for read in join_all((0..8).map(|_| read())).await {
            assert_eq!(read.status, 200, "{read:?}");
        }
        assert_eq!(charge(shop, url).await.status, 200);
        let coupons = campaigns(shop, 8).await;
        let jobs = join_all(coupons.iter().map(|coupon| shop.accepted_issue(7, *coupon))).await;
        for job in jobs {
            assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        }
        assert!(started.elapsed() < BOUND, "only after {:?}", started.elapsed());
    })
    .await;
}

/// All of an API's connections freeze in the middle of a transaction. Its places are free again.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_hang_take_no_connection_with_them() {
    const CONNECTIONS: i64 = 16;
    shop(Options::default(), async |shop| {
        let connections = u32::try_from(CONNECTIONS).unwrap();
        let api = shop.start_api(|config| config.database_connections = connections).await;
        let product = shop.product(1_000, 10).await;
        let mut held = shop.pool.begin().await.unwrap();
        let users = "SELECT FROM balances WHERE user_id BETWEEN 1 AND 20 FOR UPDATE";
        sqlx::query(users).execute(&mut *held).await.unwrap();
        let path = format!("{}/api/users/cart/{product}", api.url);
        let hanging = (1..=CONNECTIONS).map(async |user| {
            let request = shop.anonymous(Method::PUT, &path).bearer_auth(token(user, false));
            let answer = Answer::of(request.json(&json!({"quantity": 1}))).await;
            answer.is_problem(503, "database-unavailable");
        });
        let freezing = async {
            eventually("all of them wait", async || {
                let waiting = "wait_event_type = 'Lock'";
                sessions(shop, "firstcome-api", waiting).await == CONNECTIONS
            })
            .await;
            shop.database.proxy.freeze();
            held.rollback().await.unwrap();
            let started = Instant::now();
            eventually("it reads again", async || {
                let path = format!("{}/api/users/coupons", api.url);
                database(shop, &api.url).await && Answer::of(shop.get(7, &path)).await.status == 200
            })
            .await;
            assert!(started.elapsed() < REQUEST_BOUND, "only after {:?}", started.elapsed());
        };
        tokio::join!(join_all(hanging), freezing);
        api.stop().await;
    })
    .await;
}

/// A client that is there and reads nothing, as one that is paused or whose host is gone: the server
/// waits in the middle of its result, where no timeout of a statement or a transaction ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_reads_holds_its_locks_for_seconds() {
    shop(Options::default(), async |shop| {
        let product = shop.product(1_000, 10).await;
        // More than all buffers on the way take.
        sqlx::query("UPDATE products SET name = repeat('x', 16000000) WHERE id = $1")
            .bind(product)
            .execute(&shop.pool)
            .await
            .unwrap();
        let mut held = shop.pool.begin().await.unwrap();
        let row = "SELECT FROM products WHERE id = $1 FOR UPDATE";
        sqlx::query(row).bind(product).execute(&mut *held).await.unwrap();
        let order = json!({"items": [{"productId": product, "quantity": 1}]});
        let accepted = shop.order(7, &order).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        shop.is_waiting_for_a_row().await;

        shop.database.proxy.freeze();
        held.rollback().await.unwrap();
        eventually("the server waits for its reader", async || {
            sessions(shop, "firstcome-worker", "wait_event = 'ClientWrite'").await == 1
        })
        .await;
        let started = Instant::now();
        let settled = shop.settled(7, accepted.job_id()).await;
        assert_eq!(settled["status"], "succeeded", "{settled}");
        assert!(started.elapsed() < BOUND, "only after {:?}", started.elapsed());
    })
    .await;
}

/// A worker that lives, and whose batches do not get through, as where there are too many connections
/// already: others have its lines.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_settle_gives_its_lines_to_one_that_can() {
    let options = Options { partitions: 1, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let link = Link::to(shop.database.direct.clone()).await;
        let environment = environment(shop, 0).into_iter();
        let environment = environment.chain([("DATABASE_URL", link.proxied.clone())]);
        let cut_off =
            Process::start("firstcome-worker", &["coupons"], environment, &log(shop)).unwrap();
        have_lines(shop, &[1]).await;
        let other = worker(shop);
        have_lines(shop, &[0, 1]).await;

        let coupon = shop.campaign(10).await;
        let mut held = shop.pool.begin().await.unwrap();
        let row = "SELECT FROM coupons WHERE id = $1 FOR UPDATE";
        sqlx::query(row).bind(coupon).execute(&mut *held).await.unwrap();
        let job = shop.accepted_issue(7, coupon).await;
        shop.is_waiting_for_a_row().await;
        link.proxy.refuse();
        let started = Instant::now();
        shop.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'firstcome-worker' AND wait_event_type = 'Lock'",
        )
        .await;
        held.rollback().await.unwrap();
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        assert!(started.elapsed() < BOUND, "only after {:?}", started.elapsed());

        link.proxy.restore();
        eventually("it joins again", async || shares(shop).await.len() == 2).await;
        for worker in [cut_off, other] {
            assert!(worker.stop().await.unwrap().success());
        }
    })
    .await;
}

/// Too many connections: those that it has are as good as ever, its heartbeat's among them, and for its
/// batches it gets none. Nor does it count as alive while it has fewer than it needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_enough_connections_keeps_nobody_from_its_lines() {
    /// How long there are too many, and every line is served all the same.
    const SHORTAGE: Duration = Duration::from_secs(20);
    /// How long a job may take meanwhile.
    const SETTLED_IN: Duration = Duration::from_secs(5);
    let options = Options { users: 500, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let role = format!("{}_limited", shop.namespace);
        let as_superuser = async |statement: String| run(&shop.database.direct, statement).await;
        as_superuser(format!(
            "CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
        ))
        .await;
        let (_, place) = shop.database.direct.split_once('@').unwrap();
        let limited =
            worker_with(shop, vec![("DATABASE_URL", format!("postgres://{role}@{place}"))]);
        have_lines(shop, &[2]).await;
        let other = worker(shop);
        have_lines(shop, &[1, 1]).await;

        // In both lines.
        let coupons = campaigns(shop, 8).await;
        let mut held = shop.pool.begin().await.unwrap();
        let rows = "SELECT FROM coupons WHERE id = ANY($1) FOR UPDATE";
        sqlx::query(rows).bind(&coupons).execute(&mut *held).await.unwrap();
        let jobs = join_all(coupons.iter().map(|coupon| shop.accepted_issue(7, *coupon))).await;
        eventually("it has a batch in hand", async || {
            let waiting = format!("usename = '{role}' AND wait_event_type = 'Lock'");
            sessions(shop, "firstcome-worker", &waiting).await == 1
        })
        .await;
        let has = sessions(shop, "firstcome-worker", &format!("usename = '{role}'")).await;
        as_superuser(format!(
            "ALTER ROLE {role} CONNECTION LIMIT {};
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE usename = '{role}' AND wait_event_type = 'Lock'",
            has - 1
        ))
        .await;
        held.rollback().await.unwrap();
        let started = Instant::now();
        for job in &jobs {
            assert_eq!(shop.settled(7, job).await["status"], "succeeded");
        }
        assert!(started.elapsed() < BOUND, "only after {:?}", started.elapsed());

        let mut users = 10..;
        while started.elapsed() < SHORTAGE {
            let user = users.next().unwrap();
            let submitted = Instant::now();
            for coupon in &coupons {
                let job = shop.accepted_issue(user, *coupon).await;
                assert_eq!(shop.settled(user, &job).await["status"], "succeeded");
            }
            assert!(submitted.elapsed() < SETTLED_IN, "only after {:?}", submitted.elapsed());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }

        as_superuser(format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
        let ended = Instant::now();
        have_lines(shop, &[1, 1]).await;
        assert!(ended.elapsed() < BOUND, "only after {:?}", ended.elapsed());
        for coupon in &coupons {
            let job = shop.accepted_issue(8, *coupon).await;
            assert_eq!(shop.settled(8, &job).await["status"], "succeeded");
        }
        assert!(ended.elapsed() < BOUND, "only after {:?}", ended.elapsed());
        for worker in [limited, other] {
            assert!(worker.stop().await.unwrap().success());
        }
        as_superuser(format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    })
    .await;
}

/// A default of the role, the database or the server that loses what was told is overruled.
#[tokio::test(flavor = "multi_thread")]
async fn commits_wait_for_the_disk_whatever_the_database_says() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        shop.sql(
            "CREATE TABLE seen (setting text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO seen VALUES (TG_TABLE_NAME || '' '' || current_setting(''synchronous_commit'')); RETURN NULL; END';
             CREATE TRIGGER see AFTER INSERT ON balance_transactions FOR EACH STATEMENT EXECUTE FUNCTION see();
             CREATE TRIGGER see AFTER INSERT ON user_coupons FOR EACH STATEMENT EXECUTE FUNCTION see()",
        )
        .await;
        alter(shop, "SET synchronous_commit = off").await;
        let api = shop.start_api(|_| {}).await;
        shop.start_worker();
        assert_eq!(charge(shop, &api.url).await.status, 200);
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        let seen: Vec<String> = sqlx::query_scalar("SELECT setting FROM seen ORDER BY setting")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
        assert_eq!(seen, ["balance_transactions on", "user_coupons on"]);
        api.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standbys_that_nobody_waits_for_are_told_of() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let told = || {
            let log = std::fs::read_to_string(log(shop)).unwrap_or_default();
            log.matches("PostgreSQL has standbys and waits for none of them").count()
        };
        let alone = worker(shop);
        have_lines(shop, &[2]).await;
        assert!(alone.stop().await.unwrap().success());
        assert_eq!(told(), 0);
        // A standby, as far as this database can tell.
        shop.sql("CREATE SCHEMA before; CREATE VIEW before.pg_stat_replication AS SELECT").await;
        alter(shop, "SET search_path = before, pg_catalog, public").await;
        let replicated = worker(shop);
        have_lines(shop, &[2]).await;
        assert_eq!(told(), 1, "once, however many connections there are");
        assert!(replicated.stop().await.unwrap().success());
    })
    .await;
}
