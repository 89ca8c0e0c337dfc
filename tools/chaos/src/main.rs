//! `firstcome-chaos`: sales run while faults strike; at the end everything that the clients were told is checked
//! against the database and the sequential model.

mod args;
mod campaign;
mod clients;
mod faults;
mod lines;
mod notes;
mod operator;
mod picture;
mod report;
mod sale;
mod soak;
mod stage;
mod wire;
mod world;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
