//! What happened, as rows of the outbox. They are appended in the transaction in which it did, with its outcomes; who
//! settles wakes the relay, after the commit.

use firstcome_contract::{
    event::{Event, EventType},
    job::envelope::MAX_PARCEL,
};
use uuid::Uuid;

/// Rows of the outbox, by column: each row has events of one type, as many as one message holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    /// The ids of the first ones.
    pub(crate) ids: Vec<Uuid>,
    pub(crate) types: Vec<&'static str>,
    pub(crate) events: Vec<i32>,
    /// Each event's JSON, joined by line ends.
    pub(crate) lines: Vec<String>,
}

/// Packs events into rows. Those of one type keep their order.
pub(crate) fn pack(events: &[Event]) -> serde_json::Result<Rows> {
    let mut rows = Rows::default();
    for kind in EventType::ALL {
        let of_kind: Vec<&Event> = events.iter().filter(|event| event.kind() == kind).collect();
        for parcel in of_kind.chunks(MAX_PARCEL) {
            let Some(first) = parcel.first() else { continue };
            let lines: serde_json::Result<Vec<String>> =
                parcel.iter().map(serde_json::to_string).collect();
            rows.ids.push(first.id);
            rows.types.push(kind.code());
            rows.events.push(i32::try_from(parcel.len()).unwrap_or(i32::MAX));
            rows.lines.push(lines?.join("\n"));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use firstcome_contract::{
        event::{CouponSoldOut, Data, ProductSoldOut},
        ids::{CouponId, ProductId},
    };
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_event_is_in_one_row_of_its_type(of_coupons in prop::collection::vec(any::<bool>(), 0..400)) {
            let event = |(number, is_coupon): (u128, &bool)| {
                let data = if *is_coupon {
                    Data::CouponSoldOut(CouponSoldOut { coupon_id: CouponId::new(1), total: 1 })
                } else {
                    Data::ProductSoldOut(ProductSoldOut { product_id: ProductId::new(1) })
                };
                Event::new(Uuid::from_u128(number), DateTime::UNIX_EPOCH, data)
            };
            let events: Vec<Event> = (0..).zip(&of_coupons).map(event).collect();
            let rows = pack(&events).unwrap();
            let mut told = Vec::new();
            for (row, lines) in rows.lines.iter().enumerate() {
                let read = |line: &str| Event::decode(line.as_bytes()).unwrap();
                let in_row: Vec<Event> = lines.split('\n').map(read).collect();
                prop_assert_eq!(rows.ids[row], in_row[0].id);
                prop_assert_eq!(usize::try_from(rows.events[row]).unwrap(), in_row.len());
                prop_assert!(in_row.len() <= MAX_PARCEL);
                prop_assert!(in_row.iter().all(|event| event.kind().code() == rows.types[row]));
                told.extend(in_row);
            }
            // A stable sort: within a type the order stays.
            let mut expected = events;
            expected.sort_by_key(|event| EventType::ALL.iter().position(|kind| *kind == event.kind()));
            prop_assert_eq!(told, expected);
            prop_assert!(rows.ids.len() <= of_coupons.len() / MAX_PARCEL + 2);
        }
    }
}
