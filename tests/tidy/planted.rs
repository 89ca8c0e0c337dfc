//! The planted bugs of `make mutations` still fit the code: it takes half an hour, so it is not run with every change.

use std::fs;

use super::root;

/// What a hunk finds in the file: its lines as they are before.
fn before(hunk: &str) -> String {
    let lines = hunk.lines().filter_map(|line| match line.split_at_checked(1) {
        Some((" " | "-", text)) => Some(text),
        Some(_) => None,
        // An empty line whose space an editor has taken.
        None => Some(""),
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_planted_bug_fits_the_code() {
    let patches = fs::read_dir(root().join("tests/mutations")).unwrap();
    let patches = patches.map(|entry| entry.unwrap().path());
    let patches: Vec<_> =
        patches.filter(|path| path.extension().is_some_and(|name| name == "patch")).collect();
    assert!(!patches.is_empty());
    for patch in patches {
        let text = fs::read_to_string(&patch).unwrap();
        let file = text.lines().find_map(|line| line.strip_prefix("+++ b/")).unwrap();
        let code = fs::read_to_string(root().join(file)).unwrap();
        let hunks = text.split("\n@@ ").skip(1).map(|hunk| hunk.split_once('\n').unwrap().1);
        for hunk in hunks.map(before) {
            assert!(code.contains(&hunk), "{}: {file} has no such lines:\n{hunk}", patch.display());
        }
    }
}
