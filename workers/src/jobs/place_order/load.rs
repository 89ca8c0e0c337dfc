//! What a batch needs to know, read under row locks taken in the one global order (see [`contended`]).

use std::collections::BTreeSet;

use firstcome_contract::{
    discount::Discount,
    ids::{CouponId, ProductId, UserCouponId, UserId},
    money::Money,
    sale::Sale,
};
use sqlx::PgConnection;

use super::{
    decide::{HeldCoupon, Limit, Product, Request, World},
    purchases,
};
use crate::jobs::{contended, outcome::HandlerError};

pub(super) async fn load(
    transaction: &mut PgConnection,
    requests: &[Request<'_>],
) -> Result<World, HandlerError> {
    let mut world = World::default();

    // NO KEY UPDATE is what our UPDATEs will take anyway, and lets the foreign keys' KEY SHARE pass.
    let items = requests.iter().flat_map(|request| &request.order.items);
    let products: BTreeSet<i64> = items.map(|item| item.product_id.get()).collect();
    let rows = sqlx::query!(
        "SELECT id, name, price, stock, on_sale_from, on_sale_until, paused_at, per_customer, limit_epoch FROM products
         WHERE id = ANY($1) AND deleted_at IS NULL
         ORDER BY id FOR NO KEY UPDATE",
        &products.into_iter().collect::<Vec<_>>(),
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in rows {
        let epoch = row.limit_epoch;
        let product = Product {
            name: row.name,
            price: Money::new(row.price),
            stock: row.stock,
            sale: Sale {
                from: row.on_sale_from,
                until: row.on_sale_until,
                paused_at: row.paused_at,
            },
            limit: row.per_customer.map(|per_customer| Limit { per_customer, epoch }),
        };
        world.products.insert(ProductId::new(row.id), product);
    }

    let users = requests.iter().map(|request| request.user_id).collect();
    world.balances = contended::lock_balances(&mut *transaction, users).await?;
    purchases::load(&mut *transaction, requests, &mut world).await?;

    let wanted = requests
        .iter()
        .filter_map(|request| Some((request.user_id.get(), request.order.coupon_id?.get())));
    let (holders, campaigns): (Vec<i64>, Vec<i64>) = wanted.unzip();
    if holders.is_empty() {
        return Ok(world);
    }
    // Not locked: whoever uses a user's coupon or gives it back holds the user's balance. A campaign that was
    // deleted issues no more coupons; those in users' hands stay good.
    let rows = sqlx::query!(
        r#"SELECT held.id, held.user_id, held.coupon_id, held.used_at IS NOT NULL AS "used!",
                  discount_type AS "discount_type!", discount_value AS "discount_value!", max_discount,
                  valid_until AS "valid_until!"
           FROM UNNEST($1::bigint[], $2::bigint[]) AS asked (asker, coupon)
           CROSS JOIN LATERAL (
               SELECT * FROM user_coupons WHERE user_id = ANY(ARRAY[asker]) AND coupon_id BETWEEN coupon AND coupon
               ORDER BY user_id, coupon_id LIMIT 1
           ) AS held
           CROSS JOIN LATERAL (SELECT * FROM coupons WHERE id = held.coupon_id LIMIT 1) AS campaign"#,
        &holders,
        &campaigns,
    )
    .fetch_all(transaction)
    .await?;
    for row in rows {
        let discount = discount(&row.discount_type, row.discount_value, row.max_discount)?;
        let held = HeldCoupon {
            id: UserCouponId::new(row.id),
            discount,
            valid_until: row.valid_until,
            used: row.used,
        };
        world.coupons.insert((UserId::new(row.user_id), CouponId::new(row.coupon_id)), held);
    }
    Ok(world)
}

/// The discount that a campaign grants. A type that this release does not know is no other one: what it takes
/// off would be a guess.
fn discount(kind: &str, value: i64, cap: Option<i64>) -> Result<Discount, HandlerError> {
    match kind {
        "percent" => Ok(Discount::Percent { percent: value, cap: cap.map(Money::new) }),
        "fixed" => Ok(Discount::Fixed(Money::new(value))),
        _ => Err(HandlerError::Broken(format!("it does not know the discount type {kind:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discount_is_of_a_type_that_is_known() {
        let of = |kind| discount(kind, 10, None).map_err(|error| error.to_string());
        assert_eq!(of("percent"), Ok(Discount::Percent { percent: 10, cap: None }));
        assert_eq!(of("fixed"), Ok(Discount::Fixed(Money::new(10))));
        assert_eq!(of("half"), Err("it does not know the discount type \"half\"".to_owned()));
    }
}
