//! What happens to RabbitMQ.

use std::{fmt, time::Duration};

use anyhow::{Context, bail};
use tokio::time::sleep;

use crate::{lines, world::World};

/// Less than RabbitMQ wants to be free, as scripts/services has it.
const LEFT_MIB: &str = "100";
/// It looks at its disk every 10 s at the latest.
const LOOKS_FOR_ALARM: u8 = 40;
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerFault {
    Killed,
    Stopped,
    ConnectionsClosed,
    MemoryAlarm,
    DiskAlarm,
    /// To the last byte, but so that RabbitMQ has its alarm before.
    DiskFull,
    /// At once to the last byte, which its queues do not survive.
    DiskFullBeforeAlarm,
    /// A line loses everything that stands in it.
    LinePurged,
    /// What stands in the lines is put into them once more.
    Replayed,
}

impl BrokerFault {
    pub(super) const ALL: [Self; 7] = [
        Self::Killed,
        Self::Stopped,
        Self::ConnectionsClosed,
        Self::MemoryAlarm,
        Self::DiskAlarm,
        Self::LinePurged,
        Self::Replayed,
    ];

    /// Those that RabbitMQ itself does not always survive whole.
    pub(super) const ON_REQUEST: [Self; 2] = [Self::DiskFull, Self::DiskFullBeforeAlarm];

    pub(super) const fn needs_small_disk(self) -> bool {
        matches!(self, Self::DiskFull | Self::DiskFullBeforeAlarm)
    }

    pub(super) async fn strike(self, world: &World) -> anyhow::Result<()> {
        let call = |arguments: &'static [&'static str]| world.services.call(arguments);
        match self {
            Self::Killed => call(&["kill", "rabbitmq"]).await.map(drop),
            Self::Stopped => call(&["stop", "rabbitmq"]).await.map(drop),
            Self::ConnectionsClosed => {
                call(&["rabbitmqctl", "-q", "close_all_connections", "chaos"]).await.map(drop)
            }
            Self::MemoryAlarm => set_memory(world, "1MB").await,
            Self::DiskAlarm => set_disk_limit(world, "1000000GB").await,
            Self::DiskFull => {
                call(&["fill", "rabbitmq", LEFT_MIB]).await?;
                await_alarm(world).await?;
                call(&["fill", "rabbitmq"]).await.map(drop)
            }
            Self::DiskFullBeforeAlarm => call(&["fill", "rabbitmq"]).await.map(drop),
            Self::LinePurged => match lines::longest(world).await? {
                Some(queue) => world
                    .services
                    .call(&["rabbitmqctl", "-q", "purge_queue", &queue])
                    .await
                    .map(drop),
                None => Ok(()),
            },
            Self::Replayed => lines::replay(world).await.context("messages cannot be replayed"),
        }
    }

    pub(super) async fn mend(self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Killed | Self::Stopped => {
                world.services.call(&["start", "rabbitmq"]).await.map(drop)
            }
            // As scripts/services has them.
            Self::MemoryAlarm => set_memory(world, "1GB").await,
            Self::DiskAlarm => set_disk_limit(world, "200MB").await,
            Self::DiskFull | Self::DiskFullBeforeAlarm => {
                world.services.call(&["free", "rabbitmq"]).await?;
                if lines::are_down(world).await?.is_empty() {
                    return Ok(());
                }
                // Quorum queues that could not write do not come back by themselves, though RabbitMQ says that it
                // is well. Nor may it be able to stop; what they have confirmed outlives a kill.
                world.services.call(&["kill", "rabbitmq"]).await?;
                world.services.call(&["start", "rabbitmq"]).await?;
                lines::give_up_lost(world).await
            }
            Self::ConnectionsClosed | Self::LinePurged | Self::Replayed => Ok(()),
        }
    }
}

/// Returns when RabbitMQ has noticed that little room is left.
async fn await_alarm(world: &World) -> anyhow::Result<()> {
    let alarms = ["rabbitmqctl", "-q", "eval", "rabbit_alarm:get_alarms()."];
    for _ in 0..LOOKS_FOR_ALARM {
        if world.services.call(&alarms).await?.contains("disk") {
            return Ok(());
        }
        sleep(LOOK_INTERVAL).await;
    }
    bail!("RabbitMQ has no alarm, with {LEFT_MIB} MiB left")
}

async fn set_memory(world: &World, most: &str) -> anyhow::Result<()> {
    let command = ["rabbitmqctl", "-q", "set_vm_memory_high_watermark", "absolute", most];
    world.services.call(&command).await.map(drop)
}

async fn set_disk_limit(world: &World, least: &str) -> anyhow::Result<()> {
    world.services.call(&["rabbitmqctl", "-q", "set_disk_free_limit", least]).await.map(drop)
}

impl fmt::Display for BrokerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "RabbitMQ: killed",
            Self::Stopped => "RabbitMQ: stopped",
            Self::ConnectionsClosed => "RabbitMQ: all connections closed",
            Self::MemoryAlarm => "RabbitMQ: memory alarm",
            Self::DiskAlarm => "RabbitMQ: disk alarm",
            Self::DiskFull => "RabbitMQ: disk full",
            Self::DiskFullBeforeAlarm => "RabbitMQ: disk full before its alarm",
            Self::LinePurged => "RabbitMQ: a line purged",
            Self::Replayed => "RabbitMQ: messages replayed",
        })
    }
}
