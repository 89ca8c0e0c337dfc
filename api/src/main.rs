//! `firstcome-api`: serves the HTTP API, or makes a token for it.

use std::process::ExitCode;

use clap::Parser;
use firstcome_api::config::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    firstcome_shared::telemetry::init();
    let arguments = firstcome_shared::cli::arguments_or("serve");
    match firstcome_api::command(Cli::parse_from(arguments).command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
