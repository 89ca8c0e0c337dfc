//! The system under load: `firstcome-worker all` and `firstcome-api serve` as processes, as an
//! operator would run them.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use firstcome_api::{
    auth,
    config::{SecretArgs, TokenArgs},
};
use firstcome_shared::{partition::DEFAULT_PARTITIONS, testing::Process};
use hyper::{Method, StatusCode, Uri, header::HeaderValue};
use tokio::time::{Instant, sleep};

use crate::load::{Client, call};

/// How long the programs may take until they are ready.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long migrating and creating sample data may take, each.
const PREPARE_DEADLINE: Duration = Duration::from_secs(90);
/// How often a process is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of a log is shown when something went wrong.
const LAST_LINES: usize = 15;

/// The servers that everything runs on.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// PostgreSQL, as postgres://user:password@host:port/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// RabbitMQ, as amqp://user:password@host:port/vhost.
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: Option<String>,
    /// Redis.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// Partitions (queues) per job kind.
    #[arg(long, env = "PARTITIONS", default_value_t = DEFAULT_PARTITIONS, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub partitions: u16,
    /// HS256 secret of the tokens; development mode's own if not set.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<String>,
}

/// What the programs are told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The database.
    pub database_url: String,
    /// The broker.
    pub amqp_url: String,
    /// The cache.
    pub redis_url: String,
    /// Partitions per job kind.
    pub partitions: u16,
    /// The prefix of queues, keys and channels.
    pub namespace: String,
    /// Where the API listens.
    pub api_addr: SocketAddr,
    /// Development mode's.
    pub secrets: SecretArgs,
    /// Before the names of the log files.
    pub log_prefix: &'static str,
}

impl ServerArgs {
    /// The settings, once everything is there.
    ///
    /// # Errors
    /// With a hint which variable is missing and how to get the servers; `make` is the command that
    /// brings them.
    pub fn settings(
        self,
        make: &str,
        namespace: String,
        api_addr: SocketAddr,
        log_prefix: &'static str,
    ) -> anyhow::Result<Settings> {
        let given = |value: Option<String>, name: &str| {
            value.filter(|value| !value.is_empty()).with_context(|| {
                format!("{name} is not set; run `{make}`, which starts PostgreSQL, RabbitMQ and Redis and sets it")
            })
        };
        ensure!(
            std::env::var_os("JWT_PUBLIC_KEYS").is_none(),
            "JWT_PUBLIC_KEYS is set, so the tokens made here would not be believed; unset it"
        );
        Ok(Settings {
            database_url: given(self.database_url, "DATABASE_URL")?,
            amqp_url: given(self.amqp_url, "AMQP_URL")?,
            redis_url: given(self.redis_url, "REDIS_URL")?,
            partitions: self.partitions,
            namespace,
            api_addr,
            secrets: SecretArgs { dev: true, jwt_secret: self.jwt_secret, jwt_public_keys: None },
            log_prefix,
        })
    }
}

impl Settings {
    /// A token of this system, valid for half a day.
    ///
    /// # Errors
    /// If JWT_SECRET is too short.
    pub fn token(&self, user: i64, admin: bool) -> anyhow::Result<String> {
        auth::token(&TokenArgs { user, admin, expires_in: 12 * 3600, secrets: self.secrets.clone() })
    }

    /// The token as the value of an `Authorization` header.
    ///
    /// # Errors
    /// As [`Self::token`].
    pub fn bearer(&self, user: i64, admin: bool) -> anyhow::Result<HeaderValue> {
        Ok(HeaderValue::from_str(&format!("Bearer {}", self.token(user, admin)?))?)
    }

    /// Where a client on this machine reaches the API.
    #[must_use]
    pub fn api_for_clients(&self) -> SocketAddr {
        let mut address = self.api_addr;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        address
    }

    /// The log file of a program.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        let folder = std::env::var_os("FIRSTCOME_DEV_DIR").map_or_else(|| PathBuf::from(".dev"), PathBuf::from);
        folder.join("logs").join(format!("{}{name}.log", self.log_prefix))
    }

    fn start(&self, name: &str, program: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        let log = self.log(name);
        Process::start(program, arguments, self.environment(), &log)
            .with_context(|| format!("cannot start {program} (log {})", log.display()))
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("DATABASE_URL", self.database_url.clone()),
            ("AMQP_URL", self.amqp_url.clone()),
            ("REDIS_URL", self.redis_url.clone()),
            ("QUEUE_NAMESPACE", self.namespace.clone()),
            ("PARTITIONS", self.partitions.to_string()),
            ("API_ADDR", self.api_addr.to_string()),
            ("FIRSTCOME_DEV", "true".to_owned()),
        ];
        variables.extend(self.secrets.jwt_secret.clone().map(|secret| ("JWT_SECRET", secret)));
        variables
    }
}

/// The running programs. Stop them with [`System::stop`]; dropping it kills them.
#[derive(Debug)]
pub struct System {
    settings: Settings,
    /// By the name of their log.
    running: Vec<(&'static str, Process)>,
}

impl System {
    /// Brings the database to the current schema and fills it with sample data; both are idempotent.
    ///
    /// # Errors
    /// With the end of the log.
    pub async fn prepare(settings: &Settings, users: i64) -> anyhow::Result<()> {
        fresh_log(&settings.log("setup"))?;
        let users = format!("--users={users}");
        for arguments in [&["migrate"][..], &["sample-data", &users]] {
            let what = format!("firstcome-worker {}", arguments.join(" "));
            let mut process = settings.start("setup", "firstcome-worker", arguments)?;
            let give_up = Instant::now() + PREPARE_DEADLINE;
            let status = loop {
                match process.ended()? {
                    Some(status) => break status,
                    None if Instant::now() > give_up => bail!("{what} takes longer than {PREPARE_DEADLINE:?}"),
                    None => sleep(LOOK_EVERY).await,
                }
            };
            ensure!(status.success(), "{what} failed ({status}); {}", end_of(&settings.log("setup")));
        }
        Ok(())
    }

    /// Starts the worker and the API.
    ///
    /// # Errors
    /// With a hint, e.g. that they are not built.
    pub fn start(settings: Settings) -> anyhow::Result<Self> {
        let mut running = Vec::new();
        for (name, program, argument) in [("worker", "firstcome-worker", "all"), ("api", "firstcome-api", "serve")] {
            fresh_log(&settings.log(name))?;
            running.push((name, settings.start(name, program, &[argument])?));
        }
        Ok(Self { settings, running })
    }

    /// Returns when the API says that it has all it needs.
    ///
    /// # Errors
    /// With the end of the log of what is in the way.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let mut client = Client::new(self.settings.api_for_clients(), Duration::from_secs(3));
        let give_up = Instant::now() + READY_DEADLINE;
        let mut last = String::new();
        while Instant::now() < give_up {
            if let Some((_, what)) = self.ended().into_iter().next() {
                bail!("{what}");
            }
            match client.send(call(Method::GET, Uri::from_static("/health/ready"), None)).await {
                Ok(answer) if answer.status == StatusCode::OK => return Ok(()),
                Ok(answer) => last = format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Err(error) => last = error.to_string(),
            }
            sleep(Duration::from_millis(50)).await;
        }
        let log = end_of(&self.settings.log("api"));
        bail!("the API is not ready after {READY_DEADLINE:?}; /health/ready: {last}\n{log}")
    }

    /// The programs that have ended, though nobody asked them to: their name, and for people how
    /// they ended with the end of their log.
    pub fn ended(&mut self) -> Vec<(&'static str, String)> {
        let mut ended = Vec::new();
        for (name, process) in &mut self.running {
            if let Ok(Some(status)) = process.ended() {
                let log = end_of(&self.settings.log(name));
                ended.push((*name, format!("{} ended ({status}); {log}", process.name())));
            }
        }
        ended
    }

    /// The last lines of a program's log.
    #[must_use]
    pub fn end_of_log(&self, name: &str) -> String {
        end_of(&self.settings.log(name))
    }

    /// What is running, for people.
    #[must_use]
    pub fn processes(&self) -> String {
        let id = |process: &Process| process.id().map_or_else(|| "ended".to_owned(), |id| format!("pid {id}"));
        let names = self.running.iter().map(|(_, process)| format!("{} ({})", process.name(), id(process)));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Stops all programs, the API first, so that nothing is accepted that nobody settles. Returns
    /// what did not stop as it should.
    pub async fn stop(self) -> Vec<String> {
        let mut troubles = Vec::new();
        for (_, mut process) in self.running.into_iter().rev() {
            let name = process.name().to_owned();
            if matches!(process.ended(), Ok(Some(_))) {
                continue; // long known, see `ended`
            }
            match process.stop().await {
                Ok(status) if status.success() => {}
                Ok(status) => troubles.push(format!("{name} did not end well ({status})")),
                Err(error) => troubles.push(error.to_string()),
            }
        }
        troubles
    }
}

fn fresh_log(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace the log {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut last = VecDeque::new();
    for line in text.lines() {
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(format!("\n  | {line}"));
    }
    format!("the end of its log {}:{}", log.display(), last.into_iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> ServerArgs {
        ServerArgs {
            database_url: Some("postgres://localhost/x".to_owned()),
            amqp_url: Some(String::new()),
            redis_url: None,
            partitions: 16,
            jwt_secret: None,
        }
    }

    fn settings(servers: ServerArgs) -> anyhow::Result<Settings> {
        servers.settings("make demo", "demo".to_owned(), "0.0.0.0:81".parse()?, "demo-")
    }

    #[test]
    fn a_missing_server_comes_with_a_hint() {
        let hint = settings(servers()).unwrap_err().to_string();
        assert!(hint.starts_with("AMQP_URL is not set; run `make demo`"), "{hint}");
    }

    #[test]
    fn clients_reach_an_api_that_listens_everywhere() {
        let servers = ServerArgs {
            amqp_url: Some("amqp://localhost".to_owned()),
            redis_url: Some("redis://localhost".to_owned()),
            ..servers()
        };
        let settings = settings(servers).unwrap();
        assert_eq!(settings.api_for_clients().to_string(), "127.0.0.1:81");
        assert!(settings.bearer(7, true).is_ok());
    }

    #[test]
    fn the_end_of_a_log_is_its_last_lines() {
        let path = std::env::temp_dir().join(format!("firstcome-bench-{}.log", std::process::id()));
        std::fs::write(&path, (1..=40).map(|n| format!("line {n}\n")).collect::<String>()).unwrap();
        let end = end_of(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(end.lines().count(), 1 + LAST_LINES);
        assert!(end.ends_with("| line 40"), "{end}");
    }
}
