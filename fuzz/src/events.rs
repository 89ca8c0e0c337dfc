//! A message of events: a line of JSON for each.

use firstcome_contract::{
    event::{Data, Event, SoldItem},
    job::envelope::lines,
    order::{MAX_ITEMS, MAX_PRICE, MAX_QUANTITY},
};
use serde_json::Value;

use super::with_an_unknown_field;

/// Reads the events of a message.
///
/// # Panics
/// Where something does not hold.
pub fn check(data: &[u8]) {
    for line in lines(data) {
        match Event::decode(line) {
            Ok(event) => check_event(&event),
            Err(reason) => {
                let length = reason.chars().count();
                assert!((1..=501).contains(&length), "a reason of {length} characters");
            }
        }
    }
}

/// An event is told in one form, reads back, alone and among others, and is of what can have happened.
fn check_event(event: &Event) {
    let json = serde_json::to_vec(event).expect("every event can be told");
    assert_eq!(lines(&json).count(), 1, "an event is a line");
    let again = Event::decode(&json).expect("what was told can be read");
    assert_eq!(again, *event);
    assert_eq!(serde_json::to_vec(&again).ok().as_ref(), Some(&json), "there is one form");
    assert_eq!(Event::decode(&with_an_unknown_field(&json)).as_ref(), Ok(event));
    let both = [b"[", &json[..], b",", &json, b"]"].concat();
    let both: Vec<Event> = serde_json::from_slice(&both).expect("a list");
    assert_eq!(both, [event.clone(), event.clone()]);

    let told: Value = serde_json::from_slice(&json).expect("JSON");
    let kind = event.kind();
    assert_eq!(told["specversion"], "1.0");
    assert_eq!((&told["type"], &told["source"]), (&kind.code().into(), &kind.source().into()));
    assert_eq!(told["id"], event.id.to_string());
    match &event.data {
        Data::OrderCompleted(order) => check_items(&order.items),
        Data::OrderCancelled(order) => check_items(&order.items),
        Data::CouponIssued(_) | Data::CouponSoldOut(_) | Data::ProductSoldOut(_) => {}
    }
}

/// They can be counted: no sum leaves its range, which overflow checks would tell.
fn check_items(items: &[SoldItem]) {
    assert!(items.len() <= MAX_ITEMS, "{}", items.len());
    let mut amount = 0;
    for SoldItem { quantity, unit_price, .. } in items {
        assert!((1..=MAX_QUANTITY).contains(quantity), "{quantity}");
        assert!((0..=MAX_PRICE).contains(&unit_price.get()), "{unit_price:?}");
        amount += unit_price.times(*quantity).get();
    }
    assert!(amount >= 0);
}
