//! `firstcome-demo`: sales under load with an audit, and the system in the foreground for
//! development.

mod acts;
mod args;
mod consumers;
mod demo;
mod load;
mod mix;
mod report;
mod returns;
mod run;
mod setup;
mod stored;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

/// As the programs that it puts under load, in several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Demo(args) => demo::demo(args).await,
        Command::Run(args) => run::run(args).await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("firstcome-demo: {error:#}");
        ExitCode::FAILURE
    })
}
