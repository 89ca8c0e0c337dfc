//! What every handler can reach.

use std::{ops::Deref, sync::Arc};

use axum::extract::FromRef;
use chrono::Utc;
use firstcome_contract::job::JobId;
use firstcome_process::database::Pool;
use tokio_util::sync::CancellationToken;

use crate::{
    config::ServeArgs,
    coupon,
    http::{auth::Verifier, limit::Limiter},
    known::{
        batched::Batched, campaigns::Campaigns, job_ids::Signer, keys::Keys, lost::Lost,
        outcomes::Outcomes, products::Products,
    },
    lines::{Lines, Position, whole},
    metrics::Metrics,
    product,
    publish::Enqueuer,
    server::Connections,
};

/// Shared by all handlers; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState(pub Arc<Inner>);

/// See [`AppState`].
#[derive(Debug)]
pub struct Inner {
    /// The command line.
    pub config: ServeArgs,
    /// PostgreSQL.
    pub pool: Pool,
    /// Checks tokens.
    pub verifier: Verifier,
    /// Holds back callers that ask too much.
    pub limiter: Limiter,
    /// Makes and recognises job ids.
    pub signer: Signer,
    /// Outcomes, known and awaited.
    pub jobs: Arc<Outcomes>,
    /// Ends jobs that were lost.
    pub lost: Arc<Lost>,
    /// Campaigns that are asked for.
    pub coupons: Arc<Campaigns>,
    /// Campaigns as they are at the time of the read; likewise the next two.
    pub shown_coupons: Batched<i64, coupon::CouponView>,
    /// Products, by id.
    pub shown_products: Batched<i64, product::ProductView>,
    /// Balances, by user.
    pub shown_balances: Batched<i64, i64>,
    /// Products that exist.
    pub known_products: Products,
    /// Lists of products, cached.
    pub product_pages: product::Pages,
    /// What sold best.
    pub popular: product::PopularBoard,
    /// Idempotency keys of jobs.
    pub keys: Keys,
    /// Where jobs stand.
    pub lines: Arc<Lines>,
    /// The way into the lines.
    pub enqueuer: Enqueuer,
    /// The connections of clients.
    pub connections: Arc<Connections>,
    /// Cancelled when it is about to stop: nobody should come any more.
    pub draining: CancellationToken,
    /// What is counted.
    pub metrics: Metrics,
}

/// The longest that a poller is asked to wait: it may be wrong, and nobody likes to miss his turn.
const LONGEST_WAIT: f64 = 30.0;
/// The longest that a poller of a line that does not move is asked to wait: it may move any moment.
const LONGEST_PATIENCE: f64 = 10.0;

impl Inner {
    /// When to ask for this job again, in whole seconds: when it should be settled. 0 is within the second.
    #[must_use]
    pub fn seconds_to_wait(&self, id: JobId, place: Option<Position>) -> u64 {
        let waited = (Utc::now() - id.submitted_at()).as_seconds_f64().max(0.0);
        let seconds = match place.and_then(|place| place.seconds) {
            // A turn that should have come comes later than one that was told anew.
            Some(seconds) if waited > 1.0 => seconds.max(1.0),
            Some(seconds) => seconds,
            // Nobody knows: seldom, and more seldom the longer it lasts.
            None => (waited / 2.0).clamp(1.0, LONGEST_PATIENCE),
        };
        let seconds = if seconds < 1.0 { 0.0 } else { seconds.ceil() };
        whole(seconds.min(LONGEST_WAIT))
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
