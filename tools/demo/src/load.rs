//! The load of a sale: customers click, some of them twice, and whoever got a 202 asks for
//! the outcome.
//!
//! Clicking and asking happen at the same time but on connections of their own, as with real
//! customers: who waits for an outcome keeps nobody from clicking.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use firstcome_rig::{
    answers::{
        Accepted, IDEMPOTENCY_KEY, Poll, SettledJob, describe, job_of, poll_once, read_poll,
    },
    http::{Answer, Call, Client, NoAnswer},
    latencies::Latencies,
};
use http::{
    StatusCode,
    header::{AUTHORIZATION, HeaderValue},
};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};

/// How long a click may take.
const CLICK_DEADLINE: Duration = Duration::from_secs(10);
/// How long a poll may take: longer than the server holds it.
const POLL_DEADLINE: Duration = Duration::from_secs(15);
/// How often a click is repeated after a 503, or, where a key makes that safe, after no answer.
const MOST_RETRIES: u32 = 20;
/// The longest that a 503's `Retry-After` is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3);
/// Pause before a request is repeated after a lost connection.
const PAUSE: Duration = Duration::from_millis(200);

/// A signed-in user.
#[derive(Debug, Clone)]
pub(crate) struct Customer {
    pub(crate) user: i64,
    /// The value of the `Authorization` header.
    pub(crate) bearer: HeaderValue,
}

/// One request for a job.
#[derive(Debug, Clone)]
pub(crate) struct Click {
    /// The index of the customer who sends it.
    pub(crate) customer: usize,
    /// What it asks for: two clicks that share a key have one intent.
    pub(crate) intent: usize,
    /// The request. If it has an `Idempotency-Key`, it is repeated when there is no answer.
    pub(crate) call: Arc<Call>,
}

/// Everything that happened, as the customers saw it.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Clicks that have come to an end, one way or another.
    pub(crate) clicks: usize,
    /// Requests that were answered with 202.
    pub(crate) accepted: Vec<Accepted>,
    /// 409 `coupon-sold-out`: when, counted from the opening.
    pub(crate) turned_away: Vec<Duration>,
    /// Settled jobs, as polled.
    pub(crate) settled: Vec<SettledJob>,
    /// From click to 202, repeated clicks included.
    pub(crate) click_latency: Latencies,
    /// Clicks repeated after a 503, or after no answer.
    pub(crate) retries: usize,
    /// Polls repeated after a 503.
    pub(crate) poll_retries: usize,
    /// Polls repeated after a lost connection.
    pub(crate) polls_lost: usize,
    /// Clicks that ended with a 503 all the same.
    pub(crate) refused: usize,
    /// Clicks without an answer, by the reason.
    pub(crate) lost: BTreeMap<String, usize>,
    /// Answers that should not be, by what they were.
    pub(crate) unexpected: BTreeMap<String, usize>,
}

/// The load of one sale, under way.
#[derive(Debug)]
pub(crate) struct Load {
    customers: Arc<[Customer]>,
    /// In the order in which they are sent.
    clicks: Vec<Click>,
    next: AtomicUsize,
    opened: Instant,
    /// Connections for clicking; there are as many for polling.
    pub(crate) connections: usize,
    /// When the first request was sent.
    pub(crate) opened_at: DateTime<Utc>,
    record: Mutex<Record>,
}

impl Load {
    /// Opens `connections` connections for clicking and as many for polling, then the sale. The
    /// tasks end when every click is answered and every job settled; dropping them ends them.
    ///
    /// # Errors
    /// If not all connections can be opened.
    pub(crate) async fn open(
        address: SocketAddr,
        customers: Arc<[Customer]>,
        clicks: Vec<Click>,
        connections: usize,
    ) -> anyhow::Result<(Arc<Self>, JoinSet<()>)> {
        let connections = connections.min(clicks.len()).max(1);
        let mut clients = Vec::with_capacity(connections);
        for _ in 0..connections {
            let (mut clicking, mut polling) =
                (Client::new(address, CLICK_DEADLINE), Client::new(address, POLL_DEADLINE));
            for client in [&mut clicking, &mut polling] {
                client.connect().await.with_context(|| {
                    format!(
                        "cannot open {} connections (see `ulimit -n`, or use fewer: --connections)",
                        2 * connections
                    )
                })?;
            }
            clients.push((clicking, polling));
        }

        let load = Arc::new(Self {
            customers,
            clicks,
            next: AtomicUsize::new(0),
            opened: Instant::now(),
            connections,
            opened_at: Utc::now(),
            record: Mutex::default(),
        });
        let (jobs, accepted) = mpsc::unbounded_channel();
        let accepted = Arc::new(AsyncMutex::new(accepted));
        let mut tasks = JoinSet::new();
        for (clicking, polling) in clients {
            tasks.spawn(Arc::clone(&load).click(clicking, jobs.clone()));
            tasks.spawn(Arc::clone(&load).poll(polling, Arc::clone(&accepted)));
        }
        Ok((load, tasks))
    }

    /// How many clicks there will be in all.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.clicks.len()
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        // Nothing panics while holding it; if it did, the figures are still figures.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clicks for one customer after the other.
    async fn click(
        self: Arc<Self>,
        mut client: Client,
        jobs: mpsc::UnboundedSender<(Accepted, HeaderValue)>,
    ) {
        while let Some((click, customer)) = self.next_click() {
            let clicked = Instant::now();
            let answer = self.click_until_answered(&mut client, click, customer).await;
            let mut record = self.record();
            record.clicks += 1;
            match answer {
                Ok(answer) if answer.status == StatusCode::ACCEPTED => match job_of(&answer) {
                    Some(job) => {
                        record.click_latency.record(clicked.elapsed());
                        let accepted = Accepted {
                            intent: click.intent,
                            job,
                            user: customer.user,
                            at: self.opened.elapsed(),
                        };
                        record.accepted.push(accepted);
                        // The other end lives as long as the pollers.
                        let _ = jobs.send((accepted, customer.bearer.clone()));
                    }
                    None => record.unexpected("202 without a job in its Location".to_owned()),
                },
                Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                    record.refused += 1
                }
                Ok(answer) => match describe(&answer) {
                    (StatusCode::CONFLICT, Some(code)) if code == "coupon-sold-out" => {
                        record.turned_away.push(self.opened.elapsed());
                    }
                    (status, code) => record
                        .unexpected(format!("{status} {} to a click", code.unwrap_or_default())),
                },
                Err(NoAnswer(reason)) => *record.lost.entry(reason).or_default() += 1,
            }
        }
    }

    fn next_click(&self) -> Option<(&Click, &Customer)> {
        let click = self.clicks.get(self.next.fetch_add(1, Ordering::Relaxed))?;
        Some((click, self.customers.get(click.customer)?))
    }

    async fn click_until_answered(
        &self,
        client: &mut Client,
        click: &Click,
        customer: &Customer,
    ) -> Result<Answer, NoAnswer> {
        let mut call = Call::clone(&click.call);
        call.headers_mut().insert(AUTHORIZATION, customer.bearer.clone());
        let repeatable = call.headers().contains_key(IDEMPOTENCY_KEY);
        let mut retries = 0;
        loop {
            let answer = client.send(call.clone()).await;
            let pause = match &answer {
                Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                    answer.retry_after(LONGEST_RETRY_AFTER)
                }
                Err(_) if repeatable => PAUSE,
                Ok(_) | Err(_) => return answer,
            };
            if retries == MOST_RETRIES {
                return answer;
            }
            retries += 1;
            self.record().retries += 1;
            sleep(pause).await;
        }
    }

    /// Asks for one job after the other, each until it is settled.
    async fn poll(
        self: Arc<Self>,
        mut client: Client,
        jobs: Arc<AsyncMutex<mpsc::UnboundedReceiver<(Accepted, HeaderValue)>>>,
    ) {
        loop {
            let next = jobs.lock().await.recv().await;
            let Some((accepted, bearer)) = next else { return };
            loop {
                let answer = match poll_once(&mut client, accepted.job, &bearer).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        self.record().polls_lost += 1;
                        sleep(PAUSE).await;
                        continue;
                    }
                };
                match read_poll(&accepted, &answer) {
                    Poll::Settled(job) => self.record().settled.push(job),
                    Poll::Queued => continue,
                    Poll::Unavailable => {
                        self.record().poll_retries += 1;
                        sleep(answer.retry_after(LONGEST_RETRY_AFTER)).await;
                        continue;
                    }
                    Poll::Unexpected(what) => self.record().unexpected(what),
                }
                break;
            }
        }
    }
}

impl Record {
    /// The orders that customers were told of as completed.
    #[must_use]
    pub(crate) fn orders(&self) -> HashSet<i64> {
        let orders = self.settled.iter().filter_map(|told| told.outcome.order());
        orders.map(|order| order.order_id.get()).collect()
    }

    /// Those that they were told of as cancelled.
    #[must_use]
    pub(crate) fn cancelled(&self) -> HashSet<i64> {
        let orders = self.settled.iter().filter_map(|told| told.outcome.cancelled());
        orders.map(|order| order.order_id.get()).collect()
    }

    /// When the last job was settled.
    #[must_use]
    pub(crate) fn last_settled(&self) -> Option<DateTime<Utc>> {
        self.settled.iter().map(|told| told.outcome.settled_at).max()
    }

    fn unexpected(&mut self, what: String) {
        *self.unexpected.entry(what).or_default() += 1;
    }
}
