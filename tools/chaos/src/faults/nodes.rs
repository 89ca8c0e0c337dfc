//! What happens to the servers of a cluster.

use std::{fmt, time::Duration};

use anyhow::ensure;
use tokio::time::sleep;

use crate::world::World;

/// How long nobody knows that the primary is lost.
const NOTICED_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeFault {
    /// One of the brokers, by its number.
    Broker(u8, Loss),
    /// The primary is lost with its disk; the synchronous standby takes its place.
    PrimaryLost,
    /// The primary is killed, and started again.
    PrimaryKilled,
    /// Every commit waits for it.
    SynchronousStandby(Loss),
}

/// How a server is lost for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    Killed,
    Stopped,
    Paused,
    /// Its peers do not reach it, nor it them; clients do.
    CutOff,
}

impl Loss {
    const fn commands(self) -> [&'static str; 2] {
        match self {
            Self::Killed => ["kill", "start"],
            Self::Stopped => ["stop", "start"],
            Self::Paused => ["pause", "resume"],
            Self::CutOff => ["partition", "heal"],
        }
    }
}

impl NodeFault {
    pub(super) fn all() -> Vec<Self> {
        let losses = [Loss::Killed, Loss::Stopped, Loss::Paused, Loss::CutOff];
        let brokers = (1..=3).flat_map(|number| losses.map(|loss| Self::Broker(number, loss)));
        let standby = [Loss::Killed, Loss::Paused].map(Self::SynchronousStandby);
        brokers.chain([Self::PrimaryLost, Self::PrimaryKilled]).chain(standby).collect()
    }

    pub(super) async fn strike(self, world: &World) -> anyhow::Result<()> {
        let node = self.node(world)?;
        match self {
            Self::Broker(_, loss) | Self::SynchronousStandby(loss) => {
                call(world, loss.commands()[0], &node).await
            }
            Self::PrimaryKilled => call(world, "kill", &node).await,
            Self::PrimaryLost => {
                call(world, "kill", &node).await?;
                sleep(NOTICED_AFTER).await;
                world.services.call(&["promote"]).await.map(drop)
            }
        }
    }

    pub(super) async fn mend(self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Broker(_, loss) | Self::SynchronousStandby(loss) => {
                call(world, loss.commands()[1], &self.node(world)?).await
            }
            Self::PrimaryKilled => call(world, "start", &self.node(world)?).await,
            Self::PrimaryLost => call(world, "rejoin", &world.services.lost()?).await,
        }
    }

    /// Whom it strikes at present.
    fn node(self, world: &World) -> anyhow::Result<String> {
        let role = match self {
            Self::Broker(number, _) => return Ok(format!("rabbit{number}")),
            Self::PrimaryLost | Self::PrimaryKilled => "primary",
            Self::SynchronousStandby(_) => "synchronous",
        };
        let node = world.services.role(role)?;
        ensure!(!node.is_empty(), "there is no {role}");
        Ok(node)
    }
}

async fn call(world: &World, command: &str, node: &str) -> anyhow::Result<()> {
    world.services.call(&[command, node]).await.map(drop)
}

impl fmt::Display for NodeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = |loss: &Loss| match loss {
            Loss::Killed => "killed",
            Loss::Stopped => "stopped",
            Loss::Paused => "paused",
            Loss::CutOff => "cut off from its peers",
        };
        match self {
            Self::Broker(number, loss) => write!(f, "broker {number} of 3: {}", how(loss)),
            Self::PrimaryLost => f.write_str("primary: lost, the synchronous standby promoted"),
            Self::PrimaryKilled => f.write_str("primary: killed, and started again"),
            Self::SynchronousStandby(loss) => write!(f, "synchronous standby: {}", how(loss)),
        }
    }
}
