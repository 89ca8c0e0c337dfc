//! A message of a line: its properties and headers, and the jobs in its body.

use firstcome_broker::{consume::Received, publish::MessageType};
use firstcome_contract::job::{Envelope, Job, Undecodable, envelope::lines};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use uuid::Uuid;

use super::with_an_unknown_field;

/// Reads lines of `name: value`, an empty line and the body, much like a message of HTTP.
///
/// # Panics
/// Where something does not hold.
pub fn check(data: &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((&b""[..], data), |end| (&data[..end], &data[end + 2..]));
    let head = String::from_utf8_lossy(head);
    let received = received(&head, body);
    let (again, other) = (self::received(&head, body), self::received("", body));
    assert_eq!(received.id, again.id, "a message is known again");
    assert!(other.id.starts_with("unnamed-"), "{}", other.id);
    let texts = [Some(&received.id), received.died_in.as_ref()];
    assert!(texts.into_iter().flatten().all(|text| !text.contains('\0')), "it can be stored");
    assert!(received.attempts >= 0, "{}", received.attempts);
    assert_eq!(received.body, body);
    for line in lines(&received.body) {
        match Envelope::decode(line) {
            Ok(envelope) => check_job(&envelope),
            Err(undecodable) => check_undecodable(line, &undecodable),
        }
    }
}

/// The message as the broker would deliver it.
fn received(head: &str, body: &[u8]) -> Received {
    let mut properties = BasicProperties::default();
    let mut headers = FieldTable::default();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        match name {
            // Short strings of AMQP.
            "message-id" if value.len() < 256 => {
                properties = properties.with_message_id(value.into());
            }
            "type" if value.len() < 256 => {
                if let Some(known) = MessageType::from_name(value) {
                    assert_eq!(known.as_str(), value);
                }
                properties = properties.with_type(value.into());
            }
            _ if name.len() < 256 => {
                let number = value.parse().map(AMQPValue::LongInt);
                let value = number.unwrap_or_else(|_| AMQPValue::LongString(value.into()));
                headers.insert(name.into(), value);
            }
            _ => {}
        }
    }
    let mut delivery = Delivery::mock(1, "".into(), "".into(), false, body.to_vec());
    delivery.properties = properties.with_headers(headers);
    Received::from(delivery)
}

fn encoded(envelope: &Envelope) -> Vec<u8> {
    let mut line = Vec::new();
    envelope.encode(&mut line).expect("every job can be encoded");
    line
}

/// A job is one line, reads back, and is such a one as an API accepts.
pub(crate) fn check_job(envelope: &Envelope) {
    let line = encoded(envelope);
    assert_eq!(lines(&line).count(), 1, "a record is a line");
    assert_eq!(line.last(), Some(&b'\n'));
    let again = Envelope::decode(&line).expect("what was encoded can be decoded");
    assert_eq!(again, *envelope);
    assert_eq!(encoded(&again), line, "there is one form");
    assert_eq!(Envelope::decode(&with_an_unknown_field(&line)).as_ref(), Ok(envelope));

    let keys: Vec<i64> = envelope.job.keys().collect();
    assert!((1..=50).contains(&keys.len()), "{keys:?}");
    assert!(keys.is_sorted_by(|earlier, later| earlier < later), "{keys:?}");
    match &envelope.job {
        Job::IssueCoupon(_) => {}
        Job::PlaceOrder(order) => assert!(order.is_valid(), "{order:?}"),
        Job::CancelOrder(order) => assert!(order.is_valid(), "{order:?}"),
    }
    if let Some(trace) = &envelope.trace {
        assert!(
            trace.parent.trace_id != 0 && trace.parent.parent_id != 0 && trace.parent.flags < 4
        );
    }
    let name = envelope.request_id.as_ref().map(|name| name.as_str());
    assert!(name.is_none_or(|name| name.bytes().all(|byte| byte.is_ascii_graphic())), "{name:?}");
}

/// It says why, shortly, and names no job but that in the line.
fn check_undecodable(line: &[u8], undecodable: &Undecodable) {
    let length = undecodable.reason.chars().count();
    assert!((1..=501).contains(&length), "a reason of {length} characters");
    let (Some((id, user)), Ok(Value::Object(fields))) =
        (undecodable.accepted, serde_json::from_slice(line))
    else {
        return;
    };
    let told = fields["id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
    assert_eq!(told, Some(id.get()));
    assert_eq!(fields["userId"].as_i64(), Some(user.get()));
}
