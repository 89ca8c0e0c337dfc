//! How much a server sells in a second: what counts is the commit.

use std::time::Duration;

use anyhow::{bail, ensure};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use super::load::{Answered, ClosedLoop};

/// How long what was accepted may take to be settled without any progress: longer than any batch, as a
/// slow one is a figure and not the end of the run.
const STANDSTILL: Duration = Duration::from_secs(60);
/// How often it is looked how much is settled.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is sold under a load.
#[derive(Debug, Clone)]
pub(super) enum Goods {
    /// Coupons of these campaigns.
    Coupons(Vec<i64>),
    /// Pieces of these products.
    Products(Vec<i64>),
}

impl Goods {
    /// How many units are sold, as committed.
    pub(super) async fn sold(&self, pool: &PgPool) -> Result<i64, sqlx::Error> {
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

/// What a load came to, once all of it was committed.
#[derive(Debug)]
pub(super) struct Throughput {
    pub(super) answered: Answered,
    /// Granted requests ÷ the time from the first request until all of them were committed.
    pub(super) per_second: f64,
}

impl Throughput {
    /// Of a load that leaves nothing to commit: answers ÷ the time until the last of them.
    pub(super) fn of_answers(answered: Answered) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
        let answers = (answered.granted + answered.denied) as f64;
        Self { per_second: answers / answered.took.as_secs_f64(), answered }
    }
}

/// Puts the load on a server, and waits until all that was granted is committed.
pub(super) async fn measure(
    load: &ClosedLoop,
    goods: &Goods,
    pool: &PgPool,
) -> anyhow::Result<Throughput> {
    let before = goods.sold(pool).await?;
    let answered = load.run().await?;
    let wanted = before + answered.units;
    let mut moved = (Instant::now(), before);
    let mut took = answered.took;
    loop {
        let sold = goods.sold(pool).await?;
        match sold - wanted {
            0 => break,
            1.. => bail!(
                "{} more were given away than was granted; {} requests were answered 503, which leaves open \
                 whether they were accepted",
                sold - wanted,
                answered.refused
            ),
            _ if sold != moved.1 => moved = (Instant::now(), sold),
            _ if moved.0.elapsed() > STANDSTILL => {
                bail!("{} of what was granted is not settled", wanted - sold)
            }
            _ => {}
        }
        sleep(LOOK_EVERY).await;
        took = answered.started.elapsed();
    }
    ensure!(answered.granted > 0, "nothing was granted");
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
    let per_second = answered.granted as f64 / took.as_secs_f64();
    Ok(Throughput { answered, per_second })
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
