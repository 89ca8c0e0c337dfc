//! Stores the coupons that a batch issues and the campaigns' counts, in one statement.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use firstcome_contract::ids::{CouponId, UserCouponId};
use sqlx::PgConnection;

use super::decide::{Decision, Request, World};

/// A coupon that was issued.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issued {
    pub(super) id: UserCouponId,
    /// When: the same instant for the whole batch.
    pub(super) at: DateTime<Utc>,
}

/// Stores the issued coupons and the campaigns' new counts; tells each coupon by campaign and issue number.
pub(super) async fn write(
    transaction: &mut PgConnection,
    requests: &[Request],
    decisions: &[Decision],
    world: &World,
) -> Result<HashMap<(CouponId, i64), Issued>, sqlx::Error> {
    let (mut users, mut coupons, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    let mut jobs = Vec::new();
    let mut counts: HashMap<i64, i64> = HashMap::new();
    for (request, decision) in requests.iter().zip(decisions) {
        if let Decision::Issue { issue_number } = decision {
            users.push(request.user_id.get());
            coupons.push(request.coupon_id.get());
            numbers.push(*issue_number);
            jobs.push(request.job_id.get());
            if let Some(campaign) = world.campaigns.get(&request.coupon_id) {
                counts.insert(request.coupon_id.get(), campaign.issued);
            }
        }
    }
    if users.is_empty() {
        return Ok(HashMap::new());
    }
    let (counted, issued): (Vec<i64>, Vec<i64>) = counts.into_iter().unzip();
    let rows = sqlx::query!(
        r#"WITH counted AS (
               UPDATE coupons SET issued = batch.issued
               FROM UNNEST($4::bigint[], $5::bigint[]) AS batch (id, issued)
               WHERE coupons.id = ANY(ARRAY[batch.id])
           )
           INSERT INTO user_coupons (user_id, coupon_id, issue_number, issued_by)
           SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $6::uuid[])
           RETURNING id, coupon_id, issue_number, issued_at"#,
        &users,
        &coupons,
        &numbers,
        &counted,
        &issued,
        &jobs,
    )
    .fetch_all(transaction)
    .await?;
    let issued = rows.into_iter().map(|row| {
        let issued = Issued { id: UserCouponId::new(row.id), at: row.issued_at };
        ((CouponId::new(row.coupon_id), row.issue_number), issued)
    });
    Ok(issued.collect())
}
