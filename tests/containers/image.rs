//! The Dockerfile.

use std::collections::BTreeMap;

use super::{path, text};

struct Instruction {
    name: String,
    text: String,
}

fn instructions() -> Vec<Instruction> {
    let lines = text("Dockerfile").replace("\\\n", " ");
    let lines = lines.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, text)| Instruction { name: name.to_owned(), text: text.trim().to_owned() })
        .collect()
}

/// Those of the stage that becomes the image.
fn last_stage() -> Vec<Instruction> {
    let mut instructions = instructions();
    let from = instructions.iter().rposition(|instruction| instruction.name == "FROM").unwrap();
    instructions.split_off(from)
}

fn last<'a>(stage: &'a [Instruction], name: &str) -> &'a str {
    let found = stage.iter().rfind(|instruction| instruction.name == name);
    &found.unwrap_or_else(|| panic!("no {name}")).text
}

/// What the image sets in the environment of its programs.
pub(crate) fn environment() -> BTreeMap<String, String> {
    let stage = last_stage();
    let set = stage.iter().filter(|instruction| instruction.name == "ENV");
    set.flat_map(|instruction| instruction.text.split_whitespace())
        .map(|setting| setting.split_once('=').unwrap())
        .map(|(variable, value)| (variable.to_owned(), value.to_owned()))
        .collect()
}

/// What the build may see: .dockerignore shuts everything out, then names what may come in.
fn context() -> Vec<String> {
    let file = text(".dockerignore");
    let mut patterns = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(patterns.next(), Some("*"), "everything is shut out first");
    patterns
        .map(|pattern| pattern.strip_prefix('!').expect("then only exceptions").to_owned())
        .collect()
}

#[test]
fn it_is_not_root_and_gets_its_signals() {
    let stage = last_stage();
    let user = last(&stage, "USER");
    let (user, group) = user.split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    assert_eq!(last(&stage, "STOPSIGNAL"), "SIGTERM");
    // A shell in between would keep the signal to itself.
    let command: Vec<String> = serde_json::from_str(last(&stage, "CMD")).unwrap();
    assert_eq!(command, ["firstcome-api", "serve"]);
    assert!(stage.iter().all(|instruction| instruction.name != "ENTRYPOINT"));
}

#[test]
fn it_has_both_programs_and_no_secret() {
    let build = instructions();
    let build = last(&build, "RUN");
    for (folder, program) in [("api", "firstcome-api"), ("workers", "firstcome-worker")] {
        let manifest = text(&format!("{folder}/Cargo.toml"));
        let package = manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap();
        let package = package.trim_matches('"');
        assert!(build.contains(&format!("--package {package} ")), "{package} is not built");
        assert!(build.split(' ').any(|word| word == format!("target/release/{program}")));
        // Written out or by default, Cargo calls it so.
        assert!(package == program || manifest.contains(&format!("name = \"{program}\"")));
    }
    assert!(build.contains("cargo build --locked --release "));
    let environment = environment();
    assert_eq!(environment.keys().collect::<Vec<_>>(), ["API_ADDR", "WORKER_ADDR"]);
    let stage = last_stage();
    let exposed: Vec<&str> = last(&stage, "EXPOSE").split(' ').collect();
    let listens = environment.values().map(|address| address.strip_prefix("0.0.0.0:").unwrap());
    assert_eq!(exposed, listens.collect::<Vec<_>>());
    // Whichever of them runs is asked; that it answers is tried on the running shop.
    let check = last(&stage, "HEALTHCHECK").split_once(" CMD ").unwrap().1;
    assert_eq!(check, r#"["firstcome-worker", "health"]"#);
}

#[test]
fn it_is_built_by_a_compiler_that_is_new_enough() {
    let manifest = text("Cargo.toml");
    let asked = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let instructions = instructions();
    let from = &instructions.iter().find(|instruction| instruction.name == "FROM").unwrap().text;
    let tag = from.strip_prefix("rust:").unwrap().split(['-', ' ']).next().unwrap();
    let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    assert!(minor(tag) >= minor(asked.trim_matches('"')), "{tag} cannot build {asked}");
}

#[test]
fn what_it_copies_is_there() {
    let context = context();
    for name in &context {
        assert!(path(name).exists(), "{name} in .dockerignore does not exist");
    }
    for Instruction { text, .. } in last_stage().iter().filter(|found| found.name == "COPY") {
        let words: Vec<&str> = text.split(' ').collect();
        let (_, sources) = words.split_last().unwrap();
        let from_build = sources[0] == "--from=build";
        assert!(
            from_build || sources.iter().all(|source| context.iter().any(|name| name == source)),
            ".dockerignore shuts out {sources:?}"
        );
    }
}
