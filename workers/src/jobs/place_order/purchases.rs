//! How many units of products with a limit the customers have. Read and written under the row locks of these
//! products, so that nobody else counts the same units meanwhile; a batch without such a product asks nothing.

use std::collections::BTreeMap;

use firstcome_contract::ids::{ProductId, UserId};
use sqlx::PgConnection;

use super::decide::{Bought, Request, World};

/// Tells the world what its customers have.
pub(super) async fn load(
    transaction: &mut PgConnection,
    requests: &[Request<'_>],
    world: &mut World,
) -> Result<(), sqlx::Error> {
    if world.products.values().all(|product| product.limit.is_none()) {
        return Ok(());
    }
    let mut asked: BTreeMap<(i64, i64), i32> = BTreeMap::new();
    for request in requests.iter().filter(|request| world.balances.contains_key(&request.user_id)) {
        for item in &request.order.items {
            let product = world.products.get(&item.product_id);
            if let Some(limit) = product.and_then(|product| product.limit) {
                asked.insert((request.user_id.get(), item.product_id.get()), limit.epoch);
            }
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    let (keys, epochs): (Vec<(i64, i64)>, Vec<i32>) = asked.into_iter().unzip();
    let (users, products): (Vec<i64>, Vec<i64>) = keys.into_iter().unzip();
    // A count of this epoch is complete. Without one, what the customer has is summed, once: the batch
    // stores it. Of a product that never was without a limit there is nothing to sum.
    let rows = sqlx::query!(
        r#"SELECT asker AS "user_id!", wanted AS "product_id!", counted.quantity AS "counted?",
                  summed.orders AS "orders!", summed.quantity AS "summed!"
           FROM UNNEST($1::bigint[], $2::bigint[], $3::int[]) AS asked (asker, wanted, epoch)
           LEFT JOIN LATERAL (
               SELECT quantity FROM purchases
               WHERE user_id = asker AND product_id = wanted AND limit_epoch = epoch LIMIT 1
           ) AS counted ON true
           CROSS JOIN LATERAL (
               SELECT count(*) AS orders,
                      COALESCE(sum(item.quantity) FILTER (WHERE cancelled.order_id IS NULL), 0)::bigint AS quantity
               FROM (SELECT id FROM orders WHERE user_id = asker AND counted.quantity IS NULL AND epoch > 0 OFFSET 0) AS own
               LEFT JOIN LATERAL (
                   SELECT quantity FROM order_items WHERE order_id = own.id AND product_id = wanted LIMIT 1
               ) AS item ON true
               LEFT JOIN LATERAL (
                   SELECT order_id FROM cancellations WHERE order_id = own.id AND item.quantity IS NOT NULL LIMIT 1
               ) AS cancelled ON true
           ) AS summed"#,
        &users,
        &products,
        &epochs,
    )
    .fetch_all(transaction)
    .await?;
    for row in rows {
        // Who has no order to sum has nothing, and needs no row to say so.
        let stored = row.counted.or((row.orders == 0).then_some(0));
        let bought = Bought { quantity: row.counted.unwrap_or(row.summed), stored };
        world.bought.insert((UserId::new(row.user_id), ProductId::new(row.product_id)), bought);
    }
    Ok(())
}

/// Stores what the customers have by now, as far as it is not stored.
pub(super) async fn store(
    transaction: &mut PgConnection,
    world: &World,
) -> Result<(), sqlx::Error> {
    let (mut users, mut products) = (Vec::new(), Vec::new());
    let (mut epochs, mut quantities) = (Vec::new(), Vec::new());
    for ((user, product), bought) in &world.bought {
        let limit = world.products.get(product).and_then(|product| product.limit);
        if let Some(limit) = limit
            && bought.stored != Some(bought.quantity)
        {
            users.push(user.get());
            products.push(product.get());
            epochs.push(limit.epoch);
            quantities.push(bought.quantity);
        }
    }
    if users.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO purchases (user_id, product_id, limit_epoch, quantity)
         SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::int[], $4::bigint[])
         ON CONFLICT ON CONSTRAINT purchases_pkey
         DO UPDATE SET limit_epoch = excluded.limit_epoch, quantity = excluded.quantity",
        &users,
        &products,
        &epochs,
        &quantities,
    )
    .execute(transaction)
    .await?;
    Ok(())
}
