//! A Redis of a design's own, with an append-only file: the one that all share has none.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use firstcome_rig::{
    Process,
    settings::{Settings, scratch_folder},
    system::free_port,
};
use tokio::time::{Instant, sleep};

use super::programs::in_path;

/// How long it may take to start, which includes reading its file.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How often it is looked whether it has started.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What it is called, as `scripts/services` looks for it.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// It is killed, and its folder deleted, when this is dropped.
pub(super) struct OwnRedis {
    program: PathBuf,
    /// When its file is synced: `everysec` or `always`.
    appendfsync: &'static str,
    address: SocketAddr,
    /// Below the scratch folder, so that it lies where the databases lie.
    folder: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl OwnRedis {
    /// An empty one, which answers.
    pub(super) async fn start(
        appendfsync: &'static str,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let (program, address) = (program()?, free_port().await?);
        let folder = format!("redis-{appendfsync}-{}", std::process::id());
        let folder = scratch_folder().join("bench").join(folder);
        fs::create_dir_all(&folder)?;
        let mut redis = Self {
            program,
            appendfsync,
            address,
            folder: fs::canonicalize(folder)?,
            log: settings.log(&format!("redis-{appendfsync}")),
            process: None,
        };
        redis.launch().await?;
        Ok(redis)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// SIGKILL, in the middle of whatever it does; then the same again, on what it left.
    pub(super) async fn kill_and_start_again(&mut self) -> anyhow::Result<()> {
        self.process.take().context("Redis does not run")?.kill().await?;
        self.launch().await
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let status = self.process.take().context("Redis does not run")?.stop().await?;
        ensure!(status.success(), "Redis ended with {status}; see {}", self.log.display());
        Ok(())
    }

    /// Without snapshots, and without rewriting its file, which would only cost it time here.
    async fn launch(&mut self) -> anyhow::Result<()> {
        let port = self.address.port().to_string();
        let arguments = [
            &["--bind", "127.0.0.1", "--port", &port, "--daemonize", "no", "--dir"][..],
            &[text(&self.folder)?, "--save", "", "--appendonly", "yes", "--appendfsync"],
            &[self.appendfsync, "--auto-aof-rewrite-percentage", "0"],
        ];
        let mut process = Process::start(text(&self.program)?, &arguments.concat(), [], &self.log)?;
        let client = redis::Client::open(self.url())?;
        let give_up = Instant::now() + START_DEADLINE;
        while !answers(&client).await {
            if process.ended()?.is_some() || Instant::now() > give_up {
                bail!("Redis does not start; see {}", self.log.display());
            }
            sleep(LOOK_EVERY).await;
        }
        self.process = Some(process);
        Ok(())
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // Killed by that.
        drop(self.process.take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where the server is.
pub(super) fn program() -> anyhow::Result<PathBuf> {
    PROGRAMS.into_iter().find_map(in_path).context(
        "no redis-server or valkey-server in PATH, which the part `redis-lua` starts for itself: \
         install one (a server in a container or elsewhere cannot be killed and started from here), \
         or name the other parts with --only",
    )
}

/// Not while it reads its file.
async fn answers(client: &redis::Client) -> bool {
    match client.get_multiplexed_async_connection().await {
        Ok(mut redis) => redis::cmd("PING").exec_async(&mut redis).await.is_ok(),
        Err(_) => false,
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no text")
}
