//! `issue-coupon`: first come, first served, one coupon per user and campaign.

mod decide;
mod load;
mod write;

use firstcome_contract::{
    ids::{CouponId, UserId},
    job::{Envelope, Job, issue_coupon::CouponIssued},
};
use sqlx::PgConnection;

use super::outcome::Outcome;
use decide::{Decision, Request};

/// Decides a batch: load everything it needs in two statements, decide in memory, write it in one.
///
/// # Errors
/// The database's.
pub async fn apply(
    transaction: &mut PgConnection,
    jobs: &[&Envelope],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let requests: Vec<Request> = jobs.iter().filter_map(|envelope| request(envelope)).collect();
    let mut world = load::load(transaction, &requests).await?;
    let decisions: Vec<Decision> = requests.iter().map(|request| world.decide(request)).collect();
    let ids = write::write(transaction, &requests, &decisions, &world).await?;

    requests
        .iter()
        .zip(&decisions)
        .map(|(request, decision)| match *decision {
            Decision::Reject(rejection) => Ok(Outcome::Rejected(rejection, None)),
            Decision::Issue { issue_number } => {
                let slot = (request.coupon_id, issue_number);
                let user_coupon_id = *ids.get(&slot).ok_or(sqlx::Error::RowNotFound)?;
                let issued =
                    CouponIssued { user_coupon_id, coupon_id: request.coupon_id, issue_number };
                Outcome::succeeded(&issued).map_err(|error| sqlx::Error::Encode(error.into()))
            }
        })
        .collect()
}

/// `None` for a job of another kind, which the runtime keeps out of the batch.
fn request(envelope: &Envelope) -> Option<Request> {
    match &envelope.job {
        Job::IssueCoupon(job) => Some(Request {
            user_id: envelope.user_id,
            coupon_id: job.coupon_id,
            submitted_at: envelope.id.submitted_at(),
        }),
        Job::PlaceOrder(_) => None,
    }
}

/// A coupon in a user's hands: what the campaign's "one per user" is about.
type Holding = (UserId, CouponId);
