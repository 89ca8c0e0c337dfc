//! What a batch needs to know, read under the campaigns' row locks.

use firstcome_shared::{
    coupon::Campaign,
    ids::{CouponId, UserId},
};
use sqlx::PgConnection;

use super::decide::{Request, World};

pub(super) async fn load(
    transaction: &mut PgConnection,
    requests: &[Request],
) -> Result<World, sqlx::Error> {
    let mut world = World::default();
    let users: Vec<i64> = requests.iter().map(|request| request.user_id.get()).collect();
    let coupons: Vec<i64> = requests.iter().map(|request| request.coupon_id.get()).collect();

    // Two consumers of one campaign decide one after the other: what is known of it is what the row
    // says once it is locked. What its users hold may have changed since the statement began; a
    // coupon that was missed is caught by `user_coupons_one_per_user`, and the next attempt sees it.
    // By id, so that they cannot deadlock. NO KEY UPDATE is what our UPDATE will take anyway, and
    // lets foreign keys' KEY SHARE pass.
    let rows = sqlx::query!(
        r#"WITH campaigns AS MATERIALIZED (
               SELECT id, total, issued, starts_at, ends_at FROM coupons
               WHERE id = ANY($3) AND deleted_at IS NULL
               ORDER BY id FOR NO KEY UPDATE
           )
           SELECT NULL::bigint AS user_id, id AS "coupon_id!", false AS "holds!",
                  total, issued, starts_at, ends_at
           FROM campaigns
           UNION ALL
           SELECT asked.user_id, asked.coupon_id, held.id IS NOT NULL, NULL, NULL, NULL, NULL
           FROM UNNEST($1::bigint[], $2::bigint[]) AS asked (user_id, coupon_id)
           JOIN users ON users.id = asked.user_id
           LEFT JOIN user_coupons held
             ON held.user_id = asked.user_id AND held.coupon_id = asked.coupon_id"#,
        &users,
        &coupons,
        &distinct(&coupons),
    )
    .fetch_all(transaction)
    .await?;
    for row in rows {
        let coupon = CouponId::new(row.coupon_id);
        if let Some(user) = row.user_id.map(UserId::new) {
            world.users.insert(user);
            if row.holds {
                world.holdings.insert((user, coupon));
            }
        } else if let (Some(total), Some(issued), Some(starts_at), Some(ends_at)) =
            (row.total, row.issued, row.starts_at, row.ends_at)
        {
            world.campaigns.insert(coupon, Campaign { starts_at, ends_at, total, issued });
        }
    }
    Ok(world)
}

fn distinct(ids: &[i64]) -> Vec<i64> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}
