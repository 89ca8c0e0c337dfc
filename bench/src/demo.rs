//! `firstcome-bench demo`: a flash sale on a system of its own, and what came of it.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use chrono::{TimeDelta, Utc};
use clap::Args;
use firstcome_shared::shutdown;
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    net::TcpListener,
    task::{JoinSet, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    load::{Client, call, call_with},
    report::{self, Report, count},
    sale::{self, Accepted, Customer, Poll, Sale},
    screen::{REFRESH, Screen},
    stage::Stage,
    system::{ServerArgs, Settings, System},
    verify::{self, Books, Check, Expected, Totals},
};

/// How long the sale goes on while nothing moves at all: time enough to restart a worker.
const STANDSTILL: Duration = Duration::from_secs(20);
/// How long the audit may take.
const AUDIT_DEADLINE: Duration = Duration::from_secs(60);
/// How long one job may take on a system at rest, the start of the worker included.
const TRIAL_DEADLINE: Duration = Duration::from_secs(30);
/// Jobs before the sale; the first one warms up, the others show what a job takes at rest.
const TRIALS: usize = 10;
/// The sample coupon that they are for.
const TRIAL_COUPON: i64 = 2;

/// What `demo` can be told.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many users want a coupon; every 5th is impatient and clicks twice.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub users: u32,
    /// How many coupons there are.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub coupons: u32,
    /// How many connections click at once; as many more poll. Every one needs a file descriptor
    /// here and in the API (see `ulimit -n`).
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Break off after so many seconds; what is not settled then is a violation.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub deadline: u64,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub servers: ServerArgs,
}

/// A sale that was held.
struct Held {
    sale: Arc<Sale>,
    coupon: i64,
    trials: Vec<Uuid>,
    at_rest: Duration,
}

/// Sets the stage, holds the sale, audits, reports, and clears the stage in any case.
///
/// # Errors
/// With a hint, if it cannot even begin.
pub async fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let settings = args.servers.clone().settings("make demo", String::new(), free_port().await?, "demo-")?;
    let stage = Stage::new(&settings.database_url, &settings.amqp_url, settings.partitions)?;
    let settings =
        Settings { database_url: stage.database_url.clone(), namespace: stage.namespace.clone(), ..settings };

    let mut screen = Screen::default();
    let mut system = None;
    // Not cancelled in the middle, so that it is known what there is to clear.
    let held = match screen.during("creating a database", stage.set()).await {
        Ok(()) => {
            let give_up = begun + Duration::from_secs(args.deadline);
            stop.run_until_cancelled(hold(&args, &settings, &mut system, &mut screen, give_up)).await
        }
        Err(error) => Some(Err(error)),
    };

    // Whatever came of it: stop the programs, look at the books, leave nothing behind.
    let mut checks = Vec::new();
    if let Some(system) = system {
        checks.push(stopped(screen.during("stopping the API and the worker", system.stop()).await));
    }
    let ended = match held {
        Some(Ok(held)) => {
            let look = timeout(AUDIT_DEADLINE, audit(&args, &stage, &held, &mut checks));
            let looked = stop.run_until_cancelled(screen.during("auditing", look)).await;
            looked.map(|looked| looked.unwrap_or_else(|_| bail!("the audit takes longer than {AUDIT_DEADLINE:?}")))
        }
        Some(Err(error)) => Some(Err(error)),
        None => None,
    };
    let left = screen.during("dropping the database and the queues", stage.clear()).await;
    for what in left {
        screen.line(format_args!("could not delete {what}"));
    }

    let Some(ended) = ended else {
        screen.line("demo: FAIL (interrupted)");
        return Ok(ExitCode::FAILURE);
    };
    let (totals, lines) = ended.unwrap_or_else(|error| {
        let broken = Check { what: "the demo can be held", figures: format!("{error:#}"), violations: 1 };
        checks.push(broken);
        (Totals::default(), Vec::new())
    });
    screen.line("\nAudit, from the database and from what the customers were told");
    for check in &checks {
        screen.line(format_args!("  {check}"));
    }
    screen.line("");
    for line in lines {
        screen.line(line);
    }
    let violations = checks.iter().map(|check| check.violations).sum();
    screen.line(report::last_line(totals, violations));
    Ok(ExitCode::from(u8::from(violations > 0)))
}

/// Holds the sale; `system` is there for whoever must stop it.
async fn hold(
    args: &DemoArgs,
    settings: &Settings,
    system: &mut Option<System>,
    screen: &mut Screen,
    give_up: Instant,
) -> anyhow::Result<Held> {
    let users = i64::from(args.users);
    screen.during("migrating, creating users", System::prepare(settings, users)).await?;
    screen.line(format_args!("database {} with {} users", database_of(settings), count(args.users as usize)));

    let system = system.insert(System::start(settings.clone())?);
    screen.during("starting", system.ready()).await?;
    let address = settings.api_for_clients();
    screen.line(format_args!("API on http://{address}, queues {}.*; running {}", settings.namespace, system.processes()));

    let trials = timeout(TRIAL_DEADLINE, screen.during("trying one job", try_out(settings))).await;
    let (trials, at_rest) = trials
        .unwrap_or_else(|_| bail!("it is not settled after {TRIAL_DEADLINE:?}"))
        .with_context(|| format!("the trial job failed; {}", system.end_of_log("worker")))?;

    let coupon = create_coupon(settings, args.coupons).await?;
    let tokens = settings.clone();
    let customers = spawn_blocking(move || -> anyhow::Result<Vec<Customer>> {
        (1..=users).map(|user| Ok(Customer { user, bearer: tokens.bearer(user, false)? })).collect()
    });
    let customers = screen.during("making tokens", customers).await??;
    let opening = Sale::open(address, coupon, customers, args.connections as usize);
    let (sale, tasks) = screen.during("opening connections", opening).await?;
    screen.line(format_args!(
        "the sale is open: {} users, {} clicks, {} coupons, {} connections clicking and as many polling",
        count(args.users as usize),
        count(sale.size()),
        count(args.coupons as usize),
        count(args.connections as usize)
    ));
    watch(&sale, tasks, system, settings, screen, give_up).await;
    Ok(Held { sale, coupon, trials, at_rest })
}

/// Watches the sale until everything is answered and settled, or nothing moves any more.
async fn watch(
    sale: &Sale,
    mut tasks: JoinSet<()>,
    system: &mut System,
    settings: &Settings,
    screen: &mut Screen,
    give_up: Instant,
) {
    let opened = Instant::now();
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut moved = (Instant::now(), (0, 0, 0));
    let mut fallen = Vec::new();
    loop {
        tokio::select! {
            joined = tasks.join_next() => match joined {
                Some(_) => continue,
                None => break,
            },
            _ = ticks.tick() => {}
        }
        let (status, now) = {
            let record = sale.record();
            let phase = if record.clicks < sale.size() { "selling" } else { "waiting for the outcomes" };
            let status = format!(
                "{phase} {:.1} s: submitted {} of {}, accepted {}, settled {}, turned away {}",
                opened.elapsed().as_secs_f64(),
                count(record.clicks),
                count(sale.size()),
                count(record.accepted.len()),
                count(record.told.len()),
                count(record.turned_away.len())
            );
            (status, (record.clicks, record.told.len(), record.retries))
        };
        screen.status(status);
        for (name, how) in system.ended() {
            if !fallen.contains(&name) {
                fallen.push(name);
                screen.line(how);
                screen.line(format_args!(
                    "the sale goes on until nothing has moved for {STANDSTILL:?}: time to restart it, with \
                     QUEUE_NAMESPACE={} and the database {}",
                    settings.namespace,
                    database_of(settings)
                ));
            }
        }
        if now != moved.1 {
            moved = (Instant::now(), now);
        }
        if moved.0.elapsed() > STANDSTILL {
            screen.line(format_args!("nothing has moved for {STANDSTILL:?}: breaking off"));
            break;
        }
        if Instant::now() > give_up {
            screen.line("out of time (--deadline): breaking off");
            break;
        }
    }
    // Those that are left are in vain; their connections would keep the API from stopping.
    tasks.shutdown().await;
}

/// Jobs on a system at rest: the proof that the whole line works, and what one job takes there.
async fn try_out(settings: &Settings) -> anyhow::Result<(Vec<Uuid>, Duration)> {
    let bearer = settings.bearer(1, false)?;
    let path = sale::click_path(TRIAL_COUPON)?;
    let mut client = Client::new(settings.api_for_clients(), Duration::from_secs(15));
    let (mut trials, mut took) = (Vec::new(), Vec::new());
    while trials.len() < TRIALS {
        let clicked = Instant::now();
        let answer = client.send(call(Method::POST, path.clone(), Some(&bearer))).await?;
        let Some(job) = sale::job_of(&answer).filter(|_| answer.status == StatusCode::ACCEPTED) else {
            bail!("the answer was {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        };
        let accepted = Accepted { job, user: 1, at: Duration::ZERO };
        let told = loop {
            match sale::settled(&accepted, &sale::poll_once(&mut client, job, &bearer).await?) {
                Poll::Told(told) => break told,
                Poll::Queued => {}
                Poll::Again => bail!("a poll was answered with 503"),
                Poll::Surprise(what) => bail!(what),
            }
        };
        if trials.is_empty() {
            anyhow::ensure!(told.coupon.is_some(), "the first one was {} ({:?})", told.status, told.code);
        } else {
            took.push(clicked.elapsed());
        }
        trials.push(job);
    }
    took.sort_unstable();
    Ok((trials, took.get(took.len() / 2).copied().unwrap_or_default()))
}

async fn create_coupon(settings: &Settings, total: u32) -> anyhow::Result<i64> {
    #[derive(Deserialize)]
    struct Created {
        id: i64,
    }
    let now = Utc::now();
    let coupon = json!({
        "name": "Flash sale",
        "discountType": "fixed",
        "discountValue": 1_000,
        "total": total,
        "startsAt": now - TimeDelta::minutes(1),
        "endsAt": now + TimeDelta::days(2),
    });
    let admin = settings.bearer(1, true)?;
    let path = Uri::from_static("/api/admin/coupons");
    let mut client = Client::new(settings.api_for_clients(), Duration::from_secs(10));
    let answer = client.send(call_with(Method::POST, path, Some(&admin), &coupon)).await?;
    if answer.status != StatusCode::CREATED {
        bail!("no coupon was created: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    Ok(serde_json::from_slice::<Created>(&answer.body)?.id)
}

/// Adds all checks; returns the totals and the report.
async fn audit(
    args: &DemoArgs,
    stage: &Stage,
    held: &Held,
    checks: &mut Vec<Check>,
) -> anyhow::Result<(Totals, Vec<String>)> {
    let pool = stage.pool()?;
    let books = Books::read(&pool, held.coupon, &held.trials).await?;
    checks.extend(verify::invariants(&pool).await?);
    pool.close().await;
    let record = &*held.sale.record();
    let expected = Expected { clicks: held.sale.size(), issued: args.users.min(args.coupons) as usize };
    checks.extend(verify::sale(record, &books, expected));
    let report = Report {
        record,
        books: &books,
        opened_at: held.sale.opened_at,
        users: args.users as usize,
        connections: args.connections.min(args.users) as usize,
        at_rest: held.at_rest,
    };
    Ok((verify::totals(record, &books), report.lines()))
}

fn stopped(troubles: Vec<String>) -> Check {
    let violations = troubles.len();
    let figures = if troubles.is_empty() { "they did".to_owned() } else { troubles.join("; ") };
    Check { what: "the programs end by themselves on SIGTERM", figures, violations }
}

fn database_of(settings: &Settings) -> &str {
    let path = settings.database_url.rsplit('/').next().unwrap_or_default();
    path.split('?').next().unwrap_or_default()
}

/// A port that is free now. The API's own error tells if somebody else was quicker.
async fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").await?.local_addr()
}
