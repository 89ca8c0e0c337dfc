//! deploy/prometheus: every alert fires in its fault, and none before.

mod faults;
mod full_disks;
mod prometheus;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

pub(super) use prometheus::tool;
use prometheus::{Prometheus, deployed};

/// By when an operator knows of a worker that hangs with jobs in its lines.
const INCIDENT_BOUND: Duration = Duration::from_secs(30);

/// All at once, each fault in a shop of its own: they wait more than they work.
#[tokio::test(flavor = "multi_thread")]
async fn every_alert_fires_in_its_fault_and_none_before() {
    let prometheus = Prometheus::start("faults").await;
    // What is absent is absent for all shops.
    let lonely = Prometheus::start("lonely").await;
    tokio::join!(
        faults::a_worker_hangs(&prometheus),
        faults::a_line_has_no_worker(&prometheus),
        faults::a_batch_waits_for_a_row(&prometheus),
        faults::a_line_is_dead(&prometheus),
        faults::the_broker_is_away(&prometheus),
        faults::the_broker_takes_nothing(&prometheus),
        faults::the_database_is_away(&prometheus),
        faults::events_wait_for_their_consumers(&prometheus),
        faults::nobody_is_there(&lonely),
    );
    let seen: BTreeSet<String> = prometheus.seen().union(&lonely.seen()).cloned().collect();
    assert_eq!(seen, rules().into_iter().map(|rule| rule.name).collect());
}

#[tokio::test]
async fn prometheus_takes_the_files_and_each_alert_works_at_the_longest_interval() {
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let mut promtool = Command::new(tool("promtool").await);
        let promtool = promtool.args(arguments).current_dir(deployed("")).output();
        let output = promtool.await.unwrap();
        let told = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
        assert!(output.status.success(), "{arguments:?}: {told}");
    }
    let tried = fs::read_to_string(deployed("alerts.test.yml")).unwrap();
    for Rule { name, .. } in rules() {
        assert!(tried.contains(&format!("alertname=\"{name}\"")), "{name} is not tried");
    }
}

/// Grafana would show an error in the place of a panel.
#[tokio::test]
async fn prometheus_understands_each_panel_of_the_dashboard() {
    let dashboard = fs::read_to_string(deployed("../grafana/firstcome.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let asked = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let rules: Vec<Value> = asked
        .map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "20s"))
        .enumerate()
        .map(|(number, expr)| json!({"record": format!("panel:{number}"), "expr": expr}))
        .collect();
    assert!(rules.len() > 20, "is this test blind?");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard.yml");
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&file, groups.to_string()).unwrap();
    let mut promtool = Command::new(tool("promtool").await);
    let output = promtool.args(["check", "rules"]).arg(&file).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Also at the intervals of the file, where a scrape comes late and fails late.
#[test]
fn in_the_incident_an_alert_fires_in_time() {
    let config = fs::read_to_string(deployed("prometheus.yml")).unwrap();
    let config: Value = serde_saphyr::from_str(&config).unwrap();
    let global = |setting: &str| seconds(config["global"][setting].as_str().unwrap());
    let noticed = global("scrape_interval") + global("scrape_timeout");
    for rule in rules() {
        if ["FirstcomeProcessDown", "FirstcomeLineStalled"].contains(&rule.name.as_str()) {
            // Judged for the first time, and for the first time after `for`.
            let fires = noticed + rule.lasts + global("evaluation_interval") * 2;
            assert!(fires <= INCIDENT_BOUND, "{}: {fires:?}", rule.name);
        }
    }
}

struct Rule {
    name: String,
    condition: String,
    /// How long its condition must hold.
    lasts: Duration,
}

fn rules() -> Vec<Rule> {
    let file = fs::read_to_string(deployed("alerts.yml")).unwrap();
    let file: Value = serde_saphyr::from_str(&file).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    let rules = rules.map(|rule| Rule {
        name: rule["alert"].as_str().unwrap().to_owned(),
        condition: rule["expr"].as_str().unwrap().to_owned(),
        lasts: rule["for"].as_str().map(seconds).unwrap_or_default(),
    });
    rules.collect()
}

fn seconds(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let factor = if unit == "m" { 60 } else { 1 };
    Duration::from_secs(number.parse::<u64>().unwrap() * factor)
}
