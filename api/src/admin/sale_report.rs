//! `GET /api/admin/sales/{family}/{key}/report`: how a sale went.

use std::collections::BTreeMap;

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_contract::{
    family::Family,
    job::{JobId, JobKind},
};
use firstcome_process::database::Pool;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Contended,
    between::{Between, BetweenParams},
};
use crate::{
    http::{
        auth::Auditor,
        fields::Fields,
        json,
        problem::{Code, Problem},
        schema::families,
    },
    state::AppState,
};

/// Jobs that one report is made of: some seconds, and 8 MB.
const MOST_JOBS: usize = 2_000_000;
/// Jobs that one statement reads.
const JOBS_AT_A_TIME: i64 = 10_000;
/// Minutes that a report lists: a week.
const MOST_MINUTES: usize = 7 * 24 * 60;
/// By what those are counted that were not rejected.
const SUCCEEDED: &str = "succeeded";

/// How a sale went, by its jobs that are settled.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SaleReport, example = json!({
    "kind": "coupon", "id": 1, "name": "Launch day", "offered": 500, "asked": 620, "refusedEarly": {"coupon-sold-out": 91_000},
    "outcomes": {"succeeded": 500, "coupon-already-issued": 3, "coupon-sold-out": 117},
    "first": "2026-03-01T12:00:00.012Z", "last": "2026-03-01T12:00:01.250Z",
    "perMinute": [{"minute": "2026-03-01T12:00:00Z", "asked": 620, "succeeded": 500}],
    "waitSeconds": {"p50": 0.21, "p90": 0.4, "p99": 0.48, "max": 0.52},
}))]
struct Report {
    #[schema(schema_with = families)]
    kind: &'static str,
    id: i64,
    name: String,
    /// Coupons of the campaign; units of the product that ever were in stock.
    offered: i64,
    /// Jobs for it.
    asked: usize,
    /// Requests that were refused without a job, by code: in all, whatever `from` and `to` are, and a few seconds old.
    refused_early: BTreeMap<String, i64>,
    /// Jobs by what became of them: `succeeded`, or a code.
    outcomes: BTreeMap<String, u64>,
    /// When the first of them was submitted.
    #[schema(required)]
    first: Option<DateTime<Utc>>,
    #[schema(required)]
    last: Option<DateTime<Utc>>,
    /// By the minute in which they were submitted, without those in which none was; of more than 10,080 the last ones.
    per_minute: Vec<Minute>,
    /// From acceptance to outcome.
    #[schema(required)]
    wait_seconds: Option<Waits>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SaleMinute)]
struct Minute {
    minute: DateTime<Utc>,
    asked: u64,
    succeeded: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SaleWaits)]
struct Waits {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// What a coupon drop or the sale of a product came to: what was offered and asked for, who won, why others did not, and
/// how long they waited. Of jobs submitted between `from` and `to`, if given: 2,000,000 at most.
///
/// # Errors
/// 400, also where there are more jobs; 401, 403, 404, 503.
#[utoipa::path(
    get, path = "/api/admin/sales/{family}/{key}/report", operation_id = "reportSale", tag = "Admin",
    params(BetweenParams),
    responses((status = 200, description = "The report.", body = Report)),
    extensions(("x-codes" = json!([Code::CouponNotFound, Code::ProductNotFound]))),
)]
pub async fn report_sale(
    State(state): State<AppState>,
    _auditor: Auditor,
    Contended { family, key }: Contended,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::from_query(query.as_deref());
    let submitted = Between::read(&mut fields);
    fields.finish()?;
    let pool = &state.pool;
    let (name, offered) = offer(pool, family, key).await?;
    // One at a time: it reads much. Who waits too long is told like anybody who does.
    let _turn = state.reports.acquire().await;
    let jobs = count(pool, family, key, submitted).await?;
    let refused = sqlx::query!(
        "SELECT code, refused FROM early_refusals WHERE family = $1 AND key = $2 LIMIT 100",
        family.as_str(),
        key
    )
    .fetch_all(pool)
    .await?;
    Ok(json::ok(&Report {
        kind: family.as_str(),
        id: key,
        name,
        offered,
        asked: jobs.waits.len(),
        refused_early: refused.into_iter().map(|row| (row.code, row.refused)).collect(),
        first: jobs.first.map(JobId::submitted_at),
        last: jobs.last.map(JobId::submitted_at),
        per_minute: minutes(&jobs.minutes),
        wait_seconds: waits(jobs.waits),
        outcomes: jobs.outcomes,
    }))
}

/// The name of what is sold, and how much of it there is or was; also of what is deleted.
async fn offer(pool: &Pool, family: Family, key: i64) -> Result<(String, i64), Problem> {
    match family {
        Family::Coupon => {
            let coupon = sqlx::query!("SELECT name, total FROM coupons WHERE id = $1", key)
                .fetch_optional(pool)
                .await?;
            let coupon = coupon.ok_or_else(|| Problem::new(Code::CouponNotFound))?;
            Ok((coupon.name, coupon.total))
        }
        Family::Product => {
            let product = sqlx::query!("SELECT name, stocked FROM products WHERE id = $1", key)
                .fetch_optional(pool)
                .await?;
            let product = product.ok_or_else(|| Problem::new(Code::ProductNotFound))?;
            Ok((product.name, product.stocked))
        }
    }
}

/// What the jobs of a sale add up to.
#[derive(Debug, Default)]
struct Jobs {
    outcomes: BTreeMap<String, u64>,
    first: Option<JobId>,
    last: Option<JobId>,
    /// By minutes since 1970: how many asked, and how many of them succeeded.
    minutes: BTreeMap<i64, (u64, u64)>,
    /// In milliseconds.
    waits: Vec<u32>,
}

/// A settled job.
struct Settled {
    job_id: Uuid,
    kind: String,
    code: Option<String>,
    settled_at: DateTime<Utc>,
}

impl Jobs {
    fn add(&mut self, job: &Settled) {
        let id = JobId::from(job.job_id);
        let submitted = id.submitted_at();
        let code = job.code.as_deref().unwrap_or(SUCCEEDED);
        match self.outcomes.get_mut(code) {
            Some(count) => *count += 1,
            None => _ = self.outcomes.insert(code.to_owned(), 1),
        }
        self.first = Some(self.first.map_or(id, |first| first.min(id)));
        self.last = Some(self.last.map_or(id, |last| last.max(id)));
        let minute = self.minutes.entry(submitted.timestamp().div_euclid(60)).or_default();
        minute.0 += 1;
        minute.1 += u64::from(job.code.is_none());
        let waited = (job.settled_at - submitted).num_milliseconds().max(0);
        self.waits.push(u32::try_from(waited).unwrap_or(u32::MAX));
    }
}

/// Reads all jobs of a sale, a piece at a time: those in whose line it was, then those that named it beside another
/// product.
async fn count(pool: &Pool, family: Family, key: i64, submitted: Between) -> Result<Jobs, Problem> {
    let mut jobs = Jobs::default();
    let kind = match family {
        Family::Coupon => JobKind::IssueCoupon,
        Family::Product => JobKind::PlaceOrder,
    };
    for is_mentioned in [false, true] {
        let (mut from, to) = submitted.jobs(None);
        loop {
            let piece = match (family, is_mentioned) {
                (Family::Coupon, false) => coupon_jobs(pool, key, from, to).await?,
                (Family::Product, false) => product_jobs(pool, key, from, to).await?,
                (Family::Product, true) => mentioning_jobs(pool, key, from, to).await?,
                // An order with a coupon does not ask for one.
                (Family::Coupon, true) => Vec::new(),
            };
            piece.iter().filter(|job| job.kind == kind.as_str()).for_each(|job| jobs.add(job));
            if jobs.waits.len() > MOST_JOBS {
                let detail = format!(
                    "leaves more than {MOST_JOBS} jobs: report a part of the sale, between a from and a to"
                );
                return Err(Problem::invalid("from", detail));
            }
            match piece.last() {
                Some(last) if i64::try_from(piece.len()).is_ok_and(|len| len == JOBS_AT_A_TIME) => {
                    from = Uuid::from_u128(last.job_id.as_u128() + 1);
                }
                _ => break,
            }
        }
    }
    Ok(jobs)
}

async fn coupon_jobs(
    pool: &Pool,
    coupon: i64,
    from: Uuid,
    to: Uuid,
) -> Result<Vec<Settled>, sqlx::Error> {
    sqlx::query_as!(
        Settled,
        "SELECT job_id, kind, code, settled_at FROM job_outcomes
         WHERE kind = 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint]) AND job_id >= $2 AND job_id < $3
         ORDER BY subject, job_id LIMIT $4",
        coupon,
        from,
        to,
        JOBS_AT_A_TIME,
    )
    .fetch_all(pool)
    .await
}

async fn product_jobs(
    pool: &Pool,
    product: i64,
    from: Uuid,
    to: Uuid,
) -> Result<Vec<Settled>, sqlx::Error> {
    sqlx::query_as!(
        Settled,
        "SELECT job_id, kind, code, settled_at FROM job_outcomes
         WHERE kind <> 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint]) AND job_id >= $2 AND job_id < $3
         ORDER BY subject, job_id LIMIT $4",
        product,
        from,
        to,
        JOBS_AT_A_TIME,
    )
    .fetch_all(pool)
    .await
}

async fn mentioning_jobs(
    pool: &Pool,
    product: i64,
    from: Uuid,
    to: Uuid,
) -> Result<Vec<Settled>, sqlx::Error> {
    sqlx::query_as!(
        Settled,
        r#"SELECT mention.job_id AS "job_id!", outcome.kind AS "kind!", outcome.code, outcome.settled_at AS "settled_at!"
           FROM (SELECT job_id FROM job_mentions
                 WHERE what = ANY(ARRAY['product']) AND id = $1 AND job_id >= $2 AND job_id < $3
                 ORDER BY what, id, job_id LIMIT $4) AS mention
           CROSS JOIN LATERAL (SELECT kind, code, settled_at FROM job_outcomes WHERE job_id = mention.job_id LIMIT 1) AS outcome
           ORDER BY mention.job_id"#,
        product,
        from,
        to,
        JOBS_AT_A_TIME,
    )
    .fetch_all(pool)
    .await
}

fn minutes(counts: &BTreeMap<i64, (u64, u64)>) -> Vec<Minute> {
    let left_out = counts.len().saturating_sub(MOST_MINUTES);
    let listed = counts.iter().skip(left_out);
    let minute = |(minute, (asked, succeeded)): (&i64, &(u64, u64))| {
        let at = DateTime::from_timestamp(minute * 60, 0)?;
        Some(Minute { minute: at, asked: *asked, succeeded: *succeeded })
    };
    listed.filter_map(minute).collect()
}

/// By the nearest rank.
fn waits(mut millis: Vec<u32>) -> Option<Waits> {
    millis.sort_unstable();
    let max = *millis.last()?;
    let seconds = |millis: u32| f64::from(millis) / 1e3;
    let at = |percent: usize| {
        let rank = (millis.len() * percent).div_ceil(100).max(1);
        seconds(millis.get(rank - 1).copied().unwrap_or(max))
    };
    Some(Waits { p50: at(50), p90: at(90), p99: at(99), max: seconds(max) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_waits_that_there_were() {
        assert!(waits(Vec::new()).is_none());
        let one = waits(vec![250]).unwrap();
        assert_eq!([one.p50, one.p90, one.p99, one.max], [0.25; 4]);
        let hundred = waits((1..=100).rev().map(|n| n * 10).collect()).unwrap();
        assert_eq!([hundred.p50, hundred.p90, hundred.p99, hundred.max], [0.5, 0.9, 0.99, 1.0]);
    }

    #[test]
    fn of_many_minutes_the_last_ones_are_listed() {
        let counts: BTreeMap<i64, (u64, u64)> =
            (0..20_000).map(|minute| (minute, (2, 1))).collect();
        let listed = minutes(&counts);
        assert_eq!(listed.len(), MOST_MINUTES);
        assert_eq!(listed.last().unwrap().minute.timestamp(), 19_999 * 60);
    }
}
