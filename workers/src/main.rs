//! `firstcome-worker`: one role per process, or all.

use std::process::ExitCode;

use clap::Parser;
use firstcome_workers::config::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    firstcome_shared::telemetry::init();
    let arguments = firstcome_shared::cli::arguments_or("all");
    firstcome_workers::command(Cli::parse_from(arguments).command).await.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
