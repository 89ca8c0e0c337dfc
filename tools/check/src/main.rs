//! `firstcome-check`: holds the history of a sale against its database.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
async fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::from(u8::from(report.violations() > 0))
        }
        Err(error) => {
            eprintln!("firstcome-check: {error:#}");
            ExitCode::from(2)
        }
    }
}
