//! `GET /api/admin/jobs` and `GET /api/admin/jobs/{jobId}`: what became of anybody's requests.

use std::collections::HashSet;

use axum::{
    extract::{RawPathParams, RawQuery, State, rejection::RawPathParamsRejection},
    response::Response,
};
use chrono::Utc;
use firstcome_contract::{
    failure::Failure,
    ids::UserId,
    job::{JobId, JobKind, Status},
};
use firstcome_process::database::Pool;
use utoipa::{IntoParams, openapi::Object};
use uuid::Uuid;

use super::{
    between::{Between, BetweenParams},
    job_story::{self, FoundJob, Story, StoryView},
};
use crate::{
    http::{
        auth::Auditor,
        fields::{Fields, IDS},
        json,
        page::List,
        problem::{Code, Problem},
        request_id,
        schema::{kinds, one_of},
        seek::{Seek, SeekParams, Seen},
    },
    job,
    state::AppState,
};

const KINDS: [(&str, JobKind); JobKind::ALL.len()] = {
    let [issue, place, cancel] = JobKind::ALL;
    [(issue.as_str(), issue), (place.as_str(), place), (cancel.as_str(), cancel)]
};
const STATUSES: [(&str, Status); 3] = [
    (Status::Succeeded.as_str(), Status::Succeeded),
    (Status::Rejected.as_str(), Status::Rejected),
    (Status::Failed.as_str(), Status::Failed),
];
/// The longest code and idempotency key, in characters.
const LONGEST_CODE: usize = 100;
const LONGEST_KEY: usize = 255;

fn statuses() -> Object {
    one_of(STATUSES.map(|(name, _)| name))
}

/// Which jobs.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of this caller.
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    user: Option<i64>,
    #[param(required = false, schema_with = kinds, value_type = String)]
    kind: Option<JobKind>,
    #[param(required = false, schema_with = statuses, value_type = String)]
    status: Option<Status>,
    /// Of a rejection or a failure.
    #[param(required = false, max_length = 100)]
    code: Option<String>,
    /// For a coupon of this campaign, or an order with one.
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    coupon: Option<i64>,
    /// For this product, also beside others, and whether or not there was enough.
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    product: Option<i64>,
    /// The job that placed this order, and those that were to cancel it.
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    order: Option<i64>,
    /// With this `Idempotency-Key`; goes with `user`.
    #[param(required = false, max_length = 255)]
    key: Option<String>,
    #[param(ignore)]
    submitted: Between,
}

/// What leads to jobs, each by an index of its own.
#[derive(Debug, Clone, Copy)]
enum Lead<'a> {
    Key(i64, &'a str),
    Order(i64),
    User(i64),
    Coupon(i64),
    Product(i64),
    Failed,
    Time,
}

impl Filter {
    fn read(fields: &mut Fields) -> Self {
        let filter = Self {
            user: fields.optional_integer("user", IDS),
            kind: fields.optional_choice("kind", &KINDS),
            status: fields.optional_choice("status", &STATUSES),
            code: fields.optional_text("code", LONGEST_CODE),
            coupon: fields.optional_integer("coupon", IDS),
            product: fields.optional_integer("product", IDS),
            order: fields.optional_integer("order", IDS),
            key: fields.optional_text("key", LONGEST_KEY),
            submitted: Between::read(fields),
        };
        if filter.key.is_some() && filter.user.is_none() {
            fields.reject("key", "is a caller's own: give the user, too");
        }
        filter
    }

    fn lead(&self) -> Lead<'_> {
        let fails = self.code.as_deref().is_some_and(|code| Failure::from_code(code).is_some());
        match self {
            Self { user: Some(user), key: Some(key), .. } => Lead::Key(*user, key),
            Self { order: Some(order), .. } => Lead::Order(*order),
            Self { user: Some(user), .. } => Lead::User(*user),
            Self { coupon: Some(coupon), .. } => Lead::Coupon(*coupon),
            Self { product: Some(product), .. } => Lead::Product(*product),
            Self { status: Some(Status::Failed), .. } => Lead::Failed,
            _ if fails => Lead::Failed,
            _ => Lead::Time,
        }
    }

    /// Whether something is asked for that does not lead to the jobs.
    fn is_filtered(&self) -> bool {
        let ids = [self.user, self.coupon, self.product, self.order].into_iter().flatten().count();
        let names = [self.kind.is_some(), self.status.is_some(), self.code.is_some()];
        let names = names.into_iter().filter(|is_given| *is_given).count();
        match self.lead() {
            Lead::Key(..) => true,
            Lead::Order(_) | Lead::User(_) | Lead::Coupon(_) | Lead::Product(_) => ids + names > 1,
            Lead::Failed => names > 1 || self.status.is_none(),
            Lead::Time => names > 0,
        }
    }
}

/// Settled jobs of all callers, newest first: what is queued appears when it is settled. Jobs that a release settled which
/// did not note what they were about are found by `user`, `order`, `key` and time only.
///
/// # Errors
/// 400, 401, 403, 503.
#[utoipa::path(
    get, path = "/api/admin/jobs", operation_id = "findJobs", tag = "Admin",
    params(Filter, BetweenParams, SeekParams),
    responses((status = 200, description = "A page of the jobs.", body = List<FoundJob<'_>>)),
)]
pub async fn find_jobs(
    State(state): State<AppState>,
    _auditor: Auditor,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::from_query(query.as_deref());
    let filter = Filter::read(&mut fields);
    let seek = Seek::read(&mut fields, "jobs", query.as_deref());
    fields.finish()?;
    let rows = seek.rows(filter.is_filtered());
    let found = look(&state.pool, &filter, seek.after, rows).await?;
    let seen: Vec<Seen<Uuid>> = if filter.is_filtered() {
        let wanted = wanted(&state.pool, &filter, &found).await?;
        found.into_iter().map(|id| (id, wanted.contains(&id))).collect()
    } else {
        found.into_iter().map(|id| (id, true)).collect()
    };
    let (page, next) = seek.cut(&seen, rows);
    let stories = job_story::read(&state.pool, &page).await?;
    let namespace = &state.config.broker.queue_namespace;
    let items = stories.iter().map(|story| story.view(namespace)).collect();
    Ok(json::ok(&List { items, next }))
}

/// Whose job it may be.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `get_any_job` reads")]
struct Whose {
    /// The caller who submitted it: without that, a job is not known before it is settled.
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    user: i64,
}

/// Anybody's job, with what became of it step by step. One that is queued is told of only if its caller is given by
/// `user`: there is nothing of it but its id, which is its caller's.
///
/// # Errors
/// 400, 401, 403, 404, 410 after the retention, 503.
#[utoipa::path(
    get, path = "/api/admin/jobs/{jobId}", operation_id = "getAnyJob", tag = "Admin",
    params(Whose),
    responses((status = 200, description = "The job, and its steps in the order of time.", body = StoryView<'_>)),
    extensions(("x-codes" = json!([Code::JobNotFound, Code::JobExpired]))),
)]
pub async fn get_any_job(
    State(state): State<AppState>,
    _auditor: Auditor,
    path: Result<RawPathParams, RawPathParamsRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::from_query(query.as_deref());
    let user = fields.optional_integer("user", IDS).map(UserId::new);
    fields.finish()?;
    let path = path.ok();
    let id = path.as_ref().and_then(|path| path.iter().next()).map(|(_, id)| id);
    let id = id.and_then(|id| id.parse::<Uuid>().ok());
    let id = id.ok_or_else(|| Problem::new(Code::JobNotFound))?;
    request_id::is_about(JobId::from(id));
    let stored = job_story::read(&state.pool, &[id]).await?.pop();
    let stored = stored.filter(|story| user.is_none_or(|user| user == story.user()));
    let story = match stored {
        Some(story) => story,
        None => queued(&state, JobId::from(id), user).await?,
    };
    let letters = job_story::letters(&state.pool, id).await?;
    Ok(json::ok(&story.told(&state.config.broker.queue_namespace, letters)))
}

/// A job that is in its line, as far as its id tells; or that is lost, and ends by that.
async fn queued(state: &AppState, id: JobId, user: Option<UserId>) -> Result<Story, Problem> {
    let user = user.filter(|user| state.signer.issued(id, *user));
    let (Some(user), Some(kind)) = (user, id.kind()) else {
        let detail =
            "There is no such job that is settled; to see one that is queued, give its user.";
        return Err(Problem::with_detail(Code::JobNotFound, detail));
    };
    if Utc::now() - id.submitted_at() > state.config.retention() {
        return Err(Problem::new(Code::JobExpired));
    }
    let settled = job::outcome(state, id, user, None).await?;
    Ok(Story::queued(id, user, kind, state.lines.position(id), settled))
}

/// The jobs that one index leads to, newest first.
async fn look(
    pool: &Pool,
    filter: &Filter,
    after: Option<Uuid>,
    rows: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let (from, to) = filter.submitted.jobs(after);
    match filter.lead() {
        Lead::Key(user, key) => {
            let kinds = JobKind::ALL.map(JobKind::as_str);
            sqlx::query_scalar!(
                r#"SELECT job_id AS "job_id!" FROM UNNEST($2::text[]) AS kinds (name)
                   CROSS JOIN LATERAL (
                       SELECT job_id FROM job_outcomes
                       WHERE user_id = $1 AND kind = name AND idempotency_key = $3
                       LIMIT 1
                   ) AS owner
                   WHERE job_id >= $4 AND job_id < $5 ORDER BY job_id DESC"#,
                user,
                &kinds as &[&str],
                key,
                from,
                to,
            )
            .fetch_all(pool)
            .await
        }
        Lead::Order(order) => {
            sqlx::query_scalar!(
                r#"SELECT job_id AS "job_id!" FROM (
                       (SELECT job_id FROM orders WHERE id BETWEEN $1 AND $1 AND job_id >= $2 AND job_id < $3 ORDER BY id LIMIT 1)
                       UNION ALL
                       (SELECT job_id FROM job_mentions WHERE what = ANY(ARRAY['order']) AND id = $1
                           AND job_id >= $2 AND job_id < $3 ORDER BY what DESC, id DESC, job_id DESC LIMIT $4)
                   ) AS jobs ORDER BY job_id DESC LIMIT $4"#,
                order,
                from,
                to,
                rows,
            )
            .fetch_all(pool)
            .await
        }
        Lead::User(user) => {
            sqlx::query_scalar!(
                r#"SELECT job_id AS "job_id!" FROM (
                       (SELECT job_id FROM job_outcomes
                        WHERE user_id = ANY(ARRAY[$1::bigint]) AND idempotency_key IS NULL
                          AND (status <> 'succeeded' OR kind = 'cancel-order') AND job_id >= $2 AND job_id < $3
                        ORDER BY user_id DESC, job_id DESC LIMIT $4)
                       UNION
                       SELECT job_id FROM job_outcomes WHERE user_id = $1 AND idempotency_key IS NOT NULL
                       UNION
                       SELECT issued_by FROM user_coupons WHERE user_id BETWEEN $1 AND $1
                       UNION
                       SELECT job_id FROM orders WHERE user_id = $1
                   ) AS jobs WHERE job_id >= $2 AND job_id < $3 ORDER BY job_id DESC LIMIT $4"#,
                user,
                from,
                to,
                rows,
            )
            .fetch_all(pool)
            .await
        }
        Lead::Coupon(coupon) => {
            sqlx::query_scalar!(
                r#"SELECT job_id AS "job_id!" FROM (
                       (SELECT job_id FROM job_outcomes WHERE kind = 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint])
                           AND job_id >= $2 AND job_id < $3 ORDER BY subject DESC, job_id DESC LIMIT $4)
                       UNION
                       (SELECT job_id FROM orders WHERE coupon_id = ANY(ARRAY[$1::bigint])
                           AND job_id >= $2 AND job_id < $3 ORDER BY coupon_id DESC, job_id DESC LIMIT $4)
                       UNION
                       (SELECT job_id FROM job_mentions WHERE what = ANY(ARRAY['coupon']) AND id = $1
                           AND job_id >= $2 AND job_id < $3 ORDER BY what DESC, id DESC, job_id DESC LIMIT $4)
                   ) AS jobs ORDER BY job_id DESC LIMIT $4"#,
                coupon,
                from,
                to,
                rows,
            )
            .fetch_all(pool)
            .await
        }
        Lead::Product(product) => {
            sqlx::query_scalar!(
                r#"SELECT job_id AS "job_id!" FROM (
                       (SELECT job_id FROM job_outcomes WHERE kind <> 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint])
                           AND job_id >= $2 AND job_id < $3 ORDER BY subject DESC, job_id DESC LIMIT $4)
                       UNION ALL
                       (SELECT job_id FROM job_mentions WHERE what = ANY(ARRAY['product']) AND id = $1
                           AND job_id >= $2 AND job_id < $3 ORDER BY what DESC, id DESC, job_id DESC LIMIT $4)
                   ) AS jobs ORDER BY job_id DESC LIMIT $4"#,
                product,
                from,
                to,
                rows,
            )
            .fetch_all(pool)
            .await
        }
        Lead::Failed => {
            sqlx::query_scalar!(
                "SELECT job_id FROM job_outcomes WHERE status = 'failed' AND job_id >= $1 AND job_id < $2
                 ORDER BY job_id DESC LIMIT $3",
                from,
                to,
                rows,
            )
            .fetch_all(pool)
            .await
        }
        Lead::Time => {
            sqlx::query_scalar!(
                "SELECT job_id FROM job_outcomes WHERE job_id >= $1 AND job_id < $2 ORDER BY job_id DESC LIMIT $3",
                from,
                to,
                rows,
            )
            .fetch_all(pool)
            .await
        }
    }
}

/// Those of these jobs that are as asked for in every respect.
async fn wanted(
    pool: &Pool,
    filter: &Filter,
    found: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let wanted = sqlx::query_scalar!(
        r#"SELECT job_id FROM job_outcomes
           WHERE job_id = ANY($1) AND ($2::bigint IS NULL OR user_id = $2) AND ($3::text IS NULL OR kind = $3)
             AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR code = $5)
             AND ($6::bigint IS NULL OR (kind = 'issue-coupon' AND subject = $6)
                  OR (SELECT id FROM job_mentions WHERE job_id = job_outcomes.job_id AND what = 'coupon' AND id = $6 LIMIT 1) IS NOT NULL
                  OR (SELECT coupon_id FROM orders WHERE job_id = job_outcomes.job_id LIMIT 1) = $6)
             AND ($7::bigint IS NULL OR (kind <> 'issue-coupon' AND subject = $7)
                  OR (SELECT id FROM job_mentions WHERE job_id = job_outcomes.job_id AND what = 'product' AND id = $7 LIMIT 1) IS NOT NULL)
             AND ($8::bigint IS NULL OR job_id = (SELECT job_id FROM orders WHERE id BETWEEN $8 AND $8 ORDER BY id LIMIT 1)
                  OR (SELECT id FROM job_mentions WHERE job_id = job_outcomes.job_id AND what = 'order' AND id = $8 LIMIT 1) IS NOT NULL)"#,
        found,
        filter.user,
        filter.kind.map(JobKind::as_str),
        filter.status.map(Status::as_str),
        filter.code,
        filter.coupon,
        filter.product,
        filter.order,
    )
    .fetch_all(pool)
    .await?;
    Ok(wanted.into_iter().collect())
}
