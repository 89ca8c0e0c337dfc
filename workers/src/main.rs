//! `firstcome-worker`: one role per process, or all.

use std::process::ExitCode;

use firstcome_workers::cli::Cli;

/// A job is a few dozen small allocations, in several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    run().await.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run() -> anyhow::Result<ExitCode> {
    let cli: Cli = firstcome_process::cli::parse("all");
    let _telemetry = firstcome_process::telemetry::init("firstcome-worker")?;
    firstcome_workers::command(cli.command).await
}
