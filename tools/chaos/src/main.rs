//! `firstcome-chaos`: sales run while faults strike; at the end everything that the clients were told is checked
//! against the database and the sequential model.

mod campaign;
mod clients;
mod faults;
mod lines;
mod notes;
mod operator;
mod picture;
mod report;
mod sale;
mod stage;
mod world;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use firstcome_rig::settings::ServerArgs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lets faults strike a private system under load, and checks what came of it.
#[derive(Debug, Parser)]
#[command(name = "firstcome-chaos", version)]
struct Args {
    /// Faults, one after the other.
    #[arg(long, env = "CYCLES", default_value_t = 20)]
    cycles: usize,
    /// What strikes when, and who asks for what.
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
    /// Begins no fault after so many minutes.
    #[arg(long, env = "MINUTES")]
    minutes: Option<u64>,
    /// Requests per second.
    #[arg(long, env = "RATE", default_value_t = 60)]
    rate: u32,
    /// Where report and history go.
    #[arg(long, default_value = "target/chaos/report")]
    out: PathBuf,
    #[command(flatten)]
    servers: ServerArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    match stage::hold(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("firstcome-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
