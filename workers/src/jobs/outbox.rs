//! What happened, appended to the outbox in the transaction in which it did. Who settles wakes the relay, after the
//! commit.

use firstcome_contract::{
    event::{Event, EventType},
    job::envelope::MAX_PARCEL,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::outcome::HandlerError;

/// A row of the outbox: events of one type, as many as one message holds.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// The id of the first one.
    event_id: Uuid,
    kind: EventType,
    events: i32,
    /// Each event's JSON, joined by line ends.
    lines: String,
}

/// Appends events. Those of one type keep their order.
pub(super) async fn append(
    transaction: &mut PgConnection,
    events: &[Event],
) -> Result<(), HandlerError> {
    let rows = packed(events)?;
    if rows.is_empty() {
        return Ok(());
    }
    let (mut ids, mut types, mut counts, mut lines) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        ids.push(row.event_id);
        types.push(row.kind.code());
        counts.push(row.events);
        lines.push(row.lines);
    }
    sqlx::query!(
        "INSERT INTO outbox_parcels (event_id, type, events, event)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::int[], $4::text[])",
        &ids,
        &types as &[&str],
        &counts,
        &lines,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

fn packed(events: &[Event]) -> serde_json::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in EventType::ALL {
        let of_kind: Vec<&Event> = events.iter().filter(|event| event.kind() == kind).collect();
        for parcel in of_kind.chunks(MAX_PARCEL) {
            let Some(first) = parcel.first() else { continue };
            let lines: serde_json::Result<Vec<String>> =
                parcel.iter().map(serde_json::to_string).collect();
            rows.push(Row {
                event_id: first.id,
                kind,
                events: i32::try_from(parcel.len()).unwrap_or(i32::MAX),
                lines: lines?.join("\n"),
            });
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
            let rows = packed(&events).unwrap();
            let mut told = Vec::new();
            for row in &rows {
                let read = |line: &str| Event::decode(line.as_bytes()).unwrap();
                let in_row: Vec<Event> = row.lines.split('\n').map(read).collect();
                prop_assert_eq!(row.event_id, in_row[0].id);
                prop_assert_eq!(usize::try_from(row.events).unwrap(), in_row.len());
                prop_assert!(in_row.len() <= MAX_PARCEL);
                prop_assert!(in_row.iter().all(|event| event.kind() == row.kind));
                told.extend(in_row);
            }
            // A stable sort: within a type the order stays.
            let mut expected = events;
            expected.sort_by_key(|event| EventType::ALL.iter().position(|kind| *kind == event.kind()));
            prop_assert_eq!(told, expected);
            prop_assert!(rows.len() <= of_coupons.len() / MAX_PARCEL + 2);
        }
    }
}
