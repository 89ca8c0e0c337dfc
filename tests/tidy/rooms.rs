//! Rooms and their floors: a file can be read with those below it, and no arrow points up.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, sources};

/// The crates' sources.
const CRATES: [&str; 10] = [
    "api/src",
    "shared/broker/src",
    "shared/contract/src",
    "shared/process/src",
    "tools/bench/src",
    "tools/chaos/src",
    "tools/check/src",
    "tools/demo/src",
    "tools/rig/src",
    "workers/src",
];

/// The rooms of a program, floor by floor from the bottom: each uses those below it, and those beside it.
const FLOORS: [(&str, &[&[&str]]); 2] = [
    (
        "api/src",
        &[
            &["cache", "config", "digest", "seldom"],
            &["http"],
            &["lines", "metrics", "server"],
            &["publish"],
            &["known"],
            &["state"],
            // A submission may be answered as a poll would be.
            &["job"],
            &["submit"],
            &["admin", "balance", "cart", "coupon", "health", "ops", "order", "product"],
            // The document reads the routes, which are those of `lib.rs`.
            &["openapi"],
        ],
    ),
    (
        "workers/src",
        &[
            &["config", "database", "jobs", "schema"],
            &["roles"],
            &["metrics"],
            &["line"],
            &["monitor"],
            &["crew", "events"],
            &["commands"],
            &["cli"],
        ],
    ),
];

type Module = Vec<String>;
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// The module of a file: its path below the crate's sources.
fn module(path: &str, root: &str) -> Option<Module> {
    let path = path.strip_prefix(root)?.trim_start_matches('/').strip_suffix(".rs")?;
    let mut parts: Module = path.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    Some(parts)
}

/// The paths of a `use` tree, flat.
fn flatten(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        // Whatever it is called here.
        found.push(format!("{prefix}{}", tree.split('@').next().unwrap()));
        return;
    };
    let prefix = format!("{prefix}{head}");
    let body = rest.rsplit_once('}').map_or(rest, |(body, _)| body);
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in body.char_indices().chain([(body.len(), ',')]) {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if letter == ',' && depth == 0 {
            if start < at {
                flatten(&prefix, &body[start..at], found);
            }
            start = at + 1;
        }
    }
}

/// Every path that a file names: those it imports, and those that stand in its code.
fn paths(text: &str) -> Vec<String> {
    let code: Vec<&str> = super::code_lines(text).collect();
    let code = code.join(" ");
    let mut found = Vec::new();
    for statement in code.split(';') {
        if let Some((_, tree)) = statement.rsplit_once("use ") {
            let tree: String = tree.replace(" as ", "@").split_whitespace().collect();
            flatten("", &tree, &mut found);
        }
    }
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c: char| !is_path(c));
    let inline = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    found.extend(inline.map(str::to_owned));
    found
}

/// The file that a path leads to from this one.
fn target(from: &Module, path: &str, files: &BTreeSet<Module>) -> Option<Module> {
    let mut parts = path.split("::").peekable();
    let mut at = match parts.peek() {
        Some(&"crate") => {
            parts.next();
            Vec::new()
        }
        Some(&("super" | "self")) => from.clone(),
        _ => return None,
    };
    while let Some(step) = parts.next_if(|part| ["super", "self"].contains(part)) {
        if step == "super" {
            at.pop();
        }
    }
    at.extend(parts.map(str::to_owned));
    while !files.contains(&at) {
        at.pop()?;
    }
    Some(at)
}

/// Who names whom. What a module says of those inside it is how it is put together, and no arrow.
fn graph(root: &str) -> Graph {
    let of = |source: &Source| module(&source.path, root);
    let all = sources(&[root]);
    let files: BTreeSet<Module> = all.iter().filter_map(of).collect();
    let mut graph = Graph::new();
    for source in &all {
        let Some(from) = of(source) else { continue };
        let targets =
            paths(&source.text).into_iter().filter_map(|path| target(&from, &path, &files));
        let others = targets.filter(|target| !target.starts_with(&from));
        graph.entry(from.clone()).or_default().extend(others);
    }
    graph
}

/// Those that lead back to themselves, in groups.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reached = |from: &Module| {
        let mut seen: BTreeSet<&Module> = BTreeSet::new();
        let mut waiting: Vec<&Module> = graph.get(from).into_iter().flatten().collect();
        while let Some(next) = waiting.pop() {
            if seen.insert(next) {
                waiting.extend(graph.get(next).into_iter().flatten());
            }
        }
        seen
    };
    let all: BTreeMap<&Module, BTreeSet<&Module>> =
        graph.keys().map(|module| (module, reached(module))).collect();
    let mut groups = BTreeSet::new();
    for (module, reached) in &all {
        let group = reached
            .iter()
            .filter(|other| all.get(*other).is_some_and(|back| back.contains(module)));
        let group: Vec<String> = group.map(|other| other.join("::")).collect();
        if !group.is_empty() {
            groups.insert(group);
        }
    }
    groups.into_iter().collect()
}

#[test]
fn no_circle_between_files() {
    for root in CRATES {
        assert_eq!(circles(&graph(root)), Vec::<Vec<String>>::new(), "in {root}");
    }
}

#[test]
fn rooms_stand_on_each_other() {
    for (root, floors) in FLOORS {
        let floor_of = |room: &String| {
            let floor = floors.iter().position(|floor| floor.contains(&room.as_str()));
            floor.unwrap_or_else(|| panic!("{root}: on which floor is {room}?"))
        };
        let mut seen = BTreeSet::new();
        for (from, targets) in graph(root) {
            // What the crate itself says stands above everything.
            let Some(room) = from.first() else { continue };
            seen.insert(room.clone());
            for target in targets.iter().filter(|target| !target.is_empty()) {
                let is_below = target.first().is_some_and(|used| floor_of(used) <= floor_of(room));
                assert!(
                    is_below,
                    "{root}: {} uses {}, which stands above it",
                    from.join("::"),
                    target.join("::")
                );
            }
        }
        assert_eq!(seen.len(), floors.concat().len(), "a room of the list is not there: {seen:?}");
    }
}

/// Else the tests above would hold of anything.
#[test]
fn a_circle_is_seen() {
    let module = |name: &str| vec![name.to_owned()];
    let files: BTreeSet<Module> = ["a", "b", "c"].map(module).into();
    let names = |from: &str, text: &str| {
        let from = module(from);
        let targets = paths(text).into_iter().filter_map(|path| target(&from, &path, &files));
        targets.collect::<BTreeSet<Module>>()
    };
    let graph: Graph = [
        (module("a"), names("a", "use std::fmt;\nuse crate::{\n    b::{self, B},\n};\n")),
        (module("b"), names("b", "fn f() { super::c::g(crate::b::B) }\n// crate::a\n")),
        (module("c"), names("c", "use super::{b as other, a::A as Other};\n")),
    ]
    .into();
    assert_eq!(circles(&graph), [["a", "b", "c"]]);
    let without = graph.into_keys().map(|from| (from, BTreeSet::new())).collect();
    assert_eq!(circles(&without), Vec::<Vec<String>>::new());
}
