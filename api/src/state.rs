//! What every handler can reach.

use std::{ops::Deref, sync::Arc};

use axum::extract::FromRef;
use sqlx::PgPool;

use crate::{
    auth::Verifier, config::ServeArgs, coupon, enqueue::Enqueuer, idempotency::Keys, job, product,
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
    pub pool: PgPool,
    /// Checks tokens.
    pub verifier: Verifier,
    /// Makes and recognises job ids.
    pub signer: job::Signer,
    /// Outcomes, known and awaited.
    pub jobs: Arc<job::Board>,
    /// Campaigns that are asked for.
    pub coupons: Arc<coupon::Board>,
    /// Products that exist.
    pub known_products: product::Known,
    /// Lists of products, cached.
    pub product_pages: product::Pages,
    /// What sold best.
    pub popular: product::PopularBoard,
    /// Idempotency keys of jobs.
    pub keys: Keys,
    /// The way into the lines.
    pub enqueuer: Enqueuer,
}

impl Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl FromRef<AppState> for Verifier {
    fn from_ref(state: &AppState) -> Self {
        state.verifier.clone()
    }
}
