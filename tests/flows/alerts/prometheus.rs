//! A real Prometheus, set up as in deploy/prometheus, that looks every second.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::{super::processes::free_port, seconds};
use firstcome_tests::{DEADLINE, Shop, eventually};

/// How often it looks and judges; the tests need not wait longer than the rules say.
const INTERVAL: &str = "1s";
/// A condition that must hold for longer than this before its alert fires must hold for this here.
const LONGEST_FOR: Duration = Duration::from_secs(15);
/// How often it is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(250);

/// A Prometheus of this test's own.
pub(super) struct Prometheus {
    folder: PathBuf,
    url: String,
    client: reqwest::Client,
    judged: watch::Receiver<Judged>,
    seen: Mutex<BTreeSet<String>>,
    asking: JoinHandle<()>,
    /// Killed when dropped.
    _server: Child,
}

/// What Prometheus made of what it had scraped by then.
#[derive(Debug, Clone, Default)]
struct Judged {
    at: DateTime<Utc>,
    alerts: Vec<Alert>,
}

/// An alert whose condition holds, if not for long enough yet.
#[derive(Debug, Clone, Deserialize)]
struct Alert {
    labels: BTreeMap<String, String>,
    state: String,
}

impl Alert {
    fn is(&self, name: &str) -> bool {
        self.labels["alertname"] == name
    }

    /// Alerts on what is absent are nobody's.
    fn is_of(&self, shop: Option<&Shop>) -> bool {
        let whose = self.labels.get("shop").map(String::as_str);
        whose == shop.map(|shop| shop.namespace.as_str())
    }
}

impl Prometheus {
    pub(super) async fn start(name: &str) -> Self {
        let folder = format!("prometheus-{}-{name}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        fs::create_dir_all(&folder).unwrap();
        // JSON is YAML.
        fs::write(folder.join("prometheus.yml"), config(&folder).to_string()).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let server = Command::new(tool("prometheus").await)
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .unwrap();
        let url = format!("http://{address}/api/v1");
        // Whoever is first in this process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let (sender, judged) = watch::channel(Judged::default());
        let asking = tokio::spawn(ask(client.clone(), format!("{url}/rules"), sender));
        let prometheus =
            Self { folder, url, client, judged, seen: Mutex::default(), asking, _server: server };
        eventually("Prometheus answers", async || prometheus.query("vector(1)").await.is_some())
            .await;
        prometheus
    }

    /// Scrapes the processes of a shop from now on.
    pub(super) fn watch(&self, shop: &Shop, apis: &[&str], workers: &[&str]) {
        for (job, urls) in [("firstcome-api", apis), ("firstcome-worker", workers)] {
            let targets: Vec<&str> =
                urls.iter().map(|url| url.strip_prefix("http://").unwrap()).collect();
            let groups = json!([{"targets": targets, "labels": {"shop": shop.namespace}}]);
            // At once: it reads files as they change.
            let made = self.folder.join(format!("{job}.{}.new", shop.namespace));
            fs::write(&made, groups.to_string()).unwrap();
            fs::rename(made, self.targets(job, &shop.namespace)).unwrap();
        }
    }

    /// Scrapes them no more.
    pub(super) fn forget(&self, shop: &Shop) {
        for job in ["firstcome-api", "firstcome-worker"] {
            fs::remove_file(self.targets(job, &shop.namespace)).unwrap();
        }
    }

    fn targets(&self, job: &str, shop: &str) -> PathBuf {
        self.folder.join(format!("{job}.{shop}.json"))
    }

    /// Waits until all processes of the shop are scraped and no condition holds, not even for a moment.
    pub(super) async fn is_calm(&self, shop: &Shop) {
        let targets = format!("count(up{{shop=\"{}\"}} == 1)", shop.namespace);
        let read = |job| {
            let file = fs::read_to_string(self.targets(job, &shop.namespace)).unwrap();
            let groups: Value = serde_json::from_str(&file).unwrap();
            groups[0]["targets"].as_array().unwrap().len()
        };
        let wanted = (read("firstcome-api") + read("firstcome-worker")).to_string();
        eventually("everything is scraped", async || {
            self.query(&targets).await.as_ref() == Some(&wanted)
        })
        .await;
        let scraped = Utc::now();
        self.becomes(&format!("calm, for {}", shop.namespace), |Judged { at, alerts }| {
            *at > scraped && !alerts.iter().any(|alert| alert.is_of(Some(shop)))
        })
        .await;
    }

    /// Waits until no condition holds for anybody, nor on what is absent.
    pub(super) async fn is_calm_for_all(&self) {
        self.becomes("calm, for all", |judged| judged.alerts.is_empty()).await;
    }

    /// Waits until the alert fires for the shop.
    pub(super) async fn fires(&self, shop: Option<&Shop>, name: &str) {
        let what = format!("{name} fires, for {:?}", shop.map(|shop| &shop.namespace));
        let found = |alert: &Alert| alert.is(name) && alert.state == "firing" && alert.is_of(shop);
        self.becomes(&what, |judged| judged.alerts.iter().any(found)).await;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    async fn becomes(&self, what: &str, holds: impl Fn(&Judged) -> bool) {
        let mut judged = self.judged.clone();
        if timeout(DEADLINE, judged.wait_for(holds)).await.is_err() {
            panic!("did not happen within {DEADLINE:?}: {what}; {:#?}", self.judged.borrow());
        }
    }

    /// The alerts that fire for the shop.
    pub(super) fn firing(&self, shop: &Shop) -> BTreeSet<String> {
        let judged = self.judged.borrow();
        let fire =
            judged.alerts.iter().filter(|alert| alert.state == "firing" && alert.is_of(Some(shop)));
        fire.map(|alert| alert.labels["alertname"].clone()).collect()
    }

    /// The alerts that were waited for.
    pub(super) fn seen(&self) -> BTreeSet<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first value of a query, if it has any.
    pub(super) async fn query(&self, query: &str) -> Option<String> {
        let page = format!("{}/query", self.url);
        let url = reqwest::Url::parse_with_params(&page, [("query", query)]).unwrap();
        let answer = self.client.get(url).send().await.ok()?;
        let answer: Value = answer.json().await.ok()?;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.asking.abort();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A program of Prometheus', as `scripts/services` finds or installs it.
pub(crate) async fn tool(name: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");
    let output = Command::new(script).args(["tool", name]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A path in deploy/prometheus.
pub(super) fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus").join(name)
}

/// The jobs and rules of the real one; the targets are told by files in the folder.
fn config(folder: &Path) -> Value {
    let text = fs::read_to_string(deployed("prometheus.yml")).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    for setting in ["scrape_interval", "scrape_timeout", "evaluation_interval"] {
        config["global"][setting] = json!(INTERVAL);
    }
    let file = folder.join("alerts.yml");
    fs::write(&file, impatient_rules().to_string()).unwrap();
    config["rule_files"] = json!([file]);
    for job in config["scrape_configs"].as_array_mut().unwrap() {
        let name = job["job_name"].as_str().unwrap().to_owned();
        let files = folder.join(format!("{name}.*.json"));
        *job = json!({
            "job_name": name,
            "file_sd_configs": [{"files": [files], "refresh_interval": INTERVAL}],
        });
    }
    config
}

/// The real ones, but none takes minutes to fire.
fn impatient_rules() -> Value {
    let text = fs::read_to_string(deployed("alerts.yml")).unwrap();
    let mut file: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = file["groups"].as_array_mut().unwrap().iter_mut();
    for rule in groups.flat_map(|group| group["rules"].as_array_mut().unwrap()) {
        if rule["for"].as_str().is_some_and(|lasts| seconds(lasts) > LONGEST_FOR) {
            rule["for"] = json!(format!("{}s", LONGEST_FOR.as_secs()));
        }
    }
    file
}

async fn ask(client: reqwest::Client, url: String, judged: watch::Sender<Judged>) {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        groups: Vec<Group>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Group {
        last_evaluation: DateTime<Utc>,
        rules: Vec<Rule>,
    }
    #[derive(Deserialize)]
    struct Rule {
        alerts: Vec<Alert>,
    }
    loop {
        if let Ok(answer) = client.get(&url).send().await
            && let Ok(Answer { data: Data { groups } }) = answer.json().await
        {
            let at = groups.iter().map(|group| group.last_evaluation).min().unwrap_or_default();
            let rules = groups.into_iter().flat_map(|group| group.rules);
            let alerts = rules.flat_map(|rule| rule.alerts).collect();
            judged.send_replace(Judged { at, alerts });
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}
