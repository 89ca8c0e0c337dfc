//! Jobs whose messages the broker lost, or whose outcomes the database lost: they end, once it is certain.

use std::{collections::BTreeMap, time::Duration};

use chrono::{TimeDelta, Utc};
use firstcome_api::known::keys::Claim;
use firstcome_broker::connect;
use firstcome_contract::{
    family::Family,
    ids::{CouponId, UserId},
    job::{Envelope, Idempotency, IssueCoupon, Job, JobId, held_key},
    line::{Naming, Place, Routing},
};
use firstcome_rig::binary;
use firstcome_workers::{
    commands::reconcile::{Reconciled, reconcile},
    crew::set_partitions,
};
use futures_util::future::join_all;
use lapin::options::QueuePurgeOptions;
use redis::AsyncTypedCommands;
use serde_json::Value;
use sqlx::AssertSqlSafe;

use super::{
    poison::{outcome, publish_to},
    processes::environment,
    routing::{apart, hold},
};
use firstcome_tests::{Answer, Api, Options, Shop, eventually, run, shop, with_database};

/// Longer than it takes any publisher, by any clock.
pub(crate) const OLD: TimeDelta = TimeDelta::minutes(2);

/// By then an API has surely looked at the lines.
const LOOKED: Duration = Duration::from_secs(1);

/// A job as an API accepted it: polls believe its id.
pub(crate) struct Accepted {
    id: JobId,
    user: i64,
    job: Job,
    idempotency: Option<Idempotency>,
}

impl Accepted {
    /// So long ago, with this key.
    pub(crate) fn ago(
        shop: &Shop,
        age: TimeDelta,
        user: i64,
        coupon: i64,
        key: Option<&str>,
    ) -> Self {
        let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
        let routing = Routing {
            generation: 1,
            partitions: shop.options.partitions,
            pins: BTreeMap::new(),
            naming: Naming::Family,
        };
        Self::at(shop, age, user, job.clone(), routing.place(job.keys()), key)
    }

    fn at(
        shop: &Shop,
        age: TimeDelta,
        user: i64,
        job: Job,
        place: Place,
        key: Option<&str>,
    ) -> Self {
        let millis = u64::try_from((Utc::now() - age).timestamp_millis()).unwrap();
        let unsigned = JobId::compose(millis, job.kind(), place, 0, 0);
        let id = shop.signer().sign(UserId::new(user), unsigned);
        let coupon = job.keys().next().unwrap();
        let idempotency = key.map(|key| {
            let (user, asked_for) = (UserId::new(user), coupon.to_be_bytes());
            let claim = Claim::new(id, user, job.kind(), key.to_owned(), &asked_for);
            claim.idempotency().clone()
        });
        Self { id, user, job, idempotency }
    }

    /// As it goes over the wire.
    fn line(&self) -> Vec<u8> {
        let envelope = Envelope {
            id: self.id,
            user_id: UserId::new(self.user),
            idempotency: self.idempotency.clone(),
            trace: None,
            request_id: None,
            job: self.job.clone(),
        };
        let mut line = Vec::new();
        envelope.encode(&mut line).unwrap();
        line
    }

    /// Puts it into its line.
    async fn publish(&self, shop: &Shop) {
        publish_to(shop, &shop.queue_of(&self.job), self.line()).await;
    }

    /// Has Redis know whose its key is, as of any job that is not settled at once.
    async fn hold_key(&self, shop: &Shop) {
        let Idempotency { key, fingerprint } = self.idempotency.as_ref().unwrap();
        let kind = self.job.kind().as_str();
        let name = held_key::name(&shop.namespace, UserId::new(self.user), kind, key);
        let entry = held_key::entry(held_key::QUEUED, self.id, fingerprint);
        let redis = redis(shop).get_multiplexed_async_connection().await;
        redis.unwrap().set_ex(name, entry, 600).await.unwrap();
    }

    async fn poll(&self, shop: &Shop) -> Value {
        self.poll_at(shop, &shop.api).await
    }

    async fn poll_at(&self, shop: &Shop, api: &Api) -> Value {
        let url = format!("{}/api/jobs/{}", api.url, self.id);
        let answer = Answer::of(shop.get(self.user, &url)).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        answer.body
    }

    /// Waits until it ends as lost.
    pub(crate) async fn is_lost(&self, shop: &Shop) {
        eventually("it ends as lost", async || self.poll(shop).await["status"] == "failed").await;
        let told = self.poll(shop).await;
        assert_eq!(told["error"]["code"], "job-lost", "{told}");
        assert!(told["error"]["detail"].as_str().unwrap().contains("may be repeated"), "{told}");
    }
}

fn redis(shop: &Shop) -> redis::Client {
    redis::Client::open(shop.redis.direct.as_str()).unwrap()
}

async fn reconciled(shop: &Shop) -> Reconciled {
    reconcile(&shop.pool, &redis(shop), &shop.namespace).await.unwrap()
}

/// What a broker without its data has.
async fn purge_queue(shop: &Shop, queue: &str) {
    let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let purged = channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap();
    assert_eq!(purged, 1);
    connect::close(&connection).await;
}

/// Waits until canaries came out of all lines of coupons but those that are held.
async fn are_proven(shop: &Shop, lines: i64) {
    eventually("canaries came out", async || {
        let proven: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM line_reports WHERE family = 'coupon' AND cleared_until IS NOT NULL",
        )
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        proven == lines
    })
    .await;
}

async fn coupons_of(shop: &Shop, user: i64) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM user_coupons WHERE user_id = $1")
        .bind(user)
        .fetch_one(&shop.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_broker_lost_ends_and_frees_its_key() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(10).await;
        let lost = Accepted::ago(shop, OLD, 7, coupon, Some("a-key"));
        lost.publish(shop).await;
        lost.hold_key(shop).await;
        assert_eq!(lost.poll(shop).await["status"], "queued", "nobody says how far its line is");
        let repeat = shop.issue_keyed(7, coupon, "a-key").await;
        assert_eq!(repeat.job_id(), lost.id.to_string());
        purge_queue(shop, &shop.queue_of(&lost.job)).await;
        shop.start_worker();
        lost.is_lost(shop).await;
        // Whoever waits for it waits no longer.
        let waiting = shop.poll(7, &lost.id.to_string(), 30).await;
        assert_eq!((waiting.status, &waiting.body["status"]), (200, &"failed".into()));
        assert!(waiting.took.as_secs() < 10, "{:?}", waiting.took);

        // Many at once, and they are one job.
        let repeats = (0..10).map(|_| shop.issue_keyed(7, coupon, "a-key"));
        let repeats = join_all(repeats).await;
        let repeated = repeats[0].job_id();
        assert!(repeats.iter().all(|repeat| repeat.status == 202 && repeat.job_id() == repeated));
        assert_ne!(repeated, lost.id.to_string());
        assert_eq!(shop.settled(7, repeated).await["status"], "succeeded");
        assert_eq!(shop.issue_keyed(7, coupon, "a-key").await.job_id(), repeated);

        // What comes after all comes too late, whether it has a key or not.
        let keyless = Accepted::ago(shop, OLD, 8, coupon, None);
        keyless.is_lost(shop).await;
        for late in [&lost, &keyless] {
            late.publish(shop).await;
        }
        let last = shop.accepted_issue(9, coupon).await;
        assert_eq!(shop.settled(9, &last).await["status"], "succeeded");
        for late in [&lost, &keyless] {
            let lost = ("failed".to_owned(), Some("job-lost".to_owned()));
            assert_eq!(outcome(shop, late.id).await, lost);
        }
        assert_eq!((coupons_of(shop, 7).await, coupons_of(shop, 8).await), (1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_still_be_in_a_line_is_not_lost() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(10).await;
        let elsewhere = apart(shop, &[coupon]).await;
        let waiting = Accepted::ago(shop, OLD, 7, coupon, Some("a-key"));
        waiting.hold_key(shop).await;
        // In one batch with a later one that nobody can read, which is set aside first.
        let broken = Accepted::ago(shop, TimeDelta::zero(), 10, coupon, None);
        let broken_line = String::from_utf8(broken.line()).unwrap().replace("couponId", "coupon");
        let parcel = [waiting.line(), broken_line.into_bytes()].concat();
        publish_to(shop, &shop.queue_of(&waiting.job), parcel).await;
        // These are in no line; of one, nobody can tell in which it would be.
        let lost = Accepted::ago(shop, OLD, 8, elsewhere, None);
        let job = waiting.job.clone();
        let somewhere = Accepted::at(shop, OLD, 9, job, Place::UNKNOWN, None);
        let held = hold(shop, coupon).await;
        shop.start_worker();
        shop.is_waiting_for_a_row().await;
        assert_eq!(outcome(shop, broken.id).await.1.as_deref(), Some("job-undecodable"));
        tokio::time::sleep(LOOKED).await;
        lost.is_lost(shop).await;
        let still_waits = async || {
            for job in [&waiting, &somewhere] {
                assert_eq!(job.poll(shop).await["status"], "queued");
            }
            let repeat = shop.issue_keyed(7, coupon, "a-key").await;
            assert_eq!(repeat.job_id(), waiting.id.to_string());
            let found = reconciled(shop).await;
            assert_eq!((found.looked_at, found.waiting), (1, 1), "{found:?}");
        };
        still_waits().await;

        // The same in a line of an earlier routing, while all lines of the present one are far ahead.
        set_partitions(&shop.pool, Family::Coupon, 3).await.unwrap();
        eventually("new lines take over", async || {
            let query = "SELECT generation FROM routing WHERE family = 'coupon'";
            let generation = sqlx::query_scalar::<_, i32>(query).fetch_one(&shop.pool).await;
            generation.unwrap() == 2
        })
        .await;
        shop.sql(
            "INSERT INTO line_reports (family, generation, line, in_hand, jobs_per_message, progress_at, hottest, reported_at, cleared_until)
             SELECT family, generation, line, 0, 1, now(), '[]', now(), now() FROM partition_leases WHERE family = 'coupon' AND generation = 2
             ON CONFLICT ON CONSTRAINT line_reports_pkey DO UPDATE SET cleared_until = now()",
        )
        .await;
        tokio::time::sleep(LOOKED).await;
        still_waits().await;
        held.rollback().await.unwrap();
        eventually("it is settled", async || waiting.poll(shop).await["status"] == "succeeded")
            .await;
        somewhere.is_lost(shop).await;
    })
    .await;
}

/// Replaces the shop's database by another one, while its programs have no connection.
async fn replace_database(shop: &Shop, statements: &[String]) {
    shop.database.proxy.cut();
    let server = &shop.options.services.database_url;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ";
    run(server, format!("{end}'{}'", shop.namespace)).await;
    for statement in statements {
        run(server, statement.clone()).await;
    }
    shop.database.proxy.restore();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_lost_is_not_told_any_more() {
    shop(Options::default(), async |shop| {
        let name = &shop.namespace;
        let coupon = shop.campaign(10).await;
        let succeeds = async |user, age| {
            let job = Accepted::ago(shop, age, user, coupon, None);
            job.publish(shop).await;
            let won = ("succeeded".to_owned(), None);
            assert_eq!(outcome(shop, job.id).await, won);
            // Remembered from now on.
            assert_eq!(job.poll(shop).await["status"], "succeeded");
            job
        };
        let kept = succeeds(1, OLD).await;
        // A backup, and some seconds later its restoration.
        let backup = format!("CREATE DATABASE {name}_backup TEMPLATE {name}");
        replace_database(shop, &[backup]).await;
        let lost = succeeds(2, OLD).await;
        let young = succeeds(3, TimeDelta::zero()).await;
        // When an API looks, more is settled than before: its count tells nothing.
        let backup = with_database(&shop.options.services.database_url, &format!("{name}_backup"));
        run(&backup, "UPDATE line_progress SET settled = settled + 100".to_owned()).await;
        let restored = [
            format!("DROP DATABASE {name} WITH (FORCE)"),
            format!("ALTER DATABASE {name}_backup RENAME TO {name}"),
        ];
        replace_database(shop, &restored).await;
        lost.is_lost(shop).await;
        assert_eq!(young.poll(shop).await["status"], "queued", "its line may hold it, by its age");
        assert_eq!(kept.poll(shop).await["status"], "succeeded");
        assert_eq!(coupons_of(shop, 2).await, 0);

        // The same in place: nothing but the line's count tells, once the API has seen it.
        let lost = succeeds(4, OLD).await;
        tokio::time::sleep(LOOKED).await;
        let rewind = format!(
            "DELETE FROM user_coupons WHERE user_id = 4; DELETE FROM job_outcomes WHERE job_id = '{}';
             UPDATE coupons SET issued = issued - 1 WHERE id = {coupon};
             UPDATE line_progress SET settled = settled - 1, until = NULL WHERE settled > 0;
             UPDATE line_reports SET cleared_until = NULL",
            lost.id
        );
        sqlx::raw_sql(AssertSqlSafe(rewind)).execute(&shop.pool).await.unwrap();
        lost.is_lost(shop).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_ends_lost_jobs_of_which_nobody_asks() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(10).await;
        let accepted = async |user, age| {
            let job = Accepted::ago(shop, age, user, coupon, Some("a-key"));
            job.hold_key(shop).await;
            job
        };
        let lost = accepted(7, OLD).await;
        let young = accepted(8, TimeDelta::zero()).await;
        let settled = accepted(9, OLD).await;
        let before = reconciled(shop).await;
        assert_eq!((before.waiting, before.ended, before.behind.len()), (3, 0, 4), "{before:?}");
        let told = run_reconcile(shop).await;
        assert!(told.contains("4 of 4 lines") && told.contains("do their workers run?"), "{told}");

        settled.publish(shop).await;
        shop.start_worker();
        assert_eq!(outcome(shop, settled.id).await.0, "succeeded");
        are_proven(shop, 2).await;
        let found = reconciled(shop).await;
        let counts = (found.looked_at, found.settled, found.ended, found.freed, found.waiting);
        assert_eq!(counts, (3, 1, 1, 0, 1), "{found:?}");
        assert_eq!(outcome(shop, lost.id).await.1.as_deref(), Some("job-lost"));
        assert_eq!(lost.poll(shop).await["error"]["code"], "job-lost");
        assert_eq!(young.poll(shop).await["status"], "queued");
        // Nothing is held any more; and what was ended by a poll is freed.
        lost.hold_key(shop).await;
        let told = run_reconcile(shop).await;
        assert!(told.contains("ended as job-lost: 0; ended before, keys freed now: 1"), "{told}");
        assert_eq!(reconciled(shop).await.looked_at, 2);
        let repeat = shop.issue_keyed(7, coupon, "a-key").await;
        assert_eq!(shop.settled(7, repeat.job_id()).await["status"], "succeeded");
    })
    .await;
}

/// As an operator does; what it prints.
async fn run_reconcile(shop: &Shop) -> String {
    let command = tokio::process::Command::new(binary("firstcome-worker").unwrap())
        .arg("reconcile")
        .envs(environment(shop, 0))
        .kill_on_drop(true)
        .output();
    let ended = command.await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}
