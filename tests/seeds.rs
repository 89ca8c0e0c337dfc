//! The fuzz targets hold for their seeds. `make fuzz` makes up more; here it is seen that they are what the code can read.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::{collections::BTreeSet, fs, path::Path};

/// What a target does with bytes.
type Check = fn(&[u8]);

/// Each target.
const TARGETS: [(&str, Check); 5] = [
    ("cursors", fuzz::cursors::check),
    ("envelope", fuzz::envelope::check),
    ("events", fuzz::events::check),
    ("ids", fuzz::ids::check),
    ("json", fuzz::json::check),
];

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn seeds_hold() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let all: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(names(&home.join("corpus")), all);
    let sources: BTreeSet<String> = all.iter().map(|target| format!("{target}.rs")).collect();
    assert_eq!(names(&home.join("fuzz_targets")), sources);
    for (target, check) in TARGETS {
        let folder = home.join("corpus").join(target);
        // What a run has found has no ending, and is not kept.
        let seeds: Vec<String> =
            names(&folder).into_iter().filter(|name| name.contains('.')).collect();
        assert!(seeds.len() > 3, "{target} has hardly any seeds");
        for seed in seeds {
            println!("{target}/{seed}");
            check(&fs::read(folder.join(seed)).unwrap());
        }
    }
}
