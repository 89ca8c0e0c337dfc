//! `firstcome-bench`: the flash-sale demo, and the system in the foreground for development.

use std::process::ExitCode;

use clap::Parser;
use firstcome_bench::Cli;

/// As the programs that it measures, in several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
