//! Logging for both programs.

use tracing_subscriber::EnvFilter;

/// Writes log lines to standard error, filtered by `RUST_LOG` (default `info`; lapin logs each
/// failure that we log again with more context, so it is quieter).
pub fn init() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,lapin=off,sqlx=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
}
