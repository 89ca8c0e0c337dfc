//! `docs/metrics.md` lists what the programs tell, no more and no less.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::{collections::BTreeSet, fs};

use firstcome_shared::metrics::text;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

/// What each program tells, with one of everything.
fn scrapes() -> [(&'static str, String); 2] {
    [
        ("firstcome-api", text(&firstcome_api::metrics::Metrics::example()).unwrap()),
        ("firstcome-worker", text(&firstcome_workers::monitor::Metrics::example()).unwrap()),
    ]
}

/// Name, help and type of every metric.
fn described(scrape: &str) -> Vec<(&str, &str, &str)> {
    let of = |word: &'static str| {
        scrape.lines().filter_map(move |line| line.strip_prefix(word)?.split_once(' '))
    };
    of("# HELP ")
        .zip(of("# TYPE "))
        .map(|((name, help), (typed, kind))| {
            assert_eq!(name, typed);
            (name, help.trim_end_matches('.'), kind)
        })
        .collect()
}

fn labels(scrape: &str, name: &str) -> BTreeSet<String> {
    let series = scrape.lines().filter(|line| !line.starts_with('#'));
    let series = series.filter_map(|line| line.split_once('{')).filter(|(series, _)| {
        let suffix = series.strip_prefix(name);
        suffix.is_some_and(|suffix| ["", "_total", "_bucket"].contains(&suffix))
    });
    let names = series.flat_map(|(_, labels)| labels.split("=\"").filter_map(last_word));
    names.filter(|name| name != "le").collect()
}

fn last_word(text: &str) -> Option<String> {
    let word = text.rsplit([',', '{', '"']).next()?;
    word.chars()
        .all(|c| c.is_ascii_lowercase())
        .then(|| word.to_owned())
        .filter(|word| !word.is_empty())
}

fn table(scrape: &str) -> String {
    let mut table = "| metric | type | labels | |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, help, kind) in described(scrape) {
        let suffix = if kind == "counter" { "_total" } else { "" };
        let labels: Vec<String> =
            labels(scrape, name).iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        table += &format!("| `{name}{suffix}` | {kind} | {labels} | {help} |\n");
    }
    table
}

#[test]
fn the_list_of_metrics_changes_only_on_purpose() {
    let agreed = fs::read_to_string(DOCUMENT).unwrap();
    let mut document = agreed.clone();
    for (program, scrape) in scrapes() {
        let opening = format!("<!-- {program} -->\n");
        let start = document.find(&opening).unwrap() + opening.len();
        let end = start + document[start..].find("<!-- end -->").unwrap();
        document.replace_range(start..end, &table(&scrape));
    }
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        fs::write(DOCUMENT, &document).unwrap();
    } else {
        assert!(
            agreed == document,
            "docs/metrics.md is not what the programs tell. If dashboards are meant to see that, renew it:\n\
             UPDATE_SNAPSHOT=1 cargo test -p firstcome-workers --test metrics"
        );
    }
}

#[test]
fn names_follow_the_conventions() {
    for (program, scrape) in scrapes() {
        let described = described(&scrape);
        assert!(described.len() > 8, "{program}: is this test blind?");
        let names: BTreeSet<&str> = described.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names.len(), described.len(), "{program}: a name twice");
        for (name, help, _) in described {
            assert!(name.starts_with("firstcome_") && !help.is_empty(), "{name}");
            // The library adds it.
            assert!(!name.ends_with("_total"), "{name}");
            for unit in ["_ms", "_millis", "_minutes", "_kb"] {
                assert!(!name.contains(unit), "{name}: not a base unit");
            }
        }
        assert!(scrape.ends_with("# EOF\n"));
    }
}

/// What dashboards and alerts are told to look at exists.
#[test]
fn the_document_names_no_metric_that_is_not_there() {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let known: String = scrapes().map(|(_, scrape)| table(&scrape)).concat();
    let words = document.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in words.filter(|word| word.starts_with("firstcome_")) {
        assert!(known.contains(&format!("`{name}`")), "there is no {name}");
    }
}
