//! Which line a job stands in: key → line → queue name.
//!
//! The mapping is our own code and pinned by a golden test, because two processes that disagree
//! about it would serve one coupon from two lines. (A broker-side consistent-hash exchange may
//! re-route a key after a restart.)
//!
//! How many partitions there are, and which keys have a line of their own, is a *routing*. It
//! changes at run time by replacing the whole *generation* of lines: the broker stops taking
//! messages for the old queues, and a new line opens when every old one that fed it is empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::family::Family;

/// Keys are hashed into so many slots, and slots are dealt out to partitions; divisible by every
/// small number of partitions.
pub const SLOTS: u16 = 960;
/// The most partitions of a family; each is a queue with a consumer of its own.
pub const MAX_PARTITIONS: u16 = 256;
/// The most keys of a family that have a line of their own.
pub const MAX_PINS: u8 = 63;

/// The slot of a key (a coupon's or product's id), for ever.
#[must_use]
pub fn slot(key: i64) -> u16 {
    let slot = mix(key.cast_unsigned()) % u64::from(SLOTS);
    #[expect(clippy::cast_possible_truncation, reason = "slot < SLOTS, which is a u16")]
    let slot = slot as u16;
    slot
}

/// A line among those of its family and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineName {
    /// A line for all keys of some slots; counted from 0.
    Partition(u16),
    /// A line for this key alone, so that a hot key delays nobody else.
    Pin(i64),
}

impl std::fmt::Display for LineName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Partition(index) => write!(f, "{index:02}"),
            Self::Pin(key) => write!(f, "pin-{key}"),
        }
    }
}

impl std::str::FromStr for LineName {
    type Err = std::num::ParseIntError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.strip_prefix("pin-") {
            Some(key) => key.parse().map(Self::Pin),
            None => name.parse().map(Self::Partition),
        }
    }
}

/// After what a line's queue, and the exchange that leads to it, are named. What was made by the release before
/// this one keeps its name until it is drained.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Naming {
    /// After the family's [former name](Family::former_name): the release before this one knows no other.
    Kind,
    /// After its family.
    #[default]
    Family,
}

impl Naming {
    /// The name in rows; never renamed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Family => "family",
        }
    }

    /// The naming with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Kind, Self::Family].into_iter().find(|naming| naming.as_str() == name)
    }

    /// The exchange that leads to the family's lines that are named so: `<namespace>.<family>`.
    #[must_use]
    pub fn exchange(self, namespace: &str, family: Family) -> String {
        let family = match self {
            Self::Kind => family.former_name(),
            Self::Family => family.as_str(),
        };
        format!("{namespace}.{family}")
    }
}

/// One line: one queue and its one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// The family of the jobs in this line.
    pub family: Family,
    /// The generation of lines to which it belongs; see [`Routing::generation`].
    pub generation: i32,
    /// Which of its generation's lines it is.
    pub name: LineName,
    /// After what its queue is named: the same for all lines of a generation.
    pub naming: Naming,
}

impl Line {
    /// The queue's name: `<namespace>.<family>.<generation>.<line>`. Messages outlive deploys: never
    /// change it.
    #[must_use]
    pub fn queue(self, namespace: &str) -> String {
        format!("{}.{}", self.exchange(namespace), self.routing_key())
    }

    /// The name of the exchange that leads to its queue.
    #[must_use]
    pub fn exchange(self, namespace: &str) -> String {
        self.naming.exchange(namespace, self.family)
    }

    /// What binds the queue to its family's exchange; the line's name among those of its family.
    #[must_use]
    pub fn routing_key(self) -> String {
        format!("{}.{}", self.generation, self.name)
    }
}

/// How the jobs of a family are dealt out at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Counts up with every change of the routing: the new lines are other queues than the old ones.
    pub generation: i32,
    /// How many partitions share the slots: 1..=[`MAX_PARTITIONS`].
    pub partitions: u16,
    /// The keys with a line of their own, each with its number (below [`MAX_PINS`]) in job ids.
    pub pins: BTreeMap<i64, u8>,
    /// After what the queues of its lines are named.
    pub naming: Naming,
}

impl Routing {
    /// The line of a job with these keys, ascending: a pinned one's, else the first one's.
    #[must_use]
    pub fn line(&self, keys: impl Iterator<Item = i64> + Clone) -> LineName {
        match keys.clone().find(|key| self.pins.contains_key(key)) {
            Some(pinned) => LineName::Pin(pinned),
            None => self.shared_line(slot(keys.clone().next().unwrap_or_default())),
        }
    }

    /// What a job id tells of the line of a job with these keys.
    #[must_use]
    pub fn place(&self, keys: impl Iterator<Item = i64> + Clone) -> Place {
        let pinned = keys.clone().find_map(|key| self.pins.get(&key));
        match (pinned, keys.clone().next()) {
            (Some(number), _) if *number < MAX_PINS => Place(SLOTS + u16::from(*number)),
            // A pin that is being removed.
            (Some(_), _) => Place::UNKNOWN,
            (None, Some(key)) => Place(slot(key)),
            (None, None) => Place::UNKNOWN,
        }
    }

    /// The line that a place means at present.
    #[must_use]
    pub fn line_at(&self, place: Place) -> Option<LineName> {
        match place.0 {
            slot if slot < SLOTS => Some(self.shared_line(slot)),
            // Not known when the id was made.
            _ if place == Place::UNKNOWN => None,
            number => {
                let mut pins = self.pins.iter();
                let key = pins.find(|(_, pin)| SLOTS + u16::from(**pin) == number);
                key.map(|(key, _)| LineName::Pin(*key))
            }
        }
    }

    /// The line of this family and routing with that name.
    #[must_use]
    pub const fn named(&self, family: Family, name: LineName) -> Line {
        Line { family, generation: self.generation, name, naming: self.naming }
    }

    /// Every line of this routing: the partitions, then the pins by key.
    pub fn lines(&self) -> impl Iterator<Item = LineName> + '_ {
        let shared = (0..self.partitions).map(LineName::Partition);
        shared.chain(self.pins.keys().copied().map(LineName::Pin))
    }

    /// The partition that serves this slot.
    #[must_use]
    pub fn shared_line(&self, slot: u16) -> LineName {
        LineName::Partition(slot % self.partitions.max(1))
    }
}

/// What a job id says about the line its job stood in when it was submitted, in 10 bits: the slot
/// of its key, or the number of its pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u16);

impl Place {
    /// How many bits of a job id it takes.
    pub const BITS: u32 = 10;
    /// The place of a job whose line was not known when its id was made.
    pub const UNKNOWN: Self = Self((1 << Self::BITS) - 1);

    /// Reads a place from the low [`Self::BITS`] bits; the others are ignored.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & Self::UNKNOWN.0)
    }

    /// The place as the bits that go into a job id.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The slot of its key; `None` where it is a pin's number, or not known.
    #[must_use]
    pub const fn slot(self) -> Option<u16> {
        if self.0 < SLOTS { Some(self.0) } else { None }
    }
}

/// The finalizer of SplitMix64: neighbouring ids (campaigns created one after the other) land on
/// unrelated partitions.
const fn mix(key: u64) -> u64 {
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routing(partitions: u16, pins: &[i64]) -> Routing {
        let pins = pins.iter().copied().zip(0..).collect();
        Routing { generation: 1, partitions, pins, naming: Naming::Family }
    }

    #[test]
    fn the_mapping_never_changes() {
        let slots: Vec<u16> = (1..=10).chain([1_000_000, i64::MAX]).map(slot).collect();
        assert_eq!(slots, GOLDEN);
        let of = |key| routing(16, &[]).line(std::iter::once(key));
        assert_eq!(of(1), LineName::Partition(GOLDEN[0] % 16));
        for (naming, name, queue) in [
            (Naming::Family, LineName::Partition(3), "firstcome.coupon.1.03"),
            (Naming::Family, LineName::Pin(17), "firstcome.coupon.1.pin-17"),
            (Naming::Kind, LineName::Partition(3), "firstcome.issue-coupon.1.03"),
        ] {
            let line = Line { family: Family::Coupon, generation: 1, name, naming };
            assert_eq!(line.queue("firstcome"), queue);
            assert_eq!(name.to_string().parse(), Ok(name));
            assert_eq!(Naming::from_name(naming.as_str()), Some(naming));
        }
    }

    const GOLDEN: [u16; 12] = [229, 10, 176, 212, 732, 172, 724, 40, 663, 377, 854, 253];

    #[test]
    fn keys_spread_evenly() {
        for partitions in [7, 16, 256] {
            let routing = routing(partitions, &[]);
            let mut counts = vec![0u32; usize::from(partitions)];
            for key in 1..=1_000 * i64::from(partitions) {
                match routing.line(std::iter::once(key)) {
                    LineName::Partition(index) => counts[usize::from(index)] += 1,
                    LineName::Pin(_) => unreachable!("nothing is pinned"),
                }
            }
            assert!(counts.iter().all(|count| (600..1_500).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn a_pinned_key_comes_before_a_lower_one() {
        let routing = routing(4, &[17, 20]);
        assert_eq!(routing.line([3, 17, 20].into_iter()), LineName::Pin(17));
        assert_eq!(routing.line([3, 18].into_iter()), LineName::Partition(slot(3) % 4));
        assert_eq!(routing.lines().count(), 6);
        assert_eq!(routing.place(std::iter::empty()), Place::UNKNOWN);
        assert_eq!(routing.line_at(Place::UNKNOWN), None);
    }

    proptest! {
        #[test]
        fn a_place_leads_to_the_line(key in 1i64..1_000, partitions in 1..=MAX_PARTITIONS, pins: Vec<u8>) {
            let mut pins: Vec<i64> = pins.into_iter().map(i64::from).take(usize::from(MAX_PINS)).collect();
            pins.dedup();
            let routing = routing(partitions, &pins);
            prop_assume!(!pins.contains(&key) || routing.pins[&key] < MAX_PINS);
            let key = std::iter::once(key);
            let place = Place::from_bits(routing.place(key.clone()).bits());
            prop_assert_eq!(routing.line_at(place), Some(routing.line(key)));
        }
    }
}
