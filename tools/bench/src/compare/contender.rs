//! The servers that are compared, started and stopped.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail, ensure};
use firstcome_rig::Process;
use http::{Method, StatusCode, Uri};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use super::{
    arena::Scene,
    storm::{Harvest, Storm},
};
use crate::{
    load::{Client, call},
    settings::Settings,
    side::SideName,
    system::{API, SETTLERS, System},
};

/// How long a server may take to start.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// How long what was accepted may take to be settled without any progress: longer than any batch, as a
/// slow one is a figure and not the end of the run.
const STANDSTILL: Duration = Duration::from_secs(60);
/// How often it is looked how much is settled.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Another design, or a floor.
pub(super) struct Side {
    process: Process,
    pub(super) address: SocketAddr,
}

impl Side {
    pub(super) async fn start(scene: &Scene, name: SideName, pool: u32) -> anyhow::Result<Self> {
        let settings =
            Settings { api_addr: crate::demo::free_port().await?, ..scene.settings.clone() };
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
        ensure!(status.success(), "a side ended with {status}");
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
    pub(super) async fn start(scene: &Scene) -> anyhow::Result<Self> {
        let settings = scene.settings.clone();
        let back = System::start(settings.clone(), &SETTLERS)?;
        let mut front = System::start(settings.clone(), &[API])?;
        front.ready().await?;
        let address = settings.api_for_clients();
        Ok(Self { settings, front, back, address })
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
    pub(super) fn start_workers(self) -> anyhow::Result<Firstcome> {
        let back = System::start(self.settings.clone(), &SETTLERS)?;
        Ok(Firstcome { settings: self.settings, front: self.front, back, address: self.address })
    }
}

fn fine(troubles: Vec<String>) -> anyhow::Result<()> {
    ensure!(troubles.is_empty(), "{}", troubles.join("; "));
    Ok(())
}

/// What a storm contends for.
#[derive(Debug, Clone)]
pub(super) enum Prize {
    /// Coupons of these campaigns.
    Coupons(Vec<i64>),
    /// Pieces of these products.
    Products(Vec<i64>),
}

impl Prize {
    /// How many units are gone, as committed.
    pub(super) async fn gone(&self, pool: &PgPool) -> Result<i64, sqlx::Error> {
        let (select, ids) = match self {
            Self::Coupons(ids) => {
                ("SELECT COALESCE(sum(issued), 0)::bigint FROM coupons WHERE id = ANY($1)", ids)
            }
            Self::Products(ids) => (
                "SELECT COALESCE(sum(stocked - stock), 0)::bigint FROM products WHERE id = ANY($1)",
                ids,
            ),
        };
        sqlx::query_scalar(select).bind(ids).fetch_one(pool).await
    }
}

/// A storm that was settled.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) harvest: Harvest,
    /// Granted requests ÷ the time from the first request until all of them were committed.
    pub(super) per_second: f64,
}

/// Lets a storm rage, and waits until all that was granted is committed.
pub(super) async fn settle(storm: &Storm, prize: &Prize, pool: &PgPool) -> anyhow::Result<Settled> {
    let before = prize.gone(pool).await?;
    let harvest = storm.rage().await?;
    let wanted = before + harvest.units;
    let mut moved = (Instant::now(), before);
    let mut took = harvest.took;
    loop {
        let gone = prize.gone(pool).await?;
        match gone - wanted {
            0 => break,
            1.. => bail!("{} more were given away than was granted", gone - wanted),
            _ if gone != moved.1 => moved = (Instant::now(), gone),
            _ if moved.0.elapsed() > STANDSTILL => {
                bail!("{} of what was granted is not settled", wanted - gone)
            }
            _ => {}
        }
        sleep(LOOK_EVERY).await;
        took = harvest.started.elapsed();
    }
    ensure!(harvest.granted > 0, "nothing was granted");
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
    let per_second = harvest.granted as f64 / took.as_secs_f64();
    Ok(Settled { harvest, per_second })
}

/// Waits until so many jobs have their outcome; fails if there are more.
pub(super) async fn outcomes(pool: &PgPool, expected: i64) -> anyhow::Result<()> {
    let mut moved = (Instant::now(), -1);
    loop {
        let stored: i64 =
            sqlx::query_scalar("SELECT count(*) FROM job_outcomes").fetch_one(pool).await?;
        match stored - expected {
            0 => return Ok(()),
            1.. => bail!("{} outcomes too many", stored - expected),
            _ if stored != moved.1 => moved = (Instant::now(), stored),
            _ => {}
        }
        if moved.0.elapsed() > STANDSTILL {
            bail!("{} jobs are not settled", expected - stored);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A process's memory and the processor time that it takes, with nothing to do.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) program: &'static str,
    pub(super) rss_mib: f64,
    pub(super) cpu_percent: f64,
}

/// Watches every process of an idle system.
pub(super) async fn idle(system: &System, watch: Duration) -> anyhow::Result<Vec<Idle>> {
    let ids = system.ids();
    let before: Vec<f64> =
        ids.iter().map(|(_, id)| cpu_seconds(*id)).collect::<anyhow::Result<_>>()?;
    sleep(watch).await;
    let seen = ids.iter().zip(before).map(|((program, id), before)| {
        let cpu_percent = (cpu_seconds(*id)? - before) / watch.as_secs_f64() * 100.0;
        Ok(Idle { program, rss_mib: rss_mib(*id)?, cpu_percent })
    });
    seen.collect()
}

/// Linux counts in hundredths of a second.
fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("no stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

fn rss_mib(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
