//! `cancel-order`: stock, coupon, money and the limit per customer, all back in one transaction.

mod decide;
mod load;
mod write;

use firstcome_contract::{
    job::{CancelOrder, Envelope, cancel_order::OrderCancelled},
    rejection::Rejection,
};
use sqlx::PgConnection;

use super::outcome::{Decided, HandlerError, Outcome};
use decide::{Cancelled, Request};

/// What is violated where another consumer cancelled the same order.
pub(super) const RACES: &[&str] = &["cancellations_pkey", "cancellations_job_id_key"];

/// Decides a batch: lock and load everything it needs, decide in memory in the order of the line,
/// write the difference in sets.
///
/// # Errors
/// [`HandlerError`].
pub async fn apply(
    transaction: &mut PgConnection,
    jobs: &[(&Envelope, &CancelOrder)],
) -> Result<Decided, HandlerError> {
    let requests: Vec<Request<'_>> =
        jobs.iter().map(|(envelope, cancel)| request(envelope, cancel)).collect();
    let mut world = load::load(&mut *transaction, &requests).await?;
    let decisions: Vec<Result<Cancelled, Rejection>> =
        requests.iter().map(|request| world.decide(request)).collect();
    let cancelled = requests
        .iter()
        .zip(&decisions)
        .filter_map(|(request, decision)| Some((request, decision.as_ref().ok()?)));
    let cancelled: Vec<_> = cancelled.collect();
    let events = write::write(transaction, &cancelled, &world).await?;

    let outcome = |(request, decision): (&Request<'_>, Result<Cancelled, Rejection>)| {
        Ok(match decision {
            Ok(Cancelled { order, .. }) => Outcome::succeeded(&OrderCancelled {
                order_id: request.cancel.order_id,
                refunded: order.paid,
                coupon_returned: order.coupon.is_some(),
            })?,
            Err(rejection) => Outcome::Rejected(rejection, None),
        })
    };
    let outcomes: Result<Vec<Outcome>, HandlerError> =
        requests.iter().zip(decisions).map(outcome).collect();
    Ok(Decided { outcomes: outcomes?, events })
}

fn request<'a>(envelope: &'a Envelope, cancel: &'a CancelOrder) -> Request<'a> {
    Request {
        job_id: envelope.id,
        trace: envelope.trace.as_ref(),
        caller: envelope.user_id,
        submitted_at: envelope.id.submitted_at(),
        cancel,
    }
}
