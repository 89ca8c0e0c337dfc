//! The effects of a batch, in sets: one statement for what the orders add, one for what they
//! change, one for carts where any order came from one.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use firstcome_contract::{
    event::{self, Data, Event, OrderCompleted, ProductSoldOut},
    ids::{OrderId, ProductId, UserId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::decide::{Placed, Request, World};
use crate::jobs::{contended, outcome::HandlerError};

/// Stores the placed orders; their ids, in the same order, and what happened.
pub(super) async fn write(
    transaction: &mut PgConnection,
    placed: &[(&Request<'_>, &Placed)],
    world: &World,
) -> Result<(Vec<OrderId>, Vec<Event>), HandlerError> {
    if placed.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let (ids, completed_at) = number(transaction, placed.len()).await?;
    insert(transaction, placed, &ids).await?;
    let sold = sold(placed);
    let stocks = sold.iter().filter_map(|id| Some((*id, world.products.get(id)?.stock)));
    let buyers: BTreeSet<UserId> = placed.iter().map(|(request, _)| request.user_id).collect();
    let balances = buyers.into_iter().filter_map(|id| Some((id, *world.balances.get(&id)?)));
    contended::store(&mut *transaction, stocks.clone(), balances).await?;
    empty_carts(transaction, placed).await?;
    let ids: Vec<OrderId> = ids.into_iter().map(OrderId::new).collect();
    let orders = placed.iter().zip(&ids);
    let orders = orders.map(|((request, order), id)| completed(request, order, *id, completed_at));
    let gone = stocks.filter(|(_, stock)| *stock == 0);
    let events = orders.chain(gone.map(|(id, _)| sold_out(id, completed_at))).collect();
    Ok((ids, events))
}

/// The products of which these orders took units.
fn sold(placed: &[(&Request<'_>, &Placed)]) -> BTreeSet<ProductId> {
    placed.iter().flat_map(|(_, order)| &order.items).map(|item| item.product_id).collect()
}

/// Ids for so many orders; and when they are placed, which is one instant for the transaction.
async fn number(
    transaction: &mut PgConnection,
    count: usize,
) -> Result<(Vec<i64>, DateTime<Utc>), sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT now() AS "now!",
                  array_agg(nextval(pg_get_serial_sequence('orders', 'id'))) AS "ids!"
           FROM generate_series(1, $1::bigint)"#,
        i64::try_from(count).unwrap_or_default(),
    )
    .fetch_one(transaction)
    .await?;
    Ok((row.ids, row.now))
}

fn completed(
    request: &Request<'_>,
    order: &Placed,
    order_id: OrderId,
    completed_at: DateTime<Utc>,
) -> Event {
    let items = order.items.iter().map(|item| event::SoldItem {
        product_id: item.product_id,
        quantity: item.quantity,
        unit_price: item.unit_price,
    });
    let data = OrderCompleted {
        order_id,
        user_id: request.user_id,
        items: items.collect(),
        items_amount: order.items_amount,
        discount: order.discount,
        paid: order.paid(),
        coupon_id: request.order.coupon_id,
    };
    let event = Event::new(request.job_id.get(), completed_at, Data::OrderCompleted(data));
    event.in_trace(request.trace)
}

/// Tells that the last unit was among those that were sold.
fn sold_out(product_id: ProductId, at: DateTime<Utc>) -> Event {
    let data = Data::ProductSoldOut(ProductSoldOut { product_id });
    Event::new(Uuid::new_v4(), at, data)
}

/// Orders, items, payments and history; the coupons are marked used.
async fn insert(
    transaction: &mut PgConnection,
    placed: &[(&Request<'_>, &Placed)],
    ids: &[i64],
) -> Result<(), HandlerError> {
    let mut orders = Orders::default();
    let mut items = Items::default();
    for ((request, order), id) in placed.iter().zip(ids) {
        orders.id.push(*id);
        orders.job.push(request.job_id.get());
        orders.user.push(request.user_id.get());
        orders.campaign.push(request.order.coupon_id.map(|campaign| campaign.get()));
        orders.coupon.push(order.coupon.map(|coupon| coupon.get()));
        orders.items_amount.push(order.items_amount.get());
        orders.discount.push(order.discount.get());
        orders.paid.push(order.paid().get());
        orders.balance_after.push(order.balance_after.get());
        orders.dropped.push(serde_json::to_string(&order.dropped)?);
        orders.submitted_at.push(request.submitted_at);
        for item in &order.items {
            items.order.push(*id);
            items.product.push(item.product_id.get());
            items.name.push(item.name.clone());
            items.unit_price.push(item.unit_price.get());
            items.quantity.push(item.quantity);
        }
    }
    // Every row by itself, without a join among them: nobody knows how many there will be when the
    // plan is made, and nested loops would be as likely as not. In the order of the line, so history
    // rows get their ids in that order. An order that cost nothing has a payment but no history row.
    sqlx::query!(
        r#"WITH orders AS (
               INSERT INTO orders (id, job_id, user_id, coupon_id, items_amount, discount, paid, dropped, created_at, completed_at)
               OVERRIDING SYSTEM VALUE
               SELECT id, job_id, user_id, campaign_id, items_amount, discount, paid, dropped::jsonb, submitted_at, now()
               FROM UNNEST($1::bigint[], $2::uuid[], $3::bigint[], $4::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $10::text[],
                           $11::timestamptz[])
                 AS batch (id, job_id, user_id, campaign_id, items_amount, discount, paid, dropped, submitted_at)
           ), items AS (
               INSERT INTO order_items (order_id, product_id, name, unit_price, quantity)
               SELECT * FROM UNNEST($12::bigint[], $13::bigint[], $14::text[], $15::bigint[], $16::bigint[])
           ), payments AS (
               INSERT INTO payments (order_id, user_id, amount, paid_at)
               SELECT id, user_id, paid, now()
               FROM UNNEST($1::bigint[], $3::bigint[], $8::bigint[]) AS batch (id, user_id, paid)
           ), history AS (
               INSERT INTO balance_transactions (user_id, kind, amount, balance_after, order_id)
               SELECT user_id, 'payment', -paid, balance_after, id
               FROM UNNEST($1::bigint[], $3::bigint[], $8::bigint[], $9::bigint[]) AS batch (id, user_id, paid, balance_after)
               WHERE paid > 0
           )
           UPDATE user_coupons SET used_at = now(), order_id = batch.id
           FROM UNNEST($1::bigint[], $5::bigint[]) AS batch (id, user_coupon_id)
           WHERE user_coupons.id = ANY(ARRAY[batch.user_coupon_id])"#,
        &orders.id,
        &orders.job,
        &orders.user,
        &orders.campaign as &[Option<i64>],
        &orders.coupon as &[Option<i64>],
        &orders.items_amount,
        &orders.discount,
        &orders.paid,
        &orders.balance_after,
        &orders.dropped,
        &orders.submitted_at,
        &items.order,
        &items.product,
        &items.name,
        &items.unit_price,
        &items.quantity,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

#[derive(Default)]
struct Orders {
    id: Vec<i64>,
    job: Vec<Uuid>,
    user: Vec<i64>,
    campaign: Vec<Option<i64>>,
    coupon: Vec<Option<i64>>,
    items_amount: Vec<i64>,
    discount: Vec<i64>,
    paid: Vec<i64>,
    balance_after: Vec<i64>,
    dropped: Vec<String>,
    submitted_at: Vec<DateTime<Utc>>,
}

#[derive(Default)]
struct Items {
    order: Vec<i64>,
    product: Vec<i64>,
    name: Vec<String>,
    unit_price: Vec<i64>,
    quantity: Vec<i64>,
}

/// Takes what was bought out of the carts that it came from; what was added since stays.
async fn empty_carts(
    transaction: &mut PgConnection,
    placed: &[(&Request<'_>, &Placed)],
) -> Result<(), sqlx::Error> {
    let mut bought: HashMap<(i64, i64), i64> = HashMap::new();
    for (request, order) in placed.iter().filter(|(request, _)| request.order.from_cart) {
        for item in &order.items {
            *bought.entry((request.user_id.get(), item.product_id.get())).or_default() +=
                item.quantity;
        }
    }
    if bought.is_empty() {
        return Ok(());
    }
    let mut bought: Vec<((i64, i64), i64)> = bought.into_iter().collect();
    bought.sort_unstable();
    let (keys, quantities): (Vec<(i64, i64)>, Vec<i64>) = bought.into_iter().unzip();
    let (users, products): (Vec<i64>, Vec<i64>) = keys.into_iter().unzip();
    sqlx::query!(
        "WITH bought AS MATERIALIZED (
             SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS bought (user_id, product_id, quantity)
         ), less AS (
             UPDATE carts SET quantity = carts.quantity - bought.quantity FROM bought
             WHERE carts.user_id = ANY(ARRAY[bought.user_id]) AND carts.product_id = bought.product_id
               AND carts.quantity > bought.quantity
         )
         DELETE FROM carts USING bought
         WHERE carts.user_id = ANY(ARRAY[bought.user_id]) AND carts.product_id = bought.product_id
           AND carts.quantity <= bought.quantity",
        &users,
        &products,
        &quantities,
    )
    .execute(transaction)
    .await?;
    Ok(())
}
