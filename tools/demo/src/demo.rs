//! `firstcome-demo demo`: two sales and their returns on a system of their own, and what came of them.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use firstcome_process::shutdown;
use firstcome_rig::{
    figures::count,
    screen::Screen,
    settings::Settings,
    stage::Stage,
    system::{LARGE, System, free_port},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    acts::{coupon_drop::CouponDrop, product_sale::ProductSale, returns::Returns},
    args::DemoArgs,
    load::Customer,
    report::{self, Pace},
    stored::Totals,
    verify::{self, Check},
    watch::{STANDSTILL, Watch},
};

/// How long the audit may take.
const AUDIT_DEADLINE: Duration = Duration::from_secs(60);

/// All acts, held.
struct Held {
    drop: CouponDrop,
    sale: ProductSale,
    returns: Returns,
}

/// What the audit found.
#[derive(Default)]
struct Audit {
    drop: (Totals, Vec<Check>),
    sale: (Totals, Pace, Vec<Check>),
    returns: (Totals, Vec<Check>),
    /// Of the system as a whole.
    system: Vec<Check>,
}

/// Sets the stage, holds the sales, audits, reports, and clears the stage in any case.
///
/// # Errors
/// With a hint, if it cannot even begin.
pub(crate) async fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let settings =
        args.servers.clone().settings("make demo", String::new(), free_port().await?, "demo-")?;
    let mut stage = Stage::new("demo", &settings.database_url, &settings.amqp_url)?;
    let settings = Settings {
        database_url: stage.database_url.clone(),
        namespace: stage.namespace.clone(),
        data_platform: Some(free_port().await?),
        ..settings
    };

    let mut screen = Screen::default();
    let mut system = None;
    // Not cancelled in the middle, so that it is known what there is to clear.
    let held = match screen.during("creating a database", stage.set()).await {
        Ok(()) => {
            let give_up = begun + Duration::from_secs(args.deadline);
            // The sales break off by themselves; what comes before them might take too long, too.
            let holding = timeout_at(
                give_up + STANDSTILL,
                hold(&args, &settings, &stage, &mut system, &mut screen, give_up),
            );
            let held = stop.run_until_cancelled(holding).await;
            held.map(|held| held.unwrap_or_else(|_| bail!("out of time (--deadline)")))
        }
        Err(error) => Some(Err(error)),
    };

    // Whatever came of it: stop the programs, look at what they left, leave nothing behind.
    let mut found = Audit::default();
    if let Some(system) = system {
        let stopping = screen.during("stopping the programs", system.stop()).await;
        found.system.push(stopped(stopping));
    }
    let ended = match held {
        Some(Ok(held)) => {
            let look = timeout(AUDIT_DEADLINE, audit(&args, &stage, &held, &mut found));
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
    if let Err(error) = ended {
        let figures = format!("{error:#}");
        found.system.push(Check { what: "the demo can be held", figures, violations: 1 });
    }
    Ok(verdict(&found, &mut screen))
}

/// Prints what the audit found.
fn verdict(found: &Audit, screen: &mut Screen) -> ExitCode {
    let Audit { drop, sale, returns, system } = found;
    screen.line("\nAudit: what the customers were told against the database and the data platform");
    let parts = [
        ("act 1, the coupon drop", &drop.1),
        ("act 2, the product sale", &sale.2),
        ("act 3, second thoughts", &returns.1),
        ("the system as a whole, and the invariants of `firstcome-worker audit`", system),
    ];
    for (title, checks) in parts.into_iter().filter(|(_, checks)| !checks.is_empty()) {
        screen.line(format_args!("\n  {title}"));
        for check in checks {
            screen.line(format_args!("  {check}"));
        }
    }
    let everywhere = verify::violations(system);
    let second = verify::violations(&sale.2) + everywhere;
    let third = verify::violations(&returns.1) + everywhere;
    let all = verify::violations(&drop.1) + verify::violations(&sale.2) + third;
    screen.line("");
    screen.line(report::second_act_line(sale.0, sale.1, second));
    screen.line(report::third_act_line(returns.0, third));
    screen.line(report::last_line(drop.0, all));
    ExitCode::from(u8::from(all > 0))
}

/// Holds all acts; `system` is there for whoever must stop it.
async fn hold(
    args: &DemoArgs,
    settings: &Settings,
    stage: &Stage,
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

    let system = system.insert(System::start(settings.clone(), &LARGE)?);
    screen.during("starting", system.ready()).await?;
    screen.line(format_args!(
        "API on http://{}, queues {}.*\nrunning {}",
        settings.api_for_clients(),
        settings.namespace,
        system.processes()
    ));
    let tokens = settings.clone();
    let customers = spawn_blocking(move || -> anyhow::Result<Arc<[Customer]>> {
        (1..=users).map(|user| Ok(Customer { user, bearer: tokens.bearer(user, false)? })).collect()
    });
    let customers = screen.during("making tokens", customers).await??;

    let pool = stage.pool()?;
    let mut watch = Watch::new(system, screen, give_up);
    let drop = CouponDrop::hold(args, settings, &customers, &mut watch).await?;
    watch.screen.lines(drop.report(args, &pool).await?);
    let acted = (&*drop.load, drop.campaign);
    let sale = ProductSale::hold(args, settings, &customers, acted, &mut watch, &pool).await?;
    watch.screen.lines(sale.report());
    let returns = Returns::hold(args, settings, &customers, &sale, &mut watch, &pool).await?;
    watch.screen.lines(returns.report(&sale, &pool).await?);
    pool.close().await;
    Ok(Held { drop, sale, returns })
}

/// Reads once more what is stored, now that nothing changes them any more.
async fn audit(
    args: &DemoArgs,
    stage: &Stage,
    held: &Held,
    found: &mut Audit,
) -> anyhow::Result<()> {
    let pool = stage.pool()?;
    found.drop = held.drop.audit(args, &pool).await?;
    found.sale = held.sale.audit();
    found.returns = held.returns.audit(&held.sale, &pool).await?;
    found.system.extend(verify::invariants(&pool).await?);
    pool.close().await;
    Ok(())
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
