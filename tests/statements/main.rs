//! No statement's cost depends on how many rows a table has, nor on what the planner believes of it.
//!
//! Every statement of the programs (they all stand in `.sqlx`) runs on tables of 200,000 rows, once
//! with each kind of statistics that a sale can meet, with a plan that was made when the tables were
//! empty and with one made when they were full. It may touch what its own rows cost, and no more.

mod cases;
mod database;
mod lookups;
mod rights;

use std::{collections::BTreeMap, fmt, fs, path::Path, sync::LazyLock};

use firstcome_process::database::settings::{BY_KEY, BY_KEY_ANEW};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use cases::{Bound, CASES, Case, EXCEPTIONS, Whose};
use database::Database;

/// A statement as `.sqlx` knows it.
struct Statement {
    query: String,
    /// Names of PostgreSQL's types.
    parameters: Vec<String>,
}

impl Statement {
    /// What it is known by: the longest part of its text that stands in one of the lists.
    fn name(&self) -> Option<&'static str> {
        names().filter(|name| self.query.contains(name)).max_by_key(|name| name.len())
    }
}

/// All bounded ones and all exceptions.
fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.query).chain(EXCEPTIONS.iter().map(|(query, _)| *query))
}

/// What a statement touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Rows and index entries that went through a node of the plan or a trigger.
    rows: u64,
    /// Pages of tables and indexes.
    buffers: u64,
}

impl fmt::Display for Cost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} rows, {} buffers", self.rows, self.buffers)
    }
}

/// What a plan that is compiled counts for, in rows: milliseconds each.
const COMPILED: u64 = 100_000;

/// What the planner believes when it plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statistics {
    /// The tables were never analyzed.
    None,
    /// They were, when they were empty.
    OfEmptyTables,
    /// They were, after a small coupon drop.
    OfDrop,
    /// They were, when there were some hundred rows that looked otherwise.
    OfAnotherSale,
    /// They were, when they had pages but no row: after a trial whose rows are deleted, or were never committed.
    OfEmptiedTables,
    /// They were, as they are.
    Fresh,
}

#[test]
fn every_statement_has_its_bound_or_its_reason() {
    let (mut used, mut findings) = (BTreeMap::new(), Vec::new());
    for statement in statements() {
        match statement.name() {
            Some(name) => {
                let other = used.insert(name, statement.query.clone());
                // A case runs one statement.
                let is_case = CASES.iter().any(|case| case.query == name);
                if is_case && other.is_some_and(|other| other != statement.query) {
                    findings.push(format!("stands for several statements: {name}"));
                }
            }
            None => findings.push(format!("neither bound nor reason: {}", statement.query)),
        }
    }
    let unused = names().filter(|name| !used.contains_key(name));
    findings.extend(unused.map(|name| format!("stands for no statement: {name}")));
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    for (query, reason) in EXCEPTIONS {
        assert!(reason.len() > 20, "why is {query} free to cost what it wants?");
    }
}

/// A planner switch that no statement needs is one more thing to believe in: without each of them,
/// something costs too much, or is planned anew, with the kind of statistics that is named here.
mod costs_are_those_of_their_own_rows {
    use super::*;

    #[tokio::test]
    async fn without_statistics() {
        let switches = without_each(&BY_KEY, |name| name != "enable_sort");
        let switches =
            switches.map(|(name, by_key)| (name, Settings { by_key, ..Settings::ours() }));
        costs(Statistics::None, switches.collect()).await;
    }

    #[tokio::test]
    async fn with_statistics_of_empty_tables() {
        costs(Statistics::OfEmptyTables, Vec::new()).await;
    }

    #[tokio::test]
    async fn with_statistics_of_a_drop() {
        costs(Statistics::OfDrop, Vec::new()).await;
    }

    #[tokio::test]
    async fn with_statistics_of_another_sale() {
        costs(Statistics::OfAnotherSale, Vec::new()).await;
    }

    #[tokio::test]
    async fn with_statistics_of_emptied_tables() {
        let by_key = without_each(&BY_KEY, |name| name == "enable_sort");
        let by_key = by_key.map(|(name, by_key)| (name, Settings { by_key, ..Settings::ours() }));
        // How the other roles' plans are made depends on nothing that is measured here.
        let roles = without_each(&BY_KEY_ANEW, |name| name.starts_with("enable_"));
        let roles = roles.map(|(name, roles)| (name, Settings { roles, ..Settings::ours() }));
        costs(Statistics::OfEmptiedTables, by_key.chain(roles).collect()).await;
    }

    #[tokio::test]
    async fn with_fresh_statistics() {
        costs(Statistics::Fresh, Vec::new()).await;
    }
}

/// Fails if something costs too much with our settings, or nothing does without one of these switches.
async fn costs(statistics: Statistics, switches: Vec<(&str, Settings)>) {
    let (names, mut settings): (Vec<_>, Vec<_>) = switches.into_iter().unzip();
    settings.push(Settings::ours());
    let mut all_findings = measure(statistics, &settings).await;
    let ours = all_findings.pop().unwrap_or_default();
    assert!(ours.is_empty(), "{} cost too much:\n{}", ours.len(), ours.join("\n"));
    for (name, findings) in names.into_iter().zip(all_findings) {
        println!("without {name}: {} findings, such as {:?}", findings.len(), findings.first());
        assert!(!findings.is_empty(), "{name} is not needed");
    }
}

/// Of a session.
type Options = Vec<(&'static str, &'static str)>;

/// These settings without one of them, for each of those that are meant.
fn without_each<const N: usize>(
    all: &'static [(&'static str, &'static str); N],
    is_meant: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (&'static str, Options)> {
    let meant = all.iter().filter(move |(name, _)| is_meant(name));
    meant.map(|(left_out, _)| {
        (*left_out, all.iter().filter(|(name, _)| name != left_out).copied().collect())
    })
}

/// Of the sessions of our pools.
#[derive(Debug, Clone)]
struct Settings {
    /// Of those who settle and serve.
    by_key: Options,
    /// Of the other roles.
    roles: Options,
}

impl Settings {
    fn ours() -> Self {
        Self { by_key: BY_KEY.to_vec(), roles: BY_KEY_ANEW.to_vec() }
    }
}

/// Every case, on a database with these statistics, in sessions with each of these settings; those that
/// cost too much.
async fn measure(statistics: Statistics, settings: &[Settings]) -> Vec<Vec<String>> {
    let database = Database::empty().await;
    match statistics {
        Statistics::None | Statistics::Fresh => {}
        Statistics::OfEmptyTables => database.analyze().await,
        Statistics::OfDrop => {
            database.run(include_str!("fill_drop.sql")).await;
            database.analyze().await;
        }
        Statistics::OfAnotherSale => {
            database.run(include_str!("fill_otherwise.sql")).await;
            database.analyze().await;
        }
        Statistics::OfEmptiedTables => {
            database.run(include_str!("fill_otherwise.sql")).await;
            database.run(include_str!("empty.sql")).await;
            database.analyze().await;
        }
    }
    let mut young = Vec::new();
    for settings in settings {
        let mut session = Session::open(&database, settings).await;
        session.plan().await;
        young.push(session);
    }
    database.run(include_str!("empty.sql")).await;
    database.run(include_str!("fill.sql")).await;
    if statistics == Statistics::Fresh {
        database.analyze().await;
    }
    let mut old = Vec::new();
    for settings in settings {
        old.push(Session::open(&database, settings).await);
    }
    let mut findings = vec![Vec::new(); settings.len()];
    // What is inserted and taken back lies at the end of an index until somebody has passed it: last, when all have read.
    let (reading, inserting): (Vec<_>, Vec<_>) =
        CASES.iter().partition(|case| !case.query.contains("INSERT"));
    for cases in [reading, inserting] {
        for (found, (young, old)) in findings.iter_mut().zip(young.iter_mut().zip(&mut old)) {
            for case in &cases {
                for (planned, session) in
                    [("planned when empty", &mut *young), ("planned when full", &mut *old)]
                {
                    let cost = session.run(case).await;
                    let Bound { rows, buffers } = case.bound;
                    if cost.rows > rows || cost.buffers > buffers {
                        let bound = Cost { rows, buffers };
                        let query = case.query;
                        found.push(format!(
                            "{statistics:?}, {planned}: {cost} (at most {bound}): {query}"
                        ));
                    }
                }
            }
        }
    }
    for (found, (young, old)) in findings.iter_mut().zip(young.iter_mut().zip(&mut old)) {
        found.extend(young.planned_anew().await);
        found.extend(old.planned_anew().await);
    }
    database.drop().await;
    findings
}

/// Sessions with the settings of our pools, and every statement prepared.
struct Session {
    /// Of those who settle and serve.
    by_key: PgConnection,
    /// Of the other roles.
    roles: PgConnection,
}

impl Session {
    async fn open(database: &Database, settings: &Settings) -> Self {
        let Settings { mut by_key, mut roles } = settings.clone();
        for options in [&mut by_key, &mut roles] {
            options.push(("statement_timeout", TIMEOUT));
        }
        let (by_key, roles) = (database.connect(&by_key).await, database.connect(&roles).await);
        let mut session = Self { by_key, roles };
        for (number, case) in CASES.iter().enumerate() {
            let statement = statement(case);
            let types = in_parentheses(&statement.parameters);
            let prepare = format!("PREPARE case_{number} {types} AS {}", statement.query);
            execute(session.connection(case), prepare).await;
        }
        session
    }

    fn connection(&mut self, case: &Case) -> &mut PgConnection {
        if matches!(case.whose, Whose::Roles) { &mut self.roles } else { &mut self.by_key }
    }

    /// Makes the plans that are kept, those within triggers, too: they are made when a statement runs, be it for no row.
    async fn plan(&mut self) {
        for (number, case) in CASES.iter().enumerate() {
            let call = in_parentheses(&vec!["NULL"; case.arguments.len()]);
            let connection = self.connection(case);
            execute(connection, format!("EXPLAIN EXECUTE case_{number} {call}")).await;
            execute(connection, "BEGIN").await;
            let run = format!("EXECUTE case_{number} {call}");
            match sqlx::raw_sql(AssertSqlSafe(run.as_str())).execute(&mut *connection).await {
                Ok(_) => {}
                Err(error) if is_refused(&error) => {}
                Err(error) => panic!("{error}: {run}"),
            }
            execute(connection, "ROLLBACK").await;
        }
    }

    /// Those who settle and serve keep their plans: the statements for which another one was made.
    async fn planned_anew(&mut self) -> Vec<String> {
        let anew = "SELECT 'planned ' || custom_plans || ' times: ' || statement \
                    FROM pg_prepared_statements WHERE custom_plans > 0";
        sqlx::query_scalar(anew).fetch_all(&mut self.by_key).await.unwrap()
    }

    /// Runs the statement, and takes it back.
    async fn run(&mut self, case: &Case) -> Cost {
        let number = CASES.iter().position(|other| other.query == case.query).unwrap();
        let types = &statement(case).parameters;
        assert_eq!(types.len(), case.arguments.len(), "arguments of {}", case.query);
        let connection = self.connection(case);
        execute(connection, "BEGIN").await;
        let mut values = Vec::new();
        for (argument, of_type) in case.arguments.iter().zip(types) {
            let value: Option<String> =
                fetch(connection, format!("SELECT ({argument})::{of_type}::text")).await;
            values.push(
                value.map_or("NULL".to_owned(), |value| format!("'{}'", value.replace('\'', "''"))),
            );
        }
        let call = in_parentheses(&values);
        let before = touched(connection).await;
        let explain =
            format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE case_{number} {call}");
        let explained = try_fetch::<Value>(connection, &explain).await;
        if explained.as_ref().is_err_and(is_cancelled) {
            execute(connection, "ROLLBACK").await;
            return Cost { rows: u64::MAX, buffers: u64::MAX };
        }
        let plan = explained.unwrap_or_else(|error| panic!("{error}: {explain}"));
        let after = touched(connection).await;
        execute(connection, "ROLLBACK").await;
        let mut cost =
            Cost { rows: after.rows - before.rows, buffers: after.buffers - before.buffers };
        // What passes through joins and filters in memory is in no table's count.
        cost.rows = cost.rows.max(processed(&plan[0]["Plan"]));
        // To compile a plan takes longer than to run it.
        if plan[0]["JIT"].is_object() {
            cost.rows += COMPILED;
        }
        cost
    }
}

/// Rows that the nodes of a plan looked at.
fn processed(node: &Value) -> u64 {
    let of = |name: &str| node[name].as_f64().unwrap_or_default();
    let loops = of("Actual Loops");
    let rows = of("Actual Rows")
        + of("Rows Removed by Filter")
        + of("Rows Removed by Join Filter")
        + of("Rows Removed by Index Recheck");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let own = (rows * loops) as u64;
    own + node["Plans"].as_array().into_iter().flatten().map(processed).sum::<u64>()
}

/// What this transaction has touched of our tables and their indexes so far, triggers included.
async fn touched(connection: &mut PgConnection) -> Cost {
    let row = sqlx::query(
        "SELECT sum(pg_stat_get_xact_tuples_returned(oid))::bigint, sum(pg_stat_get_xact_blocks_fetched(oid))::bigint
         FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')",
    )
    .fetch_one(connection)
    .await
    .unwrap();
    let of = |column: usize| u64::try_from(row.get::<i64, _>(column)).unwrap();
    Cost { rows: of(0), buffers: of(1) }
}

async fn execute(connection: &mut PgConnection, query: impl Into<String>) {
    let query = query.into();
    sqlx::raw_sql(AssertSqlSafe(query.as_str()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{error}: {query}"));
}

/// What takes this long costs too much, whatever it is.
const TIMEOUT: &str = "5s";

fn is_cancelled(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("57014"))
}

/// A value that may not be null was.
fn is_refused(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("23502"))
}

async fn fetch<T>(connection: &mut PgConnection, query: String) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    try_fetch(connection, &query).await.unwrap_or_else(|error| panic!("{error}: {query}"))
}

async fn try_fetch<T>(connection: &mut PgConnection, query: &str) -> Result<T, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::raw_sql(AssertSqlSafe(query)).fetch_one(connection).await?.try_get_unchecked(0)
}

/// Parameters of a statement, or what it is called with; nothing where there are none.
fn in_parentheses(all: &[impl AsRef<str>]) -> String {
    let all: Vec<&str> = all.iter().map(AsRef::as_ref).collect();
    if all.is_empty() { String::new() } else { format!("({})", all.join(", ")) }
}

/// A text without comments, on one line.
fn words(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("--").next().unwrap());
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

fn statement(case: &Case) -> &'static Statement {
    // To find each one's name takes longer than to run them all.
    static BY_NAME: LazyLock<BTreeMap<&str, Statement>> = LazyLock::new(|| {
        let all = statements().into_iter();
        all.filter_map(|statement| Some((statement.name()?, statement))).collect()
    });
    BY_NAME.get(case.query).unwrap_or_else(|| panic!("no statement contains: {}", case.query))
}

/// All that the programs ever ask: the build fails for one that is missing here.
fn statements() -> Vec<Statement> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx");
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    files
        .map(|file| {
            let file: Value = serde_json::from_slice(&file).unwrap();
            let query = file["query"].as_str().unwrap();
            let parameters = file["describe"]["parameters"]["Left"].as_array().unwrap();
            let parameters = parameters.iter().map(|name| postgres_type(name.as_str().unwrap()));
            Statement { query: words(query), parameters: parameters.collect() }
        })
        .collect()
}

/// sqlx's name of a type, as PostgreSQL says it.
fn postgres_type(name: &str) -> String {
    match name.strip_suffix("Array") {
        Some(element) => format!("{}[]", postgres_type(element)),
        None => name.to_lowercase(),
    }
}
