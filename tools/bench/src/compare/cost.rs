//! What a job costs: time of the processors, program by program, and bytes of write-ahead log.

use std::{collections::BTreeMap, fs};

use anyhow::Context;
use sqlx::PgPool;

/// The servers, as `scripts/services` marks their processes.
const SERVERS: [&str; 2] = ["postgres", "rabbitmq"];

/// What a backlog came to.
pub(super) struct Drained {
    pub(super) per_second: f64,
    /// What each job cost until it was accepted, and from then on: microseconds of a processor, by program.
    pub(super) accepting: Vec<(&'static str, f64)>,
    pub(super) settling: Vec<(&'static str, f64)>,
    /// What each job added to the write-ahead log until it was settled.
    pub(super) wal_bytes: f64,
}

/// What was used until some moment.
pub(super) struct Meter {
    cpu_seconds: BTreeMap<&'static str, f64>,
    wal_bytes: i64,
}

impl Meter {
    /// Reads it for these processes of ours, and for the servers that belong to this checkout.
    pub(super) async fn read(
        pool: &PgPool,
        processes: &[(&'static str, u32)],
    ) -> anyhow::Result<Self> {
        let mut cpu_seconds = BTreeMap::new();
        for (program, process) in processes {
            *cpu_seconds.entry(*program).or_default() += self::cpu_seconds(*process)?;
        }
        // Servers that are somebody else's have no mark.
        for (server, used) in servers()? {
            *cpu_seconds.entry(server).or_default() += used;
        }
        let wal = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
        Ok(Self { cpu_seconds, wal_bytes: sqlx::query_scalar(wal).fetch_one(pool).await? })
    }

    /// What each of so many jobs cost since then: microseconds by program, and bytes.
    pub(super) fn per_job(&self, since: &Self, jobs: usize) -> (Vec<(&'static str, f64)>, f64) {
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousand, some hundred MiB")]
        let (jobs, bytes) = (jobs as f64, (self.wal_bytes - since.wal_bytes) as f64);
        let micros = self.used(since).map(|(program, used)| (program, used * 1e6 / jobs));
        (micros.collect(), bytes / jobs)
    }

    /// What was used in each of so many seconds since then: percent of a processor, by program.
    pub(super) fn percent(
        &self,
        since: &Self,
        seconds: f64,
    ) -> impl Iterator<Item = (&'static str, f64)> {
        self.used(since).map(move |(program, used)| (program, used / seconds * 100.0))
    }

    fn used(&self, since: &Self) -> impl Iterator<Item = (&'static str, f64)> {
        self.cpu_seconds.iter().map(|(program, used)| {
            let before = since.cpu_seconds.get(program).copied().unwrap_or_default();
            (*program, used - before)
        })
    }
}

/// What the servers used that `scripts/services` started for this command, and their children: PostgreSQL's write their
/// titles over their marks.
fn servers() -> anyhow::Result<BTreeMap<&'static str, f64>> {
    let mut used = BTreeMap::new();
    let Ok(folder) = std::env::var("FIRSTCOME_SERVICES_RUN") else { return Ok(used) };
    let mark = |server| format!("FIRSTCOME_SERVICE={server}:{folder}");
    let marks = SERVERS.map(|server| (server, mark(server)));
    let whose = |process: u32| {
        let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
        let is_set =
            |mark: &str| environment.split(|byte| *byte == 0).any(|set| set == mark.as_bytes());
        Some(marks.iter().find(|(_, mark)| is_set(mark))?.0)
    };
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        // Gone meanwhile: its parent has it.
        if let Some(process) = name.to_str().and_then(|name| name.parse().ok())
            && let Ok(Stat { parent, cpu_seconds }) = Stat::of(process)
            && let Some(server) = whose(process).or_else(|| whose(parent))
        {
            *used.entry(server).or_default() += cpu_seconds;
        }
    }
    Ok(used)
}

/// What Linux tells of a process.
struct Stat {
    parent: u32,
    /// What it has used, and the children of which it has seen the end.
    cpu_seconds: f64,
}

impl Stat {
    fn of(process: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(')').context("no stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let parent = fields.get(1).context("no parent")?.parse()?;
        let ticks = fields.iter().skip(11).take(4).map(|field| field.parse::<f64>());
        // Hundredths of a second.
        Ok(Self { parent, cpu_seconds: ticks.sum::<Result<f64, _>>()? / 100.0 })
    }
}

/// What a process has used, and the children of which it has seen the end.
pub(super) fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    Ok(Stat::of(process)?.cpu_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_shared_by_the_jobs() {
        let before = Meter { cpu_seconds: BTreeMap::from([("api", 1.0)]), wal_bytes: 1_000 };
        let used = BTreeMap::from([("api", 1.5), ("coupons", 0.25)]);
        let after = Meter { cpu_seconds: used, wal_bytes: 5_000 };
        let expected = (vec![("api", 50.0), ("coupons", 25.0)], 0.4);
        assert_eq!(after.per_job(&before, 10_000), expected);
    }

    #[test]
    fn a_process_that_computes_uses_time() {
        let before = cpu_seconds(std::process::id()).unwrap();
        while cpu_seconds(std::process::id()).unwrap() < before + 0.02 {
            std::hint::black_box(before);
        }
        assert!(cpu_seconds(0).is_err());
    }
}
