//! A crate's manifest is its rule of admission: who does not depend on something does not know it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::{code_lines, root, sources};

/// All that the contract may need: it is vocabulary and messages, no I/O.
const CONTRACT: [&str; 4] = ["chrono", "serde", "serde_json", "uuid"];

/// Libraries that are the business of some crates alone. Tests may use any.
const CONFINED: [(&str, &[&str]); 14] = [
    ("axum", &["api", "tools/bench", "workers"]),
    ("backoff", &["shared/broker"]),
    // What the audit knows is asked for, not written again.
    ("firstcome-api", &["tools/bench"]),
    ("firstcome-workers", &["tools/bench", "tools/chaos", "tools/demo"]),
    ("hyper", &["api"]),
    ("jsonwebtoken", &["api", "tools/rig"]),
    ("lapin", &["shared/broker"]),
    ("opentelemetry", &["shared/process"]),
    ("opentelemetry_sdk", &["shared/process"]),
    ("redis", &["api", "shared/process", "tools/bench", "workers"]),
    (
        "sqlx",
        &[
            "api",
            "shared/process",
            "tools/bench",
            "tools/chaos",
            "tools/check",
            "tools/demo",
            "tools/rig",
            "workers",
        ],
    ),
    ("tracing-opentelemetry", &["shared/process"]),
    ("tracing-subscriber", &["shared/process"]),
    ("utoipa", &["api"]),
];

/// What each crate of the workspace depends on, but for its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![root()];
    while let Some(folder) = waiting.pop() {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        if manifest.contains("\n[dependencies]\n") {
            let section = manifest.split("\n[dependencies]\n").nth(1).unwrap();
            let section = section.split("\n[").next().unwrap();
            let names = section.lines().filter(|line| !line.starts_with('#'));
            let names = names.filter_map(|line| line.split(['.', ' ', '=']).next());
            let names = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let path = folder.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            all.insert(path, names);
        } else {
            let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let is_ours = |path: &Path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                path.is_dir() && !name.starts_with('.') && name != "target"
            };
            waiting.extend(entries.filter(|path| is_ours(path)));
        }
    }
    // The fuzz targets are tests as well.
    for tests in ["fuzz", "tests"] {
        assert!(all.remove(tests).is_some(), "{tests} is not seen");
    }
    assert!(all.len() >= 8, "this test does not see the manifests: {all:?}");
    all
}

#[test]
fn the_contract_is_vocabulary_and_messages() {
    let all = dependencies();
    assert_eq!(all["shared/contract"], CONTRACT.map(str::to_owned).into());
}

#[test]
fn libraries_stay_where_they_belong() {
    let all = dependencies();
    for (library, homes) in CONFINED {
        let users = all.iter().filter(|(_, names)| names.contains(library));
        let users: Vec<&str> = users.map(|(user, _)| user.as_str()).collect();
        assert_eq!(users, homes, "{library}");
    }
}

/// Within their crates: to replace one of them is to write one file anew.
#[test]
fn some_libraries_are_known_to_one_file() {
    for (library, home, file) in [
        ("backoff", "shared/broker/src", "shared/broker/src/retry.rs"),
        ("opentelemetry", "shared/process/src", "shared/process/src/telemetry.rs"),
        ("opentelemetry_sdk", "shared/process/src", "shared/process/src/telemetry.rs"),
    ] {
        let name = format!("{library}::");
        let uses = |text: &str| code_lines(text).any(|line| line.contains(&name));
        let users = sources(&[home]).into_iter().filter(|source| uses(&source.text));
        assert_eq!(users.map(|source| source.path).collect::<Vec<_>>(), [file], "{library}");
    }
}
