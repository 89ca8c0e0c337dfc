//! `issue-coupon`: first come, first served, one coupon per user and campaign.

mod decide;
mod load;
mod write;

use firstcome_contract::{
    ids::{CouponId, UserId},
    job::{Envelope, IssueCoupon, issue_coupon::CouponIssued},
    rejection::Rejection,
};
use sqlx::PgConnection;

use super::outcome::{HandlerError, Outcome};
use decide::{Decision, Request};

/// What is violated where another consumer issued a coupon to the same user or with the same number.
pub(super) const RACES: &[&str] = &["user_coupons_one_per_user", "user_coupons_issue_number_key"];

/// The coupon of which none was left for a job that ended with this code.
pub(super) fn sold_out(job: &IssueCoupon, code: &str) -> Option<CouponId> {
    (code == Rejection::CouponSoldOut.code()).then_some(job.coupon_id)
}

/// Decides a batch: load everything it needs in two statements, decide in memory, write it in one.
///
/// # Errors
/// [`HandlerError`].
pub async fn apply(
    transaction: &mut PgConnection,
    jobs: &[(&Envelope, &IssueCoupon)],
) -> Result<Vec<Outcome>, HandlerError> {
    let requests: Vec<Request> =
        jobs.iter().map(|(envelope, job)| request(envelope, job)).collect();
    let mut world = load::load(transaction, &requests).await?;
    let decisions: Vec<Decision> = requests.iter().map(|request| world.decide(request)).collect();
    let ids = write::write(transaction, &requests, &decisions, &world).await?;

    let outcome = |(request, decision): (&Request, &Decision)| match *decision {
        Decision::Reject(rejection) => Ok(Outcome::Rejected(rejection, None)),
        Decision::Issue { issue_number } => {
            let coupon_id = request.coupon_id;
            let missing = || HandlerError::Broken("a coupon that was issued has no id".to_owned());
            let user_coupon_id = *ids.get(&(coupon_id, issue_number)).ok_or_else(missing)?;
            Ok(Outcome::succeeded(&CouponIssued { user_coupon_id, coupon_id, issue_number })?)
        }
    };
    requests.iter().zip(&decisions).map(outcome).collect()
}

fn request(envelope: &Envelope, job: &IssueCoupon) -> Request {
    Request {
        user_id: envelope.user_id,
        coupon_id: job.coupon_id,
        submitted_at: envelope.id.submitted_at(),
    }
}

/// A coupon in a user's hands: what the campaign's "one per user" is about.
type Holding = (UserId, CouponId);
