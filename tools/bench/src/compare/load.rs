//! The load generator: as many requests as so many connections get answered (closed loop), or so many a
//! second whatever happens (open loop).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use firstcome_rig::{
    answers::{Accepted, Poll, job_of, poll_once, read_poll},
    http::{Answer, Call, Client},
    latencies::Latencies,
};
use http::{
    StatusCode,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

/// How long one answer may take: longer than any side lets a request wait.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause of a client that was told to come back.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// In an open loop, every how many jobs one is asked for: enough to tell, too few to be a load.
const SAMPLE: usize = 50;

/// The request with this number, and how many units it asks for; `None` when there are no more.
pub(super) type Requests = Arc<dyn Fn(usize) -> Option<(Call, i64)> + Send + Sync>;

/// A closed loop.
pub(super) struct ClosedLoop {
    /// The servers, which share the connections evenly.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) connections: usize,
    /// How long requests are sent; all of them are answered.
    pub(super) window: Duration,
    pub(super) requests: Requests,
    /// Every client waits for its job's outcome before it sends another request.
    pub(super) to_the_outcome: bool,
}

/// What a closed loop was answered.
#[derive(Debug)]
pub(super) struct Answered {
    /// Requests that were granted, or accepted.
    pub(super) granted: usize,
    /// What they asked for.
    pub(super) units: i64,
    /// Business "no"s.
    pub(super) denied: usize,
    /// 503s: the design gave up, or is full.
    pub(super) refused: usize,
    /// From the first request to the last answer.
    pub(super) took: Duration,
    pub(super) started: Instant,
    /// From the request to the answer, or to the outcome; not of those that were refused.
    pub(super) latencies: Latencies,
}

impl Answered {
    /// Requests that were granted ÷ the time until the last answer, whenever they are committed.
    pub(super) fn granted_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
        let granted = self.granted as f64;
        granted / self.took.as_secs_f64()
    }
}

#[derive(Default)]
struct Tally {
    granted: usize,
    took: Vec<Duration>,
    units: i64,
    denied: usize,
    refused: usize,
}

impl ClosedLoop {
    /// Opens the connections, sends, counts.
    pub(super) async fn run(&self) -> anyhow::Result<Answered> {
        let clients = clients(&self.addresses, self.connections).await?;
        let next = Arc::new(AtomicUsize::new(0));
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for client in clients {
            let requests = Arc::clone(&self.requests);
            tasks.spawn(send(
                client,
                requests,
                Arc::clone(&next),
                started + self.window,
                self.to_the_outcome,
            ));
        }
        let tallies = tasks.join_all().await;
        let took = started.elapsed();
        let mut answered = Answered {
            granted: 0,
            units: 0,
            denied: 0,
            refused: 0,
            took,
            started,
            latencies: Latencies::default(),
        };
        for tally in tallies {
            let tally = tally.context("an answer that should not be")?;
            answered.granted += tally.granted;
            answered.units += tally.units;
            answered.denied += tally.denied;
            answered.refused += tally.refused;
            tally.took.iter().for_each(|took| answered.latencies.record(*took));
        }
        Ok(answered)
    }
}

async fn send(
    mut client: Client,
    requests: Requests,
    next: Arc<AtomicUsize>,
    until: Instant,
    to_the_outcome: bool,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    loop {
        let sent = Instant::now();
        if sent >= until {
            return Ok(tally);
        }
        let Some((call, units)) = requests(next.fetch_add(1, Ordering::Relaxed)) else {
            return Ok(tally);
        };
        let bearer = call.headers().get(AUTHORIZATION).cloned();
        let answer = client.send(call).await?;
        match answer.status {
            StatusCode::ACCEPTED if to_the_outcome => {
                let (job, bearer) = job_of(&answer).zip(bearer).context("202 without a job")?;
                follow(&mut client, job, &bearer).await?;
            }
            StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => {}
            StatusCode::CONFLICT => {
                tally.denied += 1;
                tally.took.push(sent.elapsed());
                continue;
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                tally.refused += 1;
                // Of the API's, which says when to come back; a rival just gave up.
                if answer.headers.contains_key(RETRY_AFTER) {
                    sleep(PAUSE).await;
                }
                continue;
            }
            _ => bail!(described(&answer)),
        }
        tally.granted += 1;
        tally.took.push(sent.elapsed());
        tally.units += units;
    }
}

/// Waits for the outcome, which must be a success.
async fn follow(client: &mut Client, job: Uuid, bearer: &HeaderValue) -> anyhow::Result<()> {
    let accepted = Accepted { intent: 0, job, user: 0, at: Duration::ZERO };
    loop {
        match read_poll(&accepted, &poll_once(client, job, bearer).await?) {
            Poll::Settled(job) if job.outcome.result.is_some() => return Ok(()),
            Poll::Settled(job) => bail!("a job ended as {}", job.outcome.name()),
            Poll::Queued => {}
            Poll::Unavailable => sleep(PAUSE).await,
            Poll::Unexpected(what) => bail!(what),
        }
    }
}

/// An answer, for people.
pub(super) fn described(answer: &Answer) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
}

/// An open loop.
pub(super) struct OpenLoop {
    pub(super) address: SocketAddr,
    pub(super) connections: usize,
    pub(super) window: Duration,
    pub(super) requests: Requests,
    pub(super) per_second: f64,
}

/// What an open loop submitted.
pub(super) struct Submitted {
    /// Each job, and when its request was due.
    pub(super) jobs: Vec<(Uuid, DateTime<Utc>)>,
    /// Of one job in [`SAMPLE`]: from when it was due to its outcome in the client's hands.
    pub(super) polled: Latencies,
}

impl OpenLoop {
    /// Sends each request when it is due, or as soon as a connection is free. Who counts from when it
    /// was due leaves no waiting out (no coordinated omission).
    pub(super) async fn run(&self) -> anyhow::Result<Submitted> {
        let next = Arc::new(AtomicUsize::new(0));
        let clients = clients(&[self.address], self.connections).await?;
        let clock = (Instant::now(), Utc::now());
        let mut tasks = JoinSet::new();
        for client in clients {
            tasks.spawn(self.connection(client, Arc::clone(&next), clock));
        }
        let mut submitted = Submitted { jobs: Vec::new(), polled: Latencies::default() };
        while let Some(done) = tasks.join_next().await {
            let (jobs, polled) = done??;
            submitted.jobs.extend(jobs);
            polled.into_iter().for_each(|took| submitted.polled.record(took));
        }
        ensure!(!submitted.jobs.is_empty(), "no request was due");
        Ok(submitted)
    }

    /// What one connection sends.
    fn connection(
        &self,
        mut client: Client,
        next: Arc<AtomicUsize>,
        (started, started_at): (Instant, DateTime<Utc>),
    ) -> impl Future<Output = anyhow::Result<Share>> + use<> {
        let requests = Arc::clone(&self.requests);
        let (address, per_second, window) = (self.address, self.per_second, self.window);
        async move {
            let (mut jobs, mut polling, mut polled) = (Vec::new(), JoinSet::new(), Vec::new());
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
                let due = Duration::from_secs_f64(index as f64 / per_second);
                let Some((call, _)) = requests(index).filter(|_| due < window) else { break };
                let bearer = call.headers().get(AUTHORIZATION).cloned();
                sleep_until(started + due).await;
                let answer = client.send(call).await?;
                let job = job_of(&answer).filter(|_| answer.status == StatusCode::ACCEPTED);
                let job = job.with_context(|| described(&answer))?;
                jobs.push((job, started_at + TimeDelta::from_std(due)?));
                if let Some(bearer) = bearer.filter(|_| index.is_multiple_of(SAMPLE)) {
                    polling.spawn(async move {
                        let asked = follow(&mut Client::new(address, DEADLINE), job, &bearer).await;
                        asked.map(|()| started.elapsed() - due)
                    });
                }
            }
            while let Some(asked) = polling.join_next().await {
                polled.push(asked??);
            }
            Ok((jobs, polled))
        }
    }
}

type Share = (Vec<(Uuid, DateTime<Utc>)>, Vec<Duration>);

/// So many connections, which are open, to these in turn.
pub(super) async fn clients(
    addresses: &[SocketAddr],
    connections: usize,
) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(connections);
    for address in addresses.iter().cycle().take(connections) {
        let mut client = Client::new(*address, DEADLINE);
        client.connect().await.context("cannot open a connection")?;
        clients.push(client);
    }
    Ok(clients)
}
