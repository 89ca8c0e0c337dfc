//! One coupon per request, by four designs that work without a line.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use firstcome_api::http::{auth::Caller, body::Body, path::PathId, problem::Code};
use firstcome_contract::{
    ids::{CouponId, UserCouponId},
    job::{JobId, JobKind, issue_coupon::CouponIssued},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    campaign::campaign,
    shared::{Failed, Shared, WAIT_DEADLINE, done},
};

const KIND: JobKind = JobKind::IssueCoupon;
/// How often the optimistic design tries again.
const MOST_RETRIES: u32 = 10;
/// When a lock in Redis expires whose holder has died.
const LOCK_EXPIRY_MS: u32 = 10_000;
/// How long who did not get the lock waits before it asks again.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// Reads the campaign under `FOR UPDATE`, decides, writes; the others wait for the commit.
pub(super) async fn pessimistic(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    PathId(coupon): PathId,
    body: Body,
) -> Result<Response, Failed> {
    body.fields.finish()?;
    let job = shared.job_id(KIND);
    let mut transaction = shared.pool.begin().await?;
    let row = sqlx::query(
        "SELECT total, issued, starts_at, ends_at FROM coupons
         WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
    );
    let row = row.bind(coupon).fetch_optional(&mut *transaction).await?;
    let number = next_number(row, job.submitted_at())?;
    sqlx::query("UPDATE coupons SET issued = $2 WHERE id = $1")
        .bind(coupon)
        .bind(number)
        .execute(&mut *transaction)
        .await?;
    let issued = write(&mut transaction, job, caller, coupon, number).await?;
    transaction.commit().await?;
    Ok(done(job, KIND, "succeeded", issued))
}

/// Reads the campaign, decides, and writes only if nobody else was quicker.
pub(super) async fn optimistic(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    PathId(coupon): PathId,
    body: Body,
) -> Result<Response, Failed> {
    body.fields.finish()?;
    let job = shared.job_id(KIND);
    for _ in 0..=MOST_RETRIES {
        let number = next_number(read(&shared, coupon).await?, job.submitted_at())?;
        let mut transaction = shared.pool.begin().await?;
        // `issued` only grows, so it is its own version.
        let updated =
            sqlx::query("UPDATE coupons SET issued = $2 WHERE id = $1 AND issued = $2 - 1")
                .bind(coupon)
                .bind(number)
                .execute(&mut *transaction)
                .await?;
        if updated.rows_affected() == 0 {
            transaction.rollback().await?;
            continue;
        }
        let issued = write(&mut transaction, job, caller, coupon, number).await?;
        transaction.commit().await?;
        return Ok(done(job, KIND, "succeeded", issued));
    }
    Err(Failed::GaveUp)
}

/// Takes a lock in Redis around a transaction without row locks of its own. Only as many contend at a
/// time as there are connections to the database: more would only ask Redis in vain.
pub(super) async fn under_redis_lock(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    PathId(coupon): PathId,
    body: Body,
) -> Result<Response, Failed> {
    body.fields.finish()?;
    let job = shared.job_id(KIND);
    let mut redis = shared.redis.clone().ok_or(Failed::GaveUp)?;
    let _turn = shared.contenders.acquire().await.map_err(|_| Failed::GaveUp)?;
    let (lock, owner) = (format!("bench-lock:{coupon}"), job.to_string());
    let give_up = Instant::now() + WAIT_DEADLINE;
    loop {
        let mut set = redis::cmd("SET");
        set.arg(&lock).arg(&owner).arg("NX").arg("PX").arg(LOCK_EXPIRY_MS);
        let taken: Option<String> =
            set.query_async(&mut redis).await.map_err(|_| Failed::GaveUp)?;
        if taken.is_some() {
            break;
        }
        if Instant::now() > give_up {
            return Err(Failed::GaveUp);
        }
        sleep(LOCK_PAUSE).await;
    }
    let issued = while_locked(&shared, job, caller, coupon).await;
    // Only if it is still ours.
    let mut release = redis::cmd("EVAL");
    release
        .arg("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
        .arg(1)
        .arg(&lock)
        .arg(&owner);
    let _: i64 = release.query_async(&mut redis).await.map_err(|_| Failed::GaveUp)?;
    Ok(done(job, KIND, "succeeded", issued?))
}

async fn while_locked(
    shared: &Shared,
    job: JobId,
    caller: Caller,
    coupon: i64,
) -> Result<CouponIssued, Failed> {
    let number = next_number(read(shared, coupon).await?, job.submitted_at())?;
    let mut transaction = shared.pool.begin().await?;
    sqlx::query("UPDATE coupons SET issued = $2 WHERE id = $1")
        .bind(coupon)
        .bind(number)
        .execute(&mut *transaction)
        .await?;
    let issued = write(&mut transaction, job, caller, coupon, number).await?;
    transaction.commit().await?;
    Ok(issued)
}

/// One round trip for everything; the losers ask why in a second one.
pub(super) async fn atomic(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    PathId(coupon): PathId,
    body: Body,
) -> Result<Response, Failed> {
    body.fields.finish()?;
    let job = shared.job_id(KIND);
    let row = sqlx::query(
        "WITH campaign AS (
             UPDATE coupons SET issued = issued + 1
             WHERE id = $1 AND deleted_at IS NULL AND issued < total AND starts_at <= $4 AND $4 < ends_at
               AND NOT EXISTS (SELECT FROM user_coupons WHERE user_id = $2 AND coupon_id = $1)
             RETURNING issued
         ), held AS (
             INSERT INTO user_coupons (user_id, coupon_id, issue_number)
             SELECT $2, $1, issued FROM campaign
             RETURNING id, issue_number
         ), outcome AS (
             INSERT INTO job_outcomes (kind, job_id, user_id, status, result)
             SELECT 'issue-coupon', $3, $2, 'succeeded',
                    jsonb_build_object('userCouponId', id, 'couponId', $1, 'issueNumber', issue_number)
             FROM held
         )
         SELECT id, issue_number FROM held",
    );
    let row = row.bind(coupon).bind(caller.user_id.get()).bind(job.get()).bind(job.submitted_at());
    let Some(row) = row.fetch_optional(&shared.pool).await? else {
        next_number(read(&shared, coupon).await?, job.submitted_at())?;
        return Err(Code::CouponAlreadyIssued.into());
    };
    let issued = CouponIssued {
        user_coupon_id: UserCouponId::new(row.try_get(0)?),
        coupon_id: CouponId::new(coupon),
        issue_number: row.try_get(1)?,
    };
    Ok(done(job, KIND, "succeeded", issued))
}

async fn read(shared: &Shared, coupon: i64) -> Result<Option<PgRow>, sqlx::Error> {
    sqlx::query("SELECT total, issued, starts_at, ends_at FROM coupons WHERE id = $1 AND deleted_at IS NULL")
        .bind(coupon)
        .fetch_optional(&shared.pool)
        .await
}

/// The number that the next coupon of this campaign gets.
fn next_number(row: Option<PgRow>, submitted_at: DateTime<Utc>) -> Result<i64, Failed> {
    let campaign = campaign(&row.ok_or(Code::CouponNotFound)?)?;
    campaign
        .check_window(submitted_at)
        .and_then(|()| campaign.check_stock())
        .map_err(Code::from)?;
    Ok(campaign.issued + 1)
}

/// Stores the coupon and the record of the request. That the user has none yet is for the unique
/// constraint to say: asking first would be a round trip under the lock.
async fn write(
    transaction: &mut PgConnection,
    job: JobId,
    caller: Caller,
    coupon: i64,
    number: i64,
) -> Result<CouponIssued, sqlx::Error> {
    let id = sqlx::query_scalar::<_, i64>(
        "INSERT INTO user_coupons (user_id, coupon_id, issue_number) VALUES ($1, $2, $3) RETURNING id",
    );
    let user = caller.user_id.get();
    let id = id.bind(user).bind(coupon).bind(number).fetch_one(&mut *transaction).await?;
    let issued = CouponIssued {
        user_coupon_id: UserCouponId::new(id),
        coupon_id: CouponId::new(coupon),
        issue_number: number,
    };
    record(transaction, KIND, job.get(), user, &issued).await?;
    Ok(issued)
}

/// The outcome, as the workers store it.
async fn record(
    transaction: &mut PgConnection,
    kind: JobKind,
    job: Uuid,
    user: i64,
    result: &CouponIssued,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO job_outcomes (kind, job_id, user_id, status, result) VALUES ($1, $2, $3, 'succeeded', $4)",
    )
    .bind(kind.as_str())
    .bind(job)
    .bind(user)
    .bind(sqlx::types::Json(result))
    .execute(transaction)
    .await?;
    Ok(())
}
