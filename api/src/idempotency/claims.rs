//! Claims of keys in Redis, many at a time: a key on every request must not cost every request round trips
//! of its own.

use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::cache::Cache;

/// How long a claim outlives the process that made it.
const PENDING_SECONDS: u64 = 10;
/// How long Redis answers replays; later ones, PostgreSQL does.
const ACCEPTED_SECONDS: u64 = 24 * 3600;
/// The most in one pipeline.
const MAX_PIPELINE: usize = 1_000;
/// What may wait for Redis; beyond it nobody is asked and nothing told.
const BACKLOG: usize = 16_384;
/// With so many a pipeline costs little for each of them.
const ENOUGH: usize = 32;
/// How long after the last one a small pipeline leaves.
const PACE: Duration = Duration::from_millis(2);

/// What Redis is asked or told of a key.
enum Ask {
    /// Take it for this entry, if it is free.
    Claim { key: String, entry: String, answer: oneshot::Sender<Claimed> },
    /// It is this entry's for good.
    Accepted { key: String, entry: String },
}

/// What became of a claim.
#[derive(Debug)]
pub(super) enum Claimed {
    Ours,
    /// The entry that has the key.
    Held(String),
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Claims(mpsc::Sender<Ask>);

impl Claims {
    /// Starts the task that asks. It ends when the handle is dropped.
    pub(super) fn start(cache: Cache) -> Self {
        let (sender, inbox) = mpsc::channel(BACKLOG);
        tokio::spawn(run(cache, inbox));
        Self(sender)
    }

    /// Claims a key; `None` if Redis cannot tell.
    pub(super) async fn claim(&self, key: String, entry: String) -> Option<Claimed> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Ask::Claim { key, entry, answer }).ok()?;
        answered.await.ok()
    }

    /// Notes that the entry's job is in its line. Nobody waits for it: the job is as good without.
    pub(super) fn accepted(&self, key: String, entry: String) {
        let _ = self.0.try_send(Ask::Accepted { key, entry });
    }
}

async fn run(cache: Cache, mut inbox: mpsc::Receiver<Ask>) {
    let mut asked = Vec::new();
    while inbox.recv_many(&mut asked, MAX_PIPELINE).await > 0 {
        let next = Instant::now() + PACE;
        let asked_now = asked.len();
        // Without an answer the askers are told by the drop of their senders.
        if let Some(answers) = ask(&cache, &asked).await {
            answer(asked.drain(..), answers);
        }
        asked.clear();
        if asked_now < ENOUGH && inbox.len() < ENOUGH {
            sleep_until(next).await;
        }
    }
}

/// Asks and tells all of it; what became of each claim, in order.
async fn ask(cache: &Cache, asked: &[Ask]) -> Option<Vec<Claimed>> {
    let mut all = redis::pipe();
    for ask in asked {
        match ask {
            Ask::Claim { key, entry, .. } => {
                set(&mut all, key, entry, PENDING_SECONDS).arg("NX");
            }
            Ask::Accepted { key, entry } => {
                set(&mut all, key, entry, ACCEPTED_SECONDS).ignore();
            }
        }
    }
    let set: Vec<Value> = cache.ask(async |mut redis| all.query_async(&mut redis).await).await?;
    let keys = asked.iter().filter_map(|ask| match ask {
        Ask::Claim { key, .. } => Some(key),
        Ask::Accepted { .. } => None,
    });
    let is_held = |set: &Value| matches!(set, Value::Nil);
    let mut held = redis::pipe();
    for (key, _) in keys.zip(&set).filter(|(_, set)| is_held(set)) {
        held.get(key);
    }
    let mut held = if held.is_empty() {
        Vec::new().into_iter()
    } else {
        let held: Vec<Option<String>> =
            cache.ask(async |mut redis| held.query_async(&mut redis).await).await?;
        held.into_iter()
    };
    let claimed = set.iter().map(|set| {
        // One that expired in between belongs to nobody; who has it next is as good as unknown.
        if is_held(set) { held.next().flatten().map(Claimed::Held) } else { Some(Claimed::Ours) }
    });
    Some(claimed.map(|claimed| claimed.unwrap_or(Claimed::Held(String::new()))).collect())
}

fn set<'a>(all: &'a mut Pipeline, key: &str, entry: &str, seconds: u64) -> &'a mut Pipeline {
    all.cmd("SET").arg(key).arg(entry).arg("EX").arg(seconds)
}

fn answer(asked: impl Iterator<Item = Ask>, answers: Vec<Claimed>) {
    let askers = asked.filter_map(|ask| match ask {
        Ask::Claim { answer, .. } => Some(answer),
        Ask::Accepted { .. } => None,
    });
    for (asker, claimed) in askers.zip(answers) {
        let _ = asker.send(claimed);
    }
}
