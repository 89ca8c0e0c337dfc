//! What the clients of a sale did and were told, in a file of JSON lines; written as it happens, read afterwards.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use chrono::{DateTime, Utc};
pub use firstcome_rig::answers::Outcome;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened: what was sent, just before; what came, just after.
    pub at: DateTime<Utc>,
    /// Of which operation; 0 of none.
    pub operation: u64,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A request is sent. A repetition, with the same key, is an operation of its own.
    Invoke {
        /// The user that asks; of edits, the operator.
        user: i64,
        /// What is asked for.
        request: Request,
        /// The `Idempotency-Key`.
        key: Option<String>,
    },
    /// The request was accepted (202, with the job), or done.
    Ok {
        /// None of what is done at once.
        job: Option<Uuid>,
    },
    /// The answer was a "no" before anything happened. A 503 is one that may have happened all the same.
    Rejected {
        /// The status of the answer.
        status: u16,
        /// The problem's code.
        code: Option<String>,
    },
    /// There was no answer, or none that says whether it happened.
    Unknown {
        /// For people.
        why: String,
    },
    /// An answer told of a job.
    Poll {
        /// The job that was asked for.
        job: Uuid,
        /// When it was asked: an answer that is told later may be older.
        asked: DateTime<Utc>,
        /// What was told. What tells nothing (503, no answer) is not noted.
        state: State,
    },
    /// A fault begins or ends, or a halt; those of one name do not overlap.
    Fault {
        /// What is broken.
        name: String,
        /// Which end of it.
        edge: Edge,
    },
    /// A line was emptied on purpose: jobs that wait in it are lost.
    Purged,
    /// How long a line was at this moment.
    Look {
        /// The line; none where all of them are looked at as one.
        line: Option<String>,
        /// How many accepted jobs wait.
        waiting: u64,
        /// How many were settled so far.
        settled: u64,
    },
}

/// Which end of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edge {
    /// From now on.
    Begins,
    /// Up to now.
    Ends,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// A coupon of a campaign.
    IssueCoupon {
        /// The campaign.
        coupon: i64,
    },
    /// An order.
    PlaceOrder {
        /// The items as they were sent.
        items: Vec<Item>,
        /// The campaign whose coupon is to be used.
        coupon: Option<i64>,
        /// Whether short items are to be dropped.
        partial: bool,
    },
    /// That an order is undone, by its customer or an operator.
    CancelOrder {
        /// The order.
        order: i64,
    },
    /// Money for the user's balance.
    Charge {
        /// How much.
        amount: i64,
    },
    /// More or less of a product, by an operator.
    AddStock {
        /// The product.
        product: i64,
        /// What is added to its stock.
        delta: i64,
    },
    /// Another total of a campaign, by an operator.
    SetTotal {
        /// The campaign.
        coupon: i64,
        /// How many there are from then on.
        total: i64,
    },
}

impl Request {
    /// What it is called; of what makes a job, the kind of the job.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::IssueCoupon { .. } => "issue-coupon",
            Self::PlaceOrder { .. } => "place-order",
            Self::CancelOrder { .. } => "cancel-order",
            Self::Charge { .. } => "charge",
            Self::AddStock { .. } => "add-stock",
            Self::SetTotal { .. } => "set-total",
        }
    }
}

/// A product of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Item {
    /// The product.
    pub product: i64,
    /// How many.
    pub quantity: i64,
}

/// What was told of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It waits.
    Queued {
        /// Behind how many, if that was told.
        position: Option<u64>,
    },
    /// It is decided.
    Settled(Outcome),
    /// There is no such job, it is said.
    Missing {
        /// The status of the answer.
        status: u16,
    },
}

/// Writes a history; shared by all who take part.
#[derive(Debug)]
pub struct Log {
    file: Mutex<BufWriter<File>>,
    operations: AtomicU64,
}

impl Log {
    /// Begins a file; one that is there is replaced.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = Mutex::new(BufWriter::new(File::create(path)?));
        Ok(Self { file, operations: AtomicU64::new(0) })
    }

    /// Notes a request that is about to be sent: the operation's number.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn invoke(&self, user: i64, request: Request, key: Option<String>) -> io::Result<u64> {
        let operation = self.operations.fetch_add(1, Ordering::Relaxed) + 1;
        self.note(operation, What::Invoke { user, request, key })?;
        Ok(operation)
    }

    /// Notes what happened just now.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn note(&self, operation: u64, what: What) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Event { at: Utc::now(), operation, what })?;
        line.push(b'\n');
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }

    /// Writes out what is still in memory.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn flush(&self) -> io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// See [`What::Ok`].
    Ok(Option<Uuid>),
    /// See [`What::Rejected`].
    Rejected(u16, Option<String>),
    /// See [`What::Unknown`]; also where the history ends before it does.
    Unknown,
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its number.
    pub id: u64,
    /// See [`What::Invoke`].
    pub user: i64,
    /// See [`What::Invoke`].
    pub request: Request,
    /// See [`What::Invoke`].
    pub key: Option<String>,
    /// When it was sent.
    pub invoked: DateTime<Utc>,
    /// How it ended.
    pub end: End,
    /// When that was told.
    pub ended: DateTime<Utc>,
}

impl Operation {
    /// The job that was accepted.
    #[must_use]
    pub fn job(&self) -> Option<Uuid> {
        if let End::Ok(job) = self.end { job } else { None }
    }

    /// Whether it may have happened without anybody being told.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.end, End::Unknown | End::Rejected(503, _))
    }

    /// Whether it happened or may have.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        matches!(self.end, End::Ok(_)) || self.is_in_doubt()
    }
}

/// What a poll told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// When it was asked.
    pub asked: DateTime<Utc>,
    /// When it was answered.
    pub at: DateTime<Utc>,
    /// What was told.
    pub state: State,
}

/// How long a line was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub at: DateTime<Utc>,
    /// See [`What::Look`].
    pub waiting: u64,
    /// See [`What::Look`].
    pub settled: u64,
}

/// A history, put in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// By number, which is nearly by time.
    pub operations: BTreeMap<u64, Operation>,
    /// What was told of each job, in the order of the answers.
    pub polls: BTreeMap<Uuid, Vec<Told>>,
    /// From when to when; to the end of time where no end was noted.
    pub faults: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    /// When a line was emptied.
    pub purged: Vec<DateTime<Utc>>,
    /// By line, in order.
    pub looks: BTreeMap<Option<String>, Vec<Look>>,
}

impl History {
    /// Reads a file that a [`Log`] wrote.
    ///
    /// # Errors
    /// Which line is none, and why.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("no history at {}", path.display()))?;
        let mut events = Vec::new();
        for (line, number) in BufReader::new(file).lines().zip(1..) {
            let event =
                line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str(&line)?));
            events.push(event.with_context(|| format!("line {number} of {}", path.display()))?);
        }
        Self::new(events)
    }

    /// Puts events in order.
    ///
    /// # Errors
    /// An operation that ends without a beginning, or begins or ends twice.
    pub fn new(mut events: Vec<Event>) -> anyhow::Result<Self> {
        events.sort_by_key(|event| event.at);
        let mut history = Self::default();
        let mut begun: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
        let mut ended = std::collections::BTreeSet::new();
        for Event { at, operation: id, what } in events {
            let end = match what {
                What::Invoke { user, request, key } => {
                    let end = End::Unknown;
                    let operation =
                        Operation { id, user, request, key, invoked: at, end, ended: at };
                    let other = history.operations.insert(id, operation);
                    anyhow::ensure!(other.is_none(), "operation {id} begins twice");
                    continue;
                }
                What::Poll { job, asked, state } => {
                    history.polls.entry(job).or_default().push(Told { asked, at, state });
                    continue;
                }
                What::Fault { name, edge: Edge::Begins } => {
                    let other = begun.insert(name.clone(), at);
                    anyhow::ensure!(other.is_none(), "fault {name} begins twice");
                    continue;
                }
                What::Fault { name, edge: Edge::Ends } => {
                    let from = begun.remove(&name);
                    let from =
                        from.with_context(|| format!("fault {name} ends without a beginning"))?;
                    history.faults.push((from, at));
                    continue;
                }
                What::Purged => {
                    history.purged.push(at);
                    continue;
                }
                What::Look { line, waiting, settled } => {
                    history.looks.entry(line).or_default().push(Look { at, waiting, settled });
                    continue;
                }
                What::Ok { job } => End::Ok(job),
                What::Rejected { status, code } => End::Rejected(status, code),
                What::Unknown { .. } => End::Unknown,
            };
            let operation = history.operations.get_mut(&id);
            let operation =
                operation.with_context(|| format!("operation {id} ends without a beginning"))?;
            anyhow::ensure!(ended.insert(id), "operation {id} ends twice");
            (operation.end, operation.ended) = (end, at);
        }
        history.faults.extend(begun.into_values().map(|from| (from, DateTime::<Utc>::MAX_UTC)));
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let path = std::env::temp_dir().join(format!("firstcome-check-{}", Uuid::new_v4()));
        let log = Log::create(&path).unwrap();
        let items = vec![Item { product: 1, quantity: 2 }];
        let order = Request::PlaceOrder { items, coupon: None, partial: true };
        let first = log.invoke(1, order.clone(), Some("key".to_owned())).unwrap();
        let second = log.invoke(2, Request::Charge { amount: 5 }, None).unwrap();
        let job = Uuid::new_v4();
        log.note(first, What::Ok { job: Some(job) }).unwrap();
        let state = State::Queued { position: Some(3) };
        log.note(0, What::Poll { job, asked: Utc::now(), state }).unwrap();
        log.note(0, What::Fault { name: "redis".to_owned(), edge: Edge::Begins }).unwrap();
        log.note(0, What::Look { line: None, waiting: 1, settled: 0 }).unwrap();
        log.flush().unwrap();
        let history = History::read(&path).unwrap();
        assert_eq!(history.operations[&first].request, order);
        assert_eq!(history.operations[&first].job(), Some(job));
        // Nobody said how it ended.
        assert!(history.operations[&second].is_in_doubt());
        assert_eq!(history.polls[&job].len(), 1);
        assert_eq!(history.faults[0].1, DateTime::<Utc>::MAX_UTC);
        assert_eq!(history.looks[&None].len(), 1);
        std::fs::write(&path, "{}\n").unwrap();
        let error = History::read(&path).unwrap_err();
        assert!(format!("{error:#}").starts_with("line 1 of "), "{error:#}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_end_without_a_beginning_is_no_history() {
        let event = |what| Event { at: Utc::now(), operation: 1, what };
        let ok = || event(What::Ok { job: None });
        let invoke = || {
            let request = Request::Charge { amount: 1 };
            event(What::Invoke { user: 1, request, key: None })
        };
        for events in [vec![ok()], vec![invoke(), invoke()], vec![invoke(), ok(), ok()]] {
            History::new(events).unwrap_err();
        }
        History::new(vec![invoke(), ok()]).unwrap();
    }
}
