//! `firstcome-bench`: the flash-sale demo, and the system in the foreground for development.

use std::process::ExitCode;

use clap::Parser;
use firstcome_bench::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match firstcome_bench::command(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("firstcome-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
