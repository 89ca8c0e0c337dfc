//! `GET /api/admin/orders` and `GET /api/admin/orders/{id}`

use std::{collections::HashSet, fmt, str::FromStr};

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_contract::ids::MAX_ID;
use firstcome_process::database::Pool;
use utoipa::IntoParams;
use uuid::Uuid;

use super::between::{self, Between};
use crate::{
    http::{
        auth::Auditor,
        fields::{Fields, IDS},
        json,
        page::List,
        path::PathId,
        problem::{Code, Problem},
        schema::one_of,
        seek::{Seek, SeekParams, Seen},
    },
    order::{self, PlacedOrder},
    state::AppState,
};

/// Whether an order is cancelled, by its status.
const STATUSES: [(&str, bool); 2] = [("completed", false), ("cancelled", true)];

fn statuses() -> utoipa::openapi::Object {
    one_of(STATUSES.map(|(name, _)| name))
}

/// Which orders.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of this customer.
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    user: Option<i64>,
    /// With this product.
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    product: Option<i64>,
    /// With a coupon of this campaign.
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    coupon: Option<i64>,
    #[param(rename = "status", required = false, schema_with = statuses)]
    is_cancelled: Option<bool>,
    #[param(ignore)]
    submitted: Between,
}

/// What leads to orders, each by an index of its own.
#[derive(Debug, Clone, Copy)]
enum Lead {
    User(i64),
    Coupon(i64),
    Product(i64),
    Cancelled,
    Time,
}

impl Filter {
    fn read(fields: &mut Fields) -> Self {
        Self {
            user: fields.optional_integer("user", IDS),
            product: fields.optional_integer("product", IDS),
            coupon: fields.optional_integer("coupon", IDS),
            is_cancelled: fields.optional_choice("status", &STATUSES),
            submitted: Between::read(fields),
        }
    }

    fn lead(&self) -> Lead {
        match (self.user, self.coupon, self.product, self.is_cancelled) {
            (Some(user), ..) => Lead::User(user),
            (None, Some(coupon), ..) => Lead::Coupon(coupon),
            (None, None, Some(product), _) => Lead::Product(product),
            (None, None, None, Some(true)) => Lead::Cancelled,
            (None, None, None, Some(false) | None) => Lead::Time,
        }
    }

    /// Whether something is asked for that does not lead to the orders.
    fn is_filtered(&self) -> bool {
        let keys = [self.user, self.coupon, self.product].into_iter().flatten().count();
        let others = usize::from(self.is_cancelled.is_some());
        match self.lead() {
            // Which is in the order of submission.
            Lead::Time => others > 0,
            Lead::Cancelled => self.submitted.is_given(),
            Lead::Coupon(_) => keys + others > 1,
            Lead::User(_) | Lead::Product(_) => keys + others > 1 || self.submitted.is_given(),
        }
    }
}

/// An order's place in the list, which is in the order of the ids, or of the jobs where time or a coupon leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    id: i64,
    job: Uuid,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.job.simple())
    }
}

impl FromStr for Spot {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (id, job) = text.split_once('.').ok_or(())?;
        Ok(Self { id: id.parse().map_err(|_| ())?, job: job.parse().map_err(|_| ())? })
    }
}

/// Orders of all customers, newest first.
///
/// # Errors
/// 400, 401, 403, 503.
#[utoipa::path(
    get, path = "/api/admin/orders", operation_id = "findOrders", tag = "Admin",
    params(Filter, between::BetweenParams, SeekParams),
    responses((status = 200, description = "A page of the orders.", body = List<PlacedOrder>)),
)]
pub async fn find_orders(
    State(state): State<AppState>,
    _auditor: Auditor,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::from_query(query.as_deref());
    let filter = Filter::read(&mut fields);
    let seek = Seek::read(&mut fields, "orders", query.as_deref());
    fields.finish()?;
    let rows = seek.rows(filter.is_filtered());
    let found = look(&state.pool, &filter, seek.after, rows).await?;
    let seen: Vec<Seen<Spot>> = if filter.is_filtered() {
        let wanted = wanted(&state.pool, &filter, &found).await?;
        found.into_iter().map(|spot| (spot, wanted.contains(&spot.id))).collect()
    } else {
        found.into_iter().map(|spot| (spot, true)).collect()
    };
    let (page, next) = seek.cut(&seen, rows);
    let ids: Vec<i64> = page.iter().map(|spot| spot.id).collect();
    let mut items = order::read(&state.pool, None, &ids).await?;
    items.sort_by_key(|order| ids.iter().position(|id| *id == order.id()));
    Ok(json::ok(&List { items, next }))
}

/// Any customer's order.
///
/// # Errors
/// 401, 403, 404, 503.
#[utoipa::path(
    get, path = "/api/admin/orders/{id}", operation_id = "getAnyOrder", tag = "Admin",
    responses((status = 200, description = "The order.", body = PlacedOrder)),
    extensions(("x-codes" = json!([Code::OrderNotFound]))),
)]
pub async fn get_any_order(
    State(state): State<AppState>,
    _auditor: Auditor,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let found = order::read(&state.pool, None, &[id]).await?.pop();
    Ok(json::ok(&found.ok_or_else(|| Problem::new(Code::OrderNotFound))?))
}

/// The orders that one index leads to.
async fn look(
    pool: &Pool,
    filter: &Filter,
    after: Option<Spot>,
    rows: i64,
) -> Result<Vec<Spot>, sqlx::Error> {
    // Ids begin with 1.
    let before = after.map_or(MAX_ID, |spot| spot.id);
    let (from, to) = filter.submitted.jobs(after.map(|spot| spot.job));
    match filter.lead() {
        Lead::User(user) => {
            sqlx::query_as!(
                Spot,
                "SELECT id, job_id AS job FROM orders WHERE user_id = ANY(ARRAY[$1::bigint]) AND id < $2
                 ORDER BY user_id, id DESC LIMIT $3",
                user,
                before,
                rows,
            )
            .fetch_all(pool)
            .await
        }
        Lead::Coupon(coupon) => {
            sqlx::query_as!(
                Spot,
                "SELECT id, job_id AS job FROM orders WHERE coupon_id = ANY(ARRAY[$1::bigint]) AND job_id >= $2 AND job_id < $3
                 ORDER BY coupon_id DESC, job_id DESC LIMIT $4",
                coupon,
                from,
                to,
                rows,
            )
            .fetch_all(pool)
            .await
        }
        Lead::Product(product) => {
            sqlx::query_as!(
                Spot,
                r#"SELECT bought.order_id AS "id!", placed.job_id AS "job!"
                   FROM (SELECT order_id FROM order_items WHERE product_id = ANY(ARRAY[$1::bigint]) AND order_id < $2
                         ORDER BY product_id DESC, order_id DESC LIMIT $3) AS bought
                   CROSS JOIN LATERAL (SELECT job_id FROM orders WHERE id BETWEEN bought.order_id AND bought.order_id
                                       ORDER BY id LIMIT 1) AS placed
                   ORDER BY bought.order_id DESC"#,
                product,
                before,
                rows,
            )
            .fetch_all(pool)
            .await
        }
        Lead::Cancelled => {
            sqlx::query_as!(
                Spot,
                "SELECT order_id AS id, job_id AS job FROM cancellations WHERE order_id < $1 ORDER BY order_id DESC LIMIT $2",
                before,
                rows,
            )
            .fetch_all(pool)
            .await
        }
        Lead::Time => {
            sqlx::query_as!(
                Spot,
                "SELECT id, job_id AS job FROM orders WHERE job_id >= $1 AND job_id < $2 ORDER BY job_id DESC LIMIT $3",
                from,
                to,
                rows,
            )
            .fetch_all(pool)
            .await
        }
    }
}

/// Those of these orders that are as asked for in every respect.
async fn wanted(pool: &Pool, filter: &Filter, found: &[Spot]) -> Result<HashSet<i64>, sqlx::Error> {
    let ids: Vec<i64> = found.iter().map(|spot| spot.id).collect();
    let (from, to): (DateTime<Utc>, DateTime<Utc>) = filter.submitted.instants();
    let wanted = sqlx::query_scalar!(
        r#"SELECT id FROM orders
           WHERE id = ANY($1) AND ($2::bigint IS NULL OR user_id = $2) AND ($3::bigint IS NULL OR coupon_id = $3)
             AND ($4::bigint IS NULL
                  OR (SELECT quantity FROM order_items WHERE order_id = orders.id AND product_id = $4 LIMIT 1) IS NOT NULL)
             AND ($5::boolean IS NULL
                  OR ((SELECT job_id FROM cancellations WHERE order_id = orders.id LIMIT 1) IS NOT NULL) = $5)
             AND created_at >= $6 AND created_at < $7
           ORDER BY id"#,
        &ids,
        filter.user,
        filter.coupon,
        filter.product,
        filter.is_cancelled,
        from,
        to,
    )
    .fetch_all(pool)
    .await?;
    Ok(wanted.into_iter().collect())
}
