//! A shop in the middle of a sale: most requests read, some submit. Each client visits as one user after the other, and
//! each visit is the same ten requests, so the mix is exact and no chance is in it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use firstcome_rig::{
    answers::{Accepted, Poll, coupon_path, job_of, poll_once, read_poll},
    http::{Answer, Call, Client, call, call_with},
    latencies::Latencies,
};
use http::{Method, StatusCode, Uri, header::HeaderValue};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::compare::{
    load::{PAUSE, clients, described},
    plan::MOST_CONNECTIONS,
    requests::{HOT_PRODUCT, PRODUCTS},
    run::{FIRSTCOME, Run},
    servers::Firstcome,
    throughput::outcomes,
};

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Products,
    Product,
    Popular,
    /// Coupons, orders or balance.
    Own,
    /// The job that it submitted last, held until that is settled.
    Poll,
    /// Of the first or the second campaign.
    Coupon(usize),
    Order,
}

/// A visit: 70% reads and polls, 20% coupons, 10% orders; whoever has submitted something polls.
const VISIT: [Step; 10] = [
    Step::Products,
    Step::Coupon(0),
    Step::Poll,
    Step::Popular,
    Step::Coupon(1),
    Step::Poll,
    Step::Product,
    Step::Order,
    Step::Poll,
    Step::Own,
];

/// What is told apart in the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Read,
    Poll,
    Submit,
}

impl Class {
    const ALL: [Self; 3] = [Self::Read, Self::Poll, Self::Submit];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Poll => "poll",
            Self::Submit => "submit",
        }
    }
}

impl Step {
    const fn class(self) -> Class {
        match self {
            Self::Products | Self::Product | Self::Popular | Self::Own => Class::Read,
            Self::Poll => Class::Poll,
            Self::Coupon(_) | Self::Order => Class::Submit,
        }
    }
}

/// Whom the clients visit, and as whom.
struct Shop {
    bearers: Arc<[HeaderValue]>,
    campaigns: [Uri; 2],
    /// Visits so far; the n-th is the n-th user's.
    visits: AtomicUsize,
}

/// What was answered: of which class, and how long it took.
type Answers = Vec<(Class, Duration)>;

pub(super) async fn mixed(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say("firstcome, mixed requests");
    let database = run.databases.used("bench_mixed").await?;
    let campaigns = [database.campaign().await?, database.campaign().await?];
    let [first, second] = campaigns.map(coupon_path);
    let shop = Arc::new(Shop {
        bearers: Arc::clone(&run.databases.bearers),
        campaigns: [first?, second?],
        visits: AtomicUsize::new(0),
    });
    let system = Firstcome::start(&database).await?;
    let (answers, _) = load(&system, &shop, run.plan.warm_up).await?;
    let mut submitted = of(&answers, Class::Submit).count();
    outcomes(&database.pool, i64::try_from(submitted)?).await?;

    database.settle_down().await;
    let started = Utc::now();
    let (answers, took) = load(&system, &shop, run.plan.window).await?;
    let new = of(&answers, Class::Submit).count();
    submitted += new;
    outcomes(&database.pool, i64::try_from(submitted)?).await?;
    let last: DateTime<Utc> = sqlx::query_scalar("SELECT max(settled_at) FROM job_outcomes")
        .fetch_one(&database.pool)
        .await?;
    let settled_in = (last - started).max(TimeDelta::from_std(took)?).to_std()?;
    note(run, &answers, took, new, settled_in);
    system.stop().await?;
    database.audit(FIRSTCOME).await?;
    run.databases.delete(database).await
}

/// Puts the figures down.
fn note(run: &mut Run<'_>, answers: &Answers, took: Duration, jobs: usize, settled_in: Duration) {
    let key = |metric: &str| format!("mixed.{FIRSTCOME}.{MOST_CONNECTIONS}.{metric}");
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
    let per_second = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    let all = per_second(answers.len(), took);
    let settled = per_second(jobs, settled_in);
    run.measurements.add(key("per_second"), all);
    run.measurements.add(key("settled_per_second"), settled);
    for class in Class::ALL {
        let mut latencies = Latencies::default();
        of(answers, class).for_each(|took| latencies.record(took));
        let name = class.as_str();
        let count = of(answers, class).count();
        run.measurements.add(key(&format!("{name}.per_second")), per_second(count, took));
        for (metric, percent) in [("p50_ms", 50.0), ("p99_ms", 99.0)] {
            let millis = latencies.percentile(percent).as_secs_f64() * 1e3;
            run.measurements.add(key(&format!("{name}.{metric}")), millis);
        }
    }
    run.say(format_args!("  mixed requests: {all:.0}/s answered, {settled:.0}/s settled"));
}

/// How long the answers of a class took.
fn of(answers: &Answers, class: Class) -> impl Iterator<Item = Duration> {
    answers.iter().filter(move |(other, _)| *other == class).map(|(_, took)| *took)
}

/// Lets all clients visit the shop; returns with the time until the last answer.
async fn load(
    system: &Firstcome,
    shop: &Arc<Shop>,
    window: Duration,
) -> anyhow::Result<(Answers, Duration)> {
    let clients = clients(&[system.address], MOST_CONNECTIONS).await?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        tasks.spawn(visit(client, number, Arc::clone(shop), started + window));
    }
    let mut answers = Vec::new();
    while let Some(share) = tasks.join_next().await {
        answers.extend(share??);
    }
    Ok((answers, started.elapsed()))
}

/// One visit after the other. Clients begin at different steps, so that not all do the same at a time.
async fn visit(
    mut client: Client,
    number: usize,
    shop: Arc<Shop>,
    until: Instant,
) -> anyhow::Result<Answers> {
    let mut answers = Vec::new();
    let mut begin = number % VISIT.len();
    loop {
        let user = shop.visits.fetch_add(1, Ordering::Relaxed);
        let bearer = shop.bearers.get(user).context("too few users")?;
        let mut job = None;
        for step in VISIT.into_iter().skip(std::mem::take(&mut begin)) {
            if Instant::now() >= until {
                return Ok(answers);
            }
            // Who began after a submission looks at the product meanwhile.
            let step = if step == Step::Poll && job.is_none() { Step::Product } else { step };
            let took = match (step, job) {
                (Step::Poll, Some(job)) => poll(&mut client, job, bearer).await?,
                _ => {
                    let call = shop.call(step, user, bearer)?;
                    let (answer, took) = ask(&mut client, &call, step.class()).await?;
                    if step.class() == Class::Submit {
                        job = Some(job_of(&answer).context("202 without a job")?);
                    }
                    took
                }
            };
            answers.push((step.class(), took));
        }
    }
}

/// Asks until it is answered as it should be; that a full system sends one away is part of what it takes.
async fn ask(client: &mut Client, call: &Call, class: Class) -> anyhow::Result<(Answer, Duration)> {
    let wanted = if class == Class::Submit { StatusCode::ACCEPTED } else { StatusCode::OK };
    let sent = Instant::now();
    loop {
        let answer = client.send(call.clone()).await?;
        match answer.status {
            status if status == wanted => return Ok((answer, sent.elapsed())),
            StatusCode::SERVICE_UNAVAILABLE => sleep(PAUSE).await,
            _ => bail!(described(&answer)),
        }
    }
}

/// One poll, which tells that the job has succeeded.
async fn poll(client: &mut Client, job: Uuid, bearer: &HeaderValue) -> anyhow::Result<Duration> {
    let accepted = Accepted { intent: 0, job, user: 0, at: Duration::ZERO };
    let sent = Instant::now();
    loop {
        match read_poll(&accepted, &poll_once(client, job, bearer).await?) {
            Poll::Settled(job) => {
                ensure!(job.outcome.result.is_some(), "a job ended as {}", job.outcome.name());
                return Ok(sent.elapsed());
            }
            Poll::Queued => {}
            Poll::Unavailable => sleep(PAUSE).await,
            Poll::Unexpected(what) => bail!(what),
        }
    }
}

impl Shop {
    /// What is sent for a step that is not a poll; users count from 0.
    fn call(&self, step: Step, user: usize, bearer: &HeaderValue) -> anyhow::Result<Call> {
        let number = i64::try_from(user)?;
        let (method, path) = match step {
            Step::Products | Step::Poll => (Method::GET, Uri::from_static("/api/products")),
            // Half of them look at what everybody wants.
            Step::Product if user.is_multiple_of(2) => {
                (Method::GET, Uri::try_from(format!("/api/products/{HOT_PRODUCT}"))?)
            }
            Step::Product => {
                (Method::GET, Uri::try_from(format!("/api/products/{}", number % PRODUCTS + 1))?)
            }
            Step::Popular => (Method::GET, Uri::from_static("/api/products/popular")),
            Step::Own => match user % 3 {
                0 => (Method::GET, Uri::from_static("/api/users/coupons")),
                1 => (Method::GET, Uri::from_static("/api/users/orders")),
                _ => (Method::GET, Uri::try_from(format!("/api/balance/{}", number + 1))?),
            },
            Step::Coupon(which) => {
                (Method::POST, self.campaigns.get(which).context("no campaign")?.clone())
            }
            Step::Order => {
                let body = json!({ "items": [{ "productId": HOT_PRODUCT, "quantity": 1 }] });
                let path = Uri::from_static("/api/orders");
                return Ok(call_with(Method::POST, path, Some(bearer), &body));
            }
        };
        Ok(call(method, path, Some(bearer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_is_the_mix_and_polls_what_it_has_submitted() {
        let count = |wanted: fn(&Step) -> bool| VISIT.iter().filter(|step| wanted(step)).count();
        assert_eq!(count(|step| step.class() != Class::Submit), 7);
        assert_eq!(count(|step| matches!(step, Step::Coupon(_))), 2);
        assert_eq!(count(|step| *step == Step::Order), 1);
        for pair in VISIT.windows(2) {
            assert_eq!(pair[0].class() == Class::Submit, pair[1] == Step::Poll, "{pair:?}");
        }
    }

    #[test]
    fn users_are_numbered_from_1() {
        let shop = Shop {
            bearers: Arc::new([]),
            campaigns: [coupon_path(8).unwrap(), coupon_path(9).unwrap()],
            visits: AtomicUsize::new(0),
        };
        let path = |step, user| {
            let call = shop.call(step, user, &HeaderValue::from_static("Bearer x")).unwrap();
            call.uri().path().to_owned()
        };
        assert_eq!(path(Step::Own, 2), "/api/balance/3");
        assert_eq!(path(Step::Product, 101), "/api/products/2");
        assert_eq!(path(Step::Product, 100), "/api/products/1");
        assert_eq!(path(Step::Coupon(1), 0), "/api/coupons/9/issue");
    }
}
