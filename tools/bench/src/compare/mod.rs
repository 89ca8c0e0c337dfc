//! `firstcome-bench bench`: the system, other designs and floors side by side, on one machine, in
//! one run.

mod arena;
mod backlog;
mod contender;
mod contest;
mod fresh;
mod large;
mod latency;
mod ledger;
mod machine;
mod picture;
mod plan;
mod ratios;
mod requests;
mod results;
mod sales;
mod storm;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use firstcome_process::shutdown;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{demo::free_port, screen::Screen, settings::ServerArgs};
use arena::Arena;
use contest::Contest;
use plan::{Part, Plan};
use results::Results;

/// How long all of it may take: twice what it takes on a small machine.
const DEADLINE: Duration = Duration::from_secs(70 * 60);

/// What `bench` can be told.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// One short round, less data: to see that it works, not to compare with.
    #[arg(long)]
    pub quick: bool,
    /// How often everything is measured; 3, and 1 of a quick run.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub rounds: Option<u32>,
    /// Measures these parts only: to profile them, or to try something.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Where the results go.
    #[arg(long, default_value = "tools/bench/results")]
    pub results: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub servers: ServerArgs,
}

/// Measures, prints, writes the results; clears up in any case.
///
/// # Errors
/// With what is missing, or the invariant that a side violated.
pub async fn bench(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone()).context("cannot listen for signals")?;
    let settings =
        args.servers.settings("make bench", String::new(), free_port().await?, "bench-")?;
    let mut plan = if args.quick { Plan::QUICK } else { Plan::FULL };
    plan.rounds = args.rounds.unwrap_or(plan.rounds);
    let redis_url = settings.redis_url.clone();
    let mut screen = Screen::default();
    let mut arena = Arena::new(settings);

    let measuring =
        timeout(DEADLINE, measure(plan, args.only, &mut arena, &redis_url, &mut screen));
    let measured = stop.run_until_cancelled(measuring).await;
    for what in screen.during("dropping the databases and the queues", arena.clear()).await {
        screen.line(format_args!("could not delete {what}"));
    }
    let results = match measured {
        Some(Ok(results)) => results?,
        Some(Err(_)) => bail!("not done within {DEADLINE:?}"),
        None => bail!("interrupted"),
    };
    screen.lines(results.text().lines());
    for path in results.write(&args.results)? {
        screen.line(format_args!("wrote {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    plan: Plan,
    only: Vec<Part>,
    arena: &mut Arena,
    redis_url: &str,
    screen: &mut Screen,
) -> anyhow::Result<Results> {
    let preparing = arena.prepare(plan.users);
    screen.during("creating users and their tokens", preparing).await?;
    let mut contest = Contest::new(plan, only, arena, screen);
    let machine = contest.machine(redis_url).await?;
    contest.search().await?;
    contest.idle().await?;
    let large = contest.large_scene().await?;
    for round in 1..=plan.rounds {
        contest.round(round, large.as_ref()).await?;
    }
    if let Some(large) = large {
        arena.strike(large).await?;
    }
    Ok(contest.results(machine))
}
