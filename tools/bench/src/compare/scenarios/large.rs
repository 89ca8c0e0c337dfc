//! A hot coupon in a database with a history, beside the same in an empty one.

use anyhow::ensure;

use super::coupons::hot_coupon;
use crate::compare::{
    databases::Database,
    plan::MOST_CONNECTIONS,
    run::{FIRSTCOME, Run},
    sale::Sale,
    throughput::Goods,
};

/// The system on the empty database.
const EMPTY: &str = "firstcome-empty";

/// Makes the database with a history.
pub(super) async fn fill(run: &mut Run<'_>) -> anyhow::Result<Database> {
    let filling = run.databases.large(run.plan.large_rows);
    run.screen.during("filling the large database", filling).await
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
    let Goods::Coupons(campaign) = goods else { return Ok(()) };
    let (held, highest, holders): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), max(issue_number), count(DISTINCT user_id) FROM user_coupons
         WHERE coupon_id = ANY($1)",
    )
    .bind(campaign)
    .fetch_one(&database.pool)
    .await?;
    let accepted = throughput.answered.units;
    ensure!(
        held == accepted && held == highest && held == holders,
        "{accepted} accepted, {held} coupons up to number {highest} in {holders} hands"
    );
    Ok(())
}
