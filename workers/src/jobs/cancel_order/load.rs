//! What a batch of cancels needs to know, read under row locks taken in the one global order (see [`contended`]).

use std::collections::BTreeSet;

use firstcome_contract::{
    event::SoldItem,
    ids::{CouponId, OrderId, ProductId, UserCouponId, UserId},
    money::Money,
};
use sqlx::PgConnection;

use super::decide::{Order, Product, Request, UsedCoupon, World};
use crate::jobs::{contended, outcome::HandlerError};

pub(super) async fn load(
    transaction: &mut PgConnection,
    requests: &[Request<'_>],
) -> Result<World, HandlerError> {
    let mut world = World::default();

    // A product that was deleted gets its units back, too.
    let products = requests.iter().flat_map(|request| &request.cancel.product_ids);
    let products: BTreeSet<ProductId> = products.copied().collect();
    let rows = sqlx::query!(
        "SELECT id, stock, per_customer, limit_epoch FROM products
         WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
        &products.into_iter().map(ProductId::get).collect::<Vec<_>>(),
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in rows {
        let limit_epoch = row.per_customer.map(|_| row.limit_epoch);
        world.products.insert(ProductId::new(row.id), Product { stock: row.stock, limit_epoch });
    }
    let customers = requests.iter().map(|request| request.cancel.customer_id).collect();
    world.balances = contended::lock_balances(&mut *transaction, customers).await?;

    let campaigns = orders(&mut *transaction, requests, &mut world).await?;
    items(&mut *transaction, &mut world).await?;
    coupons(transaction, &campaigns, &mut world).await?;
    Ok(world)
}

/// An order that used a coupon: the order, its customer, and the coupon's campaign.
type UsedCampaign = (OrderId, UserId, CouponId);

/// The orders that are asked for, as far as they are these customers', still without items and coupons. Whether one
/// is cancelled stays so: who cancels it holds the lock of each of its products.
async fn orders(
    transaction: &mut PgConnection,
    requests: &[Request<'_>],
    world: &mut World,
) -> Result<Vec<UsedCampaign>, HandlerError> {
    let asked = requests.iter().map(|request| request.cancel);
    let asked: BTreeSet<(i64, i64)> =
        asked.map(|cancel| (cancel.order_id.get(), cancel.customer_id.get())).collect();
    let (ids, customers): (Vec<i64>, Vec<i64>) = asked.into_iter().unzip();
    let rows = sqlx::query!(
        r#"SELECT found.id AS "id!", customer AS "customer!", found.coupon_id, found.paid AS "paid!",
                  found.completed_at AS "completed_at!", cancelled.order_id IS NOT NULL AS "is_cancelled!"
           FROM UNNEST($1::bigint[], $2::bigint[]) AS asked (asked_id, customer)
           CROSS JOIN LATERAL (
               SELECT id, coupon_id, paid, completed_at FROM orders
               WHERE id = asked_id AND user_id = customer LIMIT 1
           ) AS found
           LEFT JOIN LATERAL (
               SELECT order_id FROM cancellations WHERE order_id = found.id LIMIT 1
           ) AS cancelled ON true"#,
        &ids,
        &customers,
    )
    .fetch_all(transaction)
    .await?;
    let mut used = Vec::new();
    for row in rows {
        let (id, customer) = (OrderId::new(row.id), UserId::new(row.customer));
        if !world.balances.contains_key(&customer) {
            let reason = format!("the customer of order {id} has no balance");
            return Err(HandlerError::Broken(reason));
        }
        let campaign = row.coupon_id.filter(|_| !row.is_cancelled);
        used.extend(campaign.map(|campaign| (id, customer, CouponId::new(campaign))));
        let order = Order {
            customer,
            items: Vec::new(),
            paid: Money::new(row.paid),
            coupon: None,
            completed_at: row.completed_at,
            is_cancelled: row.is_cancelled,
        };
        world.orders.insert(id, order);
    }
    Ok(used)
}

/// What the orders that are not cancelled hold.
async fn items(transaction: &mut PgConnection, world: &mut World) -> Result<(), HandlerError> {
    let open = world.orders.iter().filter(|(_, order)| !order.is_cancelled);
    let open: Vec<i64> = open.map(|(id, _)| id.get()).collect();
    if open.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        "SELECT order_id, product_id, quantity, unit_price FROM order_items
         WHERE order_id = ANY($1) ORDER BY order_id, product_id",
        &open,
    )
    .fetch_all(transaction)
    .await?;
    for row in rows {
        let (id, product_id) = (OrderId::new(row.order_id), ProductId::new(row.product_id));
        // It would not be locked.
        if !world.products.contains_key(&product_id) {
            let reason =
                format!("order {id} has product {product_id}, which its job does not name");
            return Err(HandlerError::Broken(reason));
        }
        if let Some(order) = world.orders.get_mut(&id) {
            let (quantity, unit_price) = (row.quantity, Money::new(row.unit_price));
            order.items.push(SoldItem { product_id, quantity, unit_price });
        }
    }
    Ok(())
}

/// The coupons that these orders used. Not locked: whoever uses a user's coupon or gives it back holds the user's
/// balance.
async fn coupons(
    transaction: &mut PgConnection,
    used: &[UsedCampaign],
    world: &mut World,
) -> Result<(), HandlerError> {
    if used.is_empty() {
        return Ok(());
    }
    let orders: Vec<i64> = used.iter().map(|(order, ..)| order.get()).collect();
    let holders: Vec<i64> = used.iter().map(|(_, holder, _)| holder.get()).collect();
    let campaigns: Vec<i64> = used.iter().map(|(.., campaign)| campaign.get()).collect();
    let rows = sqlx::query!(
        r#"SELECT held.id, held.coupon_id, held.order_id AS "order_id!"
           FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS asked (used_by, holder, coupon)
           CROSS JOIN LATERAL (
               SELECT * FROM user_coupons
               WHERE user_id = ANY(ARRAY[holder]) AND coupon_id BETWEEN coupon AND coupon AND order_id = used_by
               ORDER BY user_id, coupon_id LIMIT 1
           ) AS held"#,
        &orders,
        &holders,
        &campaigns,
    )
    .fetch_all(transaction)
    .await?;
    for row in rows {
        if let Some(order) = world.orders.get_mut(&OrderId::new(row.order_id)) {
            let (id, campaign) = (UserCouponId::new(row.id), CouponId::new(row.coupon_id));
            order.coupon = Some(UsedCoupon { id, campaign });
        }
    }
    Ok(())
}
