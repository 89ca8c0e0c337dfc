//! What the system costs with nothing to do: each role in a process of its own.

use std::time::Duration;

use anyhow::Context;
use firstcome_rig::{
    settings::Settings,
    system::{LARGE, System, free_port},
};
use tokio::time::sleep;

use crate::compare::{cost::cpu_seconds, run::Run, servers::fine};

/// Watches an idle system for a while.
pub(super) async fn idle(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say("what the idle system costs");
    let database = run.databases.used("bench_idle").await?;
    let settings =
        Settings { data_platform: Some(free_port().await?), ..database.settings.clone() };
    let mut system = System::start(settings, &LARGE)?;
    system.ready().await?;
    // The first leases, the first connections.
    sleep(run.plan.idle / 2).await;
    for idle in watch(&system, run.plan.idle).await? {
        // A stand-in that is there for the demo.
        if idle.program != "data-platform" {
            run.measurements.add(format!("idle.{}.rss_mib", idle.program), idle.rss_mib);
            run.measurements.add(format!("idle.{}.cpu_percent", idle.program), idle.cpu_percent);
        }
    }
    fine(system.stop().await)?;
    run.databases.delete(database).await
}

/// A process's memory and the processor time that it takes, with nothing to do.
#[derive(Debug)]
struct Idle {
    program: &'static str,
    rss_mib: f64,
    cpu_percent: f64,
}

/// Watches every process of an idle system.
async fn watch(system: &System, time: Duration) -> anyhow::Result<Vec<Idle>> {
    let ids = system.ids();
    let before: Vec<f64> =
        ids.iter().map(|(_, id)| cpu_seconds(*id)).collect::<anyhow::Result<_>>()?;
    sleep(time).await;
    let seen = ids.iter().zip(before).map(|((program, id), before)| {
        let cpu_percent = (cpu_seconds(*id)? - before) / time.as_secs_f64() * 100.0;
        Ok(Idle { program, rss_mib: rss_mib(*id)?, cpu_percent })
    });
    seen.collect()
}

pub(super) fn rss_mib(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
