//! What a batch needs to know, read under the campaigns' row locks.

use firstcome_contract::{
    campaign::Campaign,
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

    // The lock comes first: at READ COMMITTED every later statement sees all that was committed
    // before it was granted, so two consumers of one campaign decide one after the other. By id,
    // so that they cannot deadlock. NO KEY UPDATE is what our UPDATE will take anyway, and lets
    // the foreign keys' KEY SHARE pass.
    let campaigns = sqlx::query!(
        "SELECT id, total, issued, starts_at, ends_at, paused_at FROM coupons
         WHERE id = ANY($1) AND deleted_at IS NULL
         ORDER BY id FOR NO KEY UPDATE",
        &distinct(&coupons),
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in campaigns {
        let campaign = Campaign {
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            total: row.total,
            issued: row.issued,
            paused_at: row.paused_at,
        };
        world.campaigns.insert(CouponId::new(row.id), campaign);
    }

    let known = sqlx::query!(
        r#"SELECT asker AS "user_id!", coupon AS "coupon_id!", held.id IS NOT NULL AS "holds!"
           FROM UNNEST($1::bigint[], $2::bigint[]) AS asked (asker, coupon)
           CROSS JOIN LATERAL (SELECT FROM users WHERE id = asker LIMIT 1) AS known
           LEFT JOIN LATERAL (
               SELECT id FROM user_coupons WHERE user_id = ANY(ARRAY[asker]) AND coupon_id BETWEEN coupon AND coupon
               ORDER BY user_id, coupon_id LIMIT 1
           ) AS held ON true"#,
        &users,
        &coupons,
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in known {
        world.users.insert(UserId::new(row.user_id));
        if row.holds {
            world.holdings.insert((UserId::new(row.user_id), CouponId::new(row.coupon_id)));
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
