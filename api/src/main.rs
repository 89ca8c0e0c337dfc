//! `firstcome-api`: serves the HTTP API, or makes a token for it.

use std::process::ExitCode;

use firstcome_api::config::Cli;

/// A request is a few dozen small allocations, in several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let cli: Cli = firstcome_process::cli::parse("serve");
    let _telemetry = firstcome_process::telemetry::init("firstcome-api")?;
    firstcome_api::command(cli.command).await
}
