//! Every answer that any test gets must be one that the OpenAPI document tells of.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
};

use jsonschema::Validator;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

/// The document, made stricter: objects have no fields but those that it names.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let document = serde_json::to_value(firstcome_api::openapi::document()).unwrap();
    let mut strict = document.clone();
    for (name, schema) in strict["components"]["schemas"].as_object_mut().unwrap() {
        // These two together are one object.
        if !["Problem", "Detail"].contains(&name.as_str()) {
            *schema = whole(&document, schema);
            schema["unevaluatedProperties"] = json!(false);
        }
    }
    strict
});

/// The schema with those in it that it is made of: each of them alone would have no fields of the others.
fn whole(document: &Value, schema: &Value) -> Value {
    let mut schema = schema.clone();
    for part in schema.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(reference) = part["$ref"].as_str() {
            *part = document.pointer(reference.trim_start_matches('#')).unwrap().clone();
        }
        *part = whole(document, part);
    }
    schema
}

/// Headers that a client acts on.
const TELLING: [&str; 5] =
    ["Location", "Retry-After", "WWW-Authenticate", "Allow", "Preference-Applied"];

/// Fails the test if the document does not tell of this answer.
pub fn check(method: &Method, path: &str, status: u16, headers: &HeaderMap, body: &Value) {
    let Some(operation) = operation(method, path) else {
        assert!(
            [401, 404, 405].contains(&status)
                || ["/docs/", "/ops/"].iter().any(|pages| path.starts_with(pages)),
            "{method} {path}: {status}"
        );
        return;
    };
    let what = format!("{method} {path}: {status}");
    let answer = resolve(&operation["responses"][status.to_string()]);
    assert!(answer.is_object(), "{what} is not documented");
    for name in TELLING {
        let documented = !answer["headers"][name].is_null();
        assert!(documented || !headers.contains_key(name), "{what}: {name} is not documented");
    }
    let content_type = headers.get("content-type").map(|value| value.to_str().unwrap());
    let Some(content_type) = content_type else {
        assert!(answer["content"].is_null(), "{what} has no body");
        return;
    };
    let content = &answer["content"][content_type.split(';').next().unwrap()];
    assert!(content.is_object(), "{what}: {content_type} is not documented");
    if content_type == "application/problem+json" {
        let code = body["code"].as_str().unwrap();
        assert!(content["examples"][code].is_object(), "{what}: {code} is not documented");
    }
    if content_type.ends_with("json") {
        fits(&what, &content["schema"], body);
    }
}

/// The operation at a path, by the names in the document's paths.
fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let matches = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template
                .split('/')
                .zip(path.split('/'))
                .all(|(name, part)| name == part || name.starts_with('{'))
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    // A path without names goes first, as in the router.
    let item = paths
        .get(path)
        .or_else(|| paths.iter().find(|(template, _)| matches(template)).map(|(_, item)| item))?;
    item.get(method.as_str().to_ascii_lowercase())
}

pub fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

fn fits(what: &str, schema: &Value, body: &Value) {
    /// Making one takes long, and there are few schemas.
    static VALIDATORS: Mutex<BTreeMap<String, Arc<Validator>>> = Mutex::new(BTreeMap::new());
    let validator = {
        let mut validators = VALIDATORS.lock().unwrap();
        let validator = validators.entry(schema.to_string()).or_insert_with(|| {
            let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
            Arc::new(jsonschema::options().should_validate_formats(true).build(&whole).unwrap())
        });
        Arc::clone(validator)
    };
    let errors: Vec<String> = validator.iter_errors(body).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{what}: {errors:?} in {body}");
}
