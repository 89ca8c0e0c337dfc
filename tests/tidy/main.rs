//! The architecture as a test: a rule that is only prose drifts.

mod manifests;
mod planted;
mod rooms;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use firstcome_api::http::problem::Code;

/// Who may write a table: the folder of its one writer, or several with the reason.
const WRITERS: [(&str, &[&str]); 33] = [
    // Operators create users, one or many, and tokens of people who are new; sample data does for development.
    (
        "users",
        &["api/src/admin/imports", "api/src/known/users.rs", "workers/src/commands/sample_data.rs"],
    ),
    ("subjects", &["api/src/known/subjects.rs"]),
    // Charges are nobody's line; orders pay, and cancels pay back. New users may begin with something.
    (
        "balances",
        &[
            "api/src/admin/imports",
            "api/src/known/users.rs",
            "api/src/balance",
            "workers/src/jobs/contended.rs",
            "workers/src/commands/sample_data.rs",
        ],
    ),
    (
        "balance_transactions",
        &[
            "api/src/admin/imports",
            "api/src/balance",
            "workers/src/jobs/place_order",
            "workers/src/jobs/cancel_order",
            "workers/src/commands/sample_data.rs",
        ],
    ),
    // Operators own the campaign, the line owns `issued`.
    (
        "coupons",
        &["api/src/admin", "workers/src/jobs/issue_coupon", "workers/src/commands/sample_data.rs"],
    ),
    // One line issues them, another one uses them and gives them back.
    (
        "user_coupons",
        &[
            "workers/src/jobs/issue_coupon",
            "workers/src/jobs/place_order",
            "workers/src/jobs/cancel_order",
        ],
    ),
    // The purge deletes what is past its retention, here and below. Of a job that was lost, no worker has anything
    // in hand: who is asked for it ends it.
    (
        "job_outcomes",
        &[
            "api/src/known/lost.rs",
            "workers/src/line/fence.rs",
            "workers/src/line/outcomes.rs",
            "workers/src/commands/purge.rs",
        ],
    ),
    // The line writes, operators ask for another attempt or forget.
    (
        "dead_letters",
        &[
            "api/src/admin",
            "workers/src/commands/dead_letters.rs",
            "workers/src/line/outcomes.rs",
            "workers/src/crew/redrive.rs",
        ],
    ),
    // What operators want is theirs, what is so the workers'.
    // What is left of a dead letter that is redriven.
    ("redrives", &["workers/src/crew/redrive.rs"]),
    // With the outcomes, and gone with them.
    ("job_mentions", &["workers/src/line/outcomes.rs", "workers/src/commands/purge.rs"]),
    ("early_refusals", &["api/src/known/refusals.rs"]),
    // Who makes a change notes it: the API, and the line where it cancels for an operator.
    ("audit_log", &["api/src/admin/audit_log.rs", "workers/src/jobs/cancel_order"]),
    ("routing", &["workers/src/crew/routing/mod.rs", "workers/src/crew/routing/steps.rs"]),
    ("pins", &["api/src/admin"]),
    ("halts", &["api/src/admin/halts.rs"]),
    ("workers", &["workers/src/crew/sharing.rs"]),
    (
        "partition_leases",
        &[
            "workers/src/crew/sharing.rs",
            "workers/src/crew/routing/steps.rs",
            "workers/src/line/lease.rs",
        ],
    ),
    (
        "line_reports",
        &[
            "workers/src/line/report.rs",
            "workers/src/line/report/fold.rs",
            "workers/src/crew/routing/steps.rs",
        ],
    ),
    // Publishers know what came, settling what went; the line's owner folds what is settled.
    (
        "line_arrivals",
        &["api/src/lines", "workers/src/line/report/fold.rs", "workers/src/crew/routing/steps.rs"],
    ),
    ("line_tellers", &["api/src/lines", "workers/src/commands/purge.rs"]),
    ("line_progress", &["workers/src/line/outcomes.rs", "workers/src/crew/routing/steps.rs"]),
    ("idempotent_answers", &["api/src/known/once.rs", "workers/src/commands/purge.rs"]),
    // Operators own the product, the line owns its stock between their edits.
    (
        "products",
        &["api/src/admin", "workers/src/jobs/contended.rs", "workers/src/commands/sample_data.rs"],
    ),
    // Customers fill it, the line takes out what was bought.
    ("carts", &["api/src/cart", "workers/src/jobs/place_order"]),
    ("orders", &["workers/src/jobs/place_order"]),
    ("order_items", &["workers/src/jobs/place_order"]),
    ("payments", &["workers/src/jobs/place_order"]),
    // Reasons go with the personal data of who gave them.
    ("cancellations", &["api/src/known/users.rs", "workers/src/jobs/cancel_order"]),
    // Orders count, cancels take back what was counted.
    ("purchases", &["workers/src/jobs/place_order", "workers/src/jobs/cancel_order"]),
    // What happened is stored with the outcomes, the relay takes out what it published.
    ("outbox_parcels", &["workers/src/line/outcomes.rs", "workers/src/events/relay_outbox.rs"]),
    ("event_inbox", &["workers/src/events/update_sales_stats"]),
    ("product_sales", &["workers/src/events/update_sales_stats"]),
    ("daily_runs", &["workers/src/events/update_sales_stats", "workers/src/commands/purge.rs"]),
];

struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file below these folders, without its tests module.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path, text });
        }
    }
    assert!(!found.is_empty(), "no sources below {folders:?}");
    found
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

const ALL: [&str; 6] =
    ["api/src", "fuzz/fuzz_targets", "fuzz/src", "shared", "tools", "workers/src"];

/// What a job is about is its handler's: the line asks the registry.
#[test]
fn the_line_knows_no_coupon_and_no_order() {
    for source in sources(&["workers/src/line"]) {
        for word in ["coupon", "Coupon", "orders", "Order"] {
            let line = code_lines(&source.text).find(|line| line.contains(word));
            assert_eq!(line, None, "{}", source.path);
        }
    }
}

#[test]
fn the_way_to_the_database_names_no_table() {
    for source in sources(&["shared/process/src/database"]) {
        for (table, _) in WRITERS {
            let named = |line: &str| {
                line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == table)
            };
            assert!(!code_lines(&source.text).any(named), "{} names {table}", source.path);
        }
    }
}

#[test]
fn every_endpoint_is_documented() {
    for source in sources(&["api/src"]) {
        for line in code_lines(&source.text).filter(|line| line.contains(".route(")) {
            // `OpenApiRouter::routes` is the way in; the pages' own files are no endpoints.
            let is_file = ["\"/docs/", "\"/ops/"].iter().any(|pages| line.contains(pages));
            assert!(is_file, "{}: {line}", source.path);
        }
    }
}

#[test]
fn every_table_has_its_writer() {
    let mut written = BTreeSet::new();
    for source in sources(&["api/src", "workers/src"]) {
        let text = code_lines(&source.text).collect::<Vec<_>>().join(" ");
        let words: Vec<&str> = text
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .collect();
        let targets = words.windows(3).filter_map(|window| match window {
            ["INSERT", "INTO", table] | ["DELETE", "FROM", table] | ["UPDATE", table, "SET"] => {
                Some(*table)
            }
            _ => None,
        });
        for table in targets {
            let (_, writers) =
                WRITERS.iter().find(|(known, _)| *known == table).unwrap_or_else(|| {
                    panic!("{} writes {table}, which has no writer in this list", source.path)
                });
            assert!(
                writers.iter().any(|writer| source.path.starts_with(writer)),
                "{} writes {table}, which belongs to {writers:?}",
                source.path
            );
            let own = writers.iter().filter(|writer| source.path.starts_with(**writer));
            written.extend(own.map(|writer| (table.to_owned(), *writer)));
        }
    }
    for (table, writers) in WRITERS {
        for writer in writers {
            assert!(
                written.contains(&(table.to_owned(), *writer)),
                "{writer} does not write {table}: is this test blind, or the list stale?"
            );
        }
    }
}

/// Who waits for an answer on a connection that is frozen waits for good.
#[test]
fn the_roles_beside_settling_wait_for_no_statement_without_a_bound() {
    const STATEMENTS: [&str; 7] =
        ["execute", "fetch_all", "fetch_one", "fetch_optional", "begin", "begin_with", "commit"];
    let roles = [
        "workers/src/events/relay_outbox.rs",
        "workers/src/events/backlog.rs",
        "workers/src/commands/purge.rs",
        "workers/src/events/update_sales_stats",
        "workers/src/events/subscribe.rs",
    ];
    let mut bounded = 0;
    for source in sources(&roles) {
        let text = code_lines(&source.text).collect::<String>();
        bounded += text.matches("answered(").count();
        for (end, _) in text.match_indices(").await") {
            let mut open = 0;
            let start = text[..=end].rfind(|c| {
                open += i32::from(c == ')') - i32::from(c == '(');
                open == 0
            });
            let called = text[..start.unwrap()].rsplit(|c: char| !c.is_alphanumeric() && c != '_');
            let called = called.into_iter().next().unwrap();
            assert!(!STATEMENTS.contains(&called), "{}: {called}", source.path);
        }
    }
    assert!(bounded > 20, "this test does not see the statements");
}

#[test]
fn files_are_short_and_say_what_they_are() {
    for source in sources(&ALL) {
        let lines = source.text.lines().count();
        assert!(lines <= 450, "{} has {lines} lines: that is two files", source.path);
        let name = Path::new(&source.path).file_stem().unwrap().to_str().unwrap().to_owned();
        let vague = ["util", "utils", "helpers", "common", "misc"];
        assert!(!vague.contains(&name.as_str()), "{}: a name that says nothing", source.path);
        assert!(source.text.starts_with("//!"), "{} does not say what it is", source.path);
        assert!(name != "main" || lines <= 40, "{} has {lines} lines: a main is thin", source.path);
    }
}

/// A code that no flow ever shows is a promise that nothing keeps.
#[test]
fn every_code_is_seen_in_a_flow() {
    let flows = sources(&["tests/flows"]);
    let unseen: Vec<&str> = Code::ALL
        .into_iter()
        .map(Code::name)
        .filter(|code| !flows.iter().any(|flow| flow.text.contains(&format!("\"{code}\""))))
        .collect();
    assert_eq!(unseen, [""; 0]);
}
