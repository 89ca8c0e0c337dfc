//! What the command is told, and what it reads.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::Parser;
use firstcome_check::{History, Report, Stored};
use sqlx::PgPool;
use uuid::Uuid;

/// Holds what the clients of a sale saw against the database: 0 if it kept all promises, 1 if not, 2 if that cannot
/// be told.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// What the clients did and were told: JSON lines.
    #[arg(long)]
    history: PathBuf,
    /// What the database held before the first operation: JSON of a `Stored`.
    #[arg(long)]
    opening: PathBuf,
    /// The ids of the events that the data platform got, one a line, repeats included.
    #[arg(long)]
    delivered: PathBuf,
    /// The database, in which nothing moves any more.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Writes the report as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Reads it all, and checks it.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Report> {
    let history = History::read(&cli.history)?;
    let at = |path: &PathBuf| path.display().to_string();
    let opening =
        fs::read(&cli.opening).with_context(|| format!("no opening at {}", at(&cli.opening)))?;
    let opening: Stored = serde_json::from_slice(&opening)
        .with_context(|| format!("{} is not what was stored before the sale", at(&cli.opening)))?;
    let delivered = fs::read_to_string(&cli.delivered)
        .with_context(|| format!("no list of events at {}", at(&cli.delivered)))?;
    let ids = delivered.lines().zip(1..).map(|(line, number)| {
        let id = line.trim().parse::<Uuid>();
        id.with_context(|| format!("line {number} of {} is no id", at(&cli.delivered)))
    });
    let delivered = ids.collect::<anyhow::Result<Vec<Uuid>>>()?;
    let pool = PgPool::connect(&cli.database_url).await.context("no database at DATABASE_URL")?;
    let stored = Stored::read(&pool).await.context("the database does not tell what it holds")?;
    let report = firstcome_check::check(&history, &opening, &stored, &delivered);
    if let Some(path) = &cli.json {
        let json = serde_json::to_vec_pretty(&report)?;
        fs::write(path, json).with_context(|| format!("nothing can be written to {}", at(path)))?;
    }
    Ok(report)
}
