//! `place-order`: stock, coupon, balance, order and payment in one transaction.

mod decide;
mod load;
mod write;

use firstcome_contract::{
    job::{Envelope, Job, place_order::OrderPlaced},
    rejection::Rejection,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::PgConnection;

use super::outcome::Outcome;
use decide::{Denial, Placed, Request};

/// Decides a batch: lock and load everything it needs, decide in memory in the order of the line,
/// write the difference in sets.
///
/// # Errors
/// The database's.
pub async fn apply(
    transaction: &mut PgConnection,
    jobs: &[&Envelope],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let requests: Vec<Request<'_>> = jobs.iter().filter_map(|envelope| request(envelope)).collect();
    let mut world = load::load(transaction, &requests).await?;
    let decisions: Vec<Result<Placed, Denial>> =
        requests.iter().map(|request| world.decide(request)).collect();
    let placed = requests
        .iter()
        .zip(&decisions)
        .filter_map(|(request, decision)| Some((request, decision.as_ref().ok()?)));
    let placed: Vec<_> = placed.collect();
    let ids = write::write(transaction, &placed, &world).await?;

    let mut ids = ids.into_iter();
    decisions
        .into_iter()
        .map(|decision| match decision {
            Ok(placed) => {
                let order = OrderPlaced {
                    order_id: ids.next().ok_or(sqlx::Error::RowNotFound)?,
                    items_amount: placed.items_amount,
                    discount: placed.discount,
                    paid: placed.paid(),
                    dropped: placed.dropped,
                };
                Outcome::succeeded(&order).map_err(|error| sqlx::Error::Encode(error.into()))
            }
            Err(denial) => rejected(&denial),
        })
        .collect()
}

fn rejected(denial: &Denial) -> Result<Outcome, sqlx::Error> {
    #[derive(Serialize)]
    struct Short<'a> {
        lines: &'a [firstcome_contract::job::place_order::ShortLine],
    }
    let json = |lines| -> Result<Box<RawValue>, sqlx::Error> {
        to_raw_value(&Short { lines }).map_err(|error| sqlx::Error::Encode(error.into()))
    };
    Ok(match denial {
        Denial::OutOfStock(lines) => Outcome::Rejected(Rejection::OutOfStock, Some(json(lines)?)),
        Denial::Plain(rejection) => Outcome::Rejected(*rejection, None),
    })
}

/// `None` for a job of another kind, which the runtime keeps out of the batch.
fn request(envelope: &Envelope) -> Option<Request<'_>> {
    match &envelope.job {
        Job::PlaceOrder(order) => Some(Request {
            job_id: envelope.id,
            user_id: envelope.user_id,
            submitted_at: envelope.id.submitted_at(),
            order,
        }),
        Job::IssueCoupon(_) => None,
    }
}
