//! `issue-coupon`: first come, first served, one coupon per user and campaign.

mod decide;
mod load;
mod write;

use firstcome_contract::{
    event::{self, CouponSoldOut, Data, Event},
    ids::{CouponId, UserId},
    job::{Envelope, IssueCoupon, issue_coupon::CouponIssued},
    rejection::Rejection,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::outcome::{Decided, HandlerError, Outcome};
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
) -> Result<Decided, HandlerError> {
    let requests: Vec<Request> =
        jobs.iter().map(|(envelope, job)| request(envelope, job)).collect();
    let mut world = load::load(&mut *transaction, &requests).await?;
    let decisions: Vec<Decision> = requests.iter().map(|request| world.decide(request)).collect();
    let issued = write::write(transaction, &requests, &decisions, &world).await?;

    let mut events = Vec::with_capacity(issued.len());
    let mut outcomes = Vec::with_capacity(jobs.len());
    for ((envelope, job), decision) in jobs.iter().zip(&decisions) {
        let coupon_id = job.coupon_id;
        let issue_number = match *decision {
            Decision::Issue { issue_number } => issue_number,
            Decision::Reject(rejection) => {
                outcomes.push(Outcome::Rejected(rejection, None));
                continue;
            }
        };
        let missing = || HandlerError::Broken("a coupon that was issued has no id".to_owned());
        let issued = *issued.get(&(coupon_id, issue_number)).ok_or_else(missing)?;
        let (user_id, user_coupon_id) = (envelope.user_id, issued.id);
        let result = CouponIssued { user_coupon_id, coupon_id, issue_number };
        outcomes.push(Outcome::succeeded(&result)?);

        let data = event::CouponIssued { coupon_id, user_id, user_coupon_id, issue_number };
        let (id, time) = (envelope.id.get(), issued.at);
        let event = Event::new(id, time, Data::CouponIssued(data));
        events.push(event.in_trace(envelope.trace.as_ref()));
        let campaign = world.campaigns.get(&coupon_id);
        if let Some(campaign) = campaign.filter(|campaign| campaign.total == issue_number) {
            let data = CouponSoldOut { coupon_id, total: campaign.total };
            events.push(Event::new(Uuid::new_v4(), time, Data::CouponSoldOut(data)));
        }
    }
    Ok(Decided { outcomes, events })
}

fn request(envelope: &Envelope, job: &IssueCoupon) -> Request {
    Request { job_id: envelope.id, user_id: envelope.user_id, coupon_id: job.coupon_id }
}

/// A coupon in a user's hands: what the campaign's "one per user" is about.
type Holding = (UserId, CouponId);
