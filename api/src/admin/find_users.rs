//! `GET /api/admin/users` and `GET /api/admin/users/{id}`

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        auth::Auditor,
        fields::{Fields, IDS},
        json,
        page::List,
        path::PathId,
        problem::{Code, Problem},
        seek::{Seek, SeekParams},
    },
    known::users::{self, UserView},
    state::AppState,
};

/// As many of a user's things are counted: nobody waits for the count of a million.
const MOST_COUNTED: i64 = 10_000;

/// Which users.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    id: Option<i64>,
    /// The whole address, in any case.
    #[param(required = false, max_length = 254)]
    email: Option<String>,
}

/// A user with what there is of theirs.
#[derive(Serialize, ToSchema)]
#[schema(as = UserDetail)]
struct UserDetail {
    #[serde(flatten)]
    user: UserView,
    counts: Counts,
}

/// How much there is of a user's, up to 10,000 of each.
#[derive(Serialize, ToSchema)]
#[schema(as = UserCounts, example = json!({"coupons": 1, "orders": 2, "jobs": 7}))]
struct Counts {
    coupons: i64,
    /// Cancelled ones too.
    orders: i64,
    /// Settled ones.
    jobs: i64,
}

/// The users, by id; the one with an id or an address.
///
/// # Errors
/// 400, 401, 403, 503.
#[utoipa::path(
    get, path = "/api/admin/users", operation_id = "findUsers", tag = "Admin",
    params(Filter, SeekParams),
    responses((status = 200, description = "A page of the users.", body = List<UserView>)),
)]
pub async fn find_users(
    State(state): State<AppState>,
    _auditor: Auditor,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::from_query(query.as_deref());
    let filter = Filter {
        id: fields.optional_integer("id", IDS),
        email: fields.optional_text("email", 254),
    };
    let seek = Seek::<i64>::read(&mut fields, "users", query.as_deref());
    fields.finish()?;
    let rows = seek.rows(false);
    let after = seek.after.unwrap_or_default();
    let found = match (filter.id, &filter.email) {
        (id, Some(email)) => {
            sqlx::query_scalar!(
            "SELECT id FROM (SELECT id FROM users WHERE lower(email) = lower($1) OFFSET 0) AS found
             WHERE ($2::bigint IS NULL OR id = $2) AND id > $3",
            email,
            id,
            after,
        )
            .fetch_all(&state.pool)
            .await?
        }
        (Some(id), None) => Some(id).filter(|id| *id > after).into_iter().collect(),
        (None, None) => {
            sqlx::query_scalar!(
                "SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2",
                after,
                rows
            )
            .fetch_all(&state.pool)
            .await?
        }
    };
    let seen: Vec<_> = found.into_iter().map(|id| (id, true)).collect();
    let (page, next) = seek.cut(&seen, rows);
    Ok(json::ok(&List { items: users::read(&state.pool, &page).await?, next }))
}

/// A user, and how much there is of theirs.
///
/// # Errors
/// 401, 403, 404, 503.
#[utoipa::path(
    get, path = "/api/admin/users/{id}", operation_id = "getUser", tag = "Admin",
    responses((status = 200, description = "The user.", body = UserDetail)),
    extensions(("x-codes" = json!([Code::UserNotFound]))),
)]
pub async fn get_user(
    State(state): State<AppState>,
    _auditor: Auditor,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let user = users::read(&state.pool, &[id]).await?.pop();
    let user = user.ok_or_else(|| Problem::new(Code::UserNotFound))?;
    let counts = sqlx::query_as!(
        Counts,
        r#"SELECT (SELECT count(*) FROM (SELECT FROM user_coupons WHERE user_id BETWEEN $1 AND $1
                                         ORDER BY user_id, coupon_id LIMIT $2) AS held) AS "coupons!",
                  (SELECT count(*) FROM (SELECT FROM orders WHERE user_id BETWEEN $1 AND $1
                                         ORDER BY user_id, id DESC LIMIT $2) AS placed) AS "orders!",
                  (SELECT count(job_id) FROM (
                       (SELECT job_id FROM job_outcomes
                        WHERE user_id BETWEEN $1 AND $1 AND idempotency_key IS NULL
                          AND (status <> 'succeeded' OR kind = 'cancel-order')
                        ORDER BY user_id, job_id LIMIT $2)
                       UNION
                       SELECT job_id FROM job_outcomes WHERE user_id = $1 AND idempotency_key IS NOT NULL
                       UNION
                       SELECT issued_by FROM user_coupons WHERE user_id BETWEEN $1 AND $1
                       UNION
                       SELECT job_id FROM orders WHERE user_id = $1
                       LIMIT $2) AS settled) AS "jobs!""#,
        id,
        MOST_COUNTED,
    )
    .fetch_one(&state.pool)
    .await?;
    Ok(json::ok(&UserDetail { user, counts }))
}
