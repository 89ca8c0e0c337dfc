//! `firstcome-bench compare`: the system, other designs and floors side by side, on one machine, in
//! one run.

mod cost;
mod databases;
mod files;
mod growth;
mod growth_picture;
mod history;
mod load;
mod machine;
mod measurements;
mod own_redis;
mod pg_dump;
mod picture;
mod plan;
mod programs;
mod ratios;
mod requests;
mod results;
mod run;
mod sale;
mod scenarios;
mod servers;
mod statistics;
mod tables;
mod throughput;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use firstcome_process::shutdown;
use firstcome_rig::{
    screen::Screen,
    settings::{ServerArgs, scratch_folder},
    system::free_port,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use databases::Databases;
use machine::Machine;
use plan::{Part, Plan};
use results::Results;
use run::Run;

/// How long all of it may take: twice what it takes on a small machine.
const DEADLINE: Duration = Duration::from_secs(80 * 60);
/// The same with databases of many million rows, which are to be filled first.
const GROWTH_DEADLINE: Duration = Duration::from_secs(180 * 60);
/// Where results are kept.
const RESULTS: &str = "tools/bench/results";

/// What `compare` can be told.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// One short round, less data: to see that it works, not to compare with.
    #[arg(long)]
    quick: bool,
    /// How often everything is measured; 3, and 1 of a quick run.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// Measures these parts only: to profile them, or to try something.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Where the results go, each run's into a folder of its own; tools/bench/results, and
    /// .dev/bench of a quick run.
    #[arg(long)]
    results: Option<PathBuf>,
    #[command(flatten)]
    servers: ServerArgs,
}

/// Measures, prints, writes the results; clears up in any case.
pub(crate) async fn compare(args: CompareArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let settings =
        args.servers.settings("make bench", String::new(), free_port().await?, "bench-")?;
    let (mut plan, root) = if args.quick {
        (Plan::QUICK, scratch_folder().join("bench"))
    } else {
        (Plan::FULL, PathBuf::from(RESULTS))
    };
    plan.rounds = args.rounds.unwrap_or(plan.rounds);
    let redis_url = settings.redis_url.clone();
    let mut screen = Screen::default();
    let mut databases = Databases::new(settings);

    let deadline = if args.only.contains(&Part::Growth) { GROWTH_DEADLINE } else { DEADLINE };
    let measuring = measure(plan, &args.only, &mut databases, &redis_url, &mut screen);
    let measured = stop.run_until_cancelled(timeout(deadline, measuring)).await;
    for what in screen.during("dropping the databases and the queues", databases.clear()).await {
        screen.line(format_args!("could not delete {what}"));
    }
    let results = match measured {
        Some(Ok(results)) => results?,
        Some(Err(_)) => bail!("not done within {deadline:?}"),
        None => bail!("interrupted"),
    };
    screen.lines(results.text().lines());
    let folder = files::write(&results, &args.results.unwrap_or(root))?;
    screen.line(format_args!("wrote {}", folder.display()));
    Ok(())
}

async fn measure(
    plan: Plan,
    only: &[Part],
    databases: &mut Databases,
    redis_url: &str,
    screen: &mut Screen,
) -> anyhow::Result<Results> {
    let preparing = databases.prepare(plan.users);
    screen.during("creating users and their tokens", preparing).await?;
    let machine = look(databases, redis_url).await?;
    let mut run = Run::new(plan, databases, screen);
    scenarios::measure(&mut run, only).await?;
    Ok(Results::new(plan, run.measurements, run.pools, machine))
}

/// What this is measured on; refuses servers that are not durable.
async fn look(databases: &Databases, redis_url: &str) -> anyhow::Result<Machine> {
    let database = databases.used("bench_look").await?;
    machine::is_durable(&database.pool).await?;
    let machine = Machine::look(&database.pool, redis_url).await?;
    databases.delete(database).await?;
    Ok(machine)
}
