//! Looks after a family's lines in the broker, and takes the steps of its routing: beside the sharing, which
//! waits for nothing of it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Connection, SessionError},
    topology,
};
use firstcome_contract::family::Family;
use sqlx::{PgConnection, PgPool};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Role,
    control::Control,
    routing::{self, State, StepError},
};

/// Time between two looks for steps to take.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two times that the family's first worker makes sure that every line can be reached: somebody
/// may have deleted its queue, its exchange, or what binds them.
const MEND_INTERVAL: Duration = Duration::from_secs(5);
/// The longest that a look may take, steps included: most of it is the broker's work.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for the broker to declare what is not a line.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long no worker of the release before this one must have been alive until lines are named in a way that it does
/// not know. All of them may be away for a moment: the broker restarts, the database does not answer.
const ALL_NEW_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two attempts at the family's lock, which another worker has.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// Makes the lines of every family, as its first worker would: then jobs are accepted before one
/// runs.
///
/// # Errors
/// The broker's or the database's.
pub async fn make_lines(broker: &BrokerArgs, pool: &PgPool) -> Result<(), SessionError> {
    let connection = Arc::new(connect::connect(broker, "firstcome-worker").await?);
    let namespace = &broker.queue_namespace;
    topology::declare(&connection, namespace).await?;
    let stop = CancellationToken::new();
    let control = Control::start(broker, "lines", &stop);
    let made = async {
        let mut on = pool.acquire().await?;
        for family in Family::ALL {
            // A worker may be at it.
            let since = &mut Instant::now();
            while advance(&mut on, family, &connection, namespace, &control, true, since)
                .await?
                .is_none()
            {
                sleep(LOCK_INTERVAL).await;
            }
        }
        Ok::<_, StepError>(())
    };
    made.await?;
    stop.cancel();
    connect::close(&connection).await;
    Ok(())
}

/// Takes every step towards the routing that is wanted; whether there was one. `None` while another worker
/// is at it. `mends` the lines before, the first ones too. `all_new_since` is when a worker of the release before this one
/// was last seen, or looked for first.
async fn advance(
    on: &mut PgConnection,
    family: Family,
    connection: &Arc<Connection>,
    namespace: &str,
    control: &Control,
    mut mends: bool,
    all_new_since: &mut Instant,
) -> Result<Option<bool>, StepError> {
    let mut has_stepped = false;
    while let Some(mut locked) = routing::lock(on, family).await? {
        let mut state = State::load(&mut locked, family).await?;
        if state.has_older_workers() {
            *all_new_since = Instant::now();
        } else if all_new_since.elapsed() < ALL_NEW_TIMEOUT {
            state.keep_naming();
        }
        if std::mem::take(&mut mends) {
            state.restore(&mut locked, connection, namespace).await?;
        }
        let stepped = state.step(&mut locked, connection, namespace, control).await?;
        locked.commit().await?;
        if !stepped {
            return Ok(Some(has_stepped));
        }
        has_stepped = true;
    }
    Ok(None)
}

/// A task that does it for a session; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Upkeep {
    news: Arc<News>,
    _keeping: AbortOnDropHandle<()>,
}

/// What the task and its session tell each other.
#[derive(Debug, Default)]
struct News {
    is_first: AtomicBool,
    is_damaged: AtomicBool,
    stepped: Notify,
}

impl Upkeep {
    /// Begins with the lines of every family: a worker of theirs may be yet to come.
    pub(crate) fn start(
        role: &Arc<Role>,
        connection: &Arc<Connection>,
        control: &Control,
        on: PgConnection,
    ) -> Self {
        let news = Arc::new(News::default());
        let keeper = Keeper {
            role: Arc::clone(role),
            connection: Arc::clone(connection),
            control: control.clone(),
            news: Arc::clone(&news),
            due: BTreeSet::from(Family::ALL),
            all_new_since: Instant::now(),
        };
        Self { news, _keeping: AbortOnDropHandle::new(tokio::spawn(keeper.run(on))) }
    }

    /// Whether this worker is the first of its family, who looks after the lines for all of them.
    pub(crate) fn is_first(&self, is_first: bool) {
        self.news.is_first.store(is_first, Ordering::Relaxed);
    }

    /// Something is wrong with a line: its queue may be gone.
    pub(crate) fn damaged(&self) {
        self.news.is_damaged.store(true, Ordering::Relaxed);
    }

    /// Waits for a step: there may be lines to take or to give now. Cancel-safe.
    pub(crate) async fn stepped(&self) {
        self.news.stepped.notified().await;
    }
}

struct Keeper {
    role: Arc<Role>,
    connection: Arc<Connection>,
    control: Control,
    news: Arc<News>,
    /// The families whose lines are to be mended.
    due: BTreeSet<Family>,
    all_new_since: Instant,
}

impl Keeper {
    /// Not on a connection of the pool: batches come first there, and one that freezes is just dropped.
    async fn run(mut self, on: PgConnection) {
        let family = self.role.context.family;
        let mut kept = Some(on);
        let mut mended = Instant::now();
        let mut looks = interval(CHECK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let is_time =
                self.news.is_first.load(Ordering::Relaxed) && mended.elapsed() > MEND_INTERVAL;
            if self.news.is_damaged.swap(false, Ordering::Relaxed) || is_time {
                self.due.insert(family);
                mended = Instant::now();
            }
            let connection = kept.take();
            let looked = timeout(CHECK_TIMEOUT, self.look(connection)).await;
            match looked.unwrap_or(Err(SessionError::Timeout(CHECK_TIMEOUT).into())) {
                Ok(connection) => kept = Some(connection),
                Err(error) => {
                    tracing::warn!(family = family.as_str(), %error, "lines not looked after, trying again");
                }
            }
        }
    }

    /// Gives the connection back if it is good.
    async fn look(&mut self, connection: Option<PgConnection>) -> Result<PgConnection, StepError> {
        let Role { broker, context, .. } = &*self.role;
        let (own, pool) = (&context.family, &context.pool);
        let namespace = &broker.queue_namespace;
        let mut on = match connection {
            Some(connection) => connection,
            None => pool.connect().await?,
        };
        if !self.due.is_empty() {
            let declared = topology::declare(&self.connection, namespace);
            match timeout(DECLARE_TIMEOUT, declared).await {
                Ok(declared) => declared?,
                Err(_) => tracing::warn!("no answer from the broker to what is declared"),
            }
        }
        let others =
            Family::ALL.into_iter().filter(|family| family != own && self.due.contains(family));
        for family in std::iter::once(*own).chain(others.collect::<Vec<_>>()) {
            let mends = self.due.contains(&family);
            let (connection, control) = (&self.connection, &self.control);
            let since = &mut self.all_new_since;
            match advance(&mut on, family, connection, namespace, control, mends, since).await? {
                // Another worker is at it: our turn comes with the next look.
                None => continue,
                Some(true) => self.news.stepped.notify_one(),
                Some(false) => {}
            }
            self.due.remove(&family);
        }
        Ok(on)
    }
}
