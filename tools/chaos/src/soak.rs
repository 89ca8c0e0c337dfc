//! A long sale without a fault: whether anything grows that should not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    time::Duration,
};

use firstcome_rig::{figures::duration, screen::Screen};
use serde::Serialize;
use sqlx::PgPool;
use tokio::time::{Instant, sleep_until};

use crate::{sale::Sale, world::World};

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// After how many of them the next campaign is opened.
const LOOKS_PER_DROP: usize = 6;
/// So many tell a beginning from an end.
const FEWEST_LOOKS: usize = 16;
/// What memory may be more at the end: allocators keep some, caches fill.
const MORE_MEMORY: (f64, f64) = (1.1, 4.0);
/// How many more descriptors and connections there may be at the end: those of customers come and go.
const MORE_OPEN: f64 = 8.0;
/// The most rows of all that may wait for vacuum: it comes when it is a fifth of a table.
const MOST_DEAD: f64 = 0.35;

/// How the system was at an instant.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Look {
    seconds: u64,
    programs: BTreeMap<&'static str, Usage>,
    /// Sessions of PostgreSQL.
    sessions: i64,
    live_rows: i64,
    dead_rows: i64,
    /// Of the database on the disk.
    bytes: i64,
}

/// What a program takes.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    memory_mib: f64,
    descriptors: u32,
    threads: u32,
}

impl Usage {
    fn of(process: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok())
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"))?.count();
        Ok(Self {
            memory_mib: f64::from(field("VmRSS:").unwrap_or_default()) / 1024.0,
            descriptors: u32::try_from(descriptors).unwrap_or(u32::MAX),
            threads: field("Threads:").unwrap_or_default(),
        })
    }
}

/// Looks again and again, until then.
///
/// # Errors
/// Somebody does not tell.
pub(crate) async fn watch(
    world: &World,
    sale: &Sale,
    until: Instant,
    screen: &mut Screen,
) -> anyhow::Result<Vec<Look>> {
    let begun = Instant::now();
    let mut looks = Vec::new();
    while Instant::now() < until {
        let at = begun + LOOK_INTERVAL * u32::try_from(looks.len() + 1).unwrap_or(u32::MAX);
        sleep_until(at).await;
        let mut programs = BTreeMap::new();
        for (name, process) in world.programs.lock().await.ids() {
            programs.insert(name, Usage::of(process)?);
        }
        looks.push(look(&world.pool, begun.elapsed().as_secs(), programs).await?);
        if looks.len() % LOOKS_PER_DROP == 0 {
            sale.next_drop();
            let left = until.saturating_duration_since(Instant::now());
            screen.line(format_args!("  {}; {} left", told(&looks), duration(left)));
        }
    }
    Ok(looks)
}

async fn look(
    pool: &PgPool,
    seconds: u64,
    programs: BTreeMap<&'static str, Usage>,
) -> anyhow::Result<Look> {
    let (sessions, live_rows, dead_rows, bytes) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
                sum(n_live_tup)::bigint, sum(n_dead_tup)::bigint, pg_database_size(current_database())
         FROM pg_stat_user_tables",
    )
    .fetch_one(pool)
    .await?;
    Ok(Look { seconds, programs, sessions, live_rows, dead_rows, bytes })
}

fn told(looks: &[Look]) -> String {
    looks.last().map_or_else(String::new, |look| {
        let memory: f64 = look.programs.values().map(|usage| usage.memory_mib).sum();
        let descriptors: u32 = look.programs.values().map(|usage| usage.descriptors).sum();
        format!(
            "{memory:.0} MiB, {descriptors} descriptors, {} sessions, {} rows, {} of them dead",
            look.sessions,
            look.live_rows + look.dead_rows,
            look.dead_rows
        )
    })
}

/// A figure at the beginning, when all is warm, and at the end.
struct Trend {
    what: String,
    first: f64,
    last: f64,
    most: f64,
}

/// How each figure went.
fn trends(looks: &[Look]) -> Vec<Trend> {
    let mut quarters = looks.chunks(looks.len().div_ceil(4).max(1)).skip(1);
    let warm = quarters.next().unwrap_or_default();
    let end = quarters.last().unwrap_or_default();
    let mut trends = Vec::new();
    let mut trend = |what: String, most: &dyn Fn(f64) -> f64, figure: &dyn Fn(&Look) -> f64| {
        let middle = |looks: &[Look]| {
            let mut figures: Vec<f64> = looks.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or_default()
        };
        let first = middle(warm);
        let last = middle(end);
        trends.push(Trend { what, first, last, most: most(first) });
    };
    let more_open = |first| first + MORE_OPEN;
    let names: BTreeSet<&str> =
        looks.iter().flat_map(|look| look.programs.keys().copied()).collect();
    for name in names {
        let of =
            |look: &Look, figure: fn(&Usage) -> f64| look.programs.get(name).map_or(0.0, figure);
        let (times, plus) = MORE_MEMORY;
        trend(format!("{name}: MiB of memory"), &|first| first * times + plus, &|look| {
            of(look, |usage| usage.memory_mib)
        });
        trend(format!("{name}: descriptors"), &more_open, &|look| {
            of(look, |usage| usage.descriptors.into())
        });
        trend(format!("{name}: threads"), &more_open, &|look| {
            of(look, |usage| usage.threads.into())
        });
    }
    trend("PostgreSQL: sessions".to_owned(), &more_open, &|look| look.sessions as f64);
    trend("PostgreSQL: share of dead rows".to_owned(), &|_| MOST_DEAD, &|look| {
        look.dead_rows as f64 / (look.live_rows + look.dead_rows).max(1) as f64
    });
    trends
}

/// For people: what each figure was, and is.
pub(crate) fn lines(looks: &[Look]) -> Vec<String> {
    let told = trends(looks).into_iter().map(|Trend { what, first, last, most }| {
        let verdict = if last > most { "FAIL" } else { "ok" };
        format!("  {verdict:<4} {what}: {first:.2}, at the end {last:.2} (at most {most:.2})")
    });
    told.collect()
}

/// How many figures grew; all of them, if it was too short to tell.
pub(crate) fn grown(looks: &[Look]) -> usize {
    let trends = trends(looks);
    let is_long = looks.len() >= FEWEST_LOOKS;
    trends.iter().filter(|trend| !is_long || trend.last > trend.most).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(
        memory: impl Fn(u64) -> f64,
        descriptors: impl Fn(u64) -> u32,
        dead: i64,
    ) -> Vec<Look> {
        let at = |seconds: u64| {
            let usage = Usage {
                memory_mib: memory(seconds),
                descriptors: descriptors(seconds),
                threads: 4,
            };
            let programs = BTreeMap::from([("api", usage)]);
            Look { seconds, programs, sessions: 20, live_rows: 1_000, dead_rows: dead, bytes: 1 }
        };
        (1..=180).map(|number| at(10 * number)).collect()
    }

    #[test]
    fn what_grows_is_found() {
        assert_eq!(grown(&looks(|_| 40.0, |_| 60, 100)), 0);
        // It fills a cache, and is warm.
        assert_eq!(grown(&looks(|seconds| (seconds as f64 / 5.0).min(60.0), |_| 60, 100)), 0);
        assert_eq!(grown(&looks(|seconds| 40.0 + seconds as f64 / 60.0, |_| 60, 100)), 1);
        assert_eq!(
            grown(&looks(|_| 40.0, |seconds| 60 + u32::try_from(seconds / 60).unwrap(), 100)),
            1
        );
        assert_eq!(grown(&looks(|_| 40.0, |_| 60, 900)), 1);
        assert!(grown(&looks(|_| 40.0, |_| 60, 100)[..10]) > 0, "too short");
    }
}
