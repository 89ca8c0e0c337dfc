//! The load: as many requests as so many connections get answered (closed loop), or so many a second
//! whatever happens (open loop).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use http::{StatusCode, header::AUTHORIZATION};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use crate::{
    answers::{Accepted, Poll, job_of, poll_once, settled},
    load::{Answer, Call, Client, Latencies},
};

/// How long one answer may take: longer than any side lets a request wait.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause of a client that was told to come back.
const PAUSE: Duration = Duration::from_millis(100);

/// In an open loop, every how many jobs one is asked for: enough to tell, too few to be a load.
const SAMPLE: usize = 50;

/// The request with this number, and how many units it asks for; `None` when there are no more.
pub(super) type Requests = Arc<dyn Fn(usize) -> Option<(Call, i64)> + Send + Sync>;

/// A closed loop.
pub(super) struct Storm {
    pub(super) address: SocketAddr,
    pub(super) connections: usize,
    /// How long requests are sent; all of them are answered.
    pub(super) window: Duration,
    pub(super) requests: Requests,
    /// Every client waits for its job's outcome before it sends another request.
    pub(super) to_the_outcome: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Harvest {
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

#[derive(Default)]
struct Tally {
    granted: usize,
    took: Vec<Duration>,
    units: i64,
    denied: usize,
    refused: usize,
    surprises: BTreeMap<String, usize>,
}

impl Storm {
    /// Opens the connections, sends, counts.
    pub(super) async fn rage(&self) -> anyhow::Result<Harvest> {
        let clients = clients(self.address, self.connections).await?;
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
        let mut harvest = Harvest {
            granted: 0,
            units: 0,
            denied: 0,
            refused: 0,
            took,
            started,
            latencies: Latencies::default(),
        };
        for tally in tallies {
            if let Some((what, _)) = tally.surprises.first_key_value() {
                bail!("an answer that should not be: {what}");
            }
            harvest.granted += tally.granted;
            harvest.units += tally.units;
            harvest.denied += tally.denied;
            harvest.refused += tally.refused;
            tally.took.iter().for_each(|took| harvest.latencies.record(*took));
        }
        Ok(harvest)
    }
}

async fn send(
    mut client: Client,
    requests: Requests,
    next: Arc<AtomicUsize>,
    until: Instant,
    to_the_outcome: bool,
) -> Tally {
    let mut tally = Tally::default();
    loop {
        let sent = Instant::now();
        if sent >= until {
            return tally;
        }
        let Some((call, units)) = requests(next.fetch_add(1, Ordering::Relaxed)) else {
            return tally;
        };
        let bearer = call.headers().get(AUTHORIZATION).cloned();
        let answer = client.send(call).await;
        let surprise = match answer {
            Ok(answer) => match answer.status {
                StatusCode::ACCEPTED if to_the_outcome => match (job_of(&answer), bearer) {
                    (Some(job), Some(bearer)) => follow(&mut client, job, &bearer).await.err(),
                    _ => Some("202 without a job".to_owned()),
                },
                StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => None,
                StatusCode::CONFLICT => {
                    tally.denied += 1;
                    tally.took.push(sent.elapsed());
                    continue;
                }
                StatusCode::SERVICE_UNAVAILABLE => {
                    tally.refused += 1;
                    // Of the API's, which says when to come back; a side just gave up.
                    if answer.headers.contains_key(http::header::RETRY_AFTER) {
                        sleep(PAUSE).await;
                    }
                    continue;
                }
                _ => Some(described(&answer)),
            },
            Err(error) => Some(error.to_string()),
        };
        match surprise {
            None => {
                tally.granted += 1;
                tally.took.push(sent.elapsed());
                tally.units += units;
            }
            Some(what) => {
                *tally.surprises.entry(what).or_default() += 1;
                return tally;
            }
        }
    }
}

/// Waits for the outcome, which must be a success.
async fn follow(
    client: &mut Client,
    job: Uuid,
    bearer: &http::header::HeaderValue,
) -> Result<(), String> {
    let accepted = Accepted { wish: 0, job, user: 0, at: Duration::ZERO };
    loop {
        let answer = poll_once(client, job, bearer).await.map_err(|error| error.to_string())?;
        match settled(&accepted, &answer) {
            Poll::Told(told) if told.ended.gain.is_some() => return Ok(()),
            Poll::Told(told) => return Err(format!("a job ended as {}", told.ended.name())),
            Poll::Queued => {}
            Poll::Again => sleep(PAUSE).await,
            Poll::Surprise(what) => return Err(what),
        }
    }
}

fn described(answer: &Answer) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
}

/// An open loop.
pub(super) struct Drizzle {
    pub(super) address: SocketAddr,
    pub(super) connections: usize,
    pub(super) window: Duration,
    pub(super) requests: Requests,
    pub(super) per_second: f64,
}

/// What came of it.
pub(super) struct Fallen {
    /// Each job, and when its request was due.
    pub(super) jobs: Vec<(Uuid, DateTime<Utc>)>,
    /// Of one job in [`SAMPLE`]: from when it was due to its outcome in the client's hands.
    pub(super) told: Latencies,
}

impl Drizzle {
    /// Sends each request when it is due, or as soon as a connection is free. Who counts from when it
    /// was due leaves no waiting out (no coordinated omission).
    pub(super) async fn fall(&self) -> anyhow::Result<Fallen> {
        let next = Arc::new(AtomicUsize::new(0));
        let clients = clients(self.address, self.connections).await?;
        let clock = (Instant::now(), Utc::now());
        let mut tasks = JoinSet::new();
        for client in clients {
            tasks.spawn(self.drip(client, Arc::clone(&next), clock));
        }
        let mut fallen = Fallen { jobs: Vec::new(), told: Latencies::default() };
        while let Some(done) = tasks.join_next().await {
            let (jobs, told) = done??;
            fallen.jobs.extend(jobs);
            told.into_iter().for_each(|took| fallen.told.record(took));
        }
        ensure!(!fallen.jobs.is_empty(), "no request was due");
        Ok(fallen)
    }

    /// One connection's share.
    fn drip(
        &self,
        mut client: Client,
        next: Arc<AtomicUsize>,
        (started, started_at): (Instant, DateTime<Utc>),
    ) -> impl Future<Output = anyhow::Result<Drips>> + use<> {
        let requests = Arc::clone(&self.requests);
        let (address, per_second, window) = (self.address, self.per_second, self.window);
        async move {
            let (mut jobs, mut asking, mut told) = (Vec::new(), JoinSet::new(), Vec::new());
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
                    asking.spawn(async move {
                        let asked = follow(&mut Client::new(address, DEADLINE), job, &bearer).await;
                        asked.map(|()| started.elapsed() - due)
                    });
                }
            }
            while let Some(asked) = asking.join_next().await {
                told.push(asked?.map_err(anyhow::Error::msg)?);
            }
            Ok((jobs, told))
        }
    }
}

type Drips = (Vec<(Uuid, DateTime<Utc>)>, Vec<Duration>);

async fn clients(address: SocketAddr, connections: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut client = Client::new(address, DEADLINE);
        client.connect().await.context("cannot open a connection")?;
        clients.push(client);
    }
    Ok(clients)
}
