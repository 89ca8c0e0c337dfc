//! Natural batching on the reading side: while one query runs, the look-ups that arrive wait, and
//! the next query asks for all of them at once. A storm of polls costs the database a few queries
//! per round trip instead of one per poll. A query starts after its look-ups came, so each sees what
//! was committed before.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Duration,
};

use firstcome_process::database::{Kept, Pool};
use futures_util::future::BoxFuture;
use sqlx::PgConnection;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use crate::http::problem::{Code, Problem};

/// The most keys in one query.
const MAX_KEYS: usize = 1_000;
/// Look-ups that may wait; beyond it they are refused.
const BACKLOG: usize = 65_536;
/// With so many keys a query costs little for each of them.
const ENOUGH: usize = 32;
/// How long after the last one a query for fewer leaves. Who asks after a quiet moment asks at once.
const QUERY_INTERVAL: Duration = Duration::from_millis(2);
/// How long one look-up may take in all, and one query.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// The answer did not come: the database is away or too slow.
#[derive(Debug, Clone, Copy)]
pub struct Unavailable;

impl From<Unavailable> for Problem {
    fn from(_: Unavailable) -> Self {
        Self::new(Code::DatabaseUnavailable).retry_after(1)
    }
}

type Question<K, V> = (K, oneshot::Sender<Option<V>>);

/// What a query finds, by key; a key that is missing does not exist.
pub type Found<'c, K, V> = BoxFuture<'c, Result<HashMap<K, V>, sqlx::Error>>;

/// Looks things up by key, many at a time.
#[derive(Debug)]
pub struct Batched<K, V>(mpsc::Sender<Question<K, V>>);

impl<K, V> Batched<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Starts the task that runs `query`. It ends when the handle is dropped.
    pub fn start(
        pool: &Pool,
        query: impl for<'c> Fn(&'c mut PgConnection, Vec<K>) -> Found<'c, K, V> + Send + Sync + 'static,
    ) -> Self {
        let mut kept = Kept::of(pool);
        let (sender, mut inbox) = mpsc::channel::<Question<K, V>>(BACKLOG);
        tokio::spawn(async move {
            let mut questions = Vec::new();
            loop {
                if inbox.is_empty() {
                    kept.give_back();
                }
                if inbox.recv_many(&mut questions, MAX_KEYS).await == 0 {
                    return;
                }
                // Who no longer waits is not asked for.
                questions.retain(|(_, answer)| !answer.is_closed());
                let keys: HashSet<K> = questions.iter().map(|(key, _)| key.clone()).collect();
                let keys: Vec<K> = keys.into_iter().collect();
                if keys.is_empty() {
                    continue;
                }
                let (asked, next) = (keys.len(), Instant::now() + QUERY_INTERVAL);
                match bounded(&mut kept, |connection| query(connection, keys)).await {
                    Ok(found) => {
                        for (key, answer) in questions.drain(..) {
                            let _ = answer.send(found.get(&key).cloned());
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "look-up failed");
                        // Dropping the senders tells the askers.
                        questions.clear();
                    }
                }
                if asked < ENOUGH && inbox.len() < ENOUGH {
                    sleep_until(next).await;
                }
            }
        });
        Self(sender)
    }

    /// Looks one key up.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub async fn get(&self, key: K) -> Result<Option<V>, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send((key, answer)).map_err(|_| Unavailable)?;
        timeout(LOOK_UP_TIMEOUT, answered).await.map_err(|_| Unavailable)?.map_err(|_| Unavailable)
    }
}

/// Runs a query on a connection that is kept for the next one, or given up where no answer comes in time.
pub(crate) async fn bounded<T>(
    kept: &mut Kept,
    query: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let mut connection = kept.acquire().await?;
    let answer = timeout(LOOK_UP_TIMEOUT, query(&mut connection)).await;
    let answer = connection.judge(answer)?;
    kept.keep(connection);
    Ok(answer)
}
