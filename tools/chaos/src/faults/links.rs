//! What happens to the links between the programs and what they need.

use std::{fmt, time::Duration};

use firstcome_rig::{Proxy, Way};

use crate::world::{Links, World};

/// How late everything comes on a slow link.
const DELAY: Duration = Duration::from_millis(150);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkFault {
    link: Link,
    trouble: Trouble,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Database,
    Broker,
    Redis,
    Platform,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Every connection is closed, and every new one.
    Cut,
    /// Connections stay open, and nothing comes through them any more; new ones work.
    Frozen,
    Slow,
    /// One direction is lost.
    OneWay(Way),
}

impl LinkFault {
    pub(super) fn all() -> Vec<Self> {
        let links = [Link::Database, Link::Broker, Link::Redis, Link::Platform];
        let troubles = [
            Trouble::Cut,
            Trouble::Frozen,
            Trouble::Slow,
            Trouble::OneWay(Way::Asks),
            Trouble::OneWay(Way::Answers),
        ];
        let on = |link| troubles.map(|trouble| Self { link, trouble });
        links.into_iter().flat_map(on).collect()
    }

    pub(super) fn strike(self, world: &World) {
        let proxy = self.link.of(&world.links);
        match self.trouble {
            Trouble::Cut => proxy.cut(),
            Trouble::Frozen => proxy.freeze(),
            Trouble::Slow => proxy.slow_down(DELAY),
            Trouble::OneWay(way) => proxy.block(way),
        }
    }

    pub(super) fn mend(self, world: &World) {
        let proxy = self.link.of(&world.links);
        match self.trouble {
            // Whoever holds a frozen connection has to notice by himself.
            Trouble::Frozen => {}
            Trouble::Slow => proxy.slow_down(Duration::ZERO),
            Trouble::Cut | Trouble::OneWay(_) => proxy.restore(),
        }
    }
}

impl Link {
    const fn of(self, links: &Links) -> &Proxy {
        match self {
            Self::Database => &links.database,
            Self::Broker => &links.broker,
            Self::Redis => &links.redis,
            Self::Platform => &links.platform,
        }
    }
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = match self.link {
            Link::Database => "PostgreSQL",
            Link::Broker => "RabbitMQ",
            Link::Redis => "Redis",
            Link::Platform => "the data platform",
        };
        let trouble = match self.trouble {
            Trouble::Cut => "cut",
            Trouble::Frozen => "frozen",
            Trouble::Slow => "slow",
            Trouble::OneWay(Way::Asks) => "deaf",
            Trouble::OneWay(Way::Answers) => "mute",
        };
        write!(f, "link to {link}: {trouble}")
    }
}
