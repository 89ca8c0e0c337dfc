//! What operators change and everybody asks for, as it was within the last second. Optional by design: without the
//! database nothing is known, and everything goes to the line, which decides anyway.

use std::{
    fmt::Display,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use firstcome_process::database::Pool;
use quick_cache::sync::Cache;
use redis::AsyncTypedCommands;
use sqlx::PgConnection;
use tokio::time::timeout;

use super::batched::{Batched, Found};

/// Younger than this, what we know is used as it is.
const FRESH_TTL: Duration = Duration::from_millis(500);
/// Younger than this, it is used while it is read again; older, the request waits for the reading.
/// An operator's change is thus seen everywhere within a second even if its announcement is lost.
const USABLE_TTL: Duration = Duration::from_secs(1);
/// How long a request waits for the database before it goes to the line unjudged.
const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the database is left alone after it did not answer: while it is away one request in a while waits for it,
/// not every request.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Seen<V> {
    value: V,
    at: Instant,
    refreshing: AtomicBool,
}

/// What was asked for lately, by its id, each as it was at its last reading.
#[derive(Debug)]
pub struct Board<K, V> {
    seen: Cache<K, Arc<Seen<V>>>,
    /// Counts what was forgotten, for those who were reading meanwhile.
    changes: AtomicU64,
    cache: crate::cache::Cache,
    /// The Redis channel for ids of what an operator changed.
    channel: String,
    stored: Batched<K, V>,
    silence: Silence,
}

impl<K, V> Board<K, V>
where
    K: Copy + Display + Eq + Hash + Send + Sync + 'static,
    V: Copy + Send + Sync + 'static,
{
    /// Makes a board that knows nothing yet, and keeps at most about `capacity` of what `query` finds. Changes are
    /// announced on this Redis channel.
    pub(super) fn new(
        pool: &Pool,
        cache: crate::cache::Cache,
        channel: String,
        capacity: usize,
        query: impl for<'c> Fn(&'c mut PgConnection, Vec<K>) -> Found<'c, K, V> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            seen: Cache::new(capacity),
            changes: AtomicU64::new(0),
            cache,
            channel,
            stored: Batched::start(pool, query),
            silence: Silence::default(),
        })
    }

    /// What is known of it. `None`: nothing, the database is away; `Some(None)`: there is no such thing.
    pub(super) async fn look(self: &Arc<Self>, id: K) -> Option<Option<V>> {
        let seen = self.seen.get(&id).filter(|seen| seen.at.elapsed() < USABLE_TTL);
        let Some(seen) = seen else {
            return self.wait_for(id).await;
        };
        if seen.at.elapsed() > FRESH_TTL && !seen.refreshing.swap(true, Ordering::Relaxed) {
            let board = Arc::clone(self);
            tokio::spawn(async move { board.read(id).await });
        }
        Some(Some(seen.value))
    }

    /// As it was at its last reading, however long ago that was.
    pub(super) fn last_seen(&self, id: K) -> Option<V> {
        self.seen.get(&id).map(|seen| seen.value)
    }

    /// Forgets what an operator changed here, and has every other API forget it.
    pub(super) async fn changed(&self, id: K) {
        self.forget(id);
        // Lost where Redis is away: they notice within `USABLE_TTL`.
        let told =
            self.cache.ask(async |mut redis| redis.publish(&self.channel, id.to_string()).await);
        told.await;
    }

    /// The same of many at once.
    pub(super) async fn all_changed(&self, ids: impl IntoIterator<Item = K>) {
        let mut messages = redis::pipe();
        for id in ids {
            self.forget(id);
            messages.publish(&self.channel, id.to_string()).ignore();
        }
        if !messages.is_empty() {
            let told =
                self.cache.ask(async |mut redis| messages.query_async::<()>(&mut redis).await);
            told.await;
        }
    }

    /// Forgets what was changed.
    pub(super) fn forget(&self, id: K) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.seen.remove(&id);
    }

    /// Reads it within a bound, unless there was no answer a moment ago.
    async fn wait_for(&self, id: K) -> Option<Option<V>> {
        if !self.silence.may_ask(Instant::now()) {
            return None;
        }
        let found = timeout(LOOK_UP_TIMEOUT, self.read(id)).await;
        found.unwrap_or_else(|_| {
            self.silence.note(false, Instant::now());
            None
        })
    }

    async fn read(&self, id: K) -> Option<Option<V>> {
        // The age counts from before the reading: what was changed meanwhile is older.
        let at = Instant::now();
        let changes = self.changes.load(Ordering::SeqCst);
        let found = self.stored.get(id).await;
        self.silence.note(found.is_ok(), Instant::now());
        let found = found.ok()?;
        match found {
            Some(value) => {
                let refreshing = AtomicBool::new(false);
                self.seen.insert(id, Arc::new(Seen { value, at, refreshing }));
                // Read before the change, and put back after it.
                if self.changes.load(Ordering::SeqCst) != changes {
                    self.seen.remove(&id);
                }
            }
            None => {
                self.seen.remove(&id);
            }
        }
        Some(found)
    }
}

/// Since when the database does not answer, if it is so.
#[derive(Debug, Default)]
struct Silence(Mutex<Option<Instant>>);

impl Silence {
    /// Whether it is worth to ask. Who may ask after a silence is the only one, for as long as it was to be left alone.
    fn may_ask(&self, now: Instant) -> bool {
        let mut since = self.since();
        match *since {
            None => true,
            Some(at) if now.saturating_duration_since(at) < RETRY_INTERVAL => false,
            Some(_) => {
                *since = Some(now);
                true
            }
        }
    }

    fn note(&self, answered: bool, now: Instant) {
        *self.since() = (!answered).then_some(now);
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use firstcome_contract::ids::ProductId;
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    #[test]
    fn one_at_a_time_asks_who_did_not_answer() {
        let (silence, start) = (Silence::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        let asking = |millis: [u64; 2]| millis.map(|millis| silence.may_ask(after(millis)));
        assert_eq!(asking([0, 0]), [true, true]);
        silence.note(false, start);
        assert_eq!(asking([0, 999]), [false, false]);
        assert_eq!(asking([1_000, 1_001]), [true, false], "another one asks");
        assert_eq!(asking([1_999, 2_000]), [false, true], "whoever asked has gone");
        silence.note(true, after(2_100));
        assert_eq!(asking([2_100, 2_100]), [true, true]);
    }

    #[tokio::test]
    async fn not_every_request_waits_for_a_database_that_is_away() {
        const REQUESTS: u32 = 200;
        let nowhere = PgPoolOptions::new().acquire_timeout(Duration::from_secs(60));
        let pool = Pool::from(nowhere.connect_lazy("postgres://127.0.0.1:1/nowhere").unwrap());
        let redis = redis::Client::open("redis://127.0.0.1:1").unwrap();
        let cache = crate::cache::Cache::new(redis).unwrap();
        let board: Arc<Board<ProductId, i64>> =
            Board::new(&pool, cache, "changed".to_owned(), 10, |_, _| {
                Box::pin(async { Ok(HashMap::new()) })
            });
        let started = Instant::now();
        for id in 0..REQUESTS {
            assert_eq!(board.look(ProductId::new(id.into())).await, None);
        }
        let waited = started.elapsed();
        assert!(waited < LOOK_UP_TIMEOUT * REQUESTS / 10, "{waited:?}");
    }
}
