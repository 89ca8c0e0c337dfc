//! Coupons, products, balances and orders as they are at the time of the read, looked up many at a time.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use firstcome_contract::{
    ids::{ProductId, UserId},
    order::Item,
};
use firstcome_process::database::Pool;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};
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
    /// The orders, also those that were cancelled.
    pub orders: Batched<i64, Ordered>,
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
            orders: Batched::start(pool, |connection, ids| Box::pin(orders(connection, ids))),
        }
    }
}

/// A campaign as everyone sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Coupon, example = json!({
    "id": 2, "name": "10 percent off", "discountType": "percent", "discountValue": 10, "maxDiscount": 5_000,
    "total": 10_000, "remaining": 9_999, "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
    "validUntil": "2100-01-01T00:00:00Z", "paused": false,
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
    /// Whether nobody can get one at present; issued ones can be used.
    pub paused: bool,
}

/// The kinds of discounts, as they are read and as they are stored.
pub(crate) const DISCOUNT_TYPES: [(&str, &str); 2] = [("fixed", "fixed"), ("percent", "percent")];

pub(crate) fn discount_types() -> Object {
    one_of(DISCOUNT_TYPES.map(|(name, _)| name))
}

/// A product.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Product, example = json!({
    "id": 1, "name": "Product 1", "price": 1_000, "stock": 10_000, "soldOut": false,
    "onSaleFrom": "2026-01-01T00:00:00Z", "onSaleUntil": null, "perCustomer": 2, "paused": false,
}))]
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
    /// First instant at which it can be ordered; `null`: ever since.
    #[schema(required)]
    pub on_sale_from: Option<DateTime<Utc>>,
    /// First instant at which it can no longer be ordered; `null`: for ever.
    #[schema(required)]
    pub on_sale_until: Option<DateTime<Utc>>,
    /// How many a customer can have for life, by orders that were not cancelled; `null`: as many as there are.
    #[schema(required)]
    pub per_customer: Option<i64>,
    /// Whether nobody can order it at present.
    pub paused: bool,
}

/// What has to be known of an order to have it cancelled; it never changes.
#[derive(Debug, Clone)]
pub struct Ordered {
    /// Whose order it is.
    pub customer_id: UserId,
    /// What was asked for, ascending: what was dropped of it included.
    pub product_ids: Vec<ProductId>,
}

async fn coupons(
    connection: &mut PgConnection,
    ids: Vec<i64>,
) -> Result<HashMap<i64, CouponView>, sqlx::Error> {
    let coupons = sqlx::query_as!(
        CouponView,
        r#"SELECT id, name, discount_type, discount_value, max_discount, total,
                  total - issued AS "remaining!", starts_at, ends_at, valid_until, paused_at IS NOT NULL AS "paused!"
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
        r#"SELECT id, name, price, on_sale_from, on_sale_until, per_customer, paused_at IS NOT NULL AS "paused!",
                  stock, stock = 0 AS "sold_out!" FROM products
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

async fn orders(
    connection: &mut PgConnection,
    ids: Vec<i64>,
) -> Result<HashMap<i64, Ordered>, sqlx::Error> {
    let orders = sqlx::query!(
        r#"SELECT id, user_id, dropped AS "dropped: Json<Vec<Item>>",
                  ARRAY(SELECT product_id FROM order_items WHERE order_id BETWEEN orders.id AND orders.id
                        ORDER BY order_id, product_id) AS "product_ids!"
           FROM orders WHERE id = ANY($1) ORDER BY id"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    let ordered = orders.into_iter().map(|order| {
        let bought = order.product_ids.into_iter().map(ProductId::new);
        let dropped = order.dropped.0.into_iter().map(|item| item.product_id);
        let mut product_ids: Vec<ProductId> = bought.chain(dropped).collect();
        product_ids.sort_unstable();
        product_ids.dedup();
        (order.id, Ordered { customer_id: UserId::new(order.user_id), product_ids })
    });
    Ok(ordered.collect())
}
