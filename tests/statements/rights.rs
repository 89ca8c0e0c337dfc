//! Each program has the rights that its statements need (`deploy/postgres/roles.sql`), and no other ones.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use sqlx::Row;

use crate::{database::Database, execute, in_parentheses, statements, words};

/// Each program's role and code. Sample data is the owner's to make.
const PROGRAMS: [(&str, &str); 2] =
    [("firstcome_api", "api/src"), ("firstcome_worker", "workers/src")];
const OWNERS: &str = "sample_data.rs";

/// What the statements of the audit end with, which are put together of parts.
const AUDIT: &str = "AS looked_at (subject, is_violation)) AS found";

/// What a role may do, and on which table.
type Right = (&'static str, String);

/// All code below a folder, on one line.
fn code(folder: &Path) -> String {
    let mut waiting: Vec<PathBuf> = vec![folder.to_owned()];
    let mut code = String::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with(OWNERS)
        {
            code += &words(&fs::read_to_string(path).unwrap());
        }
    }
    code
}

/// The rights that a statement takes, besides to read.
fn rights(query: &str) -> BTreeSet<Right> {
    let words = query.split(|c: char| !c.is_alphanumeric() && c != '_');
    // So that each word has two behind it.
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).chain(["", ""]).collect();
    let mut rights = BTreeSet::new();
    let mut inserted = None;
    // The tables that were read last: those are locked.
    let mut read = None;
    for window in words.windows(3) {
        match window {
            ["INSERT", "INTO", table] => {
                inserted = Some((*table).to_owned());
                rights.insert(("INSERT", (*table).to_owned()));
            }
            ["DELETE", "FROM", table] => _ = rights.insert(("DELETE", (*table).to_owned())),
            ["UPDATE", table, "SET" | "AS"] => _ = rights.insert(("UPDATE", (*table).to_owned())),
            ["DO", "UPDATE", "SET"] => {
                rights.extend(inserted.clone().map(|table| ("UPDATE", table)))
            }
            ["FROM", table, _] => read = Some((*table).to_owned()),
            ["FOR", "UPDATE" | "SHARE", _] | ["FOR", "NO", "KEY"] => {
                rights.extend(read.clone().map(|table| ("UPDATE", table)));
            }
            ["LOCK", "TABLE", table] => _ = rights.insert(("UPDATE", (*table).to_owned())),
            _ => {}
        }
    }
    rights
}

#[tokio::test]
async fn each_program_may_do_what_its_statements_do_and_nothing_else() {
    let database = Database::empty().await;
    database.run(include_str!("../../deploy/postgres/roles.sql")).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut findings = Vec::new();
    let mut known = BTreeSet::new();
    for (role, folder) in PROGRAMS {
        let code = code(&root.join(folder));
        let mut session = database.connect(&[("plan_cache_mode", "force_generic_plan")]).await;
        execute(&mut session, format!("SET ROLE {role}")).await;
        let mut needed: BTreeSet<Right> = BTreeSet::new();
        for statement in statements() {
            let is_audit = statement.query.ends_with(AUDIT) && folder == "workers/src";
            if !is_audit && !code.contains(&statement.query) {
                continue;
            }
            known.insert(statement.query.clone());
            needed.extend(rights(&statement.query));
            // What has no plan.
            if ["LOCK", "SET"].iter().any(|word| statement.query.starts_with(word)) {
                continue;
            }
            let types = in_parentheses(&statement.parameters);
            let nulls = in_parentheses(&vec!["NULL"; statement.parameters.len()]);
            execute(&mut session, format!("PREPARE asked {types} AS {}", statement.query)).await;
            // Rights are looked at, and nothing is done.
            let asked =
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE asked {nulls}")));
            if let Err(error) = asked.execute(&mut session).await {
                findings.push(format!("{role}: {error}: {}", statement.query));
            }
            execute(&mut session, "DEALLOCATE asked").await;
        }
        let given = sqlx::query(
            "SELECT verb, relname::text AS name FROM pg_class, UNNEST(ARRAY['INSERT', 'UPDATE', 'DELETE']) AS verb
             WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
               AND CASE verb WHEN 'DELETE' THEN has_table_privilege($1, oid, verb)
                             ELSE has_any_column_privilege($1, oid, verb) END",
        )
        .bind(role)
        .fetch_all(&mut session)
        .await
        .unwrap();
        for row in given {
            let (verb, name): (String, String) = (row.get("verb"), row.get("name"));
            if !needed.iter().any(|(needed, table)| *needed == verb && *table == name) {
                findings.push(format!("{role} may {verb} {name}, and no statement of it does"));
            }
        }
        // Both write the table, each its own columns.
        for (column, whose) in [("issued", "firstcome_worker"), ("total", "firstcome_api")] {
            let may =
                sqlx::query_scalar("SELECT has_column_privilege($1, 'coupons', $2, 'UPDATE')");
            let may: bool = may.bind(role).bind(column).fetch_one(&mut session).await.unwrap();
            if may != (role == whose) {
                findings.push(format!("{column} of coupons is {whose}'s"));
            }
        }
        for never in
            ["CREATE TABLE mine ()", "TRUNCATE carts", "ALTER TABLE users DROP COLUMN name"]
        {
            if sqlx::raw_sql(never).execute(&mut session).await.is_ok() {
                findings.push(format!("{role} may {never}"));
            }
        }
    }
    let owners = fs::read_to_string(root.join("workers/src/commands").join(OWNERS)).unwrap();
    let (owners, shared) = (words(&owners), code(&root.join("shared")));
    for statement in statements() {
        let is_elsewhere = [&owners, &shared].iter().any(|code| code.contains(&statement.query));
        if !known.contains(&statement.query) && !is_elsewhere {
            findings.push(format!("whose is it? {}", statement.query));
        }
    }
    database.drop().await;
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
