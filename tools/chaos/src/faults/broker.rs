//! What happens to RabbitMQ.

use std::fmt;

use anyhow::Context;

use crate::{lines, world::World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerFault {
    Killed,
    Stopped,
    ConnectionsClosed,
    MemoryAlarm,
    DiskAlarm,
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
            Self::ConnectionsClosed | Self::LinePurged | Self::Replayed => Ok(()),
        }
    }
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
            Self::LinePurged => "RabbitMQ: a line purged",
            Self::Replayed => "RabbitMQ: messages replayed",
        })
    }
}
