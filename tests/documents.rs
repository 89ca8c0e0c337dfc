//! The documents are held to the code: links, paths, commands, settings, endpoints and named tests exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use clap::{Command, CommandFactory, error::ErrorKind};
use firstcome_contract::{failure::Failure, job::JobKind, rejection::Rejection};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use serde_json::Value;

/// Git ignores them.
const IGNORED: [&str; 3] = [".git", ".dev", "target"];
const SETTINGS: &str = "docs/operate.md";
const ENDPOINTS: &str = "docs/api.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below a folder of the repository, by its path.
fn files(below: &str) -> Vec<String> {
    let (root, mut found) = (root(), Vec::new());
    let mut waiting = vec![root.join(below)];
    while let Some(path) = waiting.pop() {
        if IGNORED.iter().any(|ignored| path.file_name().is_some_and(|name| name == *ignored)) {
            continue;
        }
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

/// What the tests look at in a document.
#[derive(Debug, Default)]
struct Document {
    path: String,
    /// The anchors of its headings, as GitHub makes them.
    anchors: Vec<String>,
    links: Vec<Link>,
    /// What stands in backticks.
    codes: Vec<String>,
    /// Blocks of commands.
    commands: Vec<String>,
}

#[derive(Debug, Default)]
struct Link {
    to: String,
    /// Its text, where that stands in backticks.
    code: Option<String>,
}

impl Document {
    fn read(path: String) -> Self {
        let text = text(&path);
        let mut document = Self { path, ..Self::default() };
        let (mut heading, mut is_commands) = (None::<String>, false);
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    document.anchors.extend(heading.take().map(|heading| anchor(&heading)));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(Link { to: dest_url.into_string(), code: None });
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    is_commands = &*language == "sh";
                }
                Event::End(TagEnd::CodeBlock) => is_commands = false,
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    document.codes.push(code.into_string());
                }
                Event::Text(text) if is_commands => document.commands.push(text.into_string()),
                Event::Text(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::End(TagEnd::Link) => {
                    let link = document.links.last_mut().unwrap();
                    link.code = document
                        .codes
                        .last()
                        .filter(|code| is_all_of(&text, code, &link.to))
                        .cloned();
                }
                _ => {}
            }
        }
        document
    }

    /// A path that is written in it, from the root of the repository.
    fn resolve(&self, path: &str) -> PathBuf {
        let folder = Path::new(&self.path).parent().unwrap();
        let mut resolved = root();
        for component in folder.join(path).components() {
            match component {
                Component::ParentDir => assert!(resolved.pop()),
                Component::Normal(name) => resolved.push(name),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        resolved
    }

    /// Its commands, one a line; and those in its sentences.
    fn command_lines(&self) -> impl Iterator<Item = String> {
        let blocks = self.commands.concat().replace("\\\n", " ");
        let lines: Vec<String> = blocks.lines().map(str::to_owned).collect();
        let codes = self.codes.iter().filter(|code| code.contains(' ')).cloned();
        lines.into_iter().chain(codes.collect::<Vec<_>>())
    }
}

/// Whether the link's text is this code and nothing else.
fn is_all_of(text: &str, code: &str, to: &str) -> bool {
    text.contains(&format!("[`{code}`]({to})"))
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn documents() -> Vec<Document> {
    let paths = files("").into_iter().filter(|path| path.ends_with(".md"));
    // Answers of the API, not a document.
    let documents = paths.filter(|path| !path.starts_with("api/src/")).map(Document::read);
    let documents: Vec<Document> = documents.collect();
    assert!(documents.len() > 10, "is this test blind?");
    documents
}

fn document(path: &str) -> Document {
    Document::read(path.to_owned())
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        for Link { to, .. } in document.links.iter().filter(|link| !link.to.contains("://")) {
            let (path, fragment) = to.split_once('#').unwrap_or((to, ""));
            let target =
                if path.is_empty() { root().join(&document.path) } else { document.resolve(path) };
            let is_there = target.exists()
                && (fragment.is_empty() || {
                    let path = target.strip_prefix(root()).unwrap().to_str().unwrap();
                    self::document(path).anchors.iter().any(|anchor| anchor == fragment)
                });
            if !is_there {
                wrong.push(format!("{}: {to}", document.path));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// A rule that names its test.
#[test]
fn every_named_test_exists() {
    let (mut named, mut wrong) = (0, Vec::new());
    for document in documents() {
        for Link { to, code } in &document.links {
            let Some(name) = code.as_ref().filter(|_| to.ends_with(".rs")) else { continue };
            named += 1;
            let source = fs::read_to_string(document.resolve(to)).unwrap_or_default();
            // One, or a module of them.
            if ![format!("fn {name}("), format!("mod {name} {{")]
                .iter()
                .any(|is| source.contains(is))
            {
                wrong.push(format!("{}: {name} in {to}", document.path));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(named > 50, "is this test blind?");
}

#[test]
fn every_path_exists() {
    const ENDINGS: [&str; 6] = [".md", ".rs", ".sh", ".sql", ".toml", ".yml"];
    let all = files("");
    let tops: BTreeSet<&str> =
        all.iter().filter_map(|path| Some(path.split_once('/')?.0)).collect();
    let names: BTreeSet<&str> = all.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
    let mut wrong = Vec::new();
    for document in documents() {
        for code in &document.codes {
            let is_plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
            let top = code.split_once('/').map(|(top, _)| top);
            let is_named =
                ENDINGS.iter().any(|ending| code.len() > ending.len() && code.ends_with(ending));
            let is_path = is_plain && (is_named || top.is_some_and(|top| tops.contains(top)));
            let is_there = match top {
                _ if !is_path || code.starts_with('/') => true,
                Some(_) => root().join(code).exists() || document.resolve(code).exists(),
                None => names.contains(code.as_str()),
            };
            if !is_there {
                wrong.push(format!("{}: {code}", document.path));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_readme_is_short() {
    let lines = text("README.md").lines().count();
    assert!(lines <= 150, "{lines} lines: what is for one kind of reader alone belongs into docs/");
}

/// The picture, the table and the figures are of one run.
#[test]
fn the_readmes_figures_are_those_of_the_results() {
    let links = document("README.md").links;
    let runs = links.iter().filter_map(|link| link.to.strip_prefix("tools/bench/results/"));
    let runs: BTreeSet<&str> = runs.filter_map(|run| Some(run.split_once('/')?.0)).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    let results = text(&format!("tools/bench/results/{}/results.md", runs.first().unwrap()));
    let told: Vec<Vec<String>> = rows("README.md")
        .into_iter()
        .filter(|(what, _)| what.starts_with("one hot"))
        .map(|row| row.1)
        .collect();
    assert_eq!(told.len(), 3, "is this test blind?");
    for figure in told.iter().flatten().map(|cell| cell.split(' ').next().unwrap()) {
        assert!(results.contains(&format!(" {figure} [")), "{figure}");
    }
}

#[test]
fn every_decision_is_told_of_in_the_architecture() {
    let links = document("ARCHITECTURE.md").links;
    let decisions = files("docs/decisions");
    assert!(!decisions.is_empty());
    for decision in decisions {
        assert!(links.iter().any(|link| link.to == decision), "{decision}");
    }
}

fn api() -> Command {
    firstcome_api::config::Cli::command()
}

fn worker() -> Command {
    firstcome_workers::cli::Cli::command()
}

/// A document's table: the cells of each row, by the first one.
fn rows(document: &str) -> BTreeMap<String, Vec<String>> {
    let text = text(document);
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.map(|row| row.split(" | ").map(|cell| cell.trim().to_owned()));
    rows.map(|mut cells| (cells.next().unwrap(), cells.collect())).collect()
}

/// The defaults of every variable that the programs declare.
fn settings(command: &Command, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for argument in command.get_arguments() {
        if let Some(variable) = argument.get_env() {
            let defaults = argument.get_default_values().iter();
            let defaults = defaults.map(|value| format!("`{}`", value.to_str().unwrap()));
            found.entry(format!("`{}`", variable.to_str().unwrap())).or_default().extend(defaults);
        }
    }
    for command in command.get_subcommands() {
        settings(command, found);
    }
}

#[test]
fn every_setting_is_told_with_its_default() {
    let mut declared = BTreeMap::new();
    settings(&api(), &mut declared);
    settings(&worker(), &mut declared);
    assert!(declared.len() > 20, "is this test blind?");
    let rows = rows(SETTINGS);
    for (variable, defaults) in &declared {
        let row = rows.get(variable).unwrap_or_else(|| panic!("{SETTINGS} has no {variable}"));
        let told = row[0].split([',', ' ']).filter(|word| word.starts_with('`'));
        let told: BTreeSet<String> = told.map(str::to_owned).collect();
        assert_eq!(told, *defaults, "{variable}");
    }
    // What is read without being declared, and nothing that nobody reads.
    let sources = ["api/src", "shared", "workers/src"].iter().flat_map(|folder| files(folder));
    let sources: String = sources.map(|path| text(&path)).collect();
    for read in sources.split("env::var").skip(1) {
        let Some(quoted) = read.trim_start_matches("_os").strip_prefix("(\"") else { continue };
        let variable = format!("`{}`", quoted.split('"').next().unwrap());
        assert!(rows.contains_key(&variable), "{SETTINGS} has no {variable}");
    }
    for cell in rows.keys().filter(|cell| cell.to_uppercase() == **cell && cell.starts_with('`')) {
        assert!(sources.contains(cell.trim_matches('`')), "nobody reads {cell}");
    }
}

/// How a job can end is for callers to know, whichever kind it is of.
#[test]
fn every_kind_and_every_ending_is_told() {
    let told = text(ENDPOINTS);
    let kinds = JobKind::ALL.map(JobKind::as_str);
    let codes = Rejection::ALL.map(Rejection::code);
    let failures = Failure::ALL.map(Failure::code);
    for name in kinds.into_iter().chain(codes).chain(failures) {
        assert!(told.contains(&format!("`{name}`")), "{ENDPOINTS} has no {name}");
    }
}

#[test]
fn every_endpoint_is_told() {
    let contract: Value = serde_json::from_str(&text("api/openapi.json")).unwrap();
    let paths = contract["paths"].as_object().unwrap();
    let cells: Vec<String> = rows(ENDPOINTS).into_keys().collect();
    for (path, operations) in paths {
        let told = |cell: &&String| {
            cell.contains(&format!("{path}`")) || cell.contains(&format!("{path}?"))
        };
        let told = cells.iter().find(told).unwrap_or_else(|| panic!("{ENDPOINTS} has no {path}"));
        for method in operations.as_object().unwrap().keys() {
            assert!(told.contains(&method.to_uppercase()), "{method} {path}");
        }
    }
    for word in cells.iter().flat_map(|cell| cell.split([' ', '`', '?'])) {
        assert!(!word.starts_with("/api/") || paths.contains_key(word), "there is no {word}");
    }
}

/// Why the program would not do what this command line says.
fn refused(program: Command, arguments: &[&str]) -> Option<String> {
    // Where to put what is left out is up to the reader.
    const INCOMPLETE: [ErrorKind; 4] = [
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
    ];
    let is_known = |argument: &&&str| !argument.contains(['…', '|', '<', '[', '$', ';', '&']);
    let arguments = arguments.iter().take_while(is_known).copied();
    let parsed = program.try_get_matches_from(std::iter::once("program").chain(arguments));
    parsed.err().filter(|error| !INCOMPLETE.contains(&error.kind())).map(|error| error.to_string())
}

#[test]
fn every_command_exists() {
    let (makefile, manifest) = (text("Makefile"), text("tests/Cargo.toml"));
    let (mut seen, mut wrong) = (0, Vec::new());
    for document in documents() {
        for line in document.command_lines() {
            let line = line.split("# ").next().unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            for (at, word) in words.iter().enumerate() {
                let rest = &words[at + 1..];
                let trouble = match (*word, rest.first()) {
                    ("firstcome-api", Some(_)) => refused(api(), rest),
                    ("firstcome-worker", Some(_)) => refused(worker(), rest),
                    ("make", Some(target)) => {
                        let has =
                            makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
                        (!has).then(|| "no such target".to_owned())
                    }
                    ("--test", Some(name)) => (!manifest.contains(&format!("name = \"{name}\"")))
                        .then(|| "no such test".to_owned()),
                    (script, _) if script.starts_with("scripts/") || script == ".ci/run" => {
                        (!root().join(script).exists()).then(|| "no such script".to_owned())
                    }
                    _ => continue,
                };
                seen += 1;
                wrong
                    .extend(trouble.map(|trouble| format!("{}: {line}: {trouble}", document.path)));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(seen > 30, "is this test blind?");
}

/// Operators find every command of the programs, not only those that somebody remembered.
#[test]
fn every_command_is_told() {
    let told: Vec<String> = document(SETTINGS).command_lines().collect();
    for (program, command) in [("firstcome-api", api()), ("firstcome-worker", worker())] {
        let commands = command.get_subcommands().map(Command::get_name);
        // `all` is the default, told of in a comment.
        for command in commands.filter(|command| *command != "all") {
            let line = format!("{program} {command}");
            assert!(told.iter().any(|told| told.contains(&line)), "{SETTINGS} has no {line}");
        }
    }
}

/// What must hold is in `.ci/run`, where everybody can run it.
#[test]
fn the_workflow_runs_what_everybody_can_run() {
    let workflow = text(".github/workflows/ci.yml");
    let workflow: Value = serde_saphyr::from_str(&workflow).unwrap();
    let jobs = workflow["jobs"].as_object().unwrap();
    let steps: Vec<&Value> =
        jobs.values().flat_map(|job| job["steps"].as_array().unwrap()).collect();
    let runs: Vec<&str> = steps.iter().filter_map(|step| step["run"].as_str()).collect();
    assert_eq!(runs, [".ci/run"]);
    for uses in steps.iter().filter_map(|step| step["uses"].as_str()) {
        let (action, _) = uses.split_once('@').unwrap();
        let known = ["actions/checkout", "actions/cache", "actions/upload-artifact"];
        assert!(known.contains(&action), "{uses} checks something");
    }
}
