//! The routing as it was known last, in Redis: an API that starts while the database is away accepts by it. It
//! may be outdated; then the broker gives the jobs back, as to any API that missed a change.

use firstcome_contract::{family::Family, line::Routing};
use redis::AsyncTypedCommands;

use super::Routes;
use crate::cache::Cache;

/// The routing as Redis keeps it, for APIs that start while the database is away.
pub(super) struct Memory {
    cache: Cache,
    /// Not that of the release before this one (`routes`), which knows no families.
    key: String,
    /// What is there, as far as this process put it.
    kept: Option<Routes>,
}

impl Memory {
    pub(super) fn new(cache: Cache, namespace: &str) -> Self {
        Self { cache, key: format!("{namespace}:routing"), kept: None }
    }

    /// Puts what the database said into Redis, where it differs from what was put there last.
    pub(super) async fn keep(&mut self, routes: &Routes) {
        if self.kept.as_ref() == Some(routes) {
            return;
        }
        let named: Vec<(&str, &Routing)> =
            routes.iter().map(|(family, routing)| (family.as_str(), routing)).collect();
        let Ok(json) = serde_json::to_string(&named) else { return };
        let keeping = async |mut redis| AsyncTypedCommands::set(&mut redis, &self.key, &json).await;
        if self.cache.ask(keeping).await.is_some() {
            self.kept = Some(routes.clone());
        }
    }

    /// What was remembered; nothing, if it is not understood.
    pub(super) async fn recall(&self) -> Option<Routes> {
        let asking = async |mut redis| AsyncTypedCommands::get(&mut redis, &self.key).await;
        let routes = self.cache.ask(asking).await??;
        let routes: Vec<(String, Routing)> = serde_json::from_str(&routes).ok()?;
        routes
            .into_iter()
            .map(|(family, routing)| Some((Family::from_name(&family)?, routing)))
            .collect()
    }
}
