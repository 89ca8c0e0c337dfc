//! The line in which the jobs of the sale stand.

use firstcome_contract::line::Line;
use firstcome_process::database::Pool;

use super::{Check, broker::Queues, told};
use crate::crew::{routing::State, sharing::is_halted};

/// A worker tells every second how its lines fare: one that has not for so long has stopped.
const SILENT_SECONDS: f64 = 3.0;
/// A line without work is sent a canary after 5 seconds; nothing has come out of one for so long that is not well.
const DEAD_SECONDS: f64 = 15.0;

/// The line of the key at present; `None` before a worker has made any.
pub(super) fn of(state: &State, key: i64) -> Option<Line> {
    let routing = state.routing()?;
    let family = state.rows.first()?.line.family;
    Some(routing.named(family, routing.line(std::iter::once(key))))
}

/// Whether the line is served, and nothing of it lies beside.
pub(super) async fn checks(
    pool: &Pool,
    state: &State,
    key: i64,
    namespace: &str,
    queues: &Queues,
) -> Result<Vec<Check>, sqlx::Error> {
    let Some(line) = of(state, key) else {
        let hint = "start the workers of its family, they make them";
        return Ok(vec![Check::failed("line", format!("there are no lines: {hint}"))]);
    };
    let queue = line.queue(namespace);
    let mut checks = vec![Check::ok("line", told(line.family, line.generation, line.name))];
    checks.push(match state.pending() {
        None => Check::ok("routing", "no change is under way"),
        Some(pending) => Check::failed("routing", format!("{pending}: wait until it is done")),
    });
    if is_halted(pool, line.family).await? {
        let family = line.family.as_str();
        let resume = format!("POST /api/admin/queues/{family}/resume lets them go on");
        let detail = format!("an operator has halted the {family} lines: {resume}");
        checks.push(Check::failed("halt", detail));
    }
    checks.push(match queues.depth(&queue) {
        Ok(depth) if depth.consumers == 0 => {
            Check::failed("queue", format!("nobody consumes {queue}: start a worker of its family"))
        }
        Ok(depth) if depth.ready > 0 => {
            Check::warning("queue", format!("{} messages wait in {queue} already", depth.ready))
        }
        Ok(_) => Check::ok("queue", format!("{queue} is empty and consumed")),
        Err(hint) => Check::failed("queue", hint),
    });
    checks.extend(owner(pool, line).await?);
    checks.push(dead_letters(pool, line, key, &queue).await?);
    Ok(checks)
}

async fn owner(pool: &Pool, line: Line) -> Result<[Check; 2], sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT workers.name AS "owner?", EXTRACT(EPOCH FROM clock_timestamp() - reported_at)::float8 AS silent,
                  EXTRACT(EPOCH FROM clock_timestamp() - GREATEST(progress_at, cleared_until))::float8 AS idle
           FROM partition_leases AS l
           LEFT JOIN workers ON workers.id = l.owner AND expires_at > clock_timestamp()
           LEFT JOIN line_reports AS r ON r.family = l.family AND r.generation = l.generation AND r.line = l.line
           WHERE l.family = $1 AND l.generation = $2 AND l.line = $3"#,
        line.family.as_str(),
        line.generation,
        line.name.to_string(),
    )
    .fetch_optional(pool)
    .await?;
    let (owner, silent, idle) =
        row.map_or((None, None, None), |row| (row.owner, row.silent, row.idle));
    let restart = "restart that worker, or start another";
    let owner = match (owner, silent) {
        (None, _) => Check::failed("owner", "no living worker has the line: start one"),
        (Some(owner), Some(silent)) if silent <= SILENT_SECONDS => {
            Check::ok("owner", format!("{owner}, which told {silent:.1} s ago how it fares"))
        }
        (Some(owner), _) => {
            Check::failed("owner", format!("{owner} does not tell how the line fares: {restart}"))
        }
    };
    let canary = match idle {
        Some(idle) if idle <= DEAD_SECONDS => Check::ok(
            "canary",
            format!("something came out of the line {:.0} s ago", idle.max(0.0)),
        ),
        _ => Check::failed("canary", format!("nothing comes out of the line: {restart}")),
    };
    Ok([owner, canary])
}

async fn dead_letters(
    pool: &Pool,
    line: Line,
    key: i64,
    queue: &str,
) -> Result<Check, sqlx::Error> {
    let found = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE is_of_key) AS "of_key!", count(*) AS "all!"
           FROM (SELECT queue, EXISTS (SELECT FROM job_outcomes
                                       WHERE job_outcomes.job_id = dead_letters.job_id AND subject = $2
                                         AND (kind = 'issue-coupon') = ($3 = 'coupon')) AS is_of_key
                 FROM dead_letters WHERE discarded_at IS NULL) AS waiting
           WHERE queue = $1 OR is_of_key"#,
        queue,
        key,
        line.family.as_str(),
    )
    .fetch_one(pool)
    .await?;
    let hint = "`firstcome-worker dead-letters list` says why: redrive or discard them";
    Ok(match (found.of_key, found.all) {
        (0, 0) => Check::ok("dead letters", "none of the line"),
        (0, all) => {
            Check::warning("dead letters", format!("{all} of other keys of the line; {hint}"))
        }
        (of_key, _) => Check::failed("dead letters", format!("{of_key} of it; {hint}")),
    })
}
