//! `docs/metrics.md` lists what the programs tell, no more and no less.

use std::{collections::BTreeSet, fs};

use firstcome_contract::{family::Family, job::JobKind, rejection::Rejection};
use firstcome_process::metrics::text;
use firstcome_workers::RoleName;
use serde_json::Value;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus/alerts.yml");
const RUNBOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/runbooks.md");
const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/grafana/firstcome.json");

/// What each program tells, with one of everything.
fn scrapes() -> [(&'static str, String); 2] {
    [
        ("firstcome-api", text(&firstcome_api::health::Snapshot::example().registry()).unwrap()),
        ("firstcome-worker", text(&firstcome_workers::monitor::example()).unwrap()),
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
        suffix.is_some_and(|suffix| ["", "_total", "_bucket", "_info"].contains(&suffix))
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
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels: Vec<String> =
            labels(scrape, name).iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        table += &format!("| `{name}{suffix}` | {kind} | {labels} | {help} |\n");
    }
    table
}

/// What the alerts say, with the names of labels in the place of their values.
fn alerts() -> String {
    let alerts: Value = serde_saphyr::from_str(&fs::read_to_string(ALERTS).unwrap()).unwrap();
    let groups = alerts["groups"].as_array().unwrap().iter();
    let mut table = "| alert | severity | after | says |\n| --- | --- | --- | --- |\n".to_owned();
    for alert in groups.flat_map(|group| group["rules"].as_array().unwrap()) {
        let [name, after] = ["alert", "for"].map(|key| alert[key].as_str().unwrap_or("0s"));
        let severity = alert["labels"]["severity"].as_str().unwrap();
        let annotations = &alert["annotations"];
        assert!(annotations["description"].is_string(), "{name} does not say what to do");
        let mut says = String::new();
        for (number, part) in annotations["summary"].as_str().unwrap().split("{{").enumerate() {
            let (label, rest) =
                if number > 0 { part.split_once("}}").unwrap() } else { ("", part) };
            let label = label.split('|').next().unwrap().trim();
            let label = label.trim_start_matches("$labels.").trim_start_matches('$');
            let label = if label.is_empty() { String::new() } else { format!("*{label}*") };
            says += &(label + rest);
        }
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        table += &format!("| {name} | {severity} | {after} | {says} |\n");
    }
    table
}

#[test]
fn the_lists_of_metrics_and_alerts_change_only_on_purpose() {
    let agreed = fs::read_to_string(DOCUMENT).unwrap();
    let mut document = agreed.clone();
    let lists = scrapes().map(|(program, scrape)| (program, table(&scrape)));
    for (name, list) in lists.into_iter().chain([("alerts", alerts())]) {
        let opening = format!("<!-- {name} -->\n");
        let start = document.find(&opening).unwrap() + opening.len();
        let end = start + document[start..].find("<!-- end -->").unwrap();
        document.replace_range(start..end, &list);
    }
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        fs::write(DOCUMENT, &document).unwrap();
    } else {
        assert!(
            agreed == document,
            "docs/metrics.md is not what the programs and the alerts tell. If dashboards are meant to see that, renew it:\n\
             UPDATE_SNAPSHOT=1 cargo test -p firstcome-tests --test metrics"
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
            // Of any process, by the names that Prometheus' own clients have for it.
            let is_named = name.starts_with("firstcome_") || name.starts_with("process_");
            assert!(is_named && !help.is_empty(), "{name}");
            // The library adds it.
            assert!(!name.ends_with("_total"), "{name}");
            for unit in ["_ms", "_millis", "_minutes", "_kb"] {
                assert!(!name.contains(unit), "{name}: not a base unit");
            }
        }
        assert!(scrape.ends_with("# EOF\n"));
    }
}

/// A rate sees no first event of a series that begins with it.
#[test]
fn series_of_counters_are_there_at_0() {
    let [(_, api), (_, worker)] = scrapes();
    let mut expected = Vec::new();
    for source in RoleName::ALL.map(RoleName::as_str) {
        expected.push(format!(r#"firstcome_dead_letters_total{{source="{source}"}} 0"#));
        expected.push(format!(r#"firstcome_dead_letters_waiting{{source="{source}"}} 0"#));
    }
    for role in [RoleName::UpdateSalesStats, RoleName::SendToDataPlatform].map(RoleName::as_str) {
        expected.push(format!(r#"firstcome_outbox_events_routed_total{{role="{role}"}} 0"#));
        expected.push(format!(r#"firstcome_event_queue_depth{{role="{role}"}} 0"#));
        expected.push(format!(r#"firstcome_event_age_seconds{{role="{role}"}} 0.0"#));
    }
    for family in Family::ALL.map(Family::as_str) {
        expected.push(format!(r#"firstcome_batch_retries_total{{family="{family}"}} 0"#));
        expected.push(format!(r#"firstcome_leases_held{{family="{family}"}}"#));
    }
    for kind in JobKind::ALL.map(JobKind::as_str) {
        let refusals =
            ["line-full", "broker-unavailable", "database-unavailable", "internal-error"];
        let rejections = Rejection::ALL.map(Rejection::code);
        for reason in refusals.into_iter().chain(rejections) {
            let labels = format!(r#"kind="{kind}",reason="{reason}""#);
            expected.push(format!("firstcome_jobs_refused_total{{{labels}}} 0"));
        }
        for code in rejections {
            let labels = format!(r#"kind="{kind}",status="rejected",code="{code}""#);
            expected.push(format!("firstcome_jobs_settled_total{{{labels}}} 0"));
        }
    }
    for series in expected {
        assert!([&api, &worker].into_iter().any(|told| told.contains(&series)), "no {series}");
    }
}

/// Who is woken finds what to do by the alert's name.
#[test]
fn each_alert_has_its_runbook() {
    let alerts: Value = serde_saphyr::from_str(&fs::read_to_string(ALERTS).unwrap()).unwrap();
    let groups = alerts["groups"].as_array().unwrap().iter();
    let mut names = BTreeSet::new();
    for alert in groups.flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = alert["alert"].as_str().unwrap();
        let anchor = format!("docs/runbooks.md#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook"], anchor, "{name}");
        names.insert(name.to_owned());
    }
    let document = fs::read_to_string(RUNBOOKS).unwrap();
    let entries = document.split("\n## ").skip(1).filter(|entry| entry.starts_with("Firstcome"));
    let mut described = BTreeSet::new();
    for entry in entries {
        let name = entry.lines().next().unwrap().to_owned();
        for part in ["**Means**", "**Look at**", "**Do**", "**Over when**"] {
            assert!(entry.contains(part), "{name} does not tell {part}");
        }
        assert!(described.insert(name), "an entry twice");
    }
    assert_eq!(described, names);
}

/// A role that no process has is noticed.
#[test]
fn every_role_is_missed_when_it_is_absent() {
    let alerts = fs::read_to_string(ALERTS).unwrap();
    for role in RoleName::ALL.map(RoleName::as_str) {
        let missed = format!(r#"absent(firstcome_role_ready{{role="{role}"}})"#);
        assert!(alerts.contains(&missed), "{role}");
    }
}

/// What dashboards and alerts are told to look at exists.
#[test]
fn the_document_names_no_metric_that_is_not_there() {
    let document =
        [DOCUMENT, ALERTS, DASHBOARD, RUNBOOKS].map(|file| fs::read_to_string(file).unwrap());
    let document = document.concat();
    let known: String = scrapes().map(|(_, scrape)| table(&scrape)).concat();
    let words = document.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in words.filter(|word| word.starts_with("firstcome_")) {
        // The quantiles of a histogram are asked of its buckets.
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(known.contains(&format!("`{name}`")), "there is no {name}");
    }
}
