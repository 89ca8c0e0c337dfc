//! One order per request and transaction.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use firstcome_api::http::{auth::Caller, body::Body, problem::Code};
use firstcome_contract::{
    event::{Data, Event, OrderCompleted, SoldItem},
    ids::OrderId,
    job::{JobId, JobKind, place_order::OrderPlaced},
    money::Money,
    order::{Item, merged},
};
use serde::Deserialize;
use sqlx::{PgConnection, types::Json};

use super::shared::{Failed, Shared, done};

const KIND: JobKind = JobKind::PlaceOrder;

#[derive(Deserialize)]
struct Wanted {
    items: Vec<Item>,
}

/// The same transaction as the workers' (stock, balance with its history, order, items, payment,
/// event, record), for one order: locks in the same global order, then one statement for all that it
/// writes. It does not wake a relay: that would serialize the commits of orders that share nothing.
pub(super) async fn place(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    body: Body,
) -> Result<Response, Failed> {
    let wanted = serde_json::from_slice::<Wanted>(&body.bytes);
    let items = merged(wanted.map_err(|_| Code::MalformedBody)?.items);
    let job = shared.job_id(KIND);
    let mut transaction = shared.pool.begin().await?;
    let placed = transact(&mut transaction, job, caller, &items).await?;
    transaction.commit().await?;
    Ok(done(job, KIND, "succeeded", placed))
}

async fn transact(
    transaction: &mut PgConnection,
    job: JobId,
    caller: Caller,
    items: &[Item],
) -> Result<OrderPlaced, Failed> {
    let products: Vec<i64> = items.iter().map(|item| item.product_id.get()).collect();
    let quantities: Vec<i64> = items.iter().map(|item| item.quantity).collect();
    let user = caller.user_id.get();
    let rows: Vec<(i64, String, i64, i64)> = sqlx::query_as(
        "SELECT id, name, price, stock FROM products
         WHERE id = ANY($1) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(&products)
    .fetch_all(&mut *transaction)
    .await?;
    let known: BTreeMap<i64, _> = rows.into_iter().map(|row| (row.0, row)).collect();
    let row: Option<(i64, i64, DateTime<Utc>)> = sqlx::query_as(
        "SELECT amount, nextval(pg_get_serial_sequence('orders', 'id')), now() FROM balances
         WHERE user_id = $1 FOR NO KEY UPDATE",
    )
    .bind(user)
    .fetch_optional(&mut *transaction)
    .await?;
    let (balance, order_id, now) = row.ok_or(Code::UserNotFound)?;

    let (mut names, mut prices, mut sold, mut amount) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for item in items {
        let (_, name, price, stock) =
            known.get(&item.product_id.get()).ok_or(Code::ProductNotFound)?;
        if item.quantity > *stock {
            return Err(Code::OutOfStock.into());
        }
        amount += price * item.quantity;
        names.push(name.as_str());
        prices.push(*price);
        let (product_id, quantity, unit_price) =
            (item.product_id, item.quantity, Money::new(*price));
        sold.push(SoldItem { product_id, quantity, unit_price });
    }
    if amount > balance {
        return Err(Code::InsufficientBalance.into());
    }
    let (order_id, amount) = (OrderId::new(order_id), Money::new(amount));
    let event = OrderCompleted {
        order_id,
        user_id: caller.user_id,
        items: sold,
        items_amount: amount,
        discount: Money::ZERO,
        paid: amount,
        coupon_id: None,
    };
    let event = Event::new(job.get(), now, Data::OrderCompleted(event));
    let placed = OrderPlaced {
        order_id,
        items_amount: amount,
        discount: Money::ZERO,
        paid: amount,
        dropped: Vec::new(),
    };
    sqlx::query(
        "WITH line AS MATERIALIZED (
             SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::bigint[])
               AS line (product_id, name, price, quantity)
         ), placed AS (
             INSERT INTO orders (id, job_id, user_id, items_amount, discount, paid, created_at, completed_at)
             OVERRIDING SYSTEM VALUE VALUES ($5, $6, $7, $8, 0, $8, $9, now())
         ), items AS (
             INSERT INTO order_items (order_id, product_id, name, unit_price, quantity)
             SELECT $5, product_id, name, price, quantity FROM line
         ), payment AS (
             INSERT INTO payments (order_id, user_id, amount, paid_at) VALUES ($5, $7, $8, now())
         ), history AS (
             INSERT INTO balance_transactions (user_id, kind, amount, balance_after, order_id)
             VALUES ($7, 'payment', -$8, $10, $5)
         ), stock AS (
             UPDATE products SET stock = stock - quantity FROM line WHERE products.id = product_id
         ), balance AS (
             UPDATE balances SET amount = $10 WHERE user_id = $7
         ), event AS (
             INSERT INTO outbox_parcels (event_id, event) VALUES ($6, $11)
         )
         INSERT INTO job_outcomes (kind, job_id, user_id, status, result)
         VALUES ('place-order', $6, $7, 'succeeded', $12)",
    )
    .bind(&products)
    .bind(&names)
    .bind(&prices)
    .bind(&quantities)
    .bind(order_id.get())
    .bind(job.get())
    .bind(user)
    .bind(amount.get())
    .bind(job.submitted_at())
    .bind(balance - amount.get())
    .bind(serde_json::to_string(&event).map_err(|_| Code::InternalError)?)
    .bind(Json(&placed))
    .execute(transaction)
    .await?;
    Ok(placed)
}
