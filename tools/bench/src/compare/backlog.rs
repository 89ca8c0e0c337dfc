//! How fast a backlog is drained, and how fast the same batches are without a broker.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use firstcome_contract::{
    ids::{CouponId, ProductId, UserId},
    job::{Envelope, IssueCoupon, Job, JobId, JobKind, PlaceOrder},
    line::Place,
    order::{Fulfilment, Line},
};
use firstcome_process::database::settings::BY_KEY;
use firstcome_workers::line::{MAX_JOBS, settle_directly};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::Instant;

use super::{
    arena::Scene,
    contender::{Firstcome, WithoutWorkers, outcomes},
    contest::Contest,
    requests::HOT_PRODUCT,
    sales::NAME,
    storm::{Requests, Storm},
};
use crate::side::SideName;

/// How long it may take to submit the backlog.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(120);

/// What waits when the workers start.
pub(super) struct Backlog {
    pub(super) jobs: usize,
    /// At least as many.
    pub(super) requests: Requests,
    /// Outcomes that are there already.
    pub(super) settled: i64,
}

impl Contest<'_> {
    pub(super) async fn backlogs(&mut self) -> anyhow::Result<()> {
        for kind in JobKind::ALL {
            self.drain(kind).await?;
            self.raw(kind).await?;
        }
        Ok(())
    }

    /// The workers start when all jobs wait; the API is idle. From the end of the first batch to the
    /// end of the last one, so that the start of the processes is not in it.
    async fn drain(&mut self, kind: JobKind) -> anyhow::Result<()> {
        self.say(format_args!("firstcome, draining a backlog of {}", kind.as_str()));
        let scene = self.arena.scene("bench_drain").await?;
        let is_order = kind == JobKind::PlaceOrder;
        let (system, accepted) = self.firstcome(&scene, is_order).await?;
        let system = system.stop_workers().await?;
        let like = if is_order { SideName::SyncOrder } else { SideName::Atomic };
        let (requests, _) = self.hot(like, &scene).await?;
        let backlog = Backlog { jobs: self.plan.backlog, requests, settled: accepted };
        let (system, per_second) = self.drain_backlog(&scene, system, backlog).await?;
        system.stop().await?;
        self.drained(kind, NAME, per_second);
        scene.audit(NAME).await?;
        self.arena.strike(scene).await
    }

    /// Submits the jobs, then starts the workers; tells how many they settled in a second.
    pub(super) async fn drain_backlog(
        &self,
        scene: &Scene,
        system: WithoutWorkers,
        Backlog { jobs, requests, settled }: Backlog,
    ) -> anyhow::Result<(Firstcome, f64)> {
        let requests: Requests = Arc::new(move |index| requests(index).filter(|_| index < jobs));
        let storm = Storm { window: SUBMIT_DEADLINE, ..self.storm(system.address, 256, requests) };
        let harvest = storm.rage().await?;
        ensure!(harvest.granted == jobs, "only {} of {jobs} jobs were accepted", harvest.granted);
        scene.settle_down().await;
        let before: DateTime<Utc> =
            sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&scene.pool).await?;
        let system = system.start_workers()?;
        outcomes(&scene.pool, settled + i64::try_from(jobs)?).await?;
        Ok((system, drained(&scene.pool, before).await?))
    }

    /// The worker's own batches, one after the other, of jobs that are there already.
    async fn raw(&mut self, kind: JobKind) -> anyhow::Result<()> {
        let scene = self.arena.scene("bench_raw").await?;
        let options: PgConnectOptions = scene.settings.database_url.parse()?;
        let pool =
            PgPoolOptions::new().max_connections(1).connect_lazy_with(options.options(BY_KEY));
        let mut batches = batches(kind, &scene, self.plan.backlog).await?.into_iter();
        let first = batches.next().context("no jobs")?;
        settle_directly(&pool, first).await?; // connects, prepares
        scene.settle_down().await;
        let (started, mut jobs) = (Instant::now(), 0.0);
        for batch in batches {
            #[expect(clippy::cast_precision_loss, reason = "a thousand")]
            let size = batch.len() as f64;
            settle_directly(&pool, batch).await?;
            jobs += size;
        }
        pool.close().await;
        self.drained(kind, "raw", jobs / started.elapsed().as_secs_f64());
        scene.audit("the raw batches").await?;
        self.arena.strike(scene).await
    }

    fn drained(&mut self, kind: JobKind, side: &str, per_second: f64) {
        let scenario = match kind {
            JobKind::IssueCoupon => "drain_coupon",
            JobKind::PlaceOrder => "drain_order",
        };
        self.ledger.add(format!("{scenario}.{side}.per_second"), per_second);
        self.say(format_args!("  {scenario}, {side}: {per_second:.0}/s"));
    }
}

async fn drained(pool: &PgPool, since: DateTime<Utc>) -> anyhow::Result<f64> {
    let batches: Vec<(DateTime<Utc>, i64)> = sqlx::query_as(
        "SELECT settled_at, count(*) FROM job_outcomes WHERE settled_at > $1 GROUP BY 1 ORDER BY 1",
    )
    .bind(since)
    .fetch_all(pool)
    .await?;
    let (first, last) = batches.first().zip(batches.last()).context("nothing was drained")?;
    let jobs: i64 = batches.iter().skip(1).map(|(_, jobs)| jobs).sum();
    let took = (last.0 - first.0).to_std()?.as_secs_f64();
    ensure!(took > 0.0, "drained in one batch: the backlog is too small");
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
    Ok(jobs as f64 / took)
}

/// A job for each user, as full as the worker's batches get.
async fn batches(kind: JobKind, scene: &Scene, jobs: usize) -> anyhow::Result<Vec<Vec<Envelope>>> {
    let campaign = CouponId::new(scene.campaign().await?);
    let line = Line { product_id: ProductId::new(HOT_PRODUCT), quantity: 1 };
    let now = u64::try_from(Utc::now().timestamp_millis())?;
    let envelope = |number: u32| {
        let job = match kind {
            JobKind::IssueCoupon => Job::IssueCoupon(IssueCoupon { coupon_id: campaign }),
            JobKind::PlaceOrder => Job::PlaceOrder(PlaceOrder {
                lines: vec![line],
                coupon_id: None,
                fulfilment: Fulfilment::All,
                from_cart: false,
            }),
        };
        Envelope {
            id: JobId::compose(now, kind, Place::UNKNOWN, number, 0),
            user_id: UserId::new(i64::from(number) + 1),
            idempotency: None,
            trace: None,
            job,
        }
    };
    let envelopes: Vec<Envelope> = (0..u32::try_from(jobs)?).map(envelope).collect();
    Ok(envelopes.chunks(MAX_JOBS).map(<[Envelope]>::to_vec).collect())
}
