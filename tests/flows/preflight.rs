//! Before a sale: what is ready is said to be, and each thing that is not is found.

use firstcome_broker::BrokerArgs;
use firstcome_contract::family::Family;
use firstcome_process::{database::Pool, redis::RedisArgs};
use firstcome_rig::binary;
use firstcome_workers::{
    commands::{
        plan::pace,
        preflight::{self, KeyArgs, PreflightArgs, Verdict},
    },
    config::DatabaseArgs,
};
use tokio::process::Command;

use super::processes::environment;
use firstcome_tests::{Options, Shop, eventually, shop};

/// What does not hold, and how bad that is.
type Found = Vec<(&'static str, Verdict)>;

/// The data platform's role is the only one that a shop can do without.
const CALM: [(&str, Verdict); 1] = [("send-to-data-platform", Verdict::Warning)];

async fn look(shop: &Shop, key: KeyArgs, change: impl FnOnce(&mut PreflightArgs)) -> Found {
    let mut args = PreflightArgs {
        key,
        users: None,
        seconds_of_arrival: 0,
        database: DatabaseArgs {
            database_url: shop.database.direct.clone(),
            database_connections: 2,
        },
        broker: BrokerArgs::new(&shop.broker.direct, &shop.namespace),
        redis: RedisArgs::new(&shop.redis.direct),
    };
    change(&mut args);
    let checks = preflight::run(&Pool::from(shop.pool.clone()), &args).await.unwrap();
    let found = checks.into_iter().filter(|check| check.verdict > Verdict::Ok);
    found.map(|check| (check.what, check.verdict)).collect()
}

/// How the command ends, and what it says.
async fn command(shop: &Shop, arguments: &[&str]) -> (bool, String) {
    let mut program = Command::new(binary("firstcome-worker").unwrap());
    let output = program.args(arguments).env_clear().envs(environment(shop, 0));
    let output = output.output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ready_for_a_sale_is_found() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let of_coupon = KeyArgs { coupon: Some(coupon), product: None };
        let of_product = KeyArgs { coupon: None, product: Some(1) };
        eventually("all is ready", async || look(shop, of_coupon, |_| ()).await == CALM).await;
        assert_eq!(look(shop, of_product, |_| ()).await, CALM);
        // Nothing was settled that would tell how fast a line is.
        let found = look(shop, of_coupon, |args| args.users = Some(500)).await;
        assert_eq!(found, [CALM[0], ("capacity", Verdict::Warning)]);
        let (well, said) = command(shop, &["preflight", "--coupon", &coupon.to_string()]).await;
        assert!(well && said.contains("ok       window"), "{said}");

        // What is done, how it is undone, and what is said in between.
        let failed = |what| vec![(what, Verdict::Failed), CALM[0]];
        for (tamper, undo, found) in [
            (
                "UPDATE coupons SET deleted_at = now()",
                "UPDATE coupons SET deleted_at = NULL",
                failed("sale"),
            ),
            (
                "UPDATE coupons SET paused_at = now()",
                "UPDATE coupons SET paused_at = NULL",
                failed("pause"),
            ),
            (
                "UPDATE coupons SET issued = issued + 1",
                "UPDATE coupons SET issued = issued - 1",
                failed("audit"),
            ),
            (
                "INSERT INTO dead_letters (queue, message_id, line, reason, attempts, payload)
                 VALUES ('elsewhere', 'x', 0, 'x', 1, '')",
                "DELETE FROM dead_letters",
                CALM.to_vec(),
            ),
        ] {
            shop.sql(tamper).await;
            assert_eq!(look(shop, of_coupon, |_| ()).await, found, "{tamper}");
            shop.sql(undo).await;
        }
        shop.sql(
            "INSERT INTO job_outcomes (job_id, user_id, kind, status, code, subject)
             SELECT gen_random_uuid(), 7, 'issue-coupon', 'failed', 'job-unprocessable', max(id) FROM coupons;
             INSERT INTO dead_letters (queue, message_id, line, job_id, reason, attempts, payload)
             SELECT 'elsewhere', 'x', 0, job_id, 'x', 1, '' FROM job_outcomes",
        )
        .await;
        assert_eq!(look(shop, of_coupon, |_| ()).await, failed("dead letters"));
        assert_eq!(look(shop, of_product, |_| ()).await, CALM, "of another one");
        shop.sql("DELETE FROM dead_letters; DELETE FROM job_outcomes").await;

        let nowhere = BrokerArgs::new("amqp://127.0.0.1:1", &shop.namespace);
        let found = look(shop, of_coupon, |args| args.broker = nowhere).await;
        let lost = ["queue", "update-sales-stats", "send-to-data-platform"];
        assert_eq!(found, lost.map(|what| (what, Verdict::Failed)));

        // Its loss costs speed, and nothing else.
        let nowhere = RedisArgs::new("redis://127.0.0.1:1");
        let found = look(shop, of_coupon, |args| args.redis = nowhere).await;
        assert_eq!(found, [CALM[0], ("redis", Verdict::Warning)]);

        shop.stop_workers().await;
        shop.sql(
            "UPDATE routing SET partitions = partitions + 1;
             INSERT INTO outbox_parcels (event_id, event, created_at)
             VALUES (gen_random_uuid(), '{}', now() - interval '1 minute')",
        )
        .await;
        let lost = ["routing", "queue", "owner", "coupons", "products", "relay-outbox"];
        let lost = [&lost[..], &["update-sales-stats", "send-to-data-platform", "outbox"]].concat();
        eventually("each loss is found", async || {
            let found = look(shop, of_coupon, |_| ()).await.into_iter();
            // What came out of the line last did so a moment ago.
            let found = found.filter(|(what, _)| *what != "canary").map(|(what, _)| what);
            found.collect::<Vec<_>>() == lost
        })
        .await;
        let (well, said) = command(shop, &["preflight", "--coupon", &coupon.to_string()]).await;
        assert!(!well && said.contains("failed   owner"), "{said}");
        shop.sql(
            "UPDATE routing SET partitions = partitions - 1; DELETE FROM outbox_parcels",
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_goes_by_what_the_lines_have_shown() {
    shop(Options::default(), async |shop| {
        let pool = &shop.pool;
        eventually("the lines are told of", async || {
            let told = sqlx::query_scalar("SELECT count(*) FROM line_reports");
            told.fetch_one(pool).await.is_ok_and(|told: i64| told == 4)
        })
        .await;
        shop.stop_workers().await;
        let plan = ["plan", "--users", "10000", "--stock", "100"];
        let (planned, said) = command(shop, &plan).await;
        assert!(!planned && said.contains("no figures yet"), "{said}");
        let (planned, said) = command(shop, &[&plan[..], &["--rate", "1000"]].concat()).await;
        assert!(planned && said.contains("after 10.0 s"), "{said}");

        shop.sql(
            "UPDATE line_reports SET batch_limit = 100, batch_seconds = 0.02 * (1 + line::int), job_seconds = 0.0008;
             INSERT INTO line_progress (family, generation, line, settled)
             SELECT family, generation, line, 1000 FROM line_reports WHERE family = 'coupon'",
        )
        .await;
        let told = pace(pool, Family::Coupon).await.unwrap().unwrap();
        assert_eq!((told.lines, told.jobs_per_second.round()), (2, 833.0));
        assert!(pace(pool, Family::Product).await.unwrap().is_none());
        let (planned, said) = command(shop, &plan).await;
        assert!(planned && said.contains("everybody has an outcome after 12.0 s"), "{said}");
    })
    .await;
}
