//! `docs/asyncapi.yaml` describes what is published: every type, every field, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use firstcome_broker::{connect, topology};
use firstcome_contract::event::EventType;
use jsonschema::Validator;
use lapin::{message::BasicGetMessage, options::BasicGetOptions, types::FieldTable};
use serde_json::{Value, json};

use super::{
    event_types::{connection, everything, listen},
    events::counted,
};
use firstcome_tests::{Options, eventually, shop};

fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/asyncapi.yaml");
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The message of each channel, by its routing key.
fn messages(document: &Value) -> BTreeMap<String, &Value> {
    let channels = document["channels"].as_object().unwrap().iter();
    let messages = channels.map(|(name, channel)| {
        let to = channel["messages"][name]["$ref"].as_str().unwrap();
        let message = document.pointer(to.trim_start_matches('#')).unwrap();
        assert_eq!(message["name"], channel["address"]);
        (channel["address"].as_str().unwrap().to_owned(), message)
    });
    messages.collect()
}

/// Only of events that a request with a trace led to.
const OPTIONAL: [&str; 2] = ["traceparent", "tracestate"];

/// Consumers ignore what they do not know. What is not in the document is an error here: every object is closed,
/// and has all of its properties but these.
fn close(schema: &mut Value) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let names = properties.keys().map(String::as_str);
        let names: BTreeSet<&str> = names.filter(|name| !OPTIONAL.contains(name)).collect();
        let required = schema["required"].as_array().unwrap().iter();
        assert_eq!(required.filter_map(Value::as_str).collect::<BTreeSet<_>>(), names);
        schema["additionalProperties"] = json!(false);
    }
    match schema {
        Value::Object(fields) => fields.values_mut().for_each(close),
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn validators(document: &Value) -> BTreeMap<String, Validator> {
    let mut schemas = document["components"]["schemas"].clone();
    close(&mut schemas);
    let of = |message: &Value| {
        let whole = json!({"allOf": [message["payload"]], "components": {"schemas": schemas}});
        jsonschema::options().should_validate_formats(true).build(&whole).unwrap()
    };
    messages(document).into_iter().map(|(key, message)| (key, of(message))).collect()
}

/// As a consumer reads it: each line is an event, the last one too if no line feed ends it.
fn lines(message: &BasicGetMessage) -> Value {
    let lines =
        message.data.strip_suffix(b"\n").unwrap_or(&message.data).split(|byte| *byte == b'\n');
    lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()).collect()
}

#[test]
fn it_names_every_type_and_no_other() {
    let document = document();
    let mut named: Vec<&str> = EventType::ALL.map(EventType::code).to_vec();
    named.sort_unstable();
    assert_eq!(messages(&document).keys().collect::<Vec<_>>(), named);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let types: Vec<&Value> =
        schemas.values().filter_map(|schema| schema.pointer("/properties/type/const")).collect();
    assert_eq!(types.len(), EventType::ALL.len());
    for event in EventType::ALL {
        let schema = schemas
            .values()
            .find(|schema| schema.pointer("/properties/type/const") == Some(&json!(event.code())));
        let source = schema.unwrap().pointer("/properties/source/const");
        assert_eq!(source, Some(&json!(event.source())), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_what_the_document_says() {
    let document = document();
    let (validators, messages) = (validators(&document), messages(&document));
    shop(Options::default(), async |shop| {
        let connection = connection(shop).await;
        let (channel, queue) = listen(shop, &connection, FieldTable::default()).await;
        everything(shop).await;
        counted(shop).await;
        let mut seen = BTreeMap::new();
        eventually("one of each type has come", async || {
            let get = BasicGetOptions { no_ack: true };
            while let Some(message) = channel.basic_get(queue.as_str().into(), get).await.unwrap() {
                let key = message.routing_key.as_str().to_owned();
                let told = messages[&key];
                let properties = &message.properties;
                let sent = |property: &Option<lapin::types::ShortString>| {
                    property.as_ref().map(|text| json!(text.as_str()))
                };
                assert_eq!(sent(properties.content_type()), Some(told["contentType"].clone()));
                let bindings = &document["components"]["messageBindings"]["events"]["amqp"];
                assert_eq!(sent(properties.kind()), Some(bindings["messageType"].clone()));
                let durable = &document["components"]["operationBindings"]["durable"]["amqp"];
                assert_eq!(json!(*properties.delivery_mode()), durable["deliveryMode"]);
                seen.insert(key, lines(&message));
            }
            seen.len() == EventType::ALL.len()
        })
        .await;
        let exchange = &document["components"]["channelBindings"]["events"]["amqp"]["exchange"];
        assert_eq!(exchange["name"], topology::events("firstcome"));
        for (key, lines) in &seen {
            let errors: Vec<String> =
                validators[key].iter_errors(lines).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{key}: {errors:?} in {lines}");
            // It would say so if a field came or went, of the event or of what it tells.
            for at in ["/0", "/0/data"] {
                let fields = lines.pointer(at).unwrap().as_object().unwrap();
                for name in fields.keys() {
                    let mut less = lines.clone();
                    less.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(name);
                    assert!(!validators[key].is_valid(&less), "{key} without {at}/{name}");
                }
                let mut more = lines.clone();
                more.pointer_mut(at).unwrap()["surprise"] = json!(1);
                assert!(!validators[key].is_valid(&more), "{key} with a surprise in {at}");
            }
        }
        connect::close(&connection).await;
    })
    .await;
}
