//! What a job costs in databases of several sizes; in the largest one also with wrong statistics, with none, beside a
//! `pg_dump`, and after a purge.

use std::time::Duration;

use anyhow::ensure;
use chrono::{DateTime, TimeDelta, Utc};
use firstcome_rig::system::System;
use tokio::time::Instant;

use super::large::{are_handed_out, filled};
use crate::compare::{
    cost::Meter,
    databases::Database,
    growth::{NO_STATISTICS, PG_DUMP, PURGED, WRONG_STATISTICS, key, scenario, side},
    pg_dump::PgDump,
    plan::MOST_CONNECTIONS,
    run::Run,
    sale::Sale,
    statistics::{Statistics, mend},
    throughput::measure,
};

/// How long the purge of a day may take.
const PURGE_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// The databases that have a history.
pub(super) struct Grown {
    medium: Database,
    largest: Database,
    /// When the history of the largest one begins.
    since: DateTime<Utc>,
}

/// Makes them.
pub(super) async fn fill(run: &mut Run<'_>) -> anyhow::Result<Grown> {
    let [_, medium, largest] = run.plan.growth_rows;
    let (medium, _) = filled(run, "bench_medium", medium).await?;
    let (largest, since) = filled(run, "bench_largest", largest).await?;
    Ok(Grown { medium, largest, since })
}

/// A round. The sizes one right after the other, as machines change their pace from minute to minute.
pub(super) async fn growth(run: &mut Run<'_>, grown: &Grown) -> anyhow::Result<()> {
    let Grown { medium, largest, .. } = grown;
    run.say("firstcome, databases of several sizes");
    largest.settle_down().await;
    let empty = run.databases.used("bench_nothing").await?;
    let rows = run.plan.growth_rows.map(side);
    let [none, some, most] = &rows;
    let mut sizes = [(&empty, none), (medium, some), (largest, most)];
    // Nobody is always the first.
    if run.round.is_multiple_of(2) {
        sizes.reverse();
    }
    for (database, side) in sizes {
        sales(run, database, side, false).await?;
    }
    // There is much to write, and to drop a database waits for that, too.
    largest.settle_down().await;
    run.databases.delete(empty).await?;
    sales(run, largest, PG_DUMP, true).await?;
    for (statistics, side) in
        [(Statistics::Wrong, WRONG_STATISTICS), (Statistics::Absent, NO_STATISTICS)]
    {
        statistics.set(largest).await?;
        sales(run, largest, side, false).await?;
        statistics.are_still(largest).await?;
    }
    run.screen.during("vacuuming the largest database", mend(largest)).await?;
    Ok(())
}

/// After the rounds: the oldest day is purged, once and for all.
pub(super) async fn purged(run: &mut Run<'_>, grown: Grown) -> anyhow::Result<()> {
    let Grown { medium, largest, since } = grown;
    let started = Instant::now();
    let purging = purge(&largest, since);
    let outcomes = run.screen.during("purging the oldest day", purging).await?;
    let purge = started.elapsed();
    let started = Instant::now();
    let vacuuming = sqlx::raw_sql("VACUUM").execute(&largest.pool);
    run.screen.during("vacuuming", vacuuming).await?;
    let vacuum = started.elapsed();
    run.say(format_args!("purged {outcomes} outcomes in {purge:.1?}, vacuumed in {vacuum:.1?}"));
    let mut note = |metric: &str, value: f64| {
        run.measurements.add(format!("growth.{PURGED}.{metric}"), value);
    };
    #[expect(clippy::cast_precision_loss, reason = "some million")]
    note("outcomes", outcomes as f64);
    note("purge_seconds", purge.as_secs_f64());
    note("vacuum_seconds", vacuum.as_secs_f64());
    for round in 1..=run.plan.rounds {
        run.round = round;
        sales(run, &largest, PURGED, false).await?;
    }
    // Databases of this size are not dropped as quickly as others are. What was found must not depend on it, so what is
    // left is dropped with the rest when all is over.
    for database in [medium, largest] {
        let _ = sqlx::raw_sql("TRUNCATE job_outcomes, user_coupons").execute(&database.pool).await;
        database.settle_down().await;
    }
    Ok(())
}

/// A hot coupon and a hot product, each with servers that have just started, and so with plans of their own.
async fn sales(
    run: &mut Run<'_>,
    database: &Database,
    side: &str,
    beside_a_dump: bool,
) -> anyhow::Result<()> {
    for sale in Sale::ALL {
        if let Err(error) = hot_sale(run, database, side, sale, beside_a_dump).await {
            // A machine that stalls for seconds must not cost an hour's work.
            run.say(format_args!("  {side}, once more, as this failed: {error:#}"));
            hot_sale(run, database, side, sale, beside_a_dump).await?;
        }
    }
    Ok(())
}

async fn hot_sale(
    run: &mut Run<'_>,
    database: &Database,
    side: &str,
    sale: Sale,
    beside_a_dump: bool,
) -> anyhow::Result<()> {
    let (system, _) = run.firstcome(database, sale).await?;
    let (requests, goods) = run.hot(sale, database).await?;
    let load = run.load(system.address, MOST_CONNECTIONS, requests);
    database.settle_down().await;
    let dump = if beside_a_dump { Some(PgDump::start(database).await?) } else { None };
    let before = Meter::read(&database.pool, &system.processes()).await?;
    let throughput = measure(&load, &goods, &database.pool).await?;
    let after = Meter::read(&database.pool, &system.processes()).await?;
    if let Some(dump) = dump
        && !dump.stop(&database.pool).await?
    {
        ensure!(run.plan.quick, "pg_dump ended before the measurement did");
        run.say("  pg_dump ended before the measurement did");
    }
    system.stop().await?;
    run.note(scenario(sale), side, MOST_CONNECTIONS, &throughput);
    let (micros, wal_bytes) = after.per_job(&before, throughput.answered.granted);
    for (program, micros) in micros {
        run.measurements.add(key(sale, side, &format!("{program}.cpu_us")), micros);
    }
    run.measurements.add(key(sale, side, "wal_bytes"), wal_bytes);
    are_handed_out(database, &goods, throughput.answered.units).await
}

/// Has the worker purge the first day of a history as it would have when the day had passed its retention; tells how
/// many outcomes are gone.
async fn purge(database: &Database, since: DateTime<Utc>) -> anyhow::Result<i64> {
    let lost = rejected(database).await?;
    let age = Utc::now() - since - TimeDelta::days(1) - TimeDelta::minutes(1);
    let retention = [("JOB_RETENTION", age.num_seconds().to_string())];
    System::command(&database.settings, "purge", &["purge"], &retention, PURGE_DEADLINE).await?;
    let left = rejected(database).await?;
    ensure!(lost > 0 && left == 0, "of {lost} outcomes of the oldest day {left} are left");
    Ok(lost)
}

/// Those who lost did so on the oldest day. There is an index of them.
async fn rejected(database: &Database) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM job_outcomes
         WHERE idempotency_key IS NULL AND (status <> 'succeeded' OR kind = 'cancel-order') AND status = 'rejected'",
    )
    .fetch_one(&database.pool)
    .await
}
