//! Firstcome under load: the system's programs as processes, customers over HTTP, and an audit from
//! the database.
//!
//! **Architecture invariant:** nothing here reaches into the system. It starts the programs as an
//! operator would, talks HTTP as a client would, and reads the database only to check on them. The
//! benchmark ([`compare`]) also fills databases of its own and puts other designs ([`side`]) behind
//! the same HTTP.

pub mod answers;
pub mod books;
pub mod compare;
pub mod coupon_drop;
pub mod demo;
pub mod load;
pub mod product_sale;
pub mod rehearsal;
pub mod report;
pub mod run;
pub mod sale;
pub mod screen;
pub mod settings;
pub mod side;
pub mod stage;
pub mod system;
pub mod verify;
pub mod watch;
pub mod wishes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shows Firstcome at work.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What this process does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hold a coupon drop and then a product sale on a system and a database of its own, report and
    /// audit them. Exits with 0 only if everything was right.
    Demo(demo::DemoArgs),
    /// Run the system in the foreground, for development.
    Run(run::RunArgs),
    /// Compare the system with other designs, and with floors, side by side on this machine.
    Bench(compare::BenchArgs),
    /// Serve one of the other designs; `bench` starts it.
    #[command(hide = true)]
    Side(side::SideArgs),
}

/// Does what the command line asks for.
///
/// # Errors
/// With a hint for the user.
pub async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::demo(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Bench(args) => compare::bench(args).await,
        Command::Side(args) => side::serve(args).await.map(|()| ExitCode::SUCCESS),
    }
}
