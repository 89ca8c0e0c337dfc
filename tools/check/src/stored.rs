//! What the database holds of a shop at one moment, when nothing moves: before a sale, and after it.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use firstcome_rig::{
    answers::{Detail, Outcome, Success},
    settings::BUSINESS_TIME_ZONE,
};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgPool, types::Json};
use uuid::Uuid;

use crate::history::Item;

/// All of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stored {
    /// Jobs that have an outcome.
    pub jobs: BTreeMap<Uuid, Job>,
    /// Campaigns, by id.
    pub coupons: BTreeMap<i64, Coupon>,
    /// Who holds a coupon of which.
    pub holders: Vec<Holder>,
    /// Products, by id.
    pub products: BTreeMap<i64, Product>,
    /// What each user has.
    pub balances: BTreeMap<i64, i64>,
    /// Orders, by id; cancelled ones too.
    pub orders: BTreeMap<i64, Order>,
    /// The orders that were cancelled.
    pub cancellations: BTreeMap<i64, Cancellation>,
    /// What the statistics have counted.
    pub statistics: Vec<Sales>,
    /// What could not be processed and nobody has dealt with: why.
    pub dead_letters: Vec<String>,
}

/// A job that has an outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Who asked.
    pub user: i64,
    /// What kind of job.
    pub kind: String,
    /// The idempotency key, where this is the job that stands for it.
    pub key: Option<String>,
    /// The job that came first with the same key.
    pub replay_of: Option<Uuid>,
    /// Whether an operator let it be decided once more.
    pub redriven: bool,
    /// When the transaction began that decided it.
    pub taken_up_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub outcome: Outcome,
}

/// A campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct Coupon {
    /// Its id.
    pub id: i64,
    /// How many there are.
    pub total: i64,
    /// How many it has counted as issued.
    pub issued: i64,
}

/// A coupon in a user's hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct Holder {
    /// Its id.
    pub id: i64,
    /// Whose it is.
    pub user: i64,
    /// Of which campaign.
    pub coupon: i64,
    /// The how manieth.
    pub number: i64,
    /// When the transaction began that issued it.
    pub issued_at: DateTime<Utc>,
    /// The order that uses it.
    pub order: Option<i64>,
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct Product {
    /// Its id.
    pub id: i64,
    /// What one costs.
    pub price: i64,
    /// How many there are.
    pub stock: i64,
    /// How many a customer may have.
    pub per_customer: Option<i64>,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The job that placed it.
    pub job: Uuid,
    /// Whose it is.
    pub user: i64,
    /// The campaign whose coupon it used.
    pub coupon: Option<i64>,
    /// What its items cost.
    pub items_amount: i64,
    /// What was paid.
    pub paid: i64,
    /// What was bought, by product.
    pub items: Vec<Item>,
    /// What was not, of a partial order.
    pub dropped: Vec<Item>,
    /// When the transaction began that placed it.
    pub completed_at: DateTime<Utc>,
    /// Which business day that was.
    pub day: NaiveDate,
}

/// What undid an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct Cancellation {
    /// The order.
    pub order: i64,
    /// The job that did it.
    pub job: Uuid,
    /// When its transaction began.
    pub cancelled_at: DateTime<Utc>,
}

/// What was sold of a product on a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct Sales {
    /// The business day.
    pub day: NaiveDate,
    /// The product.
    pub product: i64,
    /// How many.
    pub quantity: i64,
    /// For how much.
    pub amount: i64,
}

impl Stored {
    /// Reads all of it.
    ///
    /// # Errors
    /// The database's.
    pub async fn read(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let coupons: Vec<Coupon> =
            sqlx::query_as("SELECT id, total, issued FROM coupons").fetch_all(pool).await?;
        let holders = sqlx::query_as(
            r#"SELECT id, user_id AS "user", coupon_id AS coupon, issue_number AS number, issued_at, order_id AS "order"
               FROM user_coupons ORDER BY coupon_id, issue_number"#,
        );
        let products: Vec<Product> =
            sqlx::query_as("SELECT id, price, stock, per_customer FROM products")
                .fetch_all(pool)
                .await?;
        let balances: Vec<(i64, i64)> =
            sqlx::query_as("SELECT user_id, amount FROM balances").fetch_all(pool).await?;
        let cancellations: Vec<Cancellation> = sqlx::query_as(
            r#"SELECT order_id AS "order", job_id AS job, cancelled_at FROM cancellations"#,
        )
        .fetch_all(pool)
        .await?;
        let statistics = sqlx::query_as(
            "SELECT day, product_id AS product, quantity, amount FROM product_sales",
        );
        let dead_letters = sqlx::query_scalar(
            "SELECT queue || ': ' || reason FROM dead_letters WHERE discarded_at IS NULL ORDER BY id",
        );
        Ok(Self {
            jobs: jobs(pool).await?,
            coupons: coupons.into_iter().map(|coupon| (coupon.id, coupon)).collect(),
            holders: holders.fetch_all(pool).await?,
            products: products.into_iter().map(|product| (product.id, product)).collect(),
            balances: balances.into_iter().collect(),
            orders: orders(pool).await?,
            cancellations: cancellations.into_iter().map(|undone| (undone.order, undone)).collect(),
            statistics: statistics.fetch_all(pool).await?,
            dead_letters: dead_letters.fetch_all(pool).await?,
        })
    }
}

#[derive(FromRow)]
struct JobRow {
    job_id: Uuid,
    user_id: i64,
    kind: String,
    idempotency_key: Option<String>,
    replay_of: Option<Uuid>,
    redriven: bool,
    taken_up_at: Option<DateTime<Utc>>,
    status: String,
    code: Option<String>,
    detail: Option<Json<Detail>>,
    result: Option<Json<Success>>,
    settled_at: DateTime<Utc>,
}

async fn jobs(pool: &PgPool) -> Result<BTreeMap<Uuid, Job>, sqlx::Error> {
    let rows: Vec<JobRow> = sqlx::query_as(
        "SELECT job_id, user_id, kind, idempotency_key, replay_of, redriven, taken_up_at, status, code, detail, result,
                settled_at
         FROM job_outcomes",
    )
    .fetch_all(pool)
    .await?;
    let job = |row: JobRow| {
        let outcome = Outcome {
            status: row.status,
            code: row.code,
            detail: row.detail.map(|Json(detail)| detail).unwrap_or_default(),
            result: row.result.map(|Json(result)| result),
            settled_at: row.settled_at,
        };
        let JobRow {
            user_id: user,
            kind,
            idempotency_key: key,
            replay_of,
            redriven,
            taken_up_at,
            ..
        } = row;
        (row.job_id, Job { user, kind, key, replay_of, redriven, taken_up_at, outcome })
    };
    Ok(rows.into_iter().map(job).collect())
}

#[derive(FromRow)]
struct OrderRow {
    id: i64,
    job: Uuid,
    user: i64,
    coupon: Option<i64>,
    items_amount: i64,
    paid: i64,
    items: Json<Vec<Item>>,
    dropped: Json<Vec<Item>>,
    completed_at: DateTime<Utc>,
    day: NaiveDate,
}

async fn orders(pool: &PgPool) -> Result<BTreeMap<i64, Order>, sqlx::Error> {
    let rows = sqlx::query_as(
        r#"SELECT id, job_id AS job, user_id AS "user", coupon_id AS coupon, items_amount, paid, completed_at,
                  (completed_at AT TIME ZONE $1)::date AS day,
                  (SELECT COALESCE(jsonb_agg(jsonb_build_object('product', product_id, 'quantity', quantity)
                                             ORDER BY product_id), '[]')
                   FROM order_items WHERE order_id = orders.id) AS items,
                  (SELECT COALESCE(jsonb_agg(jsonb_build_object('product', item->'productId', 'quantity', item->'quantity')
                                             ORDER BY item->'productId'), '[]')
                   FROM jsonb_array_elements(dropped) AS item) AS dropped
           FROM orders"#,
    );
    let rows: Vec<OrderRow> = rows.bind(BUSINESS_TIME_ZONE).fetch_all(pool).await?;
    let order = |row: OrderRow| {
        let OrderRow { id, job, user, coupon, items_amount, paid, completed_at, day, .. } = row;
        let (Json(items), Json(dropped)) = (row.items, row.dropped);
        (id, Order { job, user, coupon, items_amount, paid, items, dropped, completed_at, day })
    };
    Ok(rows.into_iter().map(order).collect())
}
