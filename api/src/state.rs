//! What every handler can reach, made from what stands below it.

use std::{ops::Deref, sync::Arc, time::Duration};

use anyhow::Context;
use axum::extract::FromRef;
use firstcome_process::database::{Pool, check_time_zone};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cache::Cache,
    config::ServeArgs,
    http::{
        auth::{Directory, Verifier},
        limit::{Limiter, Rates},
        requests::Requests,
    },
    known::{
        announcements::{self, Told},
        campaigns::Campaigns,
        job_ids::Signer,
        keys::Keys,
        lost::Lost,
        outcomes::Outcomes,
        popular::PopularBoard,
        product_pages::Pages,
        products::Products,
        refusals::Refusals,
        shown::Shown,
        streams::Streams,
        subjects::Subjects,
    },
    lines::Lines,
    metrics::Metrics,
    publish::Enqueuer,
    server::Connections,
};

/// The most reports of sales at a time: each reads many jobs.
const MAX_REPORTS: usize = 1;
/// The most imports at a time, so that they leave the database to those who buy.
const MAX_IMPORTS: usize = 2;

/// Shared by all handlers; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState(pub Arc<Inner>);

/// One of a process: the parts that live as long as it serves.
#[derive(Debug)]
pub struct Inner {
    /// What the operator asked for, on the command line or in the environment.
    pub config: ServeArgs,
    /// Connections to PostgreSQL, made when they are first used.
    pub pool: Pool,
    /// The way to Redis.
    pub cache: Cache,
    /// Tells who a token is of.
    pub verifier: Verifier,
    /// Whom subjects of tokens mean, unless they are ids of users.
    pub subjects: Option<Arc<Subjects>>,
    /// A permit for each import: it holds a connection to the database for much of its time.
    pub imports: Semaphore,
    /// Permits for reports of sales, which wait for each other.
    pub reports: Semaphore,
    /// Counts what is refused without a job.
    pub refusals: Arc<Refusals>,
    /// Holds back callers that ask too much.
    pub limiter: Limiter,
    /// Makes and recognises job ids.
    pub signer: Signer,
    /// Outcomes of jobs that this process has heard of, and the polls that wait for one.
    pub jobs: Arc<Outcomes>,
    /// Streams of events, which wait for outcomes as well.
    pub streams: Streams,
    /// Gives jobs that were lost their outcome.
    pub lost: Arc<Lost>,
    /// Campaigns as they were within the last second, for early answers.
    pub coupons: Arc<Campaigns>,
    /// When products were sold, as that was within the last second, for early answers.
    pub products: Arc<Products>,
    /// Coupons, products, balances and orders as they are at the time of the read.
    pub shown: Shown,
    /// Lists of products, as they are kept in Redis.
    pub product_pages: Arc<Pages>,
    /// What sold best of late, as it is kept in Redis.
    pub popular: PopularBoard,
    /// The way into the lines for jobs with an idempotency key.
    pub keys: Keys,
    /// How jobs are dealt out, and where they stand.
    pub lines: Arc<Lines>,
    /// The way into the lines for any other job.
    pub enqueuer: Enqueuer,
    /// How many connections clients have, and may have.
    pub connections: Arc<Connections>,
    /// Cancelled when it is about to stop: nobody should come any more.
    pub draining: CancellationToken,
    /// Counts the requests that are answered.
    pub requests: Requests,
    /// Counts what becomes of requests for jobs.
    pub metrics: Metrics,
}

/// The steps of stopping, in their order.
#[derive(Debug)]
pub struct Stops {
    /// Nobody should come any more.
    pub draining: CancellationToken,
    /// The door is closed, and nobody waits any longer.
    pub closing: CancellationToken,
    /// Nothing more is accepted: the publisher outlives the last request.
    pub publishing: CancellationToken,
}

impl AppState {
    /// Starts everything that handlers need, once all is looked at that may be wrong; what has a task that is to be waited for has it in `tasks`.
    ///
    /// # Errors
    /// With a hint for the operator.
    pub async fn start(
        config: ServeArgs,
        connections: Arc<Connections>,
        stops: &Stops,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        if config.secrets.dev {
            tracing::warn!("development mode: whatever secret is not set is well known");
        }
        config.broker.check().map_err(anyhow::Error::msg)?;
        let Stops { draining, closing, publishing } = stops;
        let namespace = &config.broker.queue_namespace;
        let pool = config.pool().context("DATABASE_URL")?;
        let redis = config.redis.client()?;
        let cache = Cache::new(redis.clone()).context("REDIS_URL")?;
        cache.watch(closing.clone());
        let subjects =
            Subjects::new(&config.secrets, &pool, cache.clone(), namespace).map(Arc::new);
        let directory = subjects.clone().map(|subjects| subjects as Arc<dyn Directory>);
        let verifier = Verifier::start(&config.secrets, directory, closing)?;
        let signer = Signer::new(&config.job_id_keys()?);
        pool.check_sessions().await.map_err(anyhow::Error::msg)?;
        let checked = check_time_zone(&pool, &config.business_time_zone).await;
        checked.map_err(anyhow::Error::msg)?;
        let metrics = Metrics::default();
        let coupons = Arc::new(Campaigns::new(&pool, cache.clone(), namespace));
        let products = Arc::new(Products::new(&pool, cache.clone(), namespace));
        let product_pages = Pages::start(cache.clone(), namespace, config.products_ttl, closing);
        let capacity = config.line_capacity;
        let lines = Lines::start(&pool, cache.clone(), &config.broker, capacity, publishing, tasks);
        let lost = Lost::start(&pool, cache.clone(), namespace, Arc::clone(&lines), &metrics);
        let jobs = Outcomes::start(&pool, lines.rewound(), closing.clone());
        // Half is left to those who poll, and to submissions.
        let most_streams = usize::try_from(config.max_streams)?.min(connections.limit() / 2);
        let streams = Streams::start(most_streams, closing.clone());
        let told = Told {
            jobs: Arc::clone(&jobs),
            coupons: Arc::clone(&coupons),
            products: Arc::clone(&products),
            pages: Arc::clone(&product_pages),
            subjects: subjects.clone(),
        };
        announcements::start(redis, namespace, told, closing.clone());
        let deadline = Duration::from_millis(config.confirm_deadline_ms.into());
        let enqueuer = Enqueuer::start(&config.broker, &lines, deadline, publishing.clone(), tasks);
        let keys = Keys::new(
            &pool,
            cache.clone(),
            namespace,
            Arc::clone(&jobs),
            Arc::clone(&lost),
            enqueuer.clone(),
            config.retention(),
        );
        let rates = Rates {
            caller: config.rate_limit,
            address: config.address_rate_limit(),
            proxies: config.trusted_proxies.clone(),
        };
        let (ttl, time_zone) = (config.popular_ttl, &config.business_time_zone);
        Ok(Self(Arc::new(Inner {
            verifier,
            subjects,
            imports: Semaphore::new(MAX_IMPORTS),
            reports: Semaphore::new(MAX_REPORTS),
            refusals: Refusals::start(&pool, publishing, tasks),
            limiter: Limiter::start(rates, closing),
            signer,
            shown: Shown::start(&pool),
            product_pages,
            popular: PopularBoard::new(cache.clone(), namespace, ttl, time_zone),
            cache,
            keys,
            jobs,
            streams,
            lost,
            enqueuer,
            lines,
            coupons,
            products,
            connections,
            draining: draining.clone(),
            requests: Requests::default(),
            metrics,
            pool,
            config,
        })))
    }
}

impl Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl FromRef<AppState> for Limiter {
    fn from_ref(state: &AppState) -> Self {
        state.limiter.clone()
    }
}

impl FromRef<AppState> for Verifier {
    fn from_ref(state: &AppState) -> Self {
        state.verifier.clone()
    }
}
