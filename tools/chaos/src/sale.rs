//! The sale that goes on all the time: what is sold, and what the clients know of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use chrono::{TimeDelta, Utc};
use firstcome_check::history::{Request, What};
use firstcome_rig::{
    answers,
    http::{Answer, Client, NoAnswer, call_with},
    settings::Settings,
};
use http::{HeaderValue, Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{notes::Notes, wire};

/// Who buys.
pub(crate) const USERS: i64 = 400;
/// Coupons of a campaign: fewer than those who want one.
pub(crate) const TOTAL: i64 = 150;
/// Units of a product at the start; operators add some.
const STOCK: i64 = 80;
/// How many campaigns are asked for at a time.
const OPEN_AT_ONCE: usize = 3;
/// How long a client waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Products: their prices, one of which few can pay often, and how many a customer may have.
const PRODUCTS: [(i64, Option<i64>); 5] =
    [(100, None), (250, None), (260_000, None), (1_500, Some(2)), (40, Some(4))];

/// What a job is contended for: jobs of one subject stand in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Coupon(i64),
    /// Its only one, or the first of several.
    Product(i64),
    /// That of the order.
    Cancelled,
}

impl Subject {
    fn of(request: &Request) -> Self {
        match request {
            Request::IssueCoupon { coupon } => Self::Coupon(*coupon),
            Request::PlaceOrder { items, .. } => {
                Self::Product(items.iter().map(|item| item.product).min().unwrap_or_default())
            }
            // Of these only the first is a job.
            Request::CancelOrder { .. }
            | Request::Charge { .. }
            | Request::AddStock { .. }
            | Request::SetTotal { .. } => Self::Cancelled,
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Coupon(id) => write!(f, "coupon {id}"),
            Self::Product(id) => write!(f, "product {id}"),
            Self::Cancelled => f.write_str("cancellations"),
        }
    }
}

/// A job that was accepted and has not been told to be settled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) operation: u64,
    pub(crate) user: i64,
    pub(crate) subject: Subject,
    pub(crate) since: Instant,
    /// When it is polled next.
    pub(crate) next: Instant,
}

/// What the campaign asks for itself, to see whether everything works: there is enough of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probes {
    pub(crate) coupon: i64,
    pub(crate) product: i64,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Sale {
    pub(crate) settings: Settings,
    pub(crate) log: Notes,
    /// The campaigns, of which the next ones are asked for as the sale goes on.
    pub(crate) coupons: Vec<i64>,
    pub(crate) products: Vec<i64>,
    pub(crate) probes: Probes,
    bearers: Vec<HeaderValue>,
    pub(crate) admin: HeaderValue,
    open: Mutex<HashMap<Uuid, Open>>,
    /// Orders that were placed: user and id.
    placed: Mutex<Vec<(i64, i64)>>,
    drop: AtomicUsize,
    answered: AtomicU64,
    unanswered: AtomicU64,
    settled: Mutex<BTreeMap<Subject, u64>>,
    silence: Mutex<Silence>,
}

/// How long no job was accepted.
#[derive(Debug)]
struct Silence {
    since: Instant,
    longest: Duration,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It was accepted, or done.
    Accepted,
    /// No, or not now.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Sale {
    /// Makes products and so many campaigns.
    ///
    /// # Errors
    /// What the API answered instead.
    pub(crate) async fn prepare(
        settings: &Settings,
        log: Notes,
        campaigns: usize,
    ) -> anyhow::Result<Self> {
        let admin = settings.bearer(1, true)?;
        let create = async |path, what: Value| {
            let mut client = Client::new(settings.api_for_clients(), PATIENCE);
            let call = call_with(Method::POST, Uri::from_static(path), Some(&admin), &what);
            let answer = client.send(call).await?;
            let text = String::from_utf8_lossy(&answer.body);
            ensure!(answer.status == StatusCode::CREATED, "{path}: {} {text}", answer.status);
            let created: Value = serde_json::from_slice(&answer.body)?;
            let id = created.get("id").and_then(Value::as_i64);
            id.with_context(|| format!("{path}: no id in {text}"))
        };
        let (mut coupons, mut products) = (Vec::new(), Vec::new());
        let now = Utc::now();
        let drop = |total: i64| {
            json!({
                "name": "A drop", "discountType": "percent", "discountValue": 10, "total": total,
                "startsAt": now - TimeDelta::minutes(1), "endsAt": now + TimeDelta::days(2),
            })
        };
        for _ in 0..campaigns.max(OPEN_AT_ONCE) {
            coupons.push(create("/api/admin/coupons", drop(TOTAL)).await?);
        }
        let probe_coupon = create("/api/admin/coupons", drop(USERS)).await?;
        for (price, limit) in PRODUCTS {
            let product =
                json!({"name": "A product", "price": price, "stock": STOCK, "perCustomer": limit});
            products.push(create("/api/admin/products", product).await?);
        }
        let probe = json!({"name": "A probe", "price": 1, "stock": 1_000_000});
        let probes =
            Probes { coupon: probe_coupon, product: create("/api/admin/products", probe).await? };
        let bearers =
            (1..=USERS).map(|user| settings.bearer(user, false)).collect::<Result<_, _>>()?;
        Ok(Self {
            settings: settings.clone(),
            log,
            coupons,
            products,
            probes,
            bearers,
            admin,
            open: Mutex::default(),
            placed: Mutex::default(),
            drop: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            settled: Mutex::default(),
            silence: Mutex::new(Silence { since: Instant::now(), longest: Duration::ZERO }),
        })
    }

    /// Opens the next campaign.
    pub(crate) fn next_drop(&self) {
        self.drop.fetch_add(1, Ordering::Relaxed);
    }

    /// The campaigns that are asked for now.
    pub(crate) fn current(&self) -> &[i64] {
        let last = self.coupons.len().saturating_sub(OPEN_AT_ONCE);
        let first = self.drop.load(Ordering::Relaxed).min(last);
        self.coupons.get(first..first + OPEN_AT_ONCE).unwrap_or(&self.coupons)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.settings.api_for_clients(), PATIENCE)
    }

    pub(crate) fn bearer(&self, user: i64) -> Option<&HeaderValue> {
        self.bearers.get(usize::try_from(user).ok()?.checked_sub(1)?)
    }

    /// Sends a request that has an effect, and notes what was asked for and what was answered.
    pub(crate) async fn ask(
        &self,
        client: &mut Client,
        user: i64,
        request: Request,
        key: Option<String>,
    ) -> anyhow::Result<Reply> {
        let subject = Subject::of(&request);
        let token = match request {
            Request::AddStock { .. } | Request::SetTotal { .. } => Some(&self.admin),
            Request::IssueCoupon { .. }
            | Request::PlaceOrder { .. }
            | Request::CancelOrder { .. }
            | Request::Charge { .. } => self.bearer(user),
        };
        let token = token.with_context(|| format!("user {user} is none of ours"))?;
        let call = wire::call_of(&request, token, key.as_deref())?;
        let operation = self.log.invoke(user, request, key);
        let answer = client.send(call).await;
        let (what, reply) = told(answer);
        let counter = match reply {
            Reply::Accepted | Reply::Refused => &self.answered,
            Reply::Unknown => &self.unanswered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        // Noted first: nobody must hear of its outcome before.
        let job = if let What::Ok { job } = &what { *job } else { None };
        self.log.note(operation, what);
        if let Some(job) = job {
            let now = Instant::now();
            drop(self.break_silence());
            self.open().insert(job, Open { operation, user, subject, since: now, next: now });
        }
        Ok(reply)
    }

    /// How many requests were answered, and how many were not.
    pub(crate) fn requests(&self) -> (u64, u64) {
        (self.answered.load(Ordering::Relaxed), self.unanswered.load(Ordering::Relaxed))
    }

    fn break_silence(&self) -> MutexGuard<'_, Silence> {
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        silence.longest = silence.longest.max(silence.since.elapsed());
        silence.since = Instant::now();
        silence
    }

    /// For how long no job was accepted, at the longest, since this was asked last.
    pub(crate) fn downtime(&self) -> Duration {
        std::mem::take(&mut self.break_silence().longest)
    }

    /// How many jobs of a subject wait, and how many were settled.
    pub(crate) fn progress(&self) -> BTreeMap<Subject, (u64, u64)> {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut progress: BTreeMap<Subject, (u64, u64)> =
            settled.into_iter().map(|(subject, settled)| (subject, (0, settled))).collect();
        for open in self.open().values() {
            progress.entry(open.subject).or_default().0 += 1;
        }
        progress
    }

    /// This job is settled.
    pub(crate) fn settled(&self, job: Uuid) {
        let open = self.open().remove(&job);
        if let Some(Open { subject, .. }) = open {
            let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
            *settled.entry(subject).or_default() += 1;
        }
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, HashMap<Uuid, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many jobs were accepted before this instant and are not settled.
    pub(crate) fn open_since(&self, before: Instant) -> usize {
        self.open().values().filter(|open| open.since <= before).count()
    }

    /// Notes an order that can be cancelled.
    pub(crate) fn placed(&self, user: i64, order: i64) {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner).push((user, order));
    }

    /// One of the orders that were placed; it stays, so that some are cancelled twice.
    pub(crate) fn some_order(&self, random: &mut fastrand::Rng) -> Option<(i64, i64)> {
        let placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        // The last ones, most of which are not cancelled yet.
        let last = placed.get(placed.len().saturating_sub(50)..)?;
        random.choice(last).copied()
    }
}

/// What an answer says. A 503 may stand for a job that was stored and not confirmed.
fn told(answer: Result<Answer, NoAnswer>) -> (What, Reply) {
    let unknown = |why: String| (What::Unknown { why }, Reply::Unknown);
    match answer {
        Ok(answer) if answer.status.is_success() => {
            (What::Ok { job: answers::job_of(&answer) }, Reply::Accepted)
        }
        Ok(answer) => match answers::describe(&answer) {
            (status, code) if status.is_client_error() => {
                (What::Rejected { status: status.as_u16(), code }, Reply::Refused)
            }
            (status, code) => unknown(format!("{} {}", status.as_u16(), code.unwrap_or_default())),
        },
        Err(error) => unknown(error.to_string()),
    }
}
