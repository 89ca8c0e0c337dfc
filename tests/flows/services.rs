//! The real services, killed: not a cut connection, but a broker and a database that crash with
//! everything that was in their memory.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Alarm, Alarms},
    publish::ConfirmedPublisher,
};
use firstcome_contract::{
    ids::CouponId,
    job::{IssueCoupon, Job},
};
use tokio::time::timeout;

use super::retention::old;
use firstcome_tests::{Answer, Options, Services, Shop, eventually, shop};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");
/// Runs the commands that it reads, and tells of each what it printed, and whether it went well.
const HOLDER: &str = r#"
exec 3>&1
echo "ended 0"
while read -r command; do
    if error=$(eval "$command" </dev/null 2>&1 >&3 3>&-); then echo "ended 0"; else printf '%s\nended 1\n' "$error"; fi
done"#;

/// Services of this test's own, which end with it (the script waits for our end of the pipe).
pub(super) struct OwnServices {
    folder: PathBuf,
    /// The variables of those that are not shared.
    own: &'static [&'static str],
    holder: Arc<Mutex<Holder>>,
}

/// Who keeps the services: their small disks may be seen by nobody else.
struct Holder {
    process: Child,
    told: Lines<BufReader<ChildStdout>>,
}

impl OwnServices {
    pub(super) fn start(name: &str) -> Self {
        Self::start_some(name, &["DATABASE_URL", "AMQP_URL", "REDIS_URL"])
    }

    /// A database only.
    pub(super) fn start_database(name: &str) -> Self {
        Self::start_some(name, &["DATABASE_URL"])
    }

    /// All, with small disks of their own for the broker and the database.
    pub(super) fn start_on_small_disks(name: &str) -> Self {
        let all = &["DATABASE_URL", "AMQP_URL", "REDIS_URL"];
        Self::start_with(name, all, &[("FIRSTCOME_DISK_MIB", "512")])
    }

    /// All, which speak TLS, too, with the certificates in this folder.
    pub(super) fn start_over_tls(name: &str, certificates: &Path) -> Self {
        let all = &["DATABASE_URL", "AMQP_URL", "REDIS_URL"];
        Self::start_with(name, all, &[("FIRSTCOME_TLS_DIR", certificates.to_str().unwrap())])
    }

    fn start_some(name: &str, own: &'static [&'static str]) -> Self {
        Self::start_with(name, own, &[])
    }

    fn start_with(name: &str, own: &'static [&'static str], more: &[(&str, &str)]) -> Self {
        let folder = format!("services-{}-{name}", std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder);
        let mut process = Self::script(&folder, own, &["run", "sh", "-c", HOLDER]);
        let process = process.envs(more.iter().copied()).stdin(Stdio::piped());
        let mut process = process.stdout(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut holder = Holder { process, told };
        // Whoever came before the holder would stop them again.
        holder.told().unwrap_or_else(|told| panic!("the services do not start: {told}"));
        Self { folder, own, holder: Arc::new(Mutex::new(holder)) }
    }

    fn script(folder: &Path, own: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(SCRIPT);
        command.args(arguments).env("FIRSTCOME_DEV_DIR", folder);
        for variable in own {
            command.env_remove(variable);
        }
        command
    }

    pub(super) async fn call(&self, arguments: &[&str]) -> String {
        let quoted = |argument: &&str| format!("'{}'", argument.replace('\'', r"'\''"));
        let command: Vec<String> = [&SCRIPT].into_iter().chain(arguments).map(quoted).collect();
        let command = command.join(" ");
        let holder = Arc::clone(&self.holder);
        let calling = move || {
            let mut holder = holder.lock().unwrap();
            writeln!(holder.process.stdin.as_mut().unwrap(), "{command}").unwrap();
            holder.told().unwrap_or_else(|told| panic!("{command}: {told}"))
        };
        tokio::task::spawn_blocking(calling).await.unwrap()
    }

    /// Of one of them, by its name in the script.
    pub(super) fn port(&self, name: &str) -> String {
        let port = std::fs::read_to_string(self.folder.join("ports").join(name)).unwrap();
        port.trim().to_owned()
    }

    pub(super) async fn services(&self) -> Services {
        let environment = self.call(&["run", "env"]).await;
        let url = |variable: &str| {
            let line =
                environment.lines().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {variable} in {environment}")).to_owned()
        };
        Services {
            database_url: url("DATABASE_URL"),
            amqp_url: url("AMQP_URL"),
            redis_url: url("REDIS_URL"),
        }
    }

    async fn restart(&self) {
        self.call(&["run", "true"]).await;
    }
}

impl OwnServices {
    /// Connections to the broker, as it sees them.
    pub(super) async fn connections(&self) -> usize {
        let listed =
            self.call(&["rabbitmqctl", "-q", "list_connections", "--no-table-headers", "pid"]);
        listed.await.lines().count()
    }

    /// Restarts the broker, with or without so little memory that it raises its alarm.
    async fn restart_broker(&self, with_alarm: bool) {
        let setting = self.folder.join("rabbitmq/conf.d/90-alarm.conf");
        if with_alarm {
            std::fs::write(&setting, "vm_memory_high_watermark.absolute = 1MB\n").unwrap();
        } else {
            std::fs::remove_file(&setting).unwrap();
        }
        self.call(&["kill", "rabbitmq"]).await;
        self.restart().await;
    }
}

impl OwnServices {
    /// Restarts the database as a standby, which goes on from what it has until it is promoted.
    pub(super) async fn demote_database(&self) {
        self.call(&["stop", "postgres"]).await;
        let versions = std::fs::read_dir(self.folder.join("postgres")).unwrap();
        let mut versions = versions.map(|version| version.unwrap().path());
        let data = versions.find(|path| path.join("PG_VERSION").exists()).unwrap();
        std::fs::write(data.join("standby.signal"), "").unwrap();
        self.restart().await;
    }
}

impl Holder {
    /// What is told up to the end of the command, if that ends well.
    fn told(&mut self) -> Result<String, String> {
        let mut told = String::new();
        for line in self.told.by_ref().map_while(Result::ok) {
            match line.strip_prefix("ended ") {
                Some("0") => return Ok(told),
                Some(_) => break,
                None => told = told + &line + "\n",
            }
        }
        Err(told)
    }
}

impl Drop for OwnServices {
    fn drop(&mut self) {
        // Closes the pipe first, which ends the holder, which stops the services.
        if let Ok(mut holder) = self.holder.lock() {
            let _ = holder.process.wait();
        }
        let _ = Self::script(&self.folder, self.own, &["clean"]).status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed_services_lose_no_accepted_request() {
    let own = OwnServices::start("crash");
    let services = own.services().await;
    let options =
        Options { users: 20_000, confirm_deadline_ms: 1_000, services, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(1_000_000).await;
        let over = AtomicBool::new(false);
        let clients = futures_util::future::join_all((0..8).map(async |client| {
            let mut answers = Vec::new();
            for user in (1..=20_000).filter(|user| user % 8 == client) {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let answer = shop.issue(user, coupon).await;
                assert!(answer.status == 202 || answer.status == 503, "{answer:?}");
                assert!(answer.took < Duration::from_secs(5), "{answer:?}");
                answers.push(answer.status);
                // The drop is to last as long as the faults.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answers
        }));
        let faults = async {
            for kill in [
                &["kill", "rabbitmq"],
                &["kill", "redis"],
                &["kill", "postgres"],
                &["kill", "rabbitmq"],
            ] {
                tokio::time::sleep(Duration::from_secs(1)).await;
                own.call(kill).await;
                own.restart().await;
            }
            eventually("everything is back", async || {
                let ready = shop.anonymous(reqwest::Method::GET, "/health/ready");
                Answer::of(ready).await.status == 200
            })
            .await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            over.store(true, Ordering::Relaxed);
        };
        let (answers, ()) = tokio::join!(clients, faults);
        let answers = answers.concat();
        assert!(answers.contains(&503), "the faults were not felt");
        assert_eq!(answers.last(), Some(&202), "it did not recover");
        shop.settle_and_audit().await;
        let outcomes = shop.outcomes().await;
        assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["succeeded"], "{outcomes:?}");
    })
    .await;
}

/// A broker that blocks publishers takes nothing on, and says so at once; what it has goes on being
/// settled.
#[tokio::test(flavor = "multi_thread")]
async fn under_a_memory_alarm_the_api_refuses_and_the_workers_settle() {
    let own = OwnServices::start("alarm");
    let services = own.services().await;
    let options = Options {
        users: 400,
        confirm_deadline_ms: 1_000,
        services,
        worker: false,
        ..Options::default()
    };
    shop(options, async |shop| {
        let coupon = shop.campaign(1_000).await;
        let answers = shop.storm((1..=300).map(|user| (user, coupon)), 32).await;
        assert!(answers.iter().all(|answer| answer.status == 202));

        own.restart_broker(true).await;
        probes_are_not_answered(&shop.broker.direct).await;
        let ready = async || {
            Answer::of(shop.anonymous(reqwest::Method::GET, "/health/ready")).await.status == 200
        };
        for _ in 0..20 {
            let answer = shop.issue(301, coupon).await;
            answer.is_problem(503, "broker-unavailable");
            assert!(answer.headers.contains_key("retry-after"));
            assert!(answer.took < Duration::from_secs(1), "{answer:?}");
            assert!(!ready().await);
        }
        shop.start_worker();
        eventually("what was accepted is settled", async || {
            shop.outcomes().await.get("succeeded") == Some(&300)
        })
        .await;
        shop.issue(301, coupon).await.is_problem(503, "broker-unavailable");
        redriving_waits_without_a_line_lost(shop, coupon).await;

        own.restart_broker(false).await;
        eventually("it takes requests again", ready).await;
        let job = shop.accepted_issue(301, coupon).await;
        assert_eq!(shop.settled(301, &job).await["status"], "succeeded");
        eventually("what was to be redriven is settled", async || {
            shop.outcomes().await.get("succeeded") == Some(&(300 + 1 + REDRIVEN))
        })
        .await;
    })
    .await;
}

/// A broker with an alarm: an API that believed the answer to its probe would say that it is ready.
async fn probes_are_not_answered(broker: &str) {
    for connection in 0..50 {
        let connected = connect::connect(&BrokerArgs::new(broker, ""), "test").await.unwrap();
        let mut alarms = Alarms::of(&connected);
        let mut publisher = ConfirmedPublisher::open(&connected).await.unwrap();
        publisher.probe("nowhere", ());
        let told = alarms.next().await.unwrap();
        assert!(matches!(told, Alarm::Raised(_)), "{told:?}");
        let answered = timeout(Duration::from_millis(20), publisher.verdicts()).await;
        assert!(answered.is_err(), "connection {connection}: {answered:?}");
    }
}

const REDRIVEN: i64 = 5;

/// Asks for jobs to be redriven that the broker does not take. The workers live on meanwhile.
async fn redriving_waits_without_a_line_lost(shop: &Shop, coupon: i64) {
    let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
    for user in 1..=REDRIVEN {
        let (id, payload) = old(user + 310, 0, &job);
        sqlx::query(
            "INSERT INTO dead_letters (queue, message_id, line, job_id, user_id, reason, attempts, payload, redrive_requested_at)
             VALUES ('test', $1::text, 0, $1, $2, 'test', 1, $3, now())",
        )
        .bind(id.get())
        .bind(user + 310)
        .bind(payload)
        .execute(&shop.pool)
        .await
        .unwrap();
    }
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_secs(7) {
        let (alive, letters): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM workers WHERE expires_at > clock_timestamp()),
                    (SELECT count(*) FROM dead_letters WHERE redrive_requested_at IS NOT NULL)",
        )
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        assert_eq!((alive, letters), (2, REDRIVEN), "after {:?}", waited.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
