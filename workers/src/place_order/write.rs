//! The effects of a batch, in sets: one statement for what the orders add, one for what they
//! change, one for carts where any order came from one, and one for the events.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use firstcome_shared::{
    event::{
        OrderCompleted,
        order_completed::{Line, Order},
    },
    ids::OrderId,
    job::JobId,
};
use sqlx::PgConnection;

use super::decide::{Placed, Request, World};

/// Stores the placed orders; their ids, in the same order.
pub(super) async fn write(
    transaction: &mut PgConnection,
    placed: &[(&Request<'_>, &Placed)],
    world: &World,
) -> Result<Vec<OrderId>, sqlx::Error> {
    if placed.is_empty() {
        return Ok(Vec::new());
    }
    let stored = insert(transaction, placed).await?;
    update(transaction, placed, world).await?;
    empty_carts(transaction, placed).await?;
    let mut ids = Vec::with_capacity(placed.len());
    let mut events = Vec::with_capacity(placed.len());
    for (request, order) in placed {
        let (id, completed_at) = *stored.get(&request.job_id).ok_or(sqlx::Error::RowNotFound)?;
        ids.push(id);
        events.push(event(request, order, id, completed_at));
    }
    append(transaction, &events).await?;
    Ok(ids)
}

fn event(
    request: &Request<'_>,
    order: &Placed,
    order_id: OrderId,
    completed_at: DateTime<Utc>,
) -> OrderCompleted {
    let lines = order.items.iter().map(|item| Line {
        product_id: item.product_id,
        quantity: item.quantity,
        unit_price: item.unit_price,
    });
    let data = Order {
        order_id,
        user_id: request.user_id,
        lines: lines.collect(),
        items_amount: order.items_amount,
        discount: order.discount,
        paid: order.paid(),
        coupon_id: request.order.coupon_id,
    };
    OrderCompleted::new(request.job_id.get(), completed_at, data)
}

/// Appends the events to the outbox and wakes the relay, both with the commit.
async fn append(
    transaction: &mut PgConnection,
    events: &[OrderCompleted],
) -> Result<(), sqlx::Error> {
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    let json: Result<Vec<String>, _> = events.iter().map(serde_json::to_string).collect();
    let json = json.map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query!(
        "WITH appended AS (
             INSERT INTO outbox (event_id, event) SELECT * FROM UNNEST($1::uuid[], $2::text[])
         )
         SELECT pg_notify('outbox', '')",
        &ids,
        &json,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// Orders, lines, payments and history; the coupons are marked used.
async fn insert(
    transaction: &mut PgConnection,
    placed: &[(&Request<'_>, &Placed)],
) -> Result<HashMap<JobId, (OrderId, DateTime<Utc>)>, sqlx::Error> {
    let mut orders = Orders::default();
    let mut items = Items::default();
    for (request, order) in placed {
        orders.job.push(request.job_id.get());
        orders.user.push(request.user_id.get());
        orders.campaign.push(request.order.coupon_id.map(|campaign| campaign.get()));
        orders.coupon.push(order.coupon.map(|coupon| coupon.get()));
        orders.items_amount.push(order.items_amount.get());
        orders.discount.push(order.discount.get());
        orders.paid.push(order.paid().get());
        orders.balance_after.push(order.balance_after.get());
        orders.dropped.push(
            serde_json::to_string(&order.dropped)
                .map_err(|error| sqlx::Error::Encode(error.into()))?,
        );
        orders.submitted_at.push(request.submitted_at);
        for item in &order.items {
            items.job.push(request.job_id.get());
            items.product.push(item.product_id.get());
            items.name.push(item.name.clone());
            items.unit_price.push(item.unit_price.get());
            items.quantity.push(item.quantity);
        }
    }
    // History rows get their ids in the order of the line. An order that cost nothing has a
    // payment but no history row.
    let rows = sqlx::query!(
        r#"WITH batch AS MATERIALIZED (
               SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                                    $7::bigint[], $8::bigint[], $9::text[], $10::timestamptz[]) WITH ORDINALITY
                 AS batch (job_id, user_id, campaign_id, user_coupon_id, items_amount, discount,
                           paid, balance_after, dropped, submitted_at, position)
           ), placed AS (
               INSERT INTO orders (job_id, user_id, coupon_id, items_amount, discount, paid, dropped, created_at, completed_at)
               SELECT job_id, user_id, campaign_id, items_amount, discount, paid, dropped::jsonb, submitted_at, now()
               FROM batch ORDER BY position
               RETURNING id, job_id, user_id, paid, completed_at
           ), items AS (
               INSERT INTO order_items (order_id, product_id, name, unit_price, quantity)
               SELECT placed.id, item.product_id, item.name, item.unit_price, item.quantity
               FROM UNNEST($11::uuid[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[])
                 AS item (job_id, product_id, name, unit_price, quantity)
               JOIN placed USING (job_id)
           ), payments AS (
               INSERT INTO payments (order_id, user_id, amount, paid_at)
               SELECT id, user_id, paid, now() FROM placed
           ), history AS (
               INSERT INTO balance_transactions (user_id, kind, amount, balance_after, order_id)
               SELECT batch.user_id, 'payment', -batch.paid, batch.balance_after, placed.id
               FROM batch JOIN placed USING (job_id)
               WHERE batch.paid > 0 ORDER BY position
           ), used AS (
               UPDATE user_coupons SET used_at = now(), order_id = placed.id
               FROM batch JOIN placed USING (job_id)
               WHERE user_coupons.id = batch.user_coupon_id
           )
           SELECT id, job_id, completed_at FROM placed"#,
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
        &items.job,
        &items.product,
        &items.name,
        &items.unit_price,
        &items.quantity,
    )
    .fetch_all(transaction)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (JobId::from(row.job_id), (OrderId::new(row.id), row.completed_at)))
        .collect())
}

#[derive(Default)]
struct Orders {
    job: Vec<uuid::Uuid>,
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
    job: Vec<uuid::Uuid>,
    product: Vec<i64>,
    name: Vec<String>,
    unit_price: Vec<i64>,
    quantity: Vec<i64>,
}

/// Stock and balances as they are after the batch. The rows are locked since the load.
async fn update(
    transaction: &mut PgConnection,
    placed: &[(&Request<'_>, &Placed)],
    world: &World,
) -> Result<(), sqlx::Error> {
    let sold = placed.iter().flat_map(|(_, order)| &order.items).map(|item| item.product_id);
    let sold: std::collections::BTreeSet<_> = sold.collect();
    let stocks = sold.into_iter().filter_map(|id| Some((id.get(), world.products.get(&id)?.stock)));
    let (products, stocks): (Vec<i64>, Vec<i64>) = stocks.unzip();
    let buyers: std::collections::BTreeSet<_> =
        placed.iter().map(|(request, _)| request.user_id).collect();
    let balances =
        buyers.into_iter().filter_map(|id| Some((id.get(), world.balances.get(&id)?.get())));
    let (buyers, balances): (Vec<i64>, Vec<i64>) = balances.unzip();
    sqlx::query!(
        "WITH stock AS (
             UPDATE products SET stock = batch.stock
             FROM UNNEST($1::bigint[], $2::bigint[]) AS batch (id, stock)
             WHERE products.id = batch.id
         )
         UPDATE balances SET amount = batch.amount
         FROM UNNEST($3::bigint[], $4::bigint[]) AS batch (user_id, amount)
         WHERE balances.user_id = batch.user_id",
        &products,
        &stocks,
        &buyers,
        &balances,
    )
    .execute(transaction)
    .await?;
    Ok(())
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
             WHERE carts.user_id = bought.user_id AND carts.product_id = bought.product_id
               AND carts.quantity > bought.quantity
         )
         DELETE FROM carts USING bought
         WHERE carts.user_id = bought.user_id AND carts.product_id = bought.product_id
           AND carts.quantity <= bought.quantity",
        &users,
        &products,
        &quantities,
    )
    .execute(transaction)
    .await?;
    Ok(())
}
