//! Migrations on a shop that is open, and commands that take their time.

use std::time::{Duration, Instant};

use firstcome_contract::family::Family;
use firstcome_process::database::Pool;
use firstcome_workers::{config::DatabaseArgs, schema::migrate};
use sqlx::{AssertSqlSafe, PgPool, migrate::Migrator};
use tokio::time::timeout;

use firstcome_tests::{DEADLINE, Options, Shop, eventually, run, shop, with_database};

/// How long those who only read may wait for a migration that waits.
const READ_WITHIN: Duration = Duration::from_secs(3);

/// A database with the schema before this migration.
async fn older(shop: &Shop, version: i64) -> (String, PgPool) {
    let name = format!("{}_older", shop.namespace);
    let server = &shop.options.services.database_url;
    run(server, format!("CREATE DATABASE {name}")).await;
    let pool = PgPool::connect(&with_database(server, &name)).await.unwrap();
    let all = sqlx::migrate!("../migrations");
    let older = all.migrations.iter().filter(|migration| migration.version < version).cloned();
    Migrator::with_migrations(older.collect()).run(&pool).await.unwrap();
    (name, pool)
}

/// The schema of a version before, with a reader of a table that is to be changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_reader_makes_nobody_else_wait() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        // 0007 changes line_reports.
        let (name, pool) = older(shop, 7).await;
        let read = "SELECT count(*) FROM line_reports";
        let mut reader = pool.begin().await.unwrap();
        sqlx::query(read).execute(&mut *reader).await.unwrap();
        let migrating = migrate(&pool);
        let others = async {
            // Long enough for it to wait more than once.
            let until = Instant::now() + 2 * READ_WITHIN;
            while Instant::now() < until {
                let reading = sqlx::query(read).execute(&pool);
                timeout(READ_WITHIN, reading).await.expect("others read").unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            reader.rollback().await.unwrap();
        };
        let both = async { tokio::join!(migrating, others) };
        timeout(DEADLINE, both).await.unwrap().0.unwrap();
        sqlx::query("SELECT folded FROM line_reports").execute(&pool).await.unwrap();
        pool.close().await;
        run(&shop.options.services.database_url, format!("DROP DATABASE {name}")).await;
    })
    .await;
}

/// Else each of both would wait for the other one, again and again while the sale goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_batch_has_nothing_that_the_batch_needs() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        // 0013 changes what orders are placed in.
        let (name, pool) = older(shop, 13).await;
        let mut batch = pool.begin().await.unwrap();
        let locks = "SET LOCAL lock_timeout = '300ms'; LOCK products IN ROW SHARE MODE";
        sqlx::raw_sql(locks).execute(&mut *batch).await.unwrap();
        let others = async {
            eventually("the migration waits", async || {
                let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
                sqlx::query_scalar(waiting).fetch_one(&pool).await.unwrap()
            })
            .await;
            let more = "LOCK coupons IN ROW SHARE MODE;
                 LOCK orders, order_items, payments, balance_transactions, user_coupons, outbox IN ROW EXCLUSIVE MODE";
            sqlx::raw_sql(more).execute(&mut *batch).await.unwrap();
            batch.rollback().await.unwrap();
        };
        let both = async { tokio::join!(migrate(&pool), others) };
        timeout(DEADLINE, both).await.unwrap().0.unwrap();
        sqlx::query("SELECT FROM cancellations").execute(&pool).await.unwrap();
        pool.close().await;
        run(&shop.options.services.database_url, format!("DROP DATABASE {name}")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_takes_the_time_that_it_takes_and_a_role_does_not() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let database_url = shop.database.direct.clone();
        let args = DatabaseArgs { database_url, database_connections: 1 };
        let limit = async |pool: Pool| -> String {
            sqlx::query_scalar("SHOW statement_timeout").fetch_one(&pool).await.unwrap()
        };
        assert_eq!(limit(args.command_pool().unwrap()).await, "0");
        assert_eq!(limit(args.pool().unwrap()).await, "5s");
    })
    .await;
}

/// Without its row in `routing` a family gets no lines, and no worker of any family starts.
#[tokio::test(flavor = "multi_thread")]
async fn every_family_has_its_routing() {
    shop(Options { worker: false, lines: false, ..Options::default() }, async |shop| {
        let families: Vec<String> =
            sqlx::query_scalar("SELECT family FROM routing ORDER BY family")
                .fetch_all(&shop.pool)
                .await
                .unwrap();
        assert_eq!(families, Family::ALL.map(Family::as_str));
    })
    .await;
}

/// A row of either release is complete, whoever wrote it.
#[tokio::test(flavor = "multi_thread")]
async fn families_and_kinds_are_filled_in_from_each_other() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        for family in Family::ALL {
            let kind = family.former_name();
            for (column, name, key) in [("family", family.as_str(), 1_i64), ("kind", kind, 2)] {
                let pin = format!("INSERT INTO pins ({column}, key, number) VALUES ($1, $2, $2)");
                let pin = sqlx::query(AssertSqlSafe(pin)).bind(name).bind(key);
                pin.execute(&shop.pool).await.unwrap();
            }
            let rows: Vec<(String, String)> =
                sqlx::query_as("SELECT family, kind FROM pins WHERE family = $1")
                    .bind(family.as_str())
                    .fetch_all(&shop.pool)
                    .await
                    .unwrap();
            assert_eq!(rows, vec![(family.as_str().to_owned(), kind.to_owned()); 2]);
        }
        shop.sql("DELETE FROM pins").await;
    })
    .await;
}
