//! `firstcome-bench demo`: a flash sale on a system of its own, and what came of it.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use firstcome_shared::shutdown;
use tokio::{
    net::TcpListener,
    task::{JoinSet, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    books::{self, Books, Totals},
    rehearsal,
    report::{self, Report, count},
    sale::{Customer, Sale},
    screen::{REFRESH, Screen},
    settings::{ServerArgs, Settings},
    stage::Stage,
    system::System,
    verify::{self, Check, Expected},
};

/// How long the sale goes on while nothing moves at all.
const STANDSTILL: Duration = Duration::from_secs(20);
/// How often a program that ends in the middle of the sale is started again: kill one and see.
const MOST_REVIVALS: u32 = 5;
/// How long the audit may take.
const AUDIT_DEADLINE: Duration = Duration::from_secs(60);
/// How long one job may take on a system at rest, the start of the worker included.
const TRIAL_DEADLINE: Duration = Duration::from_secs(30);

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
    let settings =
        args.servers.clone().settings("make demo", String::new(), free_port().await?, "demo-")?;
    let mut stage = Stage::new(&settings.database_url, &settings.amqp_url, settings.partitions)?;
    let settings = Settings {
        database_url: stage.database_url.clone(),
        namespace: stage.namespace.clone(),
        ..settings
    };

    let mut screen = Screen::default();
    let mut system = None;
    // Not cancelled in the middle, so that it is known what there is to clear.
    let held = match screen.during("creating a database", stage.set()).await {
        Ok(()) => {
            let give_up = begun + Duration::from_secs(args.deadline);
            // The sale breaks off by itself; what comes before it might take too long, too.
            let holding = timeout_at(
                give_up + STANDSTILL,
                hold(&args, &settings, &mut system, &mut screen, give_up),
            );
            let held = stop.run_until_cancelled(holding).await;
            held.map(|held| held.unwrap_or_else(|_| bail!("out of time (--deadline)")))
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
            looked.map(|looked| {
                looked.unwrap_or_else(|_| bail!("the audit takes longer than {AUDIT_DEADLINE:?}"))
            })
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
        let broken =
            Check { what: "the demo can be held", figures: format!("{error:#}"), violations: 1 };
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
    screen.line(format_args!(
        "database {} with {} users",
        database_of(settings),
        count(args.users as usize)
    ));

    let system = system.insert(System::start(settings.clone())?);
    screen.during("starting", system.ready()).await?;
    let address = settings.api_for_clients();
    screen.line(format_args!(
        "API on http://{address}, queues {}.*; running {}",
        settings.namespace,
        system.processes()
    ));

    let trials =
        timeout(TRIAL_DEADLINE, screen.during("trying one job", rehearsal::try_out(settings)))
            .await;
    let (trials, at_rest) = trials
        .unwrap_or_else(|_| bail!("it is not settled after {TRIAL_DEADLINE:?}"))
        .with_context(|| format!("the trial job failed; {}", system.end_of_log("worker")))?;

    let coupon = rehearsal::create_coupon(settings, args.coupons).await?;
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
    watch(&sale, tasks, system, screen, give_up).await;
    Ok(Held { sale, coupon, trials, at_rest })
}

/// Watches the sale until everything is answered and settled, or nothing moves any more.
async fn watch(
    sale: &Sale,
    mut tasks: JoinSet<()>,
    system: &mut System,
    screen: &mut Screen,
    give_up: Instant,
) {
    let opened = Instant::now();
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut moved = (Instant::now(), (0, 0, 0));
    let mut revivals = 0;
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
            let phase =
                if record.clicks < sale.size() { "selling" } else { "waiting for the outcomes" };
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
        if revivals < MOST_REVIVALS {
            match system.revive() {
                Ok(ended) => {
                    for how in ended {
                        revivals += 1;
                        screen.line(format_args!(
                            "{how}\nstarted it again; now running {}",
                            system.processes()
                        ));
                    }
                }
                Err(error) => screen.line(format_args!("{error:#}")),
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
    let expected =
        Expected { clicks: held.sale.size(), issued: args.users.min(args.coupons) as usize };
    checks.extend(verify::sale(record, &books, expected));
    let report = Report {
        record,
        books: &books,
        opened_at: held.sale.opened_at,
        users: args.users as usize,
        coupons: args.coupons as usize,
        connections: args.connections.min(args.users) as usize,
        at_rest: held.at_rest,
    };
    Ok((books::totals(record, &books), report.lines()))
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
