//! What was measured on: no names of hosts or folders.

use anyhow::{Context, ensure};
use serde::Serialize;
use sqlx::PgPool;
use tokio::process::Command;

/// The machine and the versions.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_gib: u64,
    pub(super) postgresql: String,
    pub(super) rabbitmq: String,
    pub(super) redis: String,
    pub(super) rustc: String,
    pub(super) commit: String,
}

impl Machine {
    pub(super) async fn look(pool: &PgPool, redis_url: &str) -> anyhow::Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = field(&meminfo, "MemTotal").and_then(|kib| kib.split(' ').next()?.parse().ok());
        let commit = said("git", &["rev-parse", "--short", "HEAD"]).await;
        let changed = said("git", &["status", "--porcelain", "--untracked-files=no"]).await;
        let changed = if changed.as_deref().is_none_or(str::is_empty) { "" } else { " + changes" };
        Ok(Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: (kib.unwrap_or(0u64) + (1 << 19)) >> 20,
            postgresql: show(pool, "SHOW server_version").await?,
            rabbitmq: said("rabbitmqctl", &["version"]).await.unwrap_or_else(unknown),
            redis: redis_version(redis_url).await?,
            rustc: said("rustc", &["--version"]).await.unwrap_or_else(unknown),
            commit: commit.map_or_else(unknown, |commit| commit + changed),
        })
    }
}

/// The processor's name as part of a folder's: `intel-xeon`.
pub(super) fn slug(cpu: &str) -> String {
    let name = cpu.replace("(R)", "").replace("(TM)", "").to_lowercase();
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !matches!(*word, "" | "cpu" | "processor"));
    words.collect::<Vec<_>>().join("-")
}

/// Figures without durability would be of another design.
pub(super) async fn is_durable(pool: &PgPool) -> anyhow::Result<()> {
    for setting in ["SHOW fsync", "SHOW synchronous_commit", "SHOW full_page_writes"] {
        let value = show(pool, setting).await?;
        ensure!(
            value == "on",
            "{setting} says {value}: a comparison without durability says nothing"
        );
    }
    Ok(())
}

async fn show(pool: &PgPool, setting: &'static str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(setting).fetch_one(pool).await
}

async fn redis_version(url: &str) -> anyhow::Result<String> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let version = ["valkey_version", "redis_version"].into_iter().find_map(|name| {
        let version = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(if name == "valkey_version" {
            format!("Valkey {version}")
        } else {
            version.to_owned()
        })
    });
    version.context("Redis tells no version")
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

async fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn unknown() -> String {
    "unknown".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_the_name_without_what_every_name_has() {
        for (cpu, expected) in [
            ("AMD EPYC", "amd-epyc"),
            ("Intel(R) Xeon(R) Processor", "intel-xeon"),
            ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", "intel-core-i7-8700-3-20ghz"),
        ] {
            assert_eq!(slug(cpu), expected);
        }
    }
}
