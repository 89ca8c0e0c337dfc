//! `GET /api/orders/{orderId}`, `GET /api/users/orders`

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use firstcome_process::database::Pool;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::types::Json;
use utoipa::{ToSchema, openapi::Object};
use uuid::Uuid;

use crate::{
    http::{
        auth::Caller,
        json,
        page::{List, Page},
        path::PathId,
        problem::{Code, Problem},
        schema::one_of,
    },
    job::Item,
    state::AppState,
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Order, example = json!({
    "id": 1, "status": "completed",
    "lines": [{"productId": 1, "name": "Product 1", "quantity": 3, "unitPrice": 1_000, "amount": 3_000}],
    "dropped": [], "itemsAmount": 3_000, "discount": 300, "paid": 2_700, "couponId": 2,
    "createdAt": "2026-03-01T12:00:01.250Z", "completedAt": "2026-03-01T12:00:01.265Z",
    "cancelledAt": null, "cancelReason": null,
}))]
struct OrderView {
    id: i64,
    /// A rejected order does not exist: a rejection lives in its job.
    #[schema(schema_with = statuses)]
    status: &'static str,
    #[serde(rename = "lines")]
    items: Vec<ItemView>,
    /// The lines of a partial order that were short, or over their limit.
    #[schema(value_type = Vec<Item>)]
    dropped: Box<RawValue>,
    items_amount: i64,
    discount: i64,
    paid: i64,
    #[schema(required)]
    coupon_id: Option<i64>,
    created_at: DateTime<Utc>,
    completed_at: DateTime<Utc>,
    #[schema(required)]
    cancelled_at: Option<DateTime<Utc>>,
    /// In the words of who cancelled it.
    #[schema(required)]
    cancel_reason: Option<String>,
}

const COMPLETED: &str = "completed";
const CANCELLED: &str = "cancelled";

fn statuses() -> Object {
    one_of([COMPLETED, CANCELLED])
}

/// An order, as operators see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlacedOrder)]
pub(crate) struct PlacedOrder {
    #[serde(flatten)]
    order: OrderView,
    user_id: i64,
    /// The job that placed it.
    job_id: Uuid,
    /// The job that cancelled it.
    #[schema(required)]
    cancel_job_id: Option<Uuid>,
}

impl PlacedOrder {
    pub(crate) const fn id(&self) -> i64 {
        self.order.id
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderLine)]
struct ItemView {
    product_id: i64,
    name: String,
    quantity: i64,
    unit_price: i64,
    amount: i64,
}

/// One of the caller's orders.
///
/// # Errors
/// 404, also for another user's; 503.
#[utoipa::path(
    get, path = "/api/orders/{orderId}", operation_id = "getOrder", tag = "Orders",
    responses((status = 200, description = "The order.", body = OrderView)),
    extensions(("x-codes" = json!([Code::OrderNotFound]))),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let found = read(&state.pool, Some(caller.user_id.get()), &[id]).await?.pop();
    Ok(json::ok(&found.ok_or_else(|| Problem::new(Code::OrderNotFound))?.order))
}

/// The caller's orders, newest first.
///
/// # Errors
/// 400, 503.
#[utoipa::path(
    get, path = "/api/users/orders", operation_id = "listOrders", tag = "Orders",
    params(Page),
    responses((status = 200, description = "A page of the caller's orders.", body = List<OrderView>)),
)]
pub async fn history(
    State(state): State<AppState>,
    caller: Caller,
    page: Page,
) -> Result<Response, Problem> {
    let user_id = caller.user_id.get();
    let ids = sqlx::query_scalar!(
        "SELECT id FROM orders
         WHERE user_id = ANY(ARRAY[$1::bigint]) AND id < $2
         ORDER BY user_id, id DESC LIMIT $3",
        user_id,
        page.before(),
        page.rows(),
    )
    .fetch_all(&state.pool)
    .await?;
    let orders = read(&state.pool, Some(user_id), &ids).await?;
    let orders = orders.into_iter().map(|placed| placed.order).collect();
    Ok(json::ok(&page.cut(orders, |order| order.id)))
}

/// These orders, as far as they are the user's, if one is given; newest first.
pub(crate) async fn read(
    pool: &Pool,
    user_id: Option<i64>,
    ids: &[i64],
) -> Result<Vec<PlacedOrder>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, user_id, orders.job_id, cancelled.job_id AS "cancel_job_id?", items_amount, discount, paid, coupon_id, created_at, completed_at,
                  dropped AS "dropped: Json<Box<RawValue>>",
                  (SELECT jsonb_agg(jsonb_build_object('productId', product_id, 'name', name, 'quantity', quantity,
                                                       'unitPrice', unit_price, 'amount', unit_price * quantity)
                                    ORDER BY product_id)
                   FROM (SELECT * FROM order_items WHERE order_id BETWEEN orders.id AND orders.id
                         ORDER BY order_id, product_id) AS items) AS "items!: Json<Vec<ItemView>>",
                  cancelled_at AS "cancelled_at?", reason AS "reason?"
           FROM orders
           LEFT JOIN LATERAL (SELECT job_id, cancelled_at, reason FROM cancellations WHERE order_id = orders.id LIMIT 1) AS cancelled ON true
           WHERE id = ANY($2) AND ($1::bigint IS NULL OR user_id = $1) ORDER BY id DESC"#,
        user_id,
        ids,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| PlacedOrder {
            user_id: row.user_id,
            job_id: row.job_id,
            cancel_job_id: row.cancel_job_id,
            order: OrderView {
                id: row.id,
                status: if row.cancelled_at.is_some() { CANCELLED } else { COMPLETED },
                items: row.items.0,
                dropped: row.dropped.0,
                items_amount: row.items_amount,
                discount: row.discount,
                paid: row.paid,
                coupon_id: row.coupon_id,
                created_at: row.created_at,
                completed_at: row.completed_at,
                cancelled_at: row.cancelled_at,
                cancel_reason: row.reason,
            },
        })
        .collect())
}
