//! What the campaign is told.

use std::path::PathBuf;

use clap::Parser;
use firstcome_rig::settings::ServerArgs;

/// Lets faults strike a private system under load, and checks what came of it.
#[derive(Debug, Parser)]
#[command(name = "firstcome-chaos", version)]
pub(crate) struct Args {
    /// Faults, one after the other.
    #[arg(long, env = "CYCLES", default_value_t = 20)]
    pub(crate) cycles: usize,
    /// What strikes when, and who asks for what.
    #[arg(long, env = "SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Begins no fault after so many minutes.
    #[arg(long, env = "MINUTES")]
    pub(crate) minutes: Option<u64>,
    /// Only the fault with this name, or those that have this in theirs, such as `disk`.
    #[arg(long, env = "ONLY")]
    pub(crate) only: Option<String>,
    /// No faults: only the sale, for so many minutes (30, unless said otherwise), and whether anything grows.
    #[arg(long, env = "SOAK")]
    pub(crate) soak: bool,
    /// Requests per second.
    #[arg(long, env = "RATE", default_value_t = 60)]
    pub(crate) rate: u32,
    /// Where report and history go.
    #[arg(long, default_value = "target/chaos/report")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) servers: ServerArgs,
}

/// How long a soak takes.
const SOAK_MINUTES: u64 = 30;

impl Args {
    /// How many minutes of sale without a fault are asked for.
    pub(crate) fn soak_minutes(&self) -> Option<u64> {
        self.soak.then(|| self.minutes.unwrap_or(SOAK_MINUTES))
    }
}
