//! Which line a job stands in: key → partition → queue name.
//!
//! The mapping is our own code and pinned by a golden test, because two processes that disagree
//! about it would serve one coupon from two lines. (A broker-side consistent-hash exchange may
//! re-route a key after a restart.)

use crate::job::JobKind;

/// How many partitions a job kind has unless configured otherwise.
pub const DEFAULT_PARTITIONS: u16 = 16;

/// One line: one queue and its one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The kind of the jobs in this line.
    pub kind: JobKind,
    /// 0-based number within the kind.
    pub index: u16,
}

impl Partition {
    /// The partition of `key` (a coupon's or product's id) among `count` partitions.
    #[must_use]
    pub fn of(kind: JobKind, key: i64, count: u16) -> Self {
        let slot = mix(key.cast_unsigned()) % u64::from(count.max(1));
        #[expect(clippy::cast_possible_truncation, reason = "slot < count, which is a u16")]
        let index = slot as u16;
        Self { kind, index }
    }

    /// All partitions of a kind.
    pub fn all(kind: JobKind, count: u16) -> impl Iterator<Item = Self> {
        (0..count).map(move |index| Self { kind, index })
    }

    /// The queue's name: `<namespace>.<kind>.<index>`. Messages outlive deploys: never change it.
    #[must_use]
    pub fn queue(self, namespace: &str) -> String {
        format!("{namespace}.{}.{:02}", self.kind.as_str(), self.index)
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

    #[test]
    fn the_mapping_never_changes() {
        let of = |key, count| Partition::of(JobKind::IssueCoupon, key, count).index;
        let sixteen: Vec<u16> = (1..=10).map(|key| of(key, 16)).collect();
        assert_eq!(sixteen, GOLDEN_16);
        let seven: Vec<u16> = [1, 2, 3, 1_000_000, i64::MAX].map(|key| of(key, 7)).to_vec();
        assert_eq!(seven, GOLDEN_7);
        let partition = Partition { kind: JobKind::IssueCoupon, index: 3 };
        assert_eq!(partition.queue("firstcome"), "firstcome.issue-coupon.03");
    }

    const GOLDEN_16: [u16; 10] = [5, 10, 0, 4, 12, 12, 4, 8, 7, 9];
    const GOLDEN_7: [u16; 5] = [6, 1, 4, 5, 3];

    #[test]
    fn keys_spread_evenly() {
        let mut counts = [0u32; 16];
        for key in 1..=16_000 {
            counts[usize::from(Partition::of(JobKind::IssueCoupon, key, 16).index)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
