//! The lines in the database: read, and told what was accepted.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use firstcome_contract::{
    family::Family,
    line::{Line, LineName, Naming, Routing},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Looked, Routes, Rows,
    arrivals::{Arrivals, Bucket},
    known::{Report, Row},
};

/// What is told at once. Told again until it is known to be understood, it counts once.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Counts up with each telling of this process, by which a repeat is known.
    pub(super) sequence: i64,
    pub(super) arrivals: HashMap<Line, Arrivals>,
}

/// Tells how many jobs came into which line when.
pub(super) async fn tell(
    connection: &mut PgConnection,
    api: Uuid,
    telling: &Telling,
) -> Result<(), sqlx::Error> {
    let mut all: Vec<_> = telling
        .arrivals
        .iter()
        .flat_map(|(line, arrivals)| {
            arrivals.iter().map(|(begins, bucket)| (*line, begins, bucket))
        })
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    // In one order: other APIs add to the same rows.
    all.sort_by_key(|(line, begins, _)| (*line, *begins));
    let families: Vec<&str> = all.iter().map(|(line, ..)| line.family.as_str()).collect();
    let generations: Vec<i32> = all.iter().map(|(line, ..)| line.generation).collect();
    let names: Vec<String> = all.iter().map(|(line, ..)| line.name.to_string()).collect();
    let begins: Vec<DateTime<Utc>> = all.iter().map(|(_, begins, _)| *begins).collect();
    let firsts: Vec<DateTime<Utc>> = all.iter().map(|(.., bucket)| bucket.first_at).collect();
    let lasts: Vec<DateTime<Utc>> = all.iter().map(|(.., bucket)| bucket.last_at).collect();
    let jobs: Vec<i64> = all.iter().map(|(.., bucket)| bucket.jobs.cast_signed()).collect();
    sqlx::query!(
        "WITH new AS (
             INSERT INTO line_tellers (api, sequence) VALUES ($8, $9)
             ON CONFLICT ON CONSTRAINT line_tellers_pkey DO UPDATE SET sequence = excluded.sequence, told_at = now()
             WHERE line_tellers.sequence < excluded.sequence
             RETURNING api
         )
         INSERT INTO line_arrivals (family, generation, line, bucket, first_at, last_at, jobs)
         SELECT * FROM UNNEST($1::text[], $2::int[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::bigint[])
         WHERE EXISTS (SELECT FROM new)
         ON CONFLICT ON CONSTRAINT line_arrivals_pkey DO UPDATE SET
             first_at = LEAST(line_arrivals.first_at, excluded.first_at),
             last_at = GREATEST(line_arrivals.last_at, excluded.last_at),
             jobs = line_arrivals.jobs + excluded.jobs",
        &families as &[&str],
        &generations,
        &names,
        &begins,
        &firsts,
        &lasts,
        &jobs,
        api,
        telling.sequence,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Every line, and how jobs are dealt out to those of the present. One statement: what came, what is
/// settled and what is folded are of one instant.
pub(super) async fn lines(connection: &mut PgConnection) -> Result<Looked, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT l.family, l.generation, l.line, l.naming, l.partitions, l.capacity, routing.generation AS current,
                  (l.opened_at IS NOT NULL) AS "is_open!", (l.generation < routing.generation) AS "is_closed!",
                  (l.drained_at IS NOT NULL) AS "is_drained!",
                  EXISTS (SELECT FROM halts WHERE halts.family = l.family) AS "is_halted!",
                  (SELECT number FROM pins WHERE pins.family = l.family AND 'pin-' || pins.key = l.line) AS pin_number,
                  workers.name AS "owner?", COALESCE(p.settled, 0) AS "settled!", COALESCE(r.folded, 0) AS "folded!",
                  r.in_hand AS "in_hand?", r.jobs_in_hand AS "jobs_in_hand?", r.in_hand_seconds,
                  r.batch_limit AS "batch_limit?", r.batch_seconds AS "batch_seconds?", r.job_seconds AS "job_seconds?",
                  r.jobs_per_message AS "jobs_per_message?", r.progress_at AS "progress_at?", r.hottest AS "hottest?",
                  EXTRACT(EPOCH FROM clock_timestamp() - r.reported_at)::float8 AS age,
                  GREATEST(p.until, r.cleared_until) AS passed, (SELECT pg_postmaster_start_time()) AS "started_at!",
                  (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS "database!",
                  a.buckets AS "buckets!", a.firsts AS "firsts!", a.lasts AS "lasts!", a.jobs AS "jobs!"
           FROM partition_leases AS l
           JOIN routing ON routing.family = l.family AND l.generation <= routing.generation
           LEFT JOIN workers ON workers.id = l.owner
           LEFT JOIN line_reports AS r ON r.family = l.family AND r.generation = l.generation AND r.line = l.line
           LEFT JOIN line_progress AS p ON p.family = l.family AND p.generation = l.generation AND p.line = l.line
           CROSS JOIN LATERAL (
               SELECT COALESCE(array_agg(bucket), '{}') AS buckets, COALESCE(array_agg(first_at), '{}') AS firsts,
                      COALESCE(array_agg(last_at), '{}') AS lasts, COALESCE(array_agg(jobs), '{}') AS jobs
               FROM line_arrivals WHERE family = l.family AND generation = l.generation AND line = l.line
           ) AS a"#
    )
    .fetch_all(connection)
    .await?;
    let source = rows.first().map(|row| (row.started_at, row.database));
    let mut routes = Routes::new();
    let mut lines = Rows::new();
    for row in rows {
        let of = Family::from_name(&row.family).zip(Naming::from_name(&row.naming));
        let (Some((family, naming)), Ok(line)) = (of, row.line.parse::<LineName>()) else {
            continue;
        };
        if row.generation == row.current {
            let routing = routes.entry(family).or_insert_with(|| Routing {
                generation: row.generation,
                partitions: u16::try_from(row.partitions).unwrap_or(u16::MAX),
                pins: BTreeMap::new(),
                naming,
            });
            if let LineName::Pin(key) = line {
                // A pin that is being removed has no number any more, but its line until then.
                let number = row.pin_number.and_then(|number| u8::try_from(number).ok());
                routing.pins.insert(key, number.unwrap_or(u8::MAX));
            }
        }
        let report = match (row.in_hand, row.jobs_in_hand, row.age) {
            (Some(in_hand), Some(jobs_in_hand), Some(age)) => Some(Report {
                in_hand,
                jobs_in_hand,
                in_hand_seconds: row.in_hand_seconds,
                batch_limit: row.batch_limit.unwrap_or_default(),
                batch_seconds: row.batch_seconds.unwrap_or_default(),
                job_seconds: row.job_seconds.unwrap_or_default(),
                jobs_per_message: row.jobs_per_message.unwrap_or(1.0),
                progress_at: row.progress_at.unwrap_or_default(),
                hottest: row.hottest.unwrap_or_default(),
                age,
            }),
            _ => None,
        };
        let mut arrivals = Arrivals::default();
        let times = row.buckets.into_iter().zip(row.firsts).zip(row.lasts).zip(row.jobs);
        for (((begins, first_at), last_at), jobs) in times {
            arrivals.insert(begins, Bucket { first_at, last_at, jobs: jobs.unsigned_abs() });
        }
        lines.insert(
            Line { family, generation: row.generation, name: line, naming },
            Row {
                partitions: u16::try_from(row.partitions).unwrap_or(u16::MAX),
                capacity: u32::try_from(row.capacity).unwrap_or(u32::MAX),
                is_open: row.is_open,
                is_closed: row.is_closed,
                is_drained: row.is_drained,
                is_halted: row.is_halted,
                passed: row.passed,
                owner: row.owner,
                report,
                folded: row.folded,
                settled: row.settled.unsigned_abs(),
                arrivals,
            },
        );
    }
    Ok(Looked { routes, rows: lines, source })
}
