//! The job id: a time-ordered UUID (version 7) that carries the job's kind, so that a poll can
//! answer "queued" with nothing but the id, and a MAC, so that only ids we issued are believed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::JobKind;
use crate::line::Place;

/// Identifies a job. From the top: 48 bits Unix milliseconds of submission · version 7 · 12 bits
/// sequence · variant · 4 bits kind · 10 bits place · 8 bits sequence · 40 bits MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

/// How many bits of sequence tell one millisecond's ids of one process apart.
pub const SEQUENCE_BITS: u32 = 20;
/// How many bits of MAC an id carries: a guess is right once in 10¹² tries.
pub const MAC_BITS: u32 = 40;

/// The end of what RFC 3339 can tell, in Unix milliseconds: 48 bits reach into the year 10889. No API makes such an id,
/// but one in a malformed message is told of, too.
const LATEST: i64 = 253_402_300_799_999;

const MAC_MASK: u128 = (1 << MAC_BITS) - 1;
const VERSION_7: u128 = 0x7 << 76;
const VARIANT: u128 = 0b10 << 62;

impl JobId {
    /// Puts an id together. `millis` uses its low 48 bits, `sequence` its low [`SEQUENCE_BITS`],
    /// `mac` its low [`MAC_BITS`].
    #[must_use]
    pub fn compose(millis: u64, kind: JobKind, place: Place, sequence: u32, mac: u64) -> Self {
        let high = u128::from(millis & 0xffff_ffff_ffff) << 80;
        let sequence_high = u128::from((sequence >> 8) & 0xfff) << 64;
        let kind = u128::from(kind.number()) << 58;
        let place = u128::from(place.bits()) << 48;
        let sequence_low = u128::from(sequence & 0xff) << 40;
        let mac = u128::from(mac) & MAC_MASK;
        Self(Uuid::from_u128(
            high | VERSION_7 | sequence_high | VARIANT | kind | place | sequence_low | mac,
        ))
    }

    /// Everything but the MAC: what the MAC is computed over.
    #[must_use]
    pub const fn without_mac(self) -> u128 {
        self.0.as_u128() & !MAC_MASK
    }

    /// The same with this MAC, of which the low [`MAC_BITS`] are used.
    #[must_use]
    pub const fn with_mac(self, mac: u64) -> Self {
        Self(Uuid::from_u128(self.without_mac() | (mac as u128 & MAC_MASK)))
    }

    /// The bits that prove that one of our APIs made the id.
    #[must_use]
    pub const fn mac(self) -> u64 {
        (self.0.as_u128() & MAC_MASK) as u64
    }

    /// When the job was submitted, to the millisecond; windows are judged by this instant.
    #[must_use]
    pub fn submitted_at(self) -> DateTime<Utc> {
        let millis = (self.0.as_u128() >> 80) as i64;
        DateTime::from_timestamp_millis(millis.min(LATEST)).unwrap_or_default()
    }

    /// The bound that the ids of all jobs submitted at this instant or later reach, and no others.
    #[must_use]
    pub fn lowest_at(at: DateTime<Utc>) -> Uuid {
        let millis = u64::try_from(at.timestamp_millis()).unwrap_or_default();
        Uuid::from_u128(u128::from(millis & 0xffff_ffff_ffff) << 80)
    }

    /// The job's kind, if this program knows it.
    #[must_use]
    pub fn kind(self) -> Option<JobKind> {
        let number = ((self.0.as_u128() >> 58) & 0xf) as u8;
        JobKind::from_number(number)
    }

    /// Where the job stood when it was submitted.
    #[must_use]
    pub const fn place(self) -> Place {
        Place::from_bits(((self.0.as_u128() >> 48) & 0x3ff) as u16)
    }

    /// The id as the database knows it.
    #[must_use]
    pub const fn get(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for JobId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_survive(millis in 0u64..=LATEST.unsigned_abs(), place in 0u16..1 << Place::BITS, sequence in 0u32..1 << SEQUENCE_BITS, mac in 0u64..1 << MAC_BITS) {
            let place = Place::from_bits(place);
            let id = JobId::compose(millis, JobKind::IssueCoupon, place, sequence, mac);
            prop_assert_eq!(id.get().get_version_num(), 7);
            prop_assert_eq!(id.get().get_variant(), uuid::Variant::RFC4122);
            prop_assert_eq!(id.submitted_at().timestamp_millis(), i64::try_from(millis).unwrap());
            prop_assert_eq!(id.kind(), Some(JobKind::IssueCoupon));
            prop_assert_eq!(id.place(), place);
            prop_assert_eq!(id.mac(), mac);
            prop_assert_eq!(JobId::compose(millis, JobKind::IssueCoupon, place, sequence, 0).without_mac(), id.without_mac());
        }

        #[test]
        fn whatever_an_id_says_is_told_as_a_time(id in any::<u128>()) {
            let told = JobId::from(Uuid::from_u128(id)).submitted_at().to_rfc3339();
            prop_assert!(!told.starts_with('+'), "{}", told);
        }

        #[test]
        fn every_sequence_makes_another_id(a in 0u32..1 << SEQUENCE_BITS, b in 0u32..1 << SEQUENCE_BITS) {
            prop_assume!(a != b);
            let id = |sequence| JobId::compose(1, JobKind::IssueCoupon, Place::UNKNOWN, sequence, 0);
            prop_assert_ne!(id(a), id(b));
        }

        #[test]
        fn a_bound_parts_earlier_from_later(millis in 1u64..1 << 47, s in 0u32..1 << SEQUENCE_BITS) {
            let bound = JobId::lowest_at(DateTime::from_timestamp_millis(millis as i64).unwrap());
            prop_assert!(JobId::compose(millis, JobKind::IssueCoupon, Place::from_bits(0), 0, 0).get() >= bound);
            prop_assert!(JobId::compose(millis - 1, JobKind::IssueCoupon, Place::UNKNOWN, s, u64::MAX).get() < bound);
        }

        #[test]
        fn later_ids_sort_later(a in 0u64..1 << 47, later in 1u64..1000, s in 0u32..1 << SEQUENCE_BITS) {
            prop_assert!(JobId::compose(a, JobKind::IssueCoupon, Place::UNKNOWN, s, 9) < JobId::compose(a + later, JobKind::IssueCoupon, Place::from_bits(0), 0, 0));
        }
    }
}
