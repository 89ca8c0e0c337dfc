//! The servers that are compared, started and stopped.

use std::{net::SocketAddr, time::Duration};

use anyhow::{bail, ensure};
use firstcome_rig::{
    Process,
    http::{Client, call},
    settings::Settings,
    system::{API, Program, SETTLERS, System, free_port},
};
use http::{Method, StatusCode, Uri};
use tokio::time::{Instant, sleep};

use super::databases::Database;
use crate::rivals::Rival;

/// How long a server may take to start.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// How often it is looked whether a server has started.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Another design, or a floor.
pub(super) struct RivalServer {
    process: Process,
    pub(super) address: SocketAddr,
}

impl RivalServer {
    pub(super) async fn start(database: &Database, name: Rival, pool: u32) -> anyhow::Result<Self> {
        let settings = Settings { api_addr: free_port().await?, ..database.settings.clone() };
        let address = settings.api_addr;
        let log = settings.log(name.as_str());
        let size = pool.to_string();
        let arguments = ["side", name.as_str(), "--pool", &size];
        let mut process =
            Process::start("firstcome-bench", &arguments, settings.environment(), &log)?;
        let mut client = Client::new(address, START_DEADLINE);
        let give_up = Instant::now() + START_DEADLINE;
        loop {
            let hello = client.send(call(Method::GET, Uri::from_static("/hello"), None)).await;
            if hello.is_ok_and(|answer| answer.status == StatusCode::OK) {
                return Ok(Self { process, address });
            }
            if process.ended()?.is_some() || Instant::now() > give_up {
                bail!("{} does not start; see {}", name.as_str(), log.display());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let status = self.process.stop().await?;
        ensure!(status.success(), "a rival ended with {status}");
        Ok(())
    }
}

/// The system: the API and a worker process per kind of job. What comes after an order (relay,
/// statistics, data platform) does not run, as it does not beside `sync-order`.
pub(super) struct Firstcome {
    settings: Settings,
    front: System,
    back: System,
    pub(super) address: SocketAddr,
}

impl Firstcome {
    pub(super) async fn start(database: &Database) -> anyhow::Result<Self> {
        let settings = database.settings.clone();
        let back = System::start(settings.clone(), &SETTLERS)?;
        let mut front = System::start(settings.clone(), &[API])?;
        front.ready().await?;
        let address = settings.api_for_clients();
        Ok(Self { settings, front, back, address })
    }

    /// The processes: program and process id.
    pub(super) fn processes(&self) -> Vec<(&'static str, u32)> {
        [self.front.ids(), self.back.ids()].concat()
    }

    /// The API's process.
    pub(super) fn api(&self) -> Option<u32> {
        self.front.ids().first().map(|(_, id)| *id)
    }

    /// Nothing is settled from now on; the API accepts all the same.
    pub(super) async fn stop_workers(self) -> anyhow::Result<WithoutWorkers> {
        let Self { settings, front, back, address } = self;
        fine(back.stop().await)?;
        Ok(WithoutWorkers { settings, front, address })
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        fine(self.front.stop().await)?;
        fine(self.back.stop().await)
    }
}

/// The API alone.
pub(super) struct WithoutWorkers {
    settings: Settings,
    front: System,
    pub(super) address: SocketAddr,
}

impl WithoutWorkers {
    /// The processes: program and process id.
    pub(super) fn processes(&self) -> Vec<(&'static str, u32)> {
        self.front.ids()
    }

    pub(super) fn start_workers(self) -> anyhow::Result<Firstcome> {
        self.start(&SETTLERS)
    }

    /// Starts these workers alone.
    pub(super) fn start(self, workers: &[Program]) -> anyhow::Result<Firstcome> {
        let back = System::start(self.settings.clone(), workers)?;
        Ok(Firstcome { settings: self.settings, front: self.front, back, address: self.address })
    }
}

/// Fails if a program did not end well.
pub(super) fn fine(troubles: Vec<String>) -> anyhow::Result<()> {
    ensure!(troubles.is_empty(), "{}", troubles.join("; "));
    Ok(())
}
