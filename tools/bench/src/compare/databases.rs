//! Databases to measure on: each server gets a copy of its own of one that was prepared once, and
//! queues of its own.

use std::{fmt::Write, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use firstcome_rig::{
    settings::Settings,
    stage::Stage,
    system::{System, free_port},
};
use firstcome_workers::commands::{audit, sample_data};
use http::header::HeaderValue;
use sqlx::PgPool;
use tokio::{
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
};

use super::history;

/// Nobody can buy as much.
const PLENTY: i64 = 1_000_000_000;

/// How many keys Redis looks at in one step: some milliseconds' work.
const KEYS_AT_ONCE: usize = 1_000;

/// What a database is a copy of, by its place among the stages.
#[derive(Debug, Clone, Copy)]
enum Template {
    /// As `firstcome-worker migrate` and `sample-data` leave it: PostgreSQL knows nothing about its
    /// tables.
    Fresh = 0,
    /// Vacuumed and analyzed, as a database is that has been in use for a while.
    Used = 1,
}

/// All databases of this run, and the tokens of the users that are in each of them.
pub(super) struct Databases {
    servers: Settings,
    /// `Authorization` headers of the users 1, 2, 3 …
    pub(super) bearers: Arc<[HeaderValue]>,
    /// What there is to clear; the first two are what the others are copies of: see [`Template`].
    stages: Arc<Mutex<Vec<Stage>>>,
}

/// A database and a namespace for one server.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) settings: Settings,
    pub(super) pool: PgPool,
    name: String,
}

impl Databases {
    pub(super) fn new(servers: Settings) -> Self {
        Self { servers, bearers: Arc::new([]), stages: Arc::default() }
    }

    /// Makes the databases that all others are copies of, and a token for every user.
    pub(super) async fn prepare(&mut self, users: i64) -> anyhow::Result<()> {
        let bearers = bearers(self.servers.clone(), users);
        let database = self.create("bench_fresh", None).await?;
        System::prepare(&database.settings, users).await?;
        // Autovacuum would come upon some of the copies in the middle and upon others not at all, and
        // what is fresh for a minute only would be a matter of luck.
        alter_tables(&database.pool, "SET (autovacuum_enabled = off)").await?;
        for statement in [
            // Twice what a coupon takes off, so that something is left to pay.
            "UPDATE products SET stock = $1, stocked = $1, price = 2000",
            // Messages: the floor that nobody serves must not be refused.
            "UPDATE routing SET line_capacity = $1",
        ] {
            sqlx::query(statement).bind(PLENTY).execute(&database.pool).await?;
        }
        database.pool.close().await;

        let database = self.create("bench", Some(Template::Fresh)).await?;
        alter_tables(&database.pool, "RESET (autovacuum_enabled)").await?;
        for statement in [
            "UPDATE balances SET amount = $1",
            "UPDATE balance_transactions SET amount = $1, balance_after = $1",
        ] {
            sqlx::query(statement).bind(PLENTY).execute(&database.pool).await?;
        }
        // As a database is that has been in use; else autovacuum would do it in the middle of a
        // measurement.
        for statement in [
            "VACUUM (FULL) balances, balance_transactions, products",
            "VACUUM (ANALYZE) users, balances, balance_transactions, products",
        ] {
            sqlx::raw_sql(statement).execute(&database.pool).await?;
        }
        database.pool.close().await;
        self.bearers = bearers.await??;
        Ok(())
    }

    /// The `Authorization` headers of more users than there are by themselves: see [`Database::more_users`].
    pub(super) async fn bearers_of(&self, users: i64) -> anyhow::Result<Arc<[HeaderValue]>> {
        bearers(self.servers.clone(), users).await?
    }

    /// One that has been in use; `name` must be unique.
    pub(super) async fn used(&self, name: &str) -> anyhow::Result<Database> {
        self.create(name, Some(Template::Used)).await
    }

    /// One that is new: see [`Database::is_fresh`].
    pub(super) async fn fresh(&self, name: &str) -> anyhow::Result<Database> {
        self.create(name, Some(Template::Fresh)).await
    }

    async fn create(&self, name: &str, template: Option<Template>) -> anyhow::Result<Database> {
        let mut stage = Stage::new(name, &self.servers.database_url, &self.servers.amqp_url)?;
        let settings = Settings {
            database_url: stage.database_url.clone(),
            namespace: stage.namespace.clone(),
            api_addr: free_port().await?,
            ..self.servers.clone()
        };
        let database = Database { settings, pool: stage.pool()?, name: stage.database.clone() };
        // In a task of its own, so that it is not cancelled in the middle: see `clear`.
        let stages = Arc::clone(&self.stages);
        let creating = tokio::spawn(async move {
            let mut stages = stages.lock().await;
            match template.and_then(|template| stages.get(template as usize)) {
                Some(template) => stage.set_as_copy(template).await?,
                None => stage.set().await?,
            }
            stages.push(stage);
            anyhow::Ok(())
        });
        creating.await??;
        Ok(database)
    }

    /// Deletes one whose servers have stopped.
    pub(super) async fn delete(&self, database: Database) -> anyhow::Result<()> {
        database.pool.close().await;
        let mut stages = self.stages.lock().await;
        let at = stages.iter().position(|stage| stage.database == database.name);
        let Some(stage) = at.map(|at| stages.remove(at)) else { return Ok(()) };
        let left = self.clear_stage(&stage).await;
        ensure!(left.is_empty(), "could not delete {}", left.join(", "));
        Ok(())
    }

    /// Deletes what is left.
    pub(super) async fn clear(&self) -> Vec<String> {
        let mut left = Vec::new();
        for stage in self.stages.lock().await.drain(..) {
            left.extend(self.clear_stage(&stage).await);
        }
        left
    }

    /// Returns what could not be deleted.
    async fn clear_stage(&self, stage: &Stage) -> Vec<String> {
        let mut left = stage.clear().await;
        if let Err(error) = forget_keys(&self.servers.redis_url, &stage.namespace).await {
            left.push(format!("the keys {}:* in Redis: {error}", stage.namespace));
        }
        left
    }
}

/// Makes the `Authorization` headers of the users 1 to `users`.
fn bearers(servers: Settings, users: i64) -> JoinHandle<anyhow::Result<Arc<[HeaderValue]>>> {
    spawn_blocking(move || (1..=users).map(|user| servers.bearer(user, false)).collect())
}

/// Deletes the idempotency keys that the API remembers for a day: a Redis that is full of earlier
/// measurements' would be another one.
async fn forget_keys(redis_url: &str, namespace: &str) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(redis_url)?.get_multiplexed_async_connection().await?;
    let mut cursor = 0;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{namespace}:*")).arg("COUNT").arg(KEYS_AT_ONCE);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).query_async::<()>(&mut connection).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// The same change of every table.
async fn alter_tables(pool: &PgPool, change: &'static str) -> Result<(), sqlx::Error> {
    let statement = format!(
        "DO $$ DECLARE name regclass; BEGIN
             FOR name IN SELECT relid FROM pg_stat_user_tables LOOP
                 EXECUTE format('ALTER TABLE %s {change}', name);
             END LOOP;
         END $$"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.map(drop)
}

impl Database {
    /// New campaigns, open, each with so many coupons.
    pub(super) async fn campaigns(&self, count: i64, total: i64) -> Result<Vec<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "INSERT INTO coupons (name, discount_type, discount_value, total, starts_at, ends_at)
             SELECT 'Benchmark', 'fixed', 1000, $2, now() - interval '1 hour', now() + interval '1 day'
             FROM generate_series(1, $1) RETURNING id",
        )
        .bind(count)
        .bind(total)
        .fetch_all(&self.pool)
        .await
    }

    /// A new campaign that nobody can exhaust.
    pub(super) async fn campaign(&self) -> anyhow::Result<i64> {
        self.campaigns(1, PLENTY).await?.pop().context("no campaign")
    }

    /// A new campaign whose coupons are in the hands of the users 1 to `users`.
    pub(super) async fn campaign_of_holders(&self, users: i64) -> anyhow::Result<i64> {
        let campaign = self.campaign().await?;
        history::hand_out(&self.pool, campaign, users).await.context("cannot hand out coupons")?;
        Ok(campaign)
    }

    /// New campaigns that nobody can exhaust.
    pub(super) async fn many_campaigns(&self, count: i64) -> anyhow::Result<Vec<i64>> {
        Ok(self.campaigns(count, PLENTY).await?)
    }

    /// Makes the users up to that number who are not there yet.
    pub(super) async fn more_users(&self, users: i64) -> Result<(), sqlx::Error> {
        sample_data::create(&self.pool, users).await
    }

    /// Whether autovacuum may come by.
    pub(super) async fn set_autovacuum(&self, on: bool) -> Result<(), sqlx::Error> {
        let change =
            if on { "RESET (autovacuum_enabled)" } else { "SET (autovacuum_enabled = off)" };
        alter_tables(&self.pool, change).await
    }

    /// What a database in use has behind it.
    pub(super) async fn vacuum(&self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("VACUUM (ANALYZE)").execute(&self.pool).await.map(drop)
    }

    /// References as designs with a row per statement want them: foreign keys instead of one check per
    /// statement (`migrations/0006`), which costs them more.
    pub(super) async fn with_foreign_keys(self) -> Result<Self, sqlx::Error> {
        for (table, references) in [
            ("user_coupons", &[("user_id", "users"), ("coupon_id", "coupons")][..]),
            ("orders", &[("user_id", "users"), ("coupon_id", "coupons")]),
            ("order_items", &[("order_id", "orders"), ("product_id", "products")]),
            ("payments", &[("order_id", "orders")]),
            ("balance_transactions", &[("user_id", "users"), ("order_id", "orders")]),
        ] {
            let mut statement = format!("ALTER TABLE {table} DISABLE TRIGGER {table}_references");
            for (column, parent) in references {
                let _ = write!(statement, ", ADD FOREIGN KEY ({column}) REFERENCES {parent} (id)");
            }
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&self.pool).await?;
        }
        Ok(self)
    }

    /// PostgreSQL still plans without knowing anything about the tables: none was ever vacuumed or
    /// analyzed.
    pub(super) async fn is_fresh(&self) -> anyhow::Result<()> {
        let known: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_stat_user_tables
             WHERE COALESCE(last_analyze, last_autoanalyze, last_vacuum, last_autovacuum) IS NOT NULL
             UNION SELECT tablename::text FROM pg_stats WHERE schemaname = 'public'",
        )
        .fetch_all(&self.pool)
        .await?;
        ensure!(known.is_empty(), "not a fresh database: analyzed were {}", known.join(", "));
        Ok(())
    }

    /// Tells PostgreSQL about the tables, now that this cannot change a figure any more: the audit
    /// reads all of them.
    pub(super) async fn analyze(&self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("ANALYZE").execute(&self.pool).await.map(drop)
    }

    /// Writes to the disk what earlier measurements left in memory, so that it is not this one's.
    pub(super) async fn settle_down(&self) {
        // A user without that privilege gets somewhat noisier figures.
        let _ = sqlx::raw_sql("CHECKPOINT").execute(&self.pool).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// Every invariant of the system holds, whoever wrote the rows, and nothing was dead-lettered.
    pub(super) async fn audit(&self, whose: &str) -> anyhow::Result<()> {
        let findings = audit::audit(&self.pool).await?;
        let broken: Vec<String> = findings
            .iter()
            .filter(|finding| finding.violations > 0)
            .map(|finding| format!("{}, {} violations", finding.invariant, finding.violations))
            .collect();
        ensure!(broken.is_empty(), "{whose} violates an invariant: {}", broken.join("; "));
        let dead_letters: i64 =
            sqlx::query_scalar("SELECT count(*) FROM dead_letters").fetch_one(&self.pool).await?;
        ensure!(dead_letters == 0, "{whose} leaves {dead_letters} dead letters");
        Ok(())
    }
}
