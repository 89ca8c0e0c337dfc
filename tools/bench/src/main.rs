//! `firstcome-bench`: Firstcome, other designs and floors side by side, on one machine, in one run.

mod compare;
mod rivals;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// As the programs that it measures, in several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Firstcome.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the system with other designs, and with floors, side by side on this machine.
    Compare(compare::CompareArgs),
    /// Serve one of the other designs; `compare` starts it.
    #[command(hide = true)]
    Side(Box<rivals::RivalArgs>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Compare(args) => compare::compare(args).await,
        Command::Side(args) => rivals::serve(*args).await,
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("firstcome-bench: {error:#}");
    ExitCode::FAILURE
}
