//! Folds what is settled of the lines' arrivals, and keeps their count right.
//!
//! What APIs tell is not all that comes: one that is killed has not told of its last jobs, and a job whose
//! publisher gave up may have come after all. So what had come by some seconds ago is compared with what was
//! settled by then, while the line is busy as when it is calm.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use firstcome_contract::line::Line;
use sqlx::PgConnection;

use super::{ARRIVAL_TIMEOUT, Known, Stats};

/// The most jobs by which a busy line's count may be off, since jobs overtake each other on their way into it,
/// without being taken for a miscount.
const MAX_OVERTAKING: i64 = 20;

pub(crate) async fn fold(
    connection: &mut PgConnection,
    lines: impl Iterator<Item = (Line, Arc<Stats>)>,
) -> Result<(), sqlx::Error> {
    let (lines, stats): (Vec<Line>, Vec<Arc<Stats>>) = lines.unzip();
    let families: Vec<&str> = lines.iter().map(|line| line.family.as_str()).collect();
    let generations: Vec<i32> = lines.iter().map(|line| line.generation).collect();
    let names: Vec<String> = lines.iter().map(|line| line.name.to_string()).collect();
    if families.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"SELECT position AS "position!", COALESCE(settled, 0) AS "settled!", until, clock_timestamp() AS "now!"
           FROM UNNEST($1::text[], $2::int[], $3::text[]) WITH ORDINALITY AS served (k, g, l, position)
           LEFT JOIN LATERAL (SELECT * FROM line_progress WHERE family = k AND generation = g AND line = l LIMIT 1) AS progress ON true"#,
        &families as &[&str],
        &generations,
        &names,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut known: Vec<Option<(i64, DateTime<Utc>, i64)>> = vec![None; stats.len()];
    for row in rows {
        let position = usize::try_from(row.position).unwrap_or_default().wrapping_sub(1);
        let Some(stats) = stats.get(position) else { continue };
        let Some(known) = known.get_mut(position) else { continue };
        *known = stats.mark(row.settled, row.until).map(|known| match known {
            Known::Exactly { settled, ago } => {
                (settled, row.now - TimeDelta::from_std(ago).unwrap_or_default(), 0)
            }
            Known::About { settled, until } => (settled, until, MAX_OVERTAKING),
        });
    }
    let settled: Vec<Option<i64>> = known.iter().map(|known| Some((*known)?.0)).collect();
    let by: Vec<Option<DateTime<Utc>>> = known.iter().map(|known| Some((*known)?.1)).collect();
    let tolerated: Vec<Option<i64>> = known.iter().map(|known| Some((*known)?.2)).collect();
    // Buckets go in their order, and only with the last of their jobs.
    sqlx::query!(
        "WITH served AS MATERIALIZED (
             SELECT k, g, l, tolerated, by_then, known_settled, folded, COALESCE(settled, 0) AS settled, until
             FROM UNNEST($1::text[], $2::int[], $3::text[], $4::bigint[], $5::timestamptz[], $6::bigint[])
               AS served (k, g, l, known_settled, by_then, tolerated)
             CROSS JOIN LATERAL (SELECT folded FROM line_reports WHERE family = k AND generation = g AND line = l LIMIT 1) AS report
             LEFT JOIN LATERAL (SELECT settled, until FROM line_progress WHERE family = k AND generation = g AND line = l LIMIT 1) AS progress ON true
         ), arrived AS MATERIALIZED (
             SELECT k, g, l, arrivals.*, last_at <= by_then AS had_come, first_at <= by_then AND last_at > by_then AS were_coming
             FROM served
             CROSS JOIN LATERAL (
                 SELECT bucket, first_at, last_at, jobs FROM line_arrivals WHERE family = k AND generation = g AND line = l OFFSET 0
             ) AS arrivals
         ), counted AS MATERIALIZED (
             SELECT served.*, known_settled - folded - came.jobs AS miscount, tolerated + came.coming AS tolerance, is_late
             FROM served
             CROSS JOIN LATERAL (
                 SELECT COALESCE(sum(jobs) FILTER (WHERE had_come), 0)::bigint AS jobs,
                        COALESCE(sum(jobs) FILTER (WHERE were_coming), 0)::bigint AS coming,
                        COALESCE(bool_or(NOT had_come), false) AS is_late
                 FROM arrived WHERE (arrived.k, arrived.g, arrived.l) = (served.k, served.g, served.l)
             ) AS came
         ), corrected AS MATERIALIZED (
             SELECT k, g, l, settled, until, folded,
                    CASE WHEN miscount BETWEEN -tolerance AND tolerance OR is_late AND tolerated = 0 THEN 0 ELSE miscount END AS correction
             FROM counted
         ), deleted AS (
             DELETE FROM line_arrivals USING (
                 SELECT arrived.*, sum(jobs) OVER (PARTITION BY k, g, l ORDER BY bucket) AS through FROM arrived
             ) AS buckets, corrected AS c
             WHERE family = buckets.k AND generation = buckets.g AND line = buckets.l
               AND line_arrivals.bucket = buckets.bucket AND line_arrivals.jobs = buckets.jobs
               AND (c.k, c.g, c.l) = (buckets.k, buckets.g, buckets.l)
               AND through <= c.settled - c.folded - c.correction
               AND buckets.last_at <= c.until AND buckets.last_at < clock_timestamp() - make_interval(secs => $7)
             RETURNING buckets.k, buckets.g, buckets.l, buckets.jobs
         ), folding AS MATERIALIZED (
             SELECT k, g, l, correction + COALESCE((
                 SELECT sum(jobs)::bigint FROM deleted WHERE (deleted.k, deleted.g, deleted.l) = (c.k, c.g, c.l)
             ), 0) AS more
             FROM corrected AS c
         )
         UPDATE line_reports SET folded = folded + more FROM folding
         WHERE family = k AND generation = g AND line = l AND more <> 0",
        &families as &[&str],
        &generations,
        &names,
        &settled as &[Option<i64>],
        &by as &[Option<DateTime<Utc>>],
        &tolerated as &[Option<i64>],
        ARRIVAL_TIMEOUT.as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(())
}
