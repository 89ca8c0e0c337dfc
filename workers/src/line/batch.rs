//! Natural batching: whatever is waiting, up to a bound, with no artificial delay.

use std::collections::{HashMap, HashSet};

use firstcome_broker::{
    consume::{Receipt, Received},
    publish::MessageType,
};
use firstcome_contract::{
    family::Family,
    ids::UserId,
    job::{self as contract, Envelope, JobId, JobKind, Settled, Status, Undecodable, envelope},
    request_id::RequestId,
    trace::TraceParent,
};
use uuid::Uuid;

/// The most jobs in one transaction, but for the rest of the last message. By itself a job gets no
/// cheaper beyond some hundreds; but where a storm and its settlement share the processors, every round
/// trip waits for its turn.
pub const MAX_JOBS: usize = 4_000;
/// The most [`runs`] in one transaction. Each has its own statements, and writes rows once more that the one before it
/// wrote, whose former versions stay in the way until the end: a line of alternating kinds would take longer and longer.
const MAX_RUNS: usize = 100;

/// Where in the broker a record was found, which identifies it across redeliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) message_id: String,
    /// The record's number in its message, from 0.
    pub(crate) record: i32,
    /// The queue in which the broker gave up on it, if it did.
    pub(crate) died_in: Option<String>,
    /// Attempts at the record before it was redriven.
    pub(crate) attempts: i32,
}

/// A record that is a job, as the batch settles it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) envelope: Envelope,
    pub(crate) origin: Origin,
    /// The record as it was published, for the dead letter that it may become.
    pub(crate) payload: Vec<u8>,
}

impl Job {
    pub(crate) fn kind(&self) -> JobKind {
        self.envelope.job.kind()
    }
}

/// A record that cannot be processed: it becomes a dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Reject {
    pub(crate) accepted: Option<(JobId, UserId)>,
    pub(crate) trace: Option<TraceParent>,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) reason: String,
    pub(crate) origin: Origin,
    pub(crate) payload: Vec<u8>,
}

/// What is settled and acknowledged together: by one transaction, unless that takes too long.
#[derive(Debug)]
pub(crate) struct Batch {
    /// How many records fill it; the last message may bring more.
    limit: usize,
    /// In the order of the line; each job id once.
    pub(crate) jobs: Vec<Job>,
    pub(crate) rejects: Vec<Reject>,
    seen: HashSet<JobId>,
    /// Acknowledges its last message and all before it, and so the batch; there is one as soon as there is a
    /// message.
    pub(crate) receipt: Option<Receipt>,
    /// How many messages brought it.
    pub(crate) messages: usize,
    /// The ids of the canaries among these messages.
    pub(crate) canaries: Vec<Uuid>,
    /// The last message of a line that is being closed was among them.
    pub(crate) is_end_of_line: bool,
}

impl Batch {
    /// A batch without jobs, which so many records fill.
    pub(crate) fn of(limit: usize) -> Self {
        Self {
            limit,
            jobs: Vec::new(),
            rejects: Vec::new(),
            seen: HashSet::new(),
            receipt: None,
            messages: 0,
            canaries: Vec::new(),
            is_end_of_line: false,
        }
    }

    /// Adds a message, and tells whether it is enough. Every record is decoded alone, so that a bad one harms
    /// nobody else. Jobs of another family than this one are in the wrong line.
    pub(crate) fn take(&mut self, family: Option<Family>, message: Received) -> bool {
        let Received { id, kind: name, canary, attempts, died_in, body, receipt } = message;
        self.messages += 1;
        self.is_end_of_line |= name == Some(MessageType::EndOfLine);
        self.canaries.extend(canary.filter(|_| name == Some(MessageType::Canary)));
        let first = Origin { message_id: id, record: 0, died_in, attempts };
        let others = self.jobs.len();
        for (record, payload) in (0..).zip(envelope::lines(&body)) {
            let origin = Origin { record, ..first.clone() };
            let payload = payload.to_vec();
            match decode(family, &payload) {
                // The same job published twice (a client's retry of an unconfirmed publish).
                Ok(envelope) if !self.seen.insert(envelope.id) => {}
                Ok(envelope) => self.jobs.push(Job { envelope, origin, payload }),
                Err(Undecodable { accepted, trace, request_id, reason }) => {
                    let reject = Reject { accepted, trace, request_id, reason, origin, payload };
                    self.rejects.push(reject);
                }
            }
        }
        let (before, message) = self.jobs.split_at_mut(others);
        order_for_runs(before.last().map(Job::kind), message, Job::kind);
        self.receipt = Some(receipt);
        self.is_full()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.jobs.len() + self.rejects.len() >= self.limit
    }

    /// The jobs among these that were not done, each with the code that says why.
    pub(crate) fn rejected<'a>(
        &'a self,
        settled: &'a [Settled],
    ) -> impl Iterator<Item = (&'a contract::Job, &'a str)> {
        let codes = settled.iter().filter_map(|ended| Some((ended.job_id, ended.code.as_deref()?)));
        let codes: HashMap<JobId, &str> = codes.collect();
        let jobs = self.jobs.iter().map(|job| &job.envelope);
        jobs.filter_map(move |job| Some((&job.job, *codes.get(&job.id)?)))
    }

    /// The jobs among these, of such kinds, that were done.
    pub(crate) fn done<'a>(
        &'a self,
        settled: &'a [Settled],
        is_asked_for: impl Fn(JobKind) -> bool,
    ) -> impl Iterator<Item = &'a contract::Job> {
        let done = settled.iter().filter(|ended| {
            ended.job_id.kind().is_some_and(&is_asked_for) && ended.status == Status::Succeeded
        });
        let done: HashSet<JobId> = done.map(|ended| ended.job_id).collect();
        let jobs = self.jobs.iter().map(|job| &job.envelope);
        jobs.filter(move |job| done.contains(&job.id)).map(|job| &job.job)
    }
}

#[expect(clippy::result_large_err, reason = "an envelope is larger still")]
fn decode(family: Option<Family>, record: &[u8]) -> Result<Envelope, Undecodable> {
    let envelope = Envelope::decode(record)?;
    match family {
        Some(family) if envelope.job.kind().family() != family => Err(Undecodable {
            accepted: Some((envelope.id, envelope.user_id)),
            trace: envelope.trace_parent(),
            request_id: envelope.request_id,
            reason: format!("not a job of the {} lines", family.as_str()),
        }),
        Some(_) | None => Ok(envelope),
    }
}

/// Puts the jobs of one message into an order that has few runs. They may be settled in any: none of them was accepted
/// before all of them stood in the line. Those of one kind stay as they stand.
fn order_for_runs<T>(last: Option<JobKind>, message: &mut [T], kind: impl Fn(&T) -> JobKind) {
    // First those that go on with the run before.
    message.sort_by_key(|job| (last != Some(kind(job)), kind(job)));
}

/// The jobs in runs of one kind, in order: a handler takes jobs of its kind only, and none may overtake another.
pub(crate) fn runs<'a, T>(
    jobs: &'a [T],
    kind: impl Fn(&T) -> JobKind + Copy + 'a,
) -> impl Iterator<Item = (JobKind, &'a [T])> {
    let runs = jobs.chunk_by(move |one, next| kind(one) == kind(next));
    runs.filter_map(move |run| Some((kind(run.first()?), run)))
}

/// The jobs in pieces, in order: as much in each as one transaction may hold, by its runs.
pub(crate) fn pieces<'a, T>(
    jobs: &'a [T],
    kind: impl Fn(&T) -> JobKind + Copy + 'a,
) -> Vec<&'a [T]> {
    let (mut pieces, mut rest) = (Vec::new(), jobs);
    while !rest.is_empty() {
        let jobs: usize = runs(rest, kind).take(MAX_RUNS).map(|(_, run)| run.len()).sum();
        let (piece, later) = rest.split_at(jobs);
        pieces.push(piece);
        rest = later;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_as_large_as_they_may_be(kinds in prop::collection::vec(prop::sample::select(&JobKind::ALL), 0..1_000)) {
            let jobs: Vec<(usize, JobKind)> = kinds.into_iter().enumerate().collect();
            let pieces = pieces(&jobs, |job| job.1);
            prop_assert_eq!(pieces.concat(), jobs.clone());
            let runs_in: Vec<usize> = pieces.iter().map(|piece| runs(piece, |job| job.1).count()).collect();
            let (last, full) = runs_in.split_last().map_or((1, &[][..]), |(last, full)| (*last, full));
            prop_assert!((1..=MAX_RUNS).contains(&last), "{:?}", runs_in);
            prop_assert!(full.iter().all(|runs| *runs == MAX_RUNS), "{:?}", runs_in);
        }

        #[test]
        fn runs_are_of_one_kind_and_in_order(kinds in prop::collection::vec(prop::sample::select(&JobKind::ALL), 0..40)) {
            let jobs: Vec<(usize, JobKind)> = kinds.into_iter().enumerate().collect();
            let all: Vec<_> = runs(&jobs, |job| job.1).collect();
            prop_assert_eq!(all.iter().flat_map(|(_, run)| *run).copied().collect::<Vec<_>>(), jobs.clone());
            prop_assert!(all.iter().all(|(kind, run)| run.iter().all(|job| job.1 == *kind)));
            prop_assert!(all.windows(2).all(|pair| pair[0].0 != pair[1].0), "a run per change of kind");
        }

        #[test]
        fn messages_of_two_kinds_have_a_run_each_and_one_more(
            messages in prop::collection::vec(
                prop::collection::vec(prop::sample::select(&[JobKind::PlaceOrder, JobKind::CancelOrder]), 1..20),
                0..8,
            ),
        ) {
            let mut line: Vec<(usize, JobKind)> = Vec::new();
            for kinds in &messages {
                let mut message: Vec<(usize, JobKind)> = (0..).zip(kinds.iter().copied()).collect();
                let before = message.clone();
                order_for_runs(line.last().map(|job| job.1), &mut message, |job| job.1);
                for kind in JobKind::ALL {
                    let of_kind = |jobs: &[(usize, JobKind)]| jobs.iter().filter(|job| job.1 == kind).copied().collect::<Vec<_>>();
                    prop_assert_eq!(of_kind(&message), of_kind(&before));
                }
                line.append(&mut message);
            }
            prop_assert!(runs(&line, |job| job.1).count() <= messages.len() + 1);
        }
    }
}
