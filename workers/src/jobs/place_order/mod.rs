//! `place-order`: stock, coupon, balance, order and payment in one transaction.

mod decide;
mod load;
mod purchases;
mod write;

use firstcome_contract::{
    job::{
        Envelope, PlaceOrder,
        place_order::{LimitedItem, OrderPlaced, ShortItem},
    },
    rejection::Rejection,
};
use serde::Serialize;
use serde_json::value::to_raw_value;
use sqlx::PgConnection;

use super::outcome::{Decided, HandlerError, Outcome};
use decide::{Denial, Placed, Request};

/// What is violated where another consumer placed the order of the same job.
pub(super) const RACES: &[&str] = &["orders_job_id_key"];

/// Decides a batch: lock and load everything it needs, decide in memory in the order of the line,
/// write the difference in sets.
///
/// # Errors
/// [`HandlerError`].
pub async fn apply(
    transaction: &mut PgConnection,
    jobs: &[(&Envelope, &PlaceOrder)],
) -> Result<Decided, HandlerError> {
    let requests: Vec<Request<'_>> =
        jobs.iter().map(|(envelope, order)| request(envelope, order)).collect();
    let mut world = load::load(transaction, &requests).await?;
    let decisions: Vec<Result<Placed, Denial>> =
        requests.iter().map(|request| world.decide(request)).collect();
    let placed = requests
        .iter()
        .zip(&decisions)
        .filter_map(|(request, decision)| Some((request, decision.as_ref().ok()?)));
    let placed: Vec<_> = placed.collect();
    let (ids, events) = write::write(&mut *transaction, &placed, &world).await?;
    purchases::store(transaction, &world).await?;

    let mut ids = ids.into_iter();
    let outcome = |decision: Result<Placed, Denial>| match decision {
        Ok(placed) => {
            let missing = || HandlerError::Broken("an order that was placed has no id".to_owned());
            let order = OrderPlaced {
                order_id: ids.next().ok_or_else(missing)?,
                items_amount: placed.items_amount,
                discount: placed.discount,
                paid: placed.paid(),
                dropped: placed.dropped,
            };
            Ok(Outcome::succeeded(&order)?)
        }
        Err(denial) => rejected(&denial),
    };
    let outcomes: Result<Vec<Outcome>, HandlerError> = decisions.into_iter().map(outcome).collect();
    Ok(Decided { outcomes: outcomes?, events })
}

fn rejected(denial: &Denial) -> Result<Outcome, HandlerError> {
    #[derive(Serialize)]
    struct Short<'a> {
        #[serde(rename = "lines")]
        items: &'a [ShortItem],
    }
    #[derive(Serialize)]
    struct Limited<'a> {
        #[serde(rename = "lines")]
        items: &'a [LimitedItem],
    }
    Ok(match denial {
        Denial::LimitExceeded(items) => {
            Outcome::Rejected(Rejection::LimitExceeded, Some(to_raw_value(&Limited { items })?))
        }
        Denial::OutOfStock(items) => {
            Outcome::Rejected(Rejection::OutOfStock, Some(to_raw_value(&Short { items })?))
        }
        Denial::Plain(rejection) => Outcome::Rejected(*rejection, None),
    })
}

fn request<'a>(envelope: &'a Envelope, order: &'a PlaceOrder) -> Request<'a> {
    Request {
        job_id: envelope.id,
        trace: envelope.trace.as_ref(),
        user_id: envelope.user_id,
        submitted_at: envelope.id.submitted_at(),
        order,
    }
}
