//! What happens to Redis.

use std::fmt;

use anyhow::ensure;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedisFault {
    Flushed,
    Killed,
    /// It has less memory than it holds, and takes nothing more.
    Full,
}

impl RedisFault {
    pub(super) const ALL: [Self; 3] = [Self::Flushed, Self::Killed, Self::Full];

    pub(super) async fn strike(self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Flushed => say(world, "FLUSHALL").await,
            Self::Killed => world.services.call(&["kill", "redis"]).await.map(drop),
            Self::Full => say(world, "CONFIG SET maxmemory 1").await,
        }
    }

    pub(super) async fn mend(self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Flushed => Ok(()),
            Self::Killed => world.services.call(&["start", "redis"]).await.map(drop),
            // As scripts/services has it.
            Self::Full => say(world, "CONFIG SET maxmemory 256mb").await,
        }
    }
}

/// A command, past the link.
async fn say(world: &World, command: &str) -> anyhow::Result<()> {
    let mut redis = BufReader::new(TcpStream::connect(world.services.address("redis")?).await?);
    redis.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = String::new();
    redis.read_line(&mut answer).await?;
    ensure!(answer.starts_with("+OK"), "Redis says {answer} to {command}");
    Ok(())
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flushed => "Redis: flushed",
            Self::Killed => "Redis: killed",
            Self::Full => "Redis: full",
        })
    }
}
