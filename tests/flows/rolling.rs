//! A deployment rolls: old and new processes beside each other, one after the other.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use firstcome_workers::schema::migrate;
use futures_util::future::join_all;
use reqwest::Method;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::processes::{self, free_port};
use firstcome_tests::{Answer, Options, Shop, eventually, shop};

/// How long the APIs drain, in seconds: some probes of the balancer.
const DRAIN_SECONDS: u32 = 2;
/// How often the balancer looks at readiness.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Between two requests of a client, so that they last as long as the restarts.
const PAUSE: Duration = Duration::from_millis(5);

/// A balancer that passes connections on to those backends that were ready when it looked last.
struct Balancer {
    backends: [(u16, AtomicBool); 2],
}

impl Balancer {
    async fn probe(&self, shop: &Shop) {
        loop {
            for (port, is_ready) in &self.backends {
                let url = format!("http://127.0.0.1:{port}/health/ready");
                let answer = shop.anonymous(Method::GET, &url).send().await;
                let ready = answer.is_ok_and(|answer| answer.status() == 200);
                is_ready.store(ready, Ordering::Relaxed);
            }
            sleep(PROBE_INTERVAL).await;
        }
    }

    async fn pass_on(&self, listener: &TcpListener) {
        for turn in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut candidates = self.backends.iter().cycle().skip(turn % 2).take(2);
            let ready = candidates.find(|(_, is_ready)| is_ready.load(Ordering::Relaxed));
            let Some((port, _)) = ready else { continue };
            let address = format!("127.0.0.1:{port}");
            tokio::spawn(async move {
                let Ok(mut api) = TcpStream::connect(address).await else { return };
                let _ = copy_bidirectional(&mut client, &mut api).await;
            });
        }
    }
}

async fn api(shop: &Shop, port: u16) -> firstcome_rig::Process {
    processes::api_with(shop, port, &[("DRAIN_SECONDS", DRAIN_SECONDS.to_string())]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_no_request() {
    let users = 2_000;
    shop(Options { users, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(1_000_000).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/coupons/{coupon}/issue", listener.local_addr().unwrap());
        let ports = [free_port(), free_port()];
        let balancer = Balancer { backends: ports.map(|port| (port, AtomicBool::new(false))) };
        let is_ready = async |at: usize| {
            eventually("the balancer has seen it", async || {
                balancer.backends[at].1.load(Ordering::Relaxed)
            })
            .await;
        };

        let (sent, is_over) = (AtomicI64::new(0), AtomicBool::new(false));
        let failed = Mutex::new(Vec::new());
        let client = async || {
            while sent.load(Ordering::Relaxed) < 2_000 || !is_over.load(Ordering::Relaxed) {
                let user = sent.fetch_add(1, Ordering::Relaxed) % users + 1;
                match shop.try_submit(user, shop.post(user, &url)).await {
                    Ok(answer) if answer.status == 202 => {}
                    other => failed.lock().unwrap().push(format!("{other:?}")),
                }
                sleep(PAUSE).await;
            }
        };
        let restarts = async {
            let mut running = [api(shop, ports[0]).await, api(shop, ports[1]).await].map(Some);
            is_ready(0).await;
            is_ready(1).await;
            let restarting = async {
                for at in 0..2 {
                    let stopped = running[at].take().unwrap().stop().await;
                    assert!(stopped.unwrap().success());
                    running[at] = Some(api(shop, ports[at]).await);
                    is_ready(at).await;
                }
                is_over.store(true, Ordering::Relaxed);
            };
            tokio::join!(join_all((0..8).map(|_| client())), restarting);
            for api in running.into_iter().flatten() {
                assert!(api.stop().await.unwrap().success());
            }
        };
        tokio::select! {
            () = restarts => {}
            () = balancer.probe(shop) => unreachable!("it looks for ever"),
            () = balancer.pass_on(&listener) => unreachable!("it accepts for ever"),
        }
        let failed = failed.into_inner().unwrap();
        assert!(failed.is_empty(), "{} of {sent:?}: {:?}", failed.len(), failed.first());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_drains_says_so_and_accepts() {
    shop(Options::default(), async |shop| {
        let other = shop.start_api(|config| config.drain_seconds = DRAIN_SECONDS).await;
        let ready = format!("{}/health/ready", other.url);
        let before = Answer::of(shop.anonymous(Method::GET, &ready)).await;
        assert_eq!((before.status, &before.body["stopping"]), (200, &false.into()));
        assert!(!before.headers.contains_key("connection"));
        other.begin_to_stop();
        let after = Answer::of(shop.anonymous(Method::GET, &ready)).await;
        assert_eq!((after.status, &after.body["stopping"]), (503, &true.into()), "{after:?}");
        let coupon = shop.campaign(1).await;
        let url = format!("{}/api/coupons/{coupon}/issue", other.url);
        let accepted = shop.submit(7, shop.post(7, &url)).await;
        assert_eq!(accepted.status, 202);
        assert_eq!(accepted.headers["connection"], "close");
        other.stop().await;
    })
    .await;
}

/// As a release to come would have migrated the database.
const NEWER: &str =
    "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (9999, 'of a newer release', true, '', 0)";

/// What was rolled back runs its `migrate` on the schema of the newer release.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_release_runs_on_a_newer_schema_that_admits_it() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        shop.sql(NEWER).await;
        migrate(&shop.pool).await.unwrap();
        shop.sql("UPDATE schema_compatibility SET oldest_program = 9999").await;
        let refused = migrate(&shop.pool).await.unwrap_err().to_string();
        assert!(refused.contains("too old") && refused.contains("9999"), "{refused}");
    })
    .await;
}

/// Old workers beside a schema that asks for more than they know to give.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_a_newer_schema_refuses_wait_for_newer_workers() {
    shop(Options { partitions: 1, ..Options::default() }, async |shop| {
        shop.sql(NEWER).await;
        let coupon = shop.campaign(10).await;
        let changes = [
            (
                [1, 2],
                "ALTER TABLE user_coupons ADD COLUMN origin text NOT NULL",
                "ALTER TABLE user_coupons DROP COLUMN origin",
            ),
            (
                [3, 4],
                "ALTER TABLE user_coupons ADD CONSTRAINT user_coupons_newer CHECK (user_id <= 2)",
                "ALTER TABLE user_coupons DROP CONSTRAINT user_coupons_newer",
            ),
        ];
        for (users, before, after) in changes {
            shop.sql(before).await;
            let mut jobs = Vec::new();
            for user in users {
                jobs.push((user, shop.accepted_issue(user, coupon).await));
            }
            for (user, job) in &jobs {
                // Long enough for it to fail.
                assert_eq!(shop.poll(*user, job, 2).await.body["status"], "queued");
            }
            shop.sql(after).await;
            for (user, job) in &jobs {
                assert_eq!(shop.settled(*user, job).await["status"], "succeeded");
            }
        }
    })
    .await;
}

/// In the order that operators are told, whoever polls wherever.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_job_ids_rotate_without_a_404() {
    const DOCUMENT: &str = include_str!("../../docs/operate.md");
    let steps = ["old", "old,new", "new,old", "new"];
    let told = steps.map(|step| format!("`{step}`"))[1..].join(", then ");
    assert!(DOCUMENT.contains(&told), "docs/operate.md tells another order than {told}");
    let keys = steps.map(|step| {
        step.replace("old", "0123456789abcdef-old").replace("new", "0123456789abcdef-new")
    });
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(100).await;
        for (step, user) in keys.windows(2).zip([1, 3, 5]) {
            // In the middle of it: one has restarted, the other has not.
            let start = |key: &String| {
                let key = key.clone();
                shop.start_api(|config| config.job_id_key = Some(key))
            };
            let apis = [start(&step[0]).await, start(&step[1]).await];
            for (user, accepting, polling) in [(user, 0, 1), (user + 1, 1, 0)] {
                let url = format!("{}/api/coupons/{coupon}/issue", apis[accepting].url);
                let accepted = shop.submit(user, shop.post(user, &url)).await;
                assert_eq!(accepted.status, 202, "{accepted:?}");
                let job = format!("{}/api/jobs/{}", apis[polling].url, accepted.job_id());
                let poll = Answer::of(shop.get(user, &job)).await;
                assert_eq!(poll.status, 200, "{step:?}: {poll:?}");
            }
            for api in apis {
                api.stop().await;
            }
        }
    })
    .await;
}
