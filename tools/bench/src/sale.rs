//! A sale as its customers see it: they click, some of them twice, and whoever got a 202 asks for
//! the outcome.
//!
//! Clicking and asking happen at the same time but on connections of their own, as with real
//! customers: who waits for an outcome keeps nobody from clicking.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use http::{
    StatusCode,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    answers::{Accepted, Poll, Told, describe, job_of, poll_once, settled},
    load::{Answer, Call, Client, Latencies, NoAnswer},
};

/// Makes a click safe to repeat.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
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
pub struct Customer {
    /// The user's id.
    pub user: i64,
    /// The value of the `Authorization` header.
    pub bearer: HeaderValue,
}

/// One request for a job.
#[derive(Debug, Clone)]
pub struct Click {
    /// The index of the customer who sends it.
    pub customer: usize,
    /// What it asks for: two clicks that share a key ask for one thing.
    pub wish: usize,
    /// The request. If it has an `Idempotency-Key`, it is repeated when there is no answer.
    pub call: Arc<Call>,
}

/// Everything that happened, as the customers saw it.
#[derive(Debug, Default)]
pub struct Record {
    /// Clicks that have come to an end, one way or another.
    pub clicks: usize,
    /// 202s.
    pub accepted: Vec<Accepted>,
    /// 409 `coupon-sold-out`: when, counted from the opening.
    pub turned_away: Vec<Duration>,
    /// Settled jobs, as polled.
    pub told: Vec<Told>,
    /// From click to 202, repeated clicks included.
    pub click_latency: Latencies,
    /// Clicks repeated after a 503, or after no answer.
    pub retries: usize,
    /// Polls repeated after a 503.
    pub poll_retries: usize,
    /// Polls repeated after a lost connection.
    pub polls_lost: usize,
    /// Clicks that ended with a 503 all the same.
    pub refused: usize,
    /// Clicks without an answer, by the reason.
    pub lost: BTreeMap<String, usize>,
    /// Answers that should not be, by what they were.
    pub unexpected: BTreeMap<String, usize>,
}

/// A sale under way.
#[derive(Debug)]
pub struct Sale {
    customers: Arc<[Customer]>,
    /// In the order in which they are sent.
    clicks: Vec<Click>,
    next: AtomicUsize,
    opened: Instant,
    /// Connections for clicking; there are as many for polling.
    pub connections: usize,
    /// When it opened.
    pub opened_at: DateTime<Utc>,
    record: Mutex<Record>,
}

impl Sale {
    /// Opens `connections` connections for clicking and as many for polling, then the sale. The
    /// tasks end when every click is answered and every job settled; dropping them ends them.
    ///
    /// # Errors
    /// If not all connections can be opened.
    pub async fn open(
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

        let sale = Arc::new(Self {
            customers,
            clicks,
            next: AtomicUsize::new(0),
            opened: Instant::now(),
            connections,
            opened_at: Utc::now(),
            record: Mutex::default(),
        });
        let (jobs, line) = mpsc::unbounded_channel();
        let line = Arc::new(AsyncMutex::new(line));
        let mut tasks = JoinSet::new();
        for (clicking, polling) in clients {
            tasks.spawn(Arc::clone(&sale).click(clicking, jobs.clone()));
            tasks.spawn(Arc::clone(&sale).poll(polling, Arc::clone(&line)));
        }
        Ok((sale, tasks))
    }

    /// How many clicks there will be in all.
    #[must_use]
    pub fn size(&self) -> usize {
        self.clicks.len()
    }

    /// What happened so far.
    pub fn record(&self) -> MutexGuard<'_, Record> {
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
                            wish: click.wish,
                            job,
                            user: customer.user,
                            at: self.opened.elapsed(),
                        };
                        record.accepted.push(accepted);
                        // The other end lives as long as the pollers.
                        let _ = jobs.send((accepted, customer.bearer.clone()));
                    }
                    None => record.surprise("202 without a job in its Location".to_owned()),
                },
                Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                    record.refused += 1
                }
                Ok(answer) => match describe(&answer) {
                    (StatusCode::CONFLICT, Some(code)) if code == "coupon-sold-out" => {
                        record.turned_away.push(self.opened.elapsed());
                    }
                    (status, code) => {
                        record.surprise(format!("{status} {} to a click", code.unwrap_or_default()))
                    }
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
                match settled(&accepted, &answer) {
                    Poll::Told(told) => self.record().told.push(told),
                    Poll::Queued => continue,
                    Poll::Again => {
                        self.record().poll_retries += 1;
                        sleep(answer.retry_after(LONGEST_RETRY_AFTER)).await;
                        continue;
                    }
                    Poll::Surprise(what) => self.record().surprise(what),
                }
                break;
            }
        }
    }
}

impl Record {
    fn surprise(&mut self, what: String) {
        *self.unexpected.entry(what).or_default() += 1;
    }
}
