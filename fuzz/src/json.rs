//! What is sent in bodies: JSON of customers, and the rows of imports.

use std::fmt;

use firstcome_api::{
    admin::imports::{CouponRow, ProductRow, UserRow, reader::Format},
    balance::ChargeRequest,
    cart::CartRequest,
    http::fields::Fields,
    order::read_order,
};
use firstcome_contract::{
    ids::{OrderId, ProductId, UserId},
    job::{CancelOrder, Envelope, Job, JobId, PlaceOrder, cancel_order::MAX_REASON},
    order::{Fulfilment, MAX_QUANTITY},
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{envelope::check_job, imports};

/// Reads a line that names what is sent, and the body.
///
/// # Panics
/// Where something does not hold.
pub fn check(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (what, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    check_object(body);
    match what {
        b"order" => check_order(body),
        b"charge" => check_charge(body),
        b"cart" => check_cart(body),
        b"cancel" => check_cancel(body),
        b"users.csv" => imports::check::<UserRow>(Format::Csv, body),
        b"users.ndjson" => imports::check::<UserRow>(Format::Ndjson, body),
        b"products.csv" => imports::check::<ProductRow>(Format::Csv, body),
        b"products.ndjson" => imports::check::<ProductRow>(Format::Ndjson, body),
        b"coupons.csv" => imports::check::<CouponRow>(Format::Csv, body),
        b"coupons.ndjson" => imports::check::<CouponRow>(Format::Ndjson, body),
        _ => {}
    }
}

/// The names of an object's fields, as they stand there.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = entries.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What is read as an object is one to every reader of JSON.
fn check_object(body: &[u8]) {
    // Names by which serde_json hands its own types through.
    if body.windows(11).any(|part| part == b"$serde_json") {
        return;
    }
    let value = serde_json::from_slice::<Value>(body);
    assert_eq!(Fields::from_json(body).is_ok(), value.is_ok_and(|value| value.is_object()));
}

/// What `read` takes out of the body, if that is accepted; then it has only fields of these names, each once.
pub(crate) fn accepted<T>(
    body: &[u8],
    known: &[&str],
    read: impl Fn(&mut Fields) -> T,
) -> Option<(T, Value)> {
    let mut fields = Fields::from_json(body).ok()?;
    let read = read(&mut fields);
    fields.finish().ok()?;
    let Names(mut names) = serde_json::from_slice(body).expect("an object");
    assert!(names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
    names.sort_unstable();
    assert!(names.is_sorted_by(|earlier, later| earlier < later), "{names:?}");
    Some((read, serde_json::from_slice(body).expect("an object")))
}

/// A job as the API publishes it, which a worker must be able to read.
fn published(job: Job) {
    let (id, user_id) = (JobId::from(Uuid::nil()), UserId::new(7));
    check_job(&Envelope { id, user_id, idempotency: None, trace: None, request_id: None, job });
}

const ORDER: [&str; 4] = ["items", "fromCart", "couponId", "fulfilment"];

fn check_order(body: &[u8]) {
    let Some((order, sent)) = accepted(body, &ORDER, read_order) else { return };
    assert_eq!(order.coupon_id.map(|id| id.get()), sent["couponId"].as_i64());
    assert_eq!(order.from_cart, sent["fromCart"] == true);
    let fulfilment = match order.fulfilment {
        Fulfilment::All => "all",
        Fulfilment::Partial => "partial",
    };
    assert!(sent["fulfilment"] == fulfilment || order.fulfilment == Fulfilment::default());
    let mut again = json!({ "fulfilment": fulfilment, "fromCart": order.from_cart });
    if let Some(coupon) = order.coupon_id {
        again["couponId"] = coupon.get().into();
    }
    if order.from_cart {
        assert!(order.items.is_empty());
    } else {
        let items = sent["items"].as_array().expect("a list");
        for item in &order.items {
            let is_it = |sent: &&Value| sent["productId"] == item.product_id.get();
            let quantities = items.iter().filter(is_it).map(|sent| sent["quantity"].as_i64());
            assert_eq!(quantities.sum::<Option<i64>>(), Some(item.quantity));
        }
        let item = |sent: &Value| sent["productId"].as_i64();
        let sent: Vec<Option<i64>> = items.iter().map(item).collect();
        assert!(order.product_ids().all(|id| sent.contains(&Some(id))));
        assert!(sent.iter().all(|id| order.product_ids().any(|other| Some(other) == *id)));
        again["items"] = order
            .items
            .iter()
            .map(|item| json!({ "productId": item.product_id, "quantity": item.quantity }))
            .collect();
        published(Job::PlaceOrder(order.clone()));
    }
    let again = accepted(again.to_string().as_bytes(), &ORDER, read_order);
    assert_eq!(again.map(|(order, _)| order), Some::<PlaceOrder>(order));
}

fn check_charge(body: &[u8]) {
    if let Some((request, sent)) = accepted(body, &["amount"], ChargeRequest::read) {
        assert_eq!(sent["amount"].as_i64(), Some(request.amount));
    }
}

fn check_cart(body: &[u8]) {
    if let Some((_, sent)) = accepted(body, &["quantity"], CartRequest::read) {
        assert!(sent["quantity"].as_i64().is_some_and(|it| (1..=MAX_QUANTITY).contains(&it)));
    }
}

fn check_cancel(body: &[u8]) {
    let read = |fields: &mut Fields| fields.optional_text("reason", MAX_REASON);
    let Some((reason, sent)) = accepted(body, &["reason"], read) else { return };
    assert_eq!(reason.as_deref(), sent["reason"].as_str().map(str::trim));
    if let Some(reason) = &reason {
        assert!(!reason.chars().any(char::is_control), "{reason:?}");
        let again = json!({ "reason": reason }).to_string();
        let again = accepted(again.as_bytes(), &["reason"], read);
        assert_eq!(again.and_then(|(reason, _)| reason).as_ref(), Some(reason));
    }
    published(Job::CancelOrder(CancelOrder {
        order_id: OrderId::new(1),
        customer_id: UserId::new(7),
        product_ids: vec![ProductId::new(1)],
        reason,
        by_operator: false,
        max_age_seconds: Some(600),
        request_id: None,
    }));
}
