//! Which code decides which kind of job. Every match is exhaustive: a new kind does not compile until it has
//! a handler.

use std::collections::BTreeSet;

use firstcome_contract::{
    ids::{CouponId, ProductId},
    job::{Envelope, Job, JobKind},
};
use sqlx::PgConnection;

use super::{
    cancel_order, contended, issue_coupon,
    outcome::{Decided, HandlerError},
    place_order,
};

/// Whether a handler violates this constraint when it loses a race against another consumer.
pub(crate) fn is_race(constraint: &str) -> bool {
    let races = |kind| match kind {
        JobKind::IssueCoupon => issue_coupon::RACES,
        JobKind::PlaceOrder => place_order::RACES,
        JobKind::CancelOrder => cancel_order::RACES,
    };
    JobKind::ALL.into_iter().any(|kind| races(kind).contains(&constraint))
}

/// What is sold out, as these jobs and the codes of their outcomes say.
pub(crate) fn sold_out<'a>(ended: impl Iterator<Item = (&'a Job, &'a str)>) -> Vec<CouponId> {
    let coupon = |(job, code): (&'a Job, &'a str)| match job {
        Job::IssueCoupon(job) => issue_coupon::sold_out(job, code),
        // An order may ask for less of a product that is short.
        Job::PlaceOrder(_) | Job::CancelOrder(_) => None,
    };
    let coupons: BTreeSet<CouponId> = ended.filter_map(coupon).collect();
    coupons.into_iter().collect()
}

/// Whether the success of a job of this kind brings units back.
pub(crate) const fn restocks(kind: JobKind) -> bool {
    match kind {
        JobKind::IssueCoupon | JobKind::PlaceOrder => false,
        JobKind::CancelOrder => true,
    }
}

/// The products of which these jobs, which succeeded, brought units back; also those that the order had dropped.
pub(crate) fn restocked<'a>(done: impl Iterator<Item = &'a Job>) -> Vec<ProductId> {
    let products = |job: &'a Job| -> &'a [ProductId] {
        match job {
            Job::IssueCoupon(_) | Job::PlaceOrder(_) => &[],
            Job::CancelOrder(job) => &job.product_ids,
        }
    };
    let products: BTreeSet<ProductId> = done.flat_map(products).copied().collect();
    products.into_iter().collect()
}

/// Locks what jobs of several kinds will change, as far as locks have a global order, before the first of them is
/// applied. Jobs of one kind lock for themselves.
pub(crate) async fn lock_ahead(
    transaction: &mut PgConnection,
    jobs: &[&Envelope],
) -> Result<(), sqlx::Error> {
    contended::lock_ahead(transaction, jobs).await
}

/// Applies jobs of one kind, in order, inside the caller's transaction: one outcome per job, in
/// the same order. The outcomes and the events are the caller's to store.
///
/// # Errors
/// [`HandlerError`]; a business "no" is an outcome.
pub async fn apply(
    kind: JobKind,
    transaction: &mut PgConnection,
    jobs: &[&Envelope],
) -> Result<Decided, HandlerError> {
    let decided = match kind {
        JobKind::IssueCoupon => {
            let jobs =
                typed(jobs, |job| if let Job::IssueCoupon(job) = job { Some(job) } else { None })?;
            issue_coupon::apply(transaction, &jobs).await?
        }
        JobKind::PlaceOrder => {
            let jobs =
                typed(jobs, |job| if let Job::PlaceOrder(job) = job { Some(job) } else { None })?;
            place_order::apply(transaction, &jobs).await?
        }
        JobKind::CancelOrder => {
            let jobs =
                typed(jobs, |job| if let Job::CancelOrder(job) = job { Some(job) } else { None })?;
            cancel_order::apply(transaction, &jobs).await?
        }
    };
    if decided.outcomes.len() == jobs.len() {
        Ok(decided)
    } else {
        let (jobs, outcomes) = (jobs.len(), decided.outcomes.len());
        Err(HandlerError::Broken(format!("{outcomes} outcomes for {jobs} jobs")))
    }
}

/// The jobs, each with the fields of its kind.
fn typed<'a, T>(
    jobs: &[&'a Envelope],
    of_kind: impl Fn(&'a Job) -> Option<&'a T>,
) -> Result<Vec<(&'a Envelope, &'a T)>, HandlerError> {
    let jobs = jobs.iter().map(|envelope| Some((*envelope, of_kind(&envelope.job)?)));
    let jobs: Option<Vec<_>> = jobs.collect();
    jobs.ok_or_else(|| HandlerError::Broken("it was given a job of another kind".to_owned()))
}
