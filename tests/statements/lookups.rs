//! What operators and support look up has an index to go by, whatever they ask for: with the planner's own choice, on tables
//! of a size at which it would rather read all of one. `LOOKUPS_ROWS` makes them larger.

use std::time::Instant;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Statement, database::Database, execute, statements, try_fetch};

/// Tables that a sale makes large.
const LARGE: [&str; 9] = [
    "job_outcomes",
    "job_mentions",
    "orders",
    "order_items",
    "cancellations",
    "users",
    "audit_log",
    "dead_letters",
    "redrives",
];
/// As a page looks at most.
const MOST_SEEN: &str = "2000";
const START: &str = "job(0)";
const MIDDLE: &str = "job(current_setting('lookups.rows')::bigint / 2)";
const END: &str = "'ffffffff-ffff-ffff-ffff-ffffffffffff'";

/// A part of each statement that finds what is asked for, and what it is given.
fn searches() -> Vec<(&'static str, Vec<Vec<&'static str>>)> {
    // Without from, to and cursor; up to a cursor; within a window.
    let between = |before: &[&'static str], after: &[&'static str]| -> Vec<Vec<&'static str>> {
        [[START, END], [START, MIDDLE], [MIDDLE, END]]
            .map(|window| [before, &window, after].concat())
            .to_vec()
    };
    let page = |before: &[&'static str]| -> Vec<Vec<&'static str>> {
        ["9007199254740991", "100000"]
            .map(|cursor| [before, &[cursor, MOST_SEEN]].concat())
            .to_vec()
    };
    let spans = |before: &[&'static str]| -> Vec<Vec<&'static str>> {
        let (epoch, late) = ("'1970-01-01'", "'9999-12-31'");
        [[epoch, late], [epoch, "at(100000)"], ["at(100000)", late]]
            .map(|[from, to]| [before, &[from, to, "9007199254740991", MOST_SEEN]].concat())
            .to_vec()
    };
    vec![
        (
            "AS kinds (name)",
            between(&["5", "ARRAY['issue-coupon', 'place-order', 'cancel-order']", "'key-7'"], &[]),
        ),
        (
            "SELECT job_id FROM orders WHERE id BETWEEN $1 AND $1 AND job_id >= $2",
            between(&["80"], &[MOST_SEEN]),
        ),
        (
            "UNION SELECT job_id FROM orders WHERE user_id = $1 ) AS jobs WHERE job_id >= $2",
            between(&["5"], &[MOST_SEEN]),
        ),
        (
            "what = ANY(ARRAY['coupon'])",
            between(&["1"], &[MOST_SEEN])
                .into_iter()
                .chain(between(&["5"], &[MOST_SEEN]))
                .collect(),
        ),
        (
            "what = ANY(ARRAY['product']) AND id = $1 AND job_id >= $2 AND job_id < $3 ORDER BY what DESC",
            between(&["1"], &[MOST_SEEN])
                .into_iter()
                .chain(between(&["5"], &[MOST_SEEN]))
                .collect(),
        ),
        ("WHERE status = 'failed' AND job_id >= $1", between(&[], &[MOST_SEEN])),
        (
            "SELECT job_id FROM job_outcomes WHERE job_id >= $1 AND job_id < $2 ORDER BY job_id DESC",
            between(&[], &[MOST_SEEN]),
        ),
        ("SELECT id, job_id AS job FROM orders WHERE user_id = ANY", page(&["5"])),
        (
            "SELECT id, job_id AS job FROM orders WHERE coupon_id = ANY",
            between(&["5"], &[MOST_SEEN]),
        ),
        ("AS \"id!\", placed.job_id AS \"job!\"", page(&["1"])),
        ("SELECT order_id AS id, job_id AS job FROM cancellations", page(&[])),
        (
            "FROM orders WHERE job_id >= $1 AND job_id < $2 ORDER BY job_id DESC",
            between(&[], &[MOST_SEEN]),
        ),
        (
            "FROM users WHERE lower(email) = lower($1) OFFSET 0",
            vec![vec!["'7@example.com'", "NULL", "0"], vec!["'7@example.com'", "7", "0"]],
        ),
        ("SELECT id FROM users WHERE id > $1", vec![vec!["0", "101"], vec!["10000", "101"]]),
        ("AS \"coupons!\"", vec![vec!["5", "10000"]]),
        (
            "NULL::timestamptz AS redriven_at FROM dead_letters",
            vec![vec!["job(51)", "1000", "100"]],
        ),
        (
            "FROM audit_log WHERE target = ANY",
            spans(&["'products/7'", "NULL", "NULL"])
                .into_iter()
                .chain(spans(&["'products/7'", "3", "'edit-product'"]))
                .collect(),
        ),
        (
            "FROM audit_log WHERE who = ANY",
            spans(&["3", "NULL"]).into_iter().chain(spans(&["3", "'edit-product'"])).collect(),
        ),
        ("FROM audit_log WHERE action = ANY", spans(&["'edit-product'"])),
        ("SELECT at, id FROM audit_log WHERE at >= $1", spans(&[])),
        (
            "WHERE kind = 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint]) AND job_id >= $2 AND job_id < $3 ORDER BY subject, job_id",
            between(&["1"], &["10000"]),
        ),
        (
            "WHERE kind <> 'issue-coupon' AND subject = ANY(ARRAY[$1::bigint]) AND job_id >= $2 AND job_id < $3 ORDER BY subject, job_id",
            between(&["1"], &["10000"]),
        ),
        ("AS mention CROSS JOIN LATERAL", between(&["5"], &["10000"])),
        // What is looked at is filtered: by each combination of what else is asked for.
        (
            "SELECT job_id FROM job_outcomes WHERE job_id = ANY($1) AND ($2::bigint IS NULL",
            combinations(
                "(SELECT array_agg(job_id) FROM (SELECT job_id FROM job_outcomes ORDER BY job_id DESC LIMIT 2000) AS last)",
                &["5", "'place-order'", "'succeeded'", "'coupon-ended'", "1", "5", "80"],
                &[],
            ),
        ),
        (
            "SELECT id FROM orders WHERE id = ANY($1) AND ($2::bigint IS NULL",
            combinations(
                "(SELECT array_agg(id) FROM (SELECT id FROM orders ORDER BY id DESC LIMIT 2000) AS last)",
                &["5", "5", "1", "true"],
                &["'1970-01-01'", "'9999-12-31'"],
            ),
        ),
    ]
}

/// Each of these filters there or not.
fn combinations(
    seen: &'static str,
    filters: &[&'static str],
    after: &[&'static str],
) -> Vec<Vec<&'static str>> {
    let combination = |bits: usize| {
        let filters = filters.iter().enumerate();
        let filters =
            filters.map(|(at, filter)| if bits >> at & 1 == 1 { *filter } else { "NULL" });
        [seen].into_iter().chain(filters).chain(after.iter().copied()).collect()
    };
    (0..1 << filters.len()).map(combination).collect()
}

#[tokio::test]
async fn whatever_is_looked_up_has_its_index() {
    let rows = std::env::var("LOOKUPS_ROWS").unwrap_or_else(|_| "200000".to_owned());
    let database = Database::empty().await;
    let size = ("lookups.rows", rows.as_str());
    let mut filling = database.connect(&[size]).await;
    execute(&mut filling, include_str!("fill_lookups.sql")).await;
    execute(&mut filling, "VACUUM ANALYZE").await;
    let known = statements();
    let find = |part: &str| -> &Statement {
        let mut found = known.iter().filter(|statement| statement.query.contains(part));
        let statement = found.next().unwrap_or_else(|| panic!("no statement contains: {part}"));
        assert!(found.next().is_none(), "several statements contain: {part}");
        statement
    };
    let mut findings = Vec::new();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let mut session = database.connect(&[size, ("plan_cache_mode", mode)]).await;
        for (number, (part, calls)) in searches().into_iter().enumerate() {
            let statement = find(part);
            let types = statement.parameters.join(", ");
            execute(
                &mut session,
                format!("PREPARE search_{number} ({types}) AS {}", statement.query),
            )
            .await;
            let mut slowest = 0.0_f64;
            for arguments in &calls {
                let began = Instant::now();
                let scanned = scanned(&mut session, number, arguments, &statement.parameters).await;
                slowest = slowest.max(began.elapsed().as_secs_f64());
                findings.extend(
                    scanned
                        .map(|table| format!("{mode}: all of {table} for {arguments:?}: {part}")),
                );
            }
            println!(
                "{rows} rows, {mode}: at most {:.1} ms in {} calls: {part}",
                slowest * 1e3,
                calls.len()
            );
        }
    }
    // The test sees what it looks for.
    let mut session = database.connect(&[size]).await;
    execute(
        &mut session,
        "PREPARE search_0 (text) AS SELECT job_id FROM job_outcomes WHERE line = $1",
    )
    .await;
    let seen = scanned(&mut session, 0, &["'2.00'"], &["text".to_owned()]).await;
    assert_eq!(seen.as_deref(), Some("job_outcomes"));
    drop((session, filling));
    database.drop().await;
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

/// Runs a search; a large table that it read all of.
async fn scanned(
    session: &mut PgConnection,
    number: usize,
    arguments: &[&str],
    types: &[String],
) -> Option<String> {
    assert_eq!(arguments.len(), types.len(), "{arguments:?} for {types:?}");
    let mut values = Vec::new();
    for (argument, of_type) in arguments.iter().zip(types) {
        let query = format!("SELECT ({argument})::{of_type}::text");
        let value: Option<String> =
            sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut *session).await.unwrap();
        values.push(
            value.map_or("NULL".to_owned(), |value| format!("'{}'", value.replace('\'', "''"))),
        );
    }
    let call =
        format!("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE search_{number} ({})", values.join(", "));
    let plan = try_fetch::<Value>(session, &call).await.unwrap();
    whole_table(&plan[0]["Plan"])
}

fn whole_table(node: &Value) -> Option<String> {
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let table = node["Relation Name"].as_str().unwrap_or_default();
    if kind.contains("Seq Scan") && LARGE.contains(&table) {
        return Some(table.to_owned());
    }
    node["Plans"].as_array().into_iter().flatten().find_map(whole_table)
}
