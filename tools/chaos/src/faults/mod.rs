//! What goes wrong, and how it is put right again.

mod broker;
mod database;
mod links;
mod nodes;
mod platform;
mod programs;
mod redis;

use std::{collections::VecDeque, fmt};

use crate::world::World;
use broker::BrokerFault;
use database::DatabaseFault;
use links::LinkFault;
use nodes::NodeFault;
use platform::PlatformFault;
use programs::ProgramFault;
use redis::RedisFault;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Program(ProgramFault),
    Broker(BrokerFault),
    Database(DatabaseFault),
    Redis(RedisFault),
    Link(LinkFault),
    Platform(PlatformFault),
    Node(NodeFault),
}

impl Fault {
    /// Those of a system with one of each server.
    pub(crate) fn all() -> Vec<Self> {
        let programs = ProgramFault::all().into_iter().map(Self::Program);
        let broker = BrokerFault::ALL.into_iter().map(Self::Broker);
        let database = DatabaseFault::ALL.into_iter().map(Self::Database);
        let redis = RedisFault::ALL.into_iter().map(Self::Redis);
        let links = LinkFault::all().into_iter().map(Self::Link);
        let platform = PlatformFault::ALL.into_iter().map(Self::Platform);
        programs.chain(broker).chain(database).chain(redis).chain(links).chain(platform).collect()
    }

    /// Those that strike only if they are asked for by name.
    pub(crate) fn on_request() -> impl Iterator<Item = Self> {
        BrokerFault::ON_REQUEST.into_iter().map(Self::Broker)
    }

    /// Those of a cluster: its servers', and of the others some that are no server's.
    pub(crate) fn of_cluster() -> Vec<Self> {
        let nodes = NodeFault::all().into_iter().map(Self::Node);
        let programs = ProgramFault::all().into_iter().map(Self::Program);
        let redis = RedisFault::ALL.into_iter().map(Self::Redis);
        // The servers' faults come as often as all others together.
        let others: Vec<Self> = programs.chain(redis).collect();
        let every = others.len().div_ceil(nodes.len()).max(1);
        nodes.chain(others.into_iter().step_by(every)).collect()
    }

    /// Whether the disk of a server is to be filled, which must not be the machine's.
    pub(crate) const fn needs_small_disk(self) -> bool {
        match self {
            Self::Broker(fault) => fault.needs_small_disk(),
            Self::Database(fault) => fault.needs_small_disk(),
            Self::Program(_)
            | Self::Redis(_)
            | Self::Link(_)
            | Self::Platform(_)
            | Self::Node(_) => false,
        }
    }

    /// Lets it happen. What strikes in an instant is over when this returns.
    pub(crate) async fn strike(self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Program(fault) => fault.strike(world).await,
            Self::Broker(fault) => fault.strike(world).await,
            Self::Database(fault) => fault.strike(world).await,
            Self::Redis(fault) => fault.strike(world).await,
            Self::Link(fault) => {
                fault.strike(world);
                Ok(())
            }
            Self::Platform(fault) => {
                fault.strike(world);
                Ok(())
            }
            Self::Node(fault) => fault.strike(world).await,
        }
    }

    /// Puts it right: from now on nothing is wrong with what it struck.
    pub(crate) async fn mend(self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Program(fault) => fault.mend(world).await,
            Self::Broker(fault) => fault.mend(world).await,
            Self::Database(fault) => fault.mend(world).await,
            Self::Redis(fault) => fault.mend(world).await,
            Self::Link(fault) => {
                fault.mend(world);
                Ok(())
            }
            Self::Platform(_) => {
                PlatformFault::mend(world);
                Ok(())
            }
            Self::Node(fault) => fault.mend(world).await,
        }
    }

    /// Whether it destroys what stands in a line.
    pub(crate) fn empties_a_line(self) -> bool {
        self == Self::Broker(BrokerFault::LinePurged)
    }

    /// Faults of different kinds can strike together.
    pub(crate) fn goes_with(self, other: Self) -> bool {
        std::mem::discriminant(&self) != std::mem::discriminant(&other)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(fault) => fault.fmt(f),
            Self::Broker(fault) => fault.fmt(f),
            Self::Database(fault) => fault.fmt(f),
            Self::Redis(fault) => fault.fmt(f),
            Self::Link(fault) => fault.fmt(f),
            Self::Platform(fault) => fault.fmt(f),
            Self::Node(fault) => fault.fmt(f),
        }
    }
}

/// All faults in an order of chance, again and again: none comes twice before each has come.
#[derive(Debug)]
pub(crate) struct Deck {
    all: Vec<Fault>,
    random: fastrand::Rng,
    left: VecDeque<Fault>,
}

impl Deck {
    pub(crate) fn new(all: Vec<Fault>, seed: u64) -> Self {
        Self { all, random: fastrand::Rng::with_seed(seed), left: VecDeque::new() }
    }

    /// What strikes next: a fault, and in one of four cases another one with it.
    pub(crate) fn draw(&mut self) -> Vec<Fault> {
        let mut drawn = Vec::from_iter(self.next(|_| true));
        if let Some(first) = drawn.first().copied().filter(|_| self.random.u8(0..4) == 0) {
            drawn.extend(self.next(|other| first.goes_with(other)));
        }
        drawn
    }

    fn next(&mut self, fits: impl Fn(Fault) -> bool) -> Option<Fault> {
        if self.left.is_empty() {
            let mut all = self.all.clone();
            self.random.shuffle(&mut all);
            self.left.extend(all);
        }
        let position = self.left.iter().position(|fault| fits(*fault))?;
        self.left.remove(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_tells_the_order_and_every_fault_comes() {
        let drawn = |seed| {
            let mut deck = Deck::new(Fault::all(), seed);
            (0..Fault::all().len()).flat_map(|_| deck.draw()).collect::<Vec<_>>()
        };
        let first = drawn(1);
        assert_eq!(first, drawn(1));
        assert_ne!(first, drawn(2));
        assert!(Fault::all().iter().all(|fault| first.contains(fault)));
    }

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        let all = Fault::all().into_iter().chain(Fault::on_request()).collect();
        for all in [all, Fault::of_cluster()] {
            let names: std::collections::BTreeSet<String> =
                all.iter().map(ToString::to_string).collect();
            assert_eq!(names.len(), all.len());
        }
    }
}
