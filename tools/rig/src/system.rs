//! The system: its programs as processes, as an operator would run them.

use std::{collections::VecDeque, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use http::{Method, StatusCode, Uri};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use crate::{
    http::{Client, call},
    process::Process,
    settings::Settings,
};

/// How long the programs may take until they are ready.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long migrating and creating sample data may take, each.
const PREPARE_DEADLINE: Duration = Duration::from_secs(90);
/// How often a process is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of a log is shown when something went wrong.
const LAST_LINES: usize = 15;

/// A process of the system.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name, also that of its log.
    pub name: &'static str,
    binary: &'static str,
    /// Its command.
    pub argument: &'static str,
}

/// What customers talk to.
pub const API: Program = Program { name: "api", binary: "firstcome-api", argument: "serve" };

/// A worker of these roles.
#[must_use]
pub const fn worker(name: &'static str, argument: &'static str) -> Program {
    Program { name, binary: "firstcome-worker", argument }
}

/// As few processes as possible.
pub const SMALL: [Program; 2] = [worker("worker", "all"), API];

/// What settles the jobs of coupons.
pub const COUPONS: Program = worker("coupons", "coupons");

/// What settles jobs: a process per family of lines.
pub const SETTLERS: [Program; 2] = [worker("products", "products"), COUPONS];

/// Each role in a process of its own, orders in two; and a stand-in for the data platform.
pub const LARGE: [Program; 8] = [
    worker("data-platform", "mock-data-platform"),
    worker("send-to-data-platform", "send-to-data-platform"),
    worker("update-sales-stats", "update-sales-stats"),
    worker("relay-outbox", "relay-outbox"),
    worker("products-1", "products"),
    worker("products-2", "products"),
    COUPONS,
    API,
];

/// The running programs. Stop them with [`System::stop`]; dropping it kills them.
#[derive(Debug)]
pub struct System {
    settings: Settings,
    running: Vec<(Program, Process)>,
}

impl System {
    /// Brings the database to the current schema and fills it with sample data; both are idempotent.
    ///
    /// # Errors
    /// If a command fails; the error shows the end of its log.
    pub async fn prepare(settings: &Settings, users: i64) -> anyhow::Result<()> {
        fresh_log(&settings.log("setup"))?;
        let users = format!("--users={users}");
        for arguments in [&["migrate"][..], &["sample-data", &users]] {
            Self::command(settings, "setup", arguments, &[], PREPARE_DEADLINE).await?;
        }
        Ok(())
    }

    /// Runs a command of `firstcome-worker` to its end.
    ///
    /// # Errors
    /// If it fails, or takes longer than this; the error shows the end of its log.
    pub async fn command(
        settings: &Settings,
        log: &str,
        arguments: &[&str],
        variables: &[(&'static str, String)],
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let what = format!("firstcome-worker {}", arguments.join(" "));
        let mut process = start(settings, log, "firstcome-worker", arguments, variables)?;
        let give_up = Instant::now() + deadline;
        let status = loop {
            match process.ended()? {
                Some(status) => break status,
                None if Instant::now() > give_up => bail!("{what} takes longer than {deadline:?}"),
                None => sleep(LOOK_EVERY).await,
            }
        };
        ensure!(status.success(), "{what} failed ({status}); {}", end_of(&settings.log(log)));
        Ok(())
    }

    /// Starts these programs, in this order.
    ///
    /// # Errors
    /// If one cannot be started, e.g. because it is not built.
    pub fn start(settings: Settings, programs: &[Program]) -> anyhow::Result<Self> {
        let mut running = Vec::new();
        for program in programs {
            fresh_log(&settings.log(program.name))?;
            running.push((*program, launch(&settings, *program, &[])?));
        }
        Ok(Self { settings, running })
    }

    /// Starts the programs again that have ended, as a supervisor would. Returns for people which
    /// they were, how they ended and the end of their log.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn revive(&mut self) -> anyhow::Result<Vec<String>> {
        let ended = self.ended();
        for (program, process) in &mut self.running {
            if ended.iter().any(|(other, _)| program.name == *other) {
                *process = launch(&self.settings, *program, &[])?;
            }
        }
        Ok(ended.into_iter().map(|(_, how)| how).collect())
    }

    /// Sends a signal by name (`KILL`, `STOP`, `CONT`) to a program.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub async fn signal(&self, name: &str, signal: &str) -> std::io::Result<()> {
        for (_, process) in self.running.iter().filter(|(program, _)| program.name == name) {
            process.signal(signal).await?;
        }
        Ok(())
    }

    /// Kills a program and starts it again with more variables than its settings say.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start_again(
        &mut self,
        name: &str,
        variables: &[(&'static str, String)],
    ) -> anyhow::Result<()> {
        self.signal(name, "KILL").await?;
        for (program, process) in &mut self.running {
            if program.name == name {
                *process = launch(&self.settings, *program, variables)?;
            }
        }
        Ok(())
    }

    /// Returns when the API says that it has all it needs.
    ///
    /// # Errors
    /// If it does not get ready; the error shows the end of the log of what is in the way.
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
                Ok(answer) => {
                    last = format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
                }
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
        for (Program { name, .. }, process) in &mut self.running {
            if let Ok(Some(status)) = process.ended() {
                let log = end_of(&self.settings.log(name));
                ended.push((*name, format!("{name} ended ({status}); {log}")));
            }
        }
        ended
    }

    /// The last lines of a program's log.
    #[must_use]
    pub fn end_of_log(&self, name: &str) -> String {
        end_of(&self.settings.log(name))
    }

    /// The processes that are running: program and process id.
    #[must_use]
    pub fn ids(&self) -> Vec<(&'static str, u32)> {
        self.running
            .iter()
            .filter_map(|(program, process)| Some((program.name, process.id()?)))
            .collect()
    }

    /// What is running, for people.
    #[must_use]
    pub fn processes(&self) -> String {
        let id = |process: &Process| {
            process.id().map_or_else(|| "ended".to_owned(), |id| format!("pid {id}"))
        };
        let names = self
            .running
            .iter()
            .map(|(program, process)| format!("{} ({})", program.name, id(process)));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Stops all programs, the API (the last one started) first, so that nothing is accepted that nobody settles. Returns
    /// what did not stop as it should.
    pub async fn stop(self) -> Vec<String> {
        let mut troubles = Vec::new();
        for (Program { name, .. }, mut process) in self.running.into_iter().rev() {
            if matches!(process.ended(), Ok(Some(_))) {
                continue; // not by us: see `ended`
            }
            match process.stop().await {
                Ok(status) if status.success() => {}
                Ok(status) => troubles.push(format!("{name} did not end well ({status})")),
                Err(error) => troubles.push(format!("{name}: {error}")),
            }
        }
        troubles
    }
}

fn launch(
    settings: &Settings,
    program: Program,
    variables: &[(&'static str, String)],
) -> anyhow::Result<Process> {
    start(settings, program.name, program.binary, &[program.argument], variables)
}

fn start(
    settings: &Settings,
    log: &str,
    program: &str,
    arguments: &[&str],
    variables: &[(&'static str, String)],
) -> anyhow::Result<Process> {
    let log = settings.log(log);
    let environment = settings.environment().into_iter().chain(variables.iter().cloned());
    Process::start(program, arguments, environment, &log)
        .with_context(|| format!("cannot start {program} (log {})", log.display()))
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

/// A port that is free now. The API's own error tells if somebody else was quicker.
///
/// # Errors
/// If none is free.
pub async fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").await?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_its_last_lines() {
        let path = std::env::temp_dir().join(format!("firstcome-rig-{}.log", std::process::id()));
        std::fs::write(&path, (1..=40).map(|n| format!("line {n}\n")).collect::<String>()).unwrap();
        let end = end_of(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(end.lines().count(), 1 + LAST_LINES);
        assert!(end.ends_with("| line 40"), "{end}");
    }
}
