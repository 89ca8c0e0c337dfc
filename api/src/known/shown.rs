//! Coupons, products and balances as they are at the time of the read, looked up many at a time.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use firstcome_process::database::Pool;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{ToSchema, openapi::Object};

use super::batched::Batched;
use crate::http::schema::one_of;

/// What is looked up by id for one answer each.
#[derive(Debug)]
pub struct Shown {
    /// The campaigns that were not deleted.
    pub coupons: Batched<i64, CouponView>,
    /// The products that were not deleted.
    pub products: Batched<i64, ProductView>,
    /// Balances in won, by user.
    pub balances: Batched<i64, i64>,
}

impl Shown {
    /// Starts the tasks behind it, which end when the handle is dropped.
    #[must_use]
    pub fn start(pool: &Pool) -> Self {
        Self {
            coupons: Batched::start(pool, |connection, ids| Box::pin(coupons(connection, ids))),
            products: Batched::start(pool, |connection, ids| Box::pin(products(connection, ids))),
            balances: Batched::start(pool, |connection, users| {
                Box::pin(balances(connection, users))
            }),
        }
    }
}

/// A campaign as everyone sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Coupon, example = json!({
    "id": 2, "name": "10 percent off", "discountType": "percent", "discountValue": 10, "maxDiscount": 5_000,
    "total": 10_000, "remaining": 9_999, "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
    "validUntil": "2100-01-01T00:00:00Z",
}))]
pub struct CouponView {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What kind of discount it gives.
    #[schema(schema_with = discount_types)]
    pub discount_type: String,
    /// Won, or percent.
    pub discount_value: i64,
    /// The most that a percentage takes off, in won.
    #[schema(required)]
    pub max_discount: Option<i64>,
    /// How many coupons there are in all.
    pub total: i64,
    /// How many of them are not issued yet.
    pub remaining: i64,
    /// First instant at which it can be had.
    pub starts_at: DateTime<Utc>,
    /// First instant at which it can no longer be had.
    pub ends_at: DateTime<Utc>,
    /// First instant at which an issued one can no longer be used.
    pub valid_until: DateTime<Utc>,
}

/// The kinds of discounts, as they are read and as they are stored.
pub(crate) const DISCOUNT_TYPES: [(&str, &str); 2] = [("fixed", "fixed"), ("percent", "percent")];

pub(crate) fn discount_types() -> Object {
    one_of(DISCOUNT_TYPES.map(|(name, _)| name))
}

/// A product.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Product, example = json!({"id": 1, "name": "Product 1", "price": 1_000, "stock": 10_000, "soldOut": false}))]
pub struct ProductView {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// In won.
    pub price: i64,
    /// How many there are.
    pub stock: i64,
    /// Whether there is none left.
    pub sold_out: bool,
}

async fn coupons(
    connection: &mut PgConnection,
    ids: Vec<i64>,
) -> Result<HashMap<i64, CouponView>, sqlx::Error> {
    let coupons = sqlx::query_as!(
        CouponView,
        r#"SELECT id, name, discount_type, discount_value, max_discount, total,
                  total - issued AS "remaining!", starts_at, ends_at, valid_until
           FROM coupons WHERE id = ANY($1) AND deleted_at IS NULL"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(coupons.into_iter().map(|coupon| (coupon.id, coupon)).collect())
}

async fn products(
    connection: &mut PgConnection,
    ids: Vec<i64>,
) -> Result<HashMap<i64, ProductView>, sqlx::Error> {
    let products = sqlx::query_as!(
        ProductView,
        r#"SELECT id, name, price, stock, stock = 0 AS "sold_out!" FROM products
           WHERE id = ANY($1) AND deleted_at IS NULL"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(products.into_iter().map(|product| (product.id, product)).collect())
}

async fn balances(
    connection: &mut PgConnection,
    users: Vec<i64>,
) -> Result<HashMap<i64, i64>, sqlx::Error> {
    let balances =
        sqlx::query!("SELECT user_id, amount FROM balances WHERE user_id = ANY($1)", &users)
            .fetch_all(connection)
            .await?;
    Ok(balances.into_iter().map(|balance| (balance.user_id, balance.amount)).collect())
}
