//! A database with a history: ten days of it, of which the oldest one is as busy again with those who lost.

use std::{collections::VecDeque, ops::Range};

use anyhow::ensure;
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, pool::PoolConnection};

/// How many rows one statement adds: some half a minute's work.
const CHUNK: i64 = 5_000_000;
const MILLION: i64 = 1_000_000;

/// The rows of a history from `$1` to before `$2`, of `$3` in all; it begins at `$4`. Ids are ordered by time, as the
/// API makes them; campaigns are as large as the number of users, their ids out of the way of those that a measurement
/// makes.
macro_rules! history {
    () => {
        "(SELECT n, n % users + 1 AS user_id, 1000000 + n / users AS coupon_id, n % users + 1 AS issue_number, at,
                 (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
                  || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid AS job_id
          FROM (SELECT count(*) AS users FROM users) AS counted, generate_series($1::bigint, $2::bigint - 1) AS n,
               LATERAL (SELECT $4::timestamptz + interval '240 hours' * (n::float8 / $3::bigint) AS at) AS submitted
         ) AS history"
    };
}

/// Each time as the workers write them.
const ROWS: [&str; 2] = [
    concat!(
        "INSERT INTO user_coupons (id, user_id, coupon_id, issue_number, issued_at, issued_by)
         OVERRIDING SYSTEM VALUE SELECT n + 1, user_id, coupon_id, issue_number, at, job_id FROM ",
        history!()
    ),
    // Those who lost asked right after those who won.
    concat!(
        "INSERT INTO job_outcomes (job_id, user_id, kind, status, code, result, settled_at, subject, taken_up_at,
                                   batch_jobs, line)
         SELECT CASE WHEN lost = 0 THEN job_id
                ELSE overlay(job_id::text PLACING '9' FROM 20 FOR 1)::uuid END,
                user_id, 'issue-coupon', CASE WHEN lost = 0 THEN 'succeeded' ELSE 'rejected' END,
                CASE WHEN lost = 1 THEN 'coupon-sold-out' END,
                CASE WHEN lost = 0 THEN jsonb_build_object('userCouponId', n + 1, 'couponId', coupon_id,
                                                           'issueNumber', issue_number) END,
                at, coupon_id, at, 1000, '0.0'
         FROM ",
        history!(),
        ", generate_series(0, CASE WHEN n < $3::bigint / 10 THEN 1 ELSE 0 END) AS lost"
    ),
];

/// What is dropped meanwhile, and what makes it again exactly as it was: that is quicker.
const INDEXES: &str = "
    SELECT indexrelid::regclass::text,
           CASE WHEN conname IS NULL THEN format('DROP INDEX %s', indexrelid::regclass)
                ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', indrelid::regclass, conname) END,
           CASE WHEN conname IS NULL THEN pg_get_indexdef(indexrelid)
                ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', indrelid::regclass, conname,
                            pg_get_constraintdef(pg_constraint.oid)) END
    FROM pg_index LEFT JOIN pg_constraint ON conindid = indexrelid AND contype IN ('p', 'u')
    WHERE indrelid IN ('user_coupons'::regclass, 'job_outcomes'::regclass) ORDER BY indexrelid";

/// What must be afterwards as it was before.
const CATALOG: &str = "
    SELECT pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid IN ('user_coupons'::regclass, 'job_outcomes'::regclass)
    UNION ALL SELECT conrelid::regclass || conname || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid IN ('user_coupons'::regclass, 'job_outcomes'::regclass)
    UNION ALL SELECT tgname || tgenabled::text FROM pg_trigger
    WHERE tgrelid IN ('user_coupons'::regclass, 'job_outcomes'::regclass)
    UNION ALL SELECT relname || COALESCE(reloptions::text, '') FROM pg_class
    WHERE oid IN ('user_coupons'::regclass, 'job_outcomes'::regclass)
    UNION ALL SELECT attrelid::regclass || attname || attnotnull FROM pg_attribute
    WHERE attrelid IN ('user_coupons'::regclass, 'job_outcomes'::regclass) AND attnum > 0
    ORDER BY 1";

/// Fills a database with so many coupons in users' hands and the outcome of each, and a tenth as many of jobs that were
/// rejected; step by step, as it takes long.
pub(super) struct Filling {
    connection: PoolConnection<Postgres>,
    rows: i64,
    /// When the history begins.
    pub(super) since: DateTime<Utc>,
    catalog: Vec<String>,
    steps: VecDeque<Step>,
}

/// What there is still to do.
enum Step {
    Add(Range<i64>),
    Make { index: String, statement: String },
    Vacuum,
}

impl Filling {
    /// Nothing was sold on this database before.
    pub(super) async fn begin(pool: &PgPool, rows: i64) -> Result<Self, sqlx::Error> {
        let mut connection = pool.acquire().await?;
        let catalog = sqlx::query_scalar(CATALOG).fetch_all(&mut *connection).await?;
        let since = "SELECT date_trunc('day', now(), 'UTC') - interval '240 hours'";
        let since = sqlx::query_scalar(since).fetch_one(&mut *connection).await?;
        sqlx::raw_sql(
            "SET maintenance_work_mem = '256MB';
             ALTER TABLE user_coupons SET (autovacuum_enabled = off), DISABLE TRIGGER user_coupons_references;
             ALTER TABLE job_outcomes SET (autovacuum_enabled = off)",
        )
        .execute(&mut *connection)
        .await?;
        let indexes: Vec<(String, String, String)> =
            sqlx::query_as(INDEXES).fetch_all(&mut *connection).await?;
        let mut steps = chunks(rows);
        for (index, drop, statement) in indexes {
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *connection).await?;
            steps.push_back(Step::Make { index, statement });
        }
        steps.push_back(Step::Vacuum);
        for statement in [
            "INSERT INTO coupons (id, name, discount_type, discount_value, total, issued, starts_at, ends_at)
             SELECT 1000000 + n, 'History', 'fixed', 1000, users, LEAST(users, $1 - n * users),
                    now() - interval '11 days', now() - interval '1 day'
             FROM (SELECT count(*) AS users FROM users) AS counted,
                  generate_series(0, ($1 - 1) / users) AS n",
            "SELECT setval(pg_get_serial_sequence('user_coupons', 'id'), $1)",
        ] {
            sqlx::query(statement).bind(rows).execute(&mut *connection).await?;
        }
        Ok(Self { connection, rows, since, catalog, steps })
    }

    /// What comes next; nothing if all is done.
    pub(super) fn next(&self) -> Option<String> {
        #[expect(clippy::cast_precision_loss, reason = "some million")]
        let millions = |rows: i64| rows as f64 / MILLION as f64;
        Some(match self.steps.front()? {
            Step::Add(Range { end, .. }) => {
                format!(
                    "filling a database, to {} of {} million rows",
                    millions(*end),
                    millions(self.rows)
                )
            }
            Step::Make { index, .. } => {
                format!("filling a database of {} million rows, {index}", millions(self.rows))
            }
            Step::Vacuum => format!("vacuuming a database of {} million rows", millions(self.rows)),
        })
    }

    /// Does what comes next.
    pub(super) async fn step(&mut self) -> anyhow::Result<()> {
        let connection = &mut *self.connection;
        match self.steps.pop_front() {
            Some(Step::Add(Range { start, end })) => {
                for statement in ROWS {
                    let query = sqlx::query(statement).bind(start).bind(end).bind(self.rows);
                    query.bind(self.since).execute(&mut *connection).await?;
                }
            }
            Some(Step::Make { statement, .. }) => {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
            }
            Some(Step::Vacuum) => {
                for statement in [
                    "ALTER TABLE user_coupons RESET (autovacuum_enabled), ENABLE TRIGGER user_coupons_references",
                    "ALTER TABLE job_outcomes RESET (autovacuum_enabled)",
                    "VACUUM (ANALYZE) user_coupons, job_outcomes, coupons",
                ] {
                    sqlx::raw_sql(statement).execute(&mut *connection).await?;
                }
                let catalog: Vec<String> =
                    sqlx::query_scalar(CATALOG).fetch_all(connection).await?;
                ensure!(catalog == self.catalog, "the schema is another one than before");
            }
            None => {}
        }
        Ok(())
    }
}

fn chunks(rows: i64) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    let mut start = 0;
    while start < rows {
        let end = rows.min(start + CHUNK);
        steps.push_back(Step::Add(start..end));
        start = end;
    }
    steps
}

/// A coupon of this campaign for each of the users from 1 to `users`, as after a drop; nobody holds any
/// yet.
pub(super) async fn hand_out(pool: &PgPool, campaign: i64, users: i64) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for statement in [
        "UPDATE coupons SET issued = $2 WHERE id = $1",
        "INSERT INTO user_coupons (user_id, coupon_id, issue_number)
         SELECT n, $1, n FROM generate_series(1, $2) AS n",
    ] {
        sqlx::query(statement).bind(campaign).bind(users).execute(&mut *transaction).await?;
    }
    record(&mut transaction, users).await?;
    transaction.commit().await
}

/// The outcomes that so many coupons came from; the audit asks for them. Time-ordered ids of the day
/// before, as the API makes them.
async fn record(connection: &mut PgConnection, coupons: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO job_outcomes (job_id, user_id, kind, status, result, settled_at)
         SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - 86400000 + id / 1000), 12, '0')
                 || '7' || lpad(to_hex(id % 1000), 3, '0') || '8' || lpad(to_hex(id), 15, '0'))::uuid,
                user_id, 'issue-coupon', 'succeeded',
                jsonb_build_object('userCouponId', id, 'couponId', coupon_id, 'issueNumber', issue_number),
                now() - interval '1 day'
         FROM user_coupons WHERE id <= $1 ORDER BY id",
    )
    .bind(coupons)
    .execute(connection)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_chunk() {
        let ranges: Vec<Range<i64>> = chunks(12 * MILLION)
            .into_iter()
            .filter_map(|step| match step {
                Step::Add(range) => Some(range),
                Step::Make { .. } | Step::Vacuum => None,
            })
            .collect();
        assert_eq!(ranges, [0..CHUNK, CHUNK..2 * CHUNK, 2 * CHUNK..12 * MILLION]);
        assert!(chunks(0).is_empty());
    }
}
