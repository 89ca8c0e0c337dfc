//! Brings what `redis-lua` has issued from its stream into the database, in batches.
//!
//! A group of consumers without acknowledgements: an entry is trimmed when it is committed, so whatever is still in the
//! stream is to be written, also after a crash. That spares Redis a list of what is in hand, and its AOF an entry for each.

use std::time::Duration;

use anyhow::Context;
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Where coupons wait for the database.
pub(crate) const STREAM: &str = "bench-issued-coupons";
const GROUP: &str = "writers";
/// As many as the system's own batches have.
const MOST_ENTRIES: usize = 4_000;
/// How long more are waited for where a batch was not full: no answer waits for the database, so few large batches are
/// better than many small ones.
const LINGER: Duration = Duration::from_millis(20);
/// How long Redis waits for an entry before it says that there is none.
const BLOCK_MS: u32 = 100;
/// Until it is tried again when something was in the way.
const PAUSE: Duration = Duration::from_millis(100);

/// What was read at once.
#[derive(Debug, Default, PartialEq)]
struct Batch {
    jobs: Vec<Uuid>,
    users: Vec<i64>,
    coupons: Vec<i64>,
    numbers: Vec<i64>,
    /// What the first entry after it can be called, at least.
    next: Option<String>,
}

/// Writes until it is told to stop.
pub(super) async fn run(redis: Client, pool: PgPool, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = write_all(&redis, &pool, &stop).await {
            eprintln!("the writer: {error:#}");
            sleep(PAUSE).await;
        }
    }
}

async fn write_all(redis: &Client, pool: &PgPool, stop: &CancellationToken) -> anyhow::Result<()> {
    // It waits for entries longer than a command may take otherwise.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut redis = redis.get_multiplexed_async_connection_with_config(&config).await?;
    from_the_beginning(&mut redis).await?;
    let mut batch = read(&mut redis, None).await?;
    while !stop.is_cancelled() {
        batch = if batch.jobs.len() < MOST_ENTRIES {
            write(pool, &batch).await?;
            sleep(LINGER).await;
            read(&mut redis, batch.next.as_deref()).await?
        } else {
            // More wait: they are read meanwhile.
            tokio::try_join!(read(&mut redis, None), write(pool, &batch))?.0
        };
    }
    Ok(())
}

/// Whatever is in the stream is not known to be committed.
async fn from_the_beginning(redis: &mut MultiplexedConnection) -> anyhow::Result<()> {
    let mut create = redis::cmd("XGROUP");
    create.arg(&["CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
    if let Err(error) = create.exec_async(redis).await
        && error.code() != Some("BUSYGROUP")
    {
        return Err(error.into());
    }
    redis::cmd("XGROUP").arg(&["SETID", STREAM, GROUP, "0"]).exec_async(redis).await?;
    Ok(())
}

/// Trims what is committed, and reads what comes next.
async fn read(redis: &mut MultiplexedConnection, committed: Option<&str>) -> anyhow::Result<Batch> {
    let mut pipe = redis::pipe();
    if let Some(next) = committed {
        pipe.cmd("XTRIM").arg(&[STREAM, "MINID", "=", next]).ignore();
    }
    pipe.cmd("XREADGROUP")
        .arg(&["GROUP", GROUP, "writer", "COUNT"])
        .arg(MOST_ENTRIES)
        .arg("BLOCK")
        .arg(BLOCK_MS)
        .arg(&["NOACK", "STREAMS", STREAM, ">"]);
    let (streams,): (Option<Vec<(String, Entries)>>,) = pipe.query_async(redis).await?;
    let entries = streams.unwrap_or_default().into_iter().flat_map(|(_, entries)| entries);
    batch(entries)
}

/// Id, and the one field that each has.
type Entries = Vec<(String, (String, String))>;

fn batch(entries: impl Iterator<Item = (String, (String, String))>) -> anyhow::Result<Batch> {
    let mut batch = Batch::default();
    for (id, (_, coupon)) in entries {
        let mut words = coupon.split(' ');
        let mut word = || words.next().with_context(|| format!("an entry: {coupon}"));
        batch.jobs.push(word()?.parse()?);
        batch.users.push(word()?.parse()?);
        batch.coupons.push(word()?.parse()?);
        batch.numbers.push(word()?.parse()?);
        let (time, number) = id.split_once('-').context("an id without a number")?;
        batch.next = Some(format!("{time}-{}", number.parse::<u64>()? + 1));
    }
    Ok(batch)
}

/// Stores the coupons, their count and the records, in one statement and so in one transaction. Nothing twice: what was
/// written before, or has a number that a Redis which forgot something gave away again, is passed over.
async fn write(pool: &PgPool, batch: &Batch) -> anyhow::Result<()> {
    if batch.jobs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "WITH held AS (
             INSERT INTO user_coupons (user_id, coupon_id, issue_number, issued_by)
             SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::uuid[])
             ON CONFLICT DO NOTHING
             RETURNING id, user_id, coupon_id, issue_number, issued_by
         ), counted AS (
             UPDATE coupons SET issued = issued + counts.held
             FROM (SELECT coupon_id, count(*) AS held FROM held GROUP BY coupon_id) AS counts
             WHERE coupons.id = counts.coupon_id
         )
         INSERT INTO job_outcomes (kind, job_id, user_id, status, result)
         SELECT 'issue-coupon', issued_by, user_id, 'succeeded',
                jsonb_build_object('userCouponId', id, 'couponId', coupon_id, 'issueNumber', issue_number)
         FROM held",
    )
    .bind(&batch.users)
    .bind(&batch.coupons)
    .bind(&batch.numbers)
    .bind(&batch.jobs)
    .execute(pool)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_tells_its_coupons_and_what_can_follow_it() {
        let entry = |id: &str, coupon: String| (id.to_owned(), ("coupon".to_owned(), coupon));
        let job = Uuid::from_u128(1);
        let entries = [entry("5-0", format!("{job} 7 3 1")), entry("5-1", format!("{job} 8 3 2"))];
        let expected = Batch {
            jobs: vec![job, job],
            users: vec![7, 8],
            coupons: vec![3, 3],
            numbers: vec![1, 2],
            next: Some("5-2".to_owned()),
        };
        assert_eq!(batch(entries.into_iter()).unwrap(), expected);
        assert_eq!(batch(std::iter::empty()).unwrap(), Batch::default());
        assert!(batch([entry("5-0", "none".to_owned())].into_iter()).is_err());
    }
}
