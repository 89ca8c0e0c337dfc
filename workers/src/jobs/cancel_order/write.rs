//! The effects of a batch of cancels, in sets: one statement for what they add and give back, one for the sums that
//! they change, one for limits where there are any.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use firstcome_contract::{
    event::{Data, Event, OrderCancelled},
    ids::{ProductId, UserId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::decide::{Cancelled, Request, World};
use crate::jobs::{contended, outcome::HandlerError};

/// Stores the cancellations; what happened.
pub(super) async fn write(
    transaction: &mut PgConnection,
    cancelled: &[(&Request<'_>, &Cancelled)],
    world: &World,
) -> Result<Vec<Event>, HandlerError> {
    if cancelled.is_empty() {
        return Ok(Vec::new());
    }
    let cancelled_at = insert(&mut *transaction, cancelled).await?;
    let orders = || cancelled.iter().map(|(_, undone)| &undone.order);
    let products = orders().flat_map(|order| &order.items).map(|item| item.product_id);
    let products: BTreeSet<ProductId> = products.collect();
    let stocks = products.into_iter().filter_map(|id| Some((id, world.products.get(&id)?.stock)));
    let customers: BTreeSet<UserId> = orders().map(|order| order.customer).collect();
    let balances = customers.into_iter().filter_map(|id| Some((id, *world.balances.get(&id)?)));
    contended::store(&mut *transaction, stocks, balances).await?;
    free(transaction, world).await?;
    let events = cancelled.iter().map(|(request, undone)| event(request, undone, cancelled_at));
    Ok(events.collect())
}

fn event(request: &Request<'_>, undone: &Cancelled, cancelled_at: DateTime<Utc>) -> Event {
    let order = &undone.order;
    let data = OrderCancelled {
        order_id: request.cancel.order_id,
        user_id: order.customer,
        items: order.items.clone(),
        refunded: order.paid,
        coupon_id: order.coupon.map(|coupon| coupon.campaign),
        completed_at: order.completed_at,
        reason: request.cancel.reason.clone(),
        by_operator: request.cancel.by_operator,
    };
    let event = Event::new(request.job_id.get(), cancelled_at, Data::OrderCancelled(data));
    event.in_trace(request.trace)
}

#[derive(Default)]
struct Cancellations {
    order: Vec<i64>,
    job: Vec<Uuid>,
    reason: Vec<Option<String>>,
    by_operator: Vec<bool>,
    submitted_at: Vec<DateTime<Utc>>,
    customer: Vec<i64>,
    refunded: Vec<i64>,
    balance_after: Vec<i64>,
    coupon: Vec<Option<i64>>,
    /// The operator who asked for it, if it is one.
    operator: Vec<Option<i64>>,
    request_id: Vec<Option<String>>,
}

/// Cancellations and history, and in the audit log what operators cancelled; the coupons can be used again. Tells when, which is one instant for the transaction.
async fn insert(
    transaction: &mut PgConnection,
    cancelled: &[(&Request<'_>, &Cancelled)],
) -> Result<DateTime<Utc>, sqlx::Error> {
    let mut rows = Cancellations::default();
    for (request, Cancelled { order, balance_after }) in cancelled {
        rows.order.push(request.cancel.order_id.get());
        rows.job.push(request.job_id.get());
        rows.reason.push(request.cancel.reason.clone());
        rows.by_operator.push(request.cancel.by_operator);
        rows.submitted_at.push(request.submitted_at);
        rows.customer.push(order.customer.get());
        rows.refunded.push(order.paid.get());
        rows.balance_after.push(balance_after.get());
        rows.coupon.push(order.coupon.map(|coupon| coupon.id.get()));
        rows.operator.push(request.cancel.by_operator.then(|| request.caller.get()));
        rows.request_id.push(request.cancel.request_id.clone());
    }
    // Every row by itself, as where orders are placed. An order that cost nothing has no history row.
    sqlx::query_scalar!(
        r#"WITH cancelled AS (
               INSERT INTO cancellations (order_id, job_id, reason, by_operator, submitted_at, cancelled_at)
               SELECT order_id, job_id, reason, by_operator, submitted_at, now()
               FROM UNNEST($1::bigint[], $2::uuid[], $3::text[], $4::boolean[], $5::timestamptz[])
                 AS batch (order_id, job_id, reason, by_operator, submitted_at)
           ), history AS (
               INSERT INTO balance_transactions (user_id, kind, amount, balance_after, order_id)
               SELECT user_id, 'refund', refunded, balance_after, order_id
               FROM UNNEST($1::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
                 AS batch (order_id, user_id, refunded, balance_after)
               WHERE refunded > 0
           ), returned AS (
               UPDATE user_coupons SET used_at = NULL, order_id = NULL
               FROM UNNEST($9::bigint[]) AS batch (user_coupon_id)
               WHERE user_coupons.id = ANY(ARRAY[batch.user_coupon_id])
           ), noted AS (
               INSERT INTO audit_log (who, action, target, person, before, after, request_id)
               SELECT who, 'cancel-order', 'orders/' || order_id, person, '{"status": "completed"}',
                      jsonb_build_object('status', 'cancelled', 'reason', reason, 'refunded', refunded, 'jobId', job_id), request_id
               FROM UNNEST($1::bigint[], $2::uuid[], $3::text[], $6::bigint[], $7::bigint[], $10::bigint[], $11::text[])
                 AS batch (order_id, job_id, reason, person, refunded, who, request_id)
               WHERE who IS NOT NULL
           )
           SELECT now() AS "now!""#,
        &rows.order,
        &rows.job,
        &rows.reason as &[Option<String>],
        &rows.by_operator,
        &rows.submitted_at,
        &rows.customer,
        &rows.refunded,
        &rows.balance_after,
        &rows.coupon as &[Option<i64>],
        &rows.operator as &[Option<i64>],
        &rows.request_id as &[Option<String>],
    )
    .fetch_one(transaction)
    .await
}

/// Takes off the counts what no longer counts. One of an earlier epoch is of no use any more and stays.
async fn free(transaction: &mut PgConnection, world: &World) -> Result<(), sqlx::Error> {
    if world.freed.is_empty() {
        return Ok(());
    }
    let (mut customers, mut products) = (Vec::new(), Vec::new());
    let (mut epochs, mut quantities) = (Vec::new(), Vec::new());
    for ((customer, product), quantity) in &world.freed {
        customers.push(customer.get());
        products.push(product.get());
        epochs.push(world.products.get(product).and_then(|product| product.limit_epoch));
        quantities.push(*quantity);
    }
    sqlx::query!(
        "UPDATE purchases SET quantity = purchases.quantity - batch.quantity
         FROM UNNEST($1::bigint[], $2::bigint[], $3::int[], $4::bigint[]) AS batch (user_id, product_id, epoch, quantity)
         WHERE purchases.user_id = ANY(ARRAY[batch.user_id]) AND purchases.product_id = batch.product_id
           AND purchases.limit_epoch = batch.epoch",
        &customers,
        &products,
        &epochs as &[Option<i32>],
        &quantities,
    )
    .execute(transaction)
    .await?;
    Ok(())
}
