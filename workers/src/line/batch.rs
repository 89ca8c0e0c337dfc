//! Natural batching: whatever is waiting, up to a bound, with no artificial delay.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use firstcome_broker::publish::MessageType;
use firstcome_contract::{
    family::Family,
    ids::{CouponId, UserId},
    job::{Envelope, JobId, JobKind, Settled, Undecodable, envelope},
    rejection::Rejection,
    trace::TraceParent,
};
use lapin::message::Delivery;
use uuid::Uuid;

/// The most jobs in one transaction, but for the rest of the last message. By itself a job gets no
/// cheaper beyond some hundreds; but where a storm and its settlement share the processors, every round
/// trip waits for its turn.
pub const MAX_JOBS: usize = 4_000;

/// Tells of a redriven message how often it was tried before; never changed, since messages outlive
/// deploys.
pub(crate) const ATTEMPTS_HEADER: &str = "x-attempts";

/// Tells canaries apart; never changed, since messages outlive deploys.
pub(crate) const CANARY_HEADER: &str = "x-canary";

/// Where in the broker something was found: what identifies a line across redeliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) message_id: String,
    pub(crate) line: i32,
    /// Where the broker gave up on it, if it did.
    pub(crate) died_in: Option<String>,
    /// How often it was tried before it was redriven.
    pub(crate) attempts: i32,
}

impl Origin {
    /// Line `line` of this message.
    pub(crate) fn of(delivery: &Delivery, line: i32) -> Self {
        let (died_in, attempts) = (died_in(delivery), attempts(delivery));
        Self { message_id: message_id(delivery), line, died_in, attempts }
    }
}

/// A job of the batch.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) envelope: Envelope,
    pub(crate) origin: Origin,
    /// The line as it was published, for the dead letter that it may become.
    pub(crate) payload: Vec<u8>,
}

impl Job {
    pub(crate) fn kind(&self) -> JobKind {
        self.envelope.job.kind()
    }
}

/// A line that is no job of this partition.
#[derive(Debug, Clone)]
pub(crate) struct Reject {
    pub(crate) accepted: Option<(JobId, UserId)>,
    pub(crate) trace: Option<TraceParent>,
    pub(crate) reason: String,
    pub(crate) origin: Origin,
    pub(crate) payload: Vec<u8>,
}

/// What one transaction settles.
#[derive(Debug)]
pub(crate) struct Batch {
    /// It is full with so many jobs.
    limit: usize,
    /// In the order of the line; each job id once.
    pub(crate) jobs: Vec<Job>,
    pub(crate) rejects: Vec<Reject>,
    seen: HashSet<JobId>,
    last: Option<Delivery>,
    /// How many messages it came in.
    pub(crate) messages: usize,
    /// The canaries among them.
    pub(crate) canaries: Vec<Uuid>,
    /// The last message of a line that is being closed was among them.
    pub(crate) is_end_of_line: bool,
}

impl Batch {
    /// An empty one.
    pub(crate) fn of(limit: usize) -> Self {
        Self {
            limit,
            jobs: Vec::new(),
            rejects: Vec::new(),
            seen: HashSet::new(),
            last: None,
            messages: 0,
            canaries: Vec::new(),
            is_end_of_line: false,
        }
    }

    /// Adds a message: every line is decoded alone, so that a bad one harms nobody else.
    /// Jobs of another family than this one are in the wrong line.
    pub(crate) fn add(&mut self, family: Option<Family>, mut delivery: Delivery) {
        self.messages += 1;
        let name = delivery.properties.kind().as_ref().map(|name| name.as_str());
        self.is_end_of_line |= name == Some(MessageType::EndOfLine.as_str());
        if name == Some(MessageType::Canary.as_str()) {
            self.canaries.extend(canary(&delivery));
        }
        let first = Origin::of(&delivery, 0);
        let parcel = std::mem::take(&mut delivery.data);
        for (line, payload) in (0..).zip(envelope::lines(&parcel)) {
            let origin = Origin { line, ..first.clone() };
            let payload = payload.to_vec();
            match decode(family, &payload) {
                // The same job published twice (a client's retry of an unconfirmed publish).
                Ok(envelope) if !self.seen.insert(envelope.id) => {}
                Ok(envelope) => self.jobs.push(Job { envelope, origin, payload }),
                Err(Undecodable { accepted, trace, reason }) => {
                    self.rejects.push(Reject { accepted, trace, reason, origin, payload });
                }
            }
        }
        self.last = Some(delivery);
    }

    /// Adds a message; whether it is enough.
    pub(crate) fn take(&mut self, family: Option<Family>, delivery: Delivery) -> bool {
        self.add(family, delivery);
        self.is_full()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.jobs.len() + self.rejects.len() >= self.limit
    }

    /// The coupons of which none was left for some of these outcomes' jobs.
    pub(crate) fn sold_out(&self, settled: &[Settled]) -> Vec<CouponId> {
        let code = Some(Rejection::CouponSoldOut.code());
        let too_late = settled.iter().filter(|settled| settled.code.as_deref() == code);
        let too_late: HashSet<JobId> = too_late.map(|settled| settled.job_id).collect();
        let too_late = self.jobs.iter().filter(|job| too_late.contains(&job.envelope.id));
        let coupons: BTreeSet<CouponId> =
            too_late.flat_map(|job| job.envelope.job.keys()).map(CouponId::new).collect();
        coupons.into_iter().collect()
    }

    /// The last message: acknowledging it and all before it acknowledges the batch.
    pub(crate) fn last(&self) -> Option<&Delivery> {
        self.last.as_ref()
    }
}

fn died_in(delivery: &Delivery) -> Option<String> {
    let header = delivery.properties.headers().as_ref()?.inner().get("x-first-death-queue")?;
    // PostgreSQL's text holds no NUL; a foreign header might.
    header.as_long_string().map(|queue| queue.to_string().replace('\0', "\u{fffd}"))
}

fn attempts(delivery: &Delivery) -> i32 {
    let headers = delivery.properties.headers().as_ref();
    let header = headers.and_then(|headers| headers.inner().get(ATTEMPTS_HEADER)?.as_long_int());
    // Ours is never negative; a foreign one might be.
    header.unwrap_or_default().max(0)
}

/// Which canary it is; those of older releases do not say.
fn canary(delivery: &Delivery) -> Option<Uuid> {
    let header = delivery.properties.headers().as_ref()?.inner().get(CANARY_HEADER)?;
    header.as_long_string()?.to_string().parse().ok()
}

fn message_id(delivery: &Delivery) -> String {
    match delivery.properties.message_id() {
        // PostgreSQL's text holds no NUL; a foreign id might.
        Some(id) => id.as_str().replace('\0', "\u{fffd}"),
        // Not from our publisher: its content must do.
        None => {
            let mut content = DefaultHasher::new();
            delivery.data.hash(&mut content);
            format!("unnamed-{:016x}", content.finish())
        }
    }
}

fn decode(family: Option<Family>, line: &[u8]) -> Result<Envelope, Undecodable> {
    let envelope = Envelope::decode(line)?;
    match family {
        Some(family) if envelope.job.kind().family() != family => Err(Undecodable {
            accepted: Some((envelope.id, envelope.user_id)),
            trace: envelope.trace,
            reason: format!("not a job of the {} lines", family.as_str()),
        }),
        Some(_) | None => Ok(envelope),
    }
}

/// The jobs in runs of one kind, in order: a handler takes jobs of its kind only, and none may overtake another.
pub(crate) fn runs<'a, T>(
    jobs: &'a [T],
    kind: impl Fn(&T) -> JobKind + Copy + 'a,
) -> impl Iterator<Item = (JobKind, &'a [T])> {
    let runs = jobs.chunk_by(move |one, next| kind(one) == kind(next));
    runs.filter_map(move |run| Some((kind(run.first()?), run)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_of_one_kind_and_in_order(kinds in prop::collection::vec(prop::sample::select(&JobKind::ALL), 0..40)) {
            let jobs: Vec<(usize, JobKind)> = kinds.into_iter().enumerate().collect();
            let all: Vec<_> = runs(&jobs, |job| job.1).collect();
            prop_assert_eq!(all.iter().flat_map(|(_, run)| *run).copied().collect::<Vec<_>>(), jobs.clone());
            prop_assert!(all.iter().all(|(kind, run)| run.iter().all(|job| job.1 == *kind)));
            prop_assert!(all.windows(2).all(|pair| pair[0].0 != pair[1].0), "a run per change of kind");
        }
    }
}
