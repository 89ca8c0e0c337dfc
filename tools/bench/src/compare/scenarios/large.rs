//! A hot coupon in a database with a history, beside the same in an empty one.

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};

use super::coupons::hot_coupon;
use crate::compare::{
    databases::Database,
    history::Filling,
    plan::MOST_CONNECTIONS,
    run::{FIRSTCOME, Run},
    sale::Sale,
    throughput::Goods,
};

/// The system on the empty database.
const EMPTY: &str = "firstcome-empty";

/// Makes the database with a history.
pub(super) async fn fill(run: &mut Run<'_>) -> anyhow::Result<Database> {
    let (database, _) = filled(run, "bench_large", run.plan.large_rows).await?;
    Ok(database)
}

/// A database with a history of so many rows, and when that begins.
pub(super) async fn filled(
    run: &mut Run<'_>,
    name: &str,
    rows: i64,
) -> anyhow::Result<(Database, DateTime<Utc>)> {
    let database = run.databases.used(name).await?;
    let mut filling = Filling::begin(&database.pool, rows).await?;
    while let Some(what) = filling.next() {
        let step = run.screen.during(&what, filling.step()).await;
        step.with_context(|| format!("{what}: failed"))?;
    }
    let since = filling.since;
    Ok((database, since))
}

/// One right after the other: machines change their pace from minute to minute.
pub(super) async fn large(run: &mut Run<'_>, large: &Database) -> anyhow::Result<()> {
    let rows = run.plan.large_rows;
    run.say(format_args!("firstcome, no rows and {rows} rows in the database"));
    let empty = run.databases.used("bench_empty").await?;
    hot_coupon_in(run, &empty, EMPTY).await?;
    run.databases.delete(empty).await?;
    hot_coupon_in(run, large, FIRSTCOME).await
}

/// Auditing all of the history would take longer than everything else, so only the new campaign is.
async fn hot_coupon_in(run: &mut Run<'_>, database: &Database, side: &str) -> anyhow::Result<()> {
    let (system, _) = run.firstcome(database, Sale::Coupons).await?;
    let (throughput, goods) = hot_coupon(run, &system, database, MOST_CONNECTIONS, false).await?;
    run.note("large", side, MOST_CONNECTIONS, &throughput);
    system.stop().await?;
    are_handed_out(database, &goods, throughput.answered.units).await
}

/// What was accepted of a new campaign is in as many hands.
pub(super) async fn are_handed_out(
    database: &Database,
    goods: &Goods,
    accepted: i64,
) -> anyhow::Result<()> {
    let Goods::Coupons(campaign) = goods else { return Ok(()) };
    let (held, highest, holders): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), max(issue_number), count(DISTINCT user_id) FROM user_coupons
         WHERE coupon_id = ANY($1)",
    )
    .bind(campaign)
    .fetch_one(&database.pool)
    .await?;
    ensure!(
        held == accepted && held == highest && held == holders,
        "{accepted} accepted, {held} coupons up to number {highest} in {holders} hands"
    );
    Ok(())
}
