//! The contract: `api/openapi.json` is what the code says, and its examples are true to it.

use std::{collections::BTreeSet, fs};

use firstcome_contract::{job::JobKind, rejection::Rejection};
use serde_json::{Value, json};

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/openapi.json");

fn document() -> Value {
    serde_json::to_value(firstcome_api::openapi::document()).unwrap()
}

#[test]
fn openapi_changes_only_on_purpose() {
    let document = firstcome_api::openapi::document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        fs::write(SNAPSHOT, &document).unwrap();
    }
    let agreed = fs::read_to_string(SNAPSHOT).unwrap_or_default();
    let same = agreed.lines().zip(document.lines()).take_while(|(agreed, now)| agreed == now);
    assert!(
        agreed == document,
        "api/openapi.json differs from line {} on. If clients are meant to see that, renew it:\n\
         UPDATE_SNAPSHOT=1 cargo test -p firstcome-tests --test openapi",
        same.count() + 1,
    );
}

#[test]
fn every_code_is_in_the_document() {
    let document = document();
    let codes = |values: &Value| -> BTreeSet<String> {
        values.as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()).collect()
    };
    let all = codes(&document["components"]["schemas"]["Code"]["enum"]);

    let jobs = document["components"]["schemas"]["JobError"]["description"].as_str().unwrap();
    let in_jobs: BTreeSet<String> =
        all.iter().filter(|code| jobs.contains(*code)).cloned().collect();
    for rejection in Rejection::ALL {
        assert!(in_jobs.contains(rejection.code()), "{rejection:?}: {jobs}");
    }
    let answers = document["components"]["responses"].as_object().unwrap().values();
    let in_answers = answers.flat_map(|answer| {
        answer["content"]["application/problem+json"]["examples"].as_object().unwrap().keys()
    });
    let said: BTreeSet<String> = in_jobs.into_iter().chain(in_answers.cloned()).collect();
    assert_eq!(said, all);
}

/// The result of a kind of job that is not described here would be missed by nobody.
#[test]
fn the_result_of_every_kind_is_described() {
    let schemas = &document()["components"]["schemas"];
    let results = schemas["JobResult"]["oneOf"].as_array().unwrap();
    let name =
        |result: &Value| result["$ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let described: Vec<String> = results
        .iter()
        .map(|result| schemas[name(result)]["description"].as_str().unwrap().to_owned())
        .collect();
    let expected = JobKind::ALL.map(|kind| format!("Of `{}`.", kind.as_str()));
    assert_eq!(described, expected);
}

#[test]
fn operations_have_names_of_their_own() {
    let document = document();
    let items = document["paths"].as_object().unwrap().values();
    let operations: Vec<&Value> =
        items.flat_map(|item| item.as_object().unwrap().values()).collect();
    let names: BTreeSet<&str> =
        operations.iter().map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), operations.len());
}

/// Every example with its schema and where it stands.
fn examples(value: &Value, at: &str, found: &mut Vec<(String, Value, Value)>) {
    match value {
        Value::Object(fields) => {
            let schema = fields.get("schema").unwrap_or(value);
            if let Some(example) = fields.get("example") {
                found.push((at.to_owned(), schema.clone(), example.clone()));
            }
            for (name, example) in
                fields.get("examples").and_then(Value::as_object).into_iter().flatten()
            {
                found.push((format!("{at}/{name}"), schema.clone(), example["value"].clone()));
            }
            for (name, inner) in fields.iter().filter(|(name, _)| !name.starts_with("example")) {
                examples(inner, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                examples(item, &format!("{at}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn examples_fit_their_schemas() {
    let document = document();
    let mut found = Vec::new();
    examples(&document, "", &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for (at, schema, example) in found {
        // No field is left undescribed either.
        let schema = json!({
            "allOf": [schema], "unevaluatedProperties": false, "components": document["components"],
        });
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&example).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{at}: {errors:?} in {example}");
    }
}
