//! Connections on loan.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::settings::{NO_DEAD_CLIENTS, SAFE};
use futures_util::{
    StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Connection as _, Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    pool::PoolConnection,
    postgres::{PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::{error::Elapsed, timeout};

use super::{
    check::Check,
    pooler::{EXCHANGED, blamed, explained},
    url,
};

/// How long a connection may take to answer when it is looked at before its use.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection that is given back may take to be ready for the next one: what was given up in
/// the middle is rolled back first.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a statement may take that is run on the pool itself. The API's are ended by the server before.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(6);

/// How long two sessions may take to be begun and looked at.
const SESSIONS_TIMEOUT: Duration = Duration::from_secs(3);

/// What the sessions of a pool have in common.
#[derive(Debug, Clone, Copy)]
pub struct Sessions<'a> {
    /// The name under which PostgreSQL lists them in `pg_stat_activity`.
    pub application_name: &'a str,
    /// The most connections at a time.
    pub connections: u32,
    /// How long to wait for a free connection before the caller gets an error.
    pub patience: Duration,
    /// One that was used so lately is not looked at again, which saves a round trip.
    pub trusted_for: Duration,
    /// The longest that the server works at a statement.
    pub statement_timeout: &'static str,
    /// Server settings by name, on how statements are planned.
    pub planning: &'a [(&'static str, &'static str)],
    /// Whether the server may be one that cannot be written to.
    pub may_be_read_only: bool,
}

/// A pool whose connections do not hang: neither in use, nor before it, nor after. Statements can be run
/// on it, each within a bound; for more than one statement, [`Pool::acquire`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    pool: PgPool,
    known: Arc<Known>,
}

/// What is known of the server, from how the pool's connections fared.
#[derive(Debug, Default)]
struct Known {
    check: Check,
    /// Whoever came last got nothing through the pool.
    is_lost: AtomicBool,
    /// When a connection was last found dead. Those that were idle then may be, too.
    doubted: Mutex<Option<Instant>>,
    /// How often somebody came when all connections were in use.
    waits: AtomicU64,
    /// How often one of them got none in time.
    timeouts: AtomicU64,
}

/// How the connections of a pool are used, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Connections that somebody has.
    pub used: u32,
    /// Those that nobody has.
    pub idle: u32,
    /// How many there may be.
    pub limit: u32,
    /// How often somebody had to wait, since all were in use.
    pub waits: u64,
    /// How often one of them waited in vain.
    pub timeouts: u64,
}

impl Pool {
    /// A pool that connects when it is first used.
    ///
    /// # Errors
    /// A malformed URL, or a file that it names and that is not what it should be.
    pub fn connect_lazy(url: &str, sessions: &Sessions<'_>) -> Result<Self, sqlx::Error> {
        let timeout = [("statement_timeout", sessions.statement_timeout)];
        let settings = SAFE.iter().chain(&timeout).chain(sessions.planning).copied();
        let options = url::read(url)?
            .application_name(sessions.application_name)
            .options(settings.clone())
            .options(NO_DEAD_CLIENTS);
        let check = Check::new(settings, sessions.may_be_read_only);
        let known = Arc::new(Known { check, ..Known::default() });
        let (at_connect, before_use) = (Arc::clone(&known), Arc::clone(&known));
        let trusted_for = sessions.trusted_for;
        let pool = PgPoolOptions::new()
            .max_connections(sessions.connections)
            .acquire_timeout(sessions.patience)
            // Without a bound.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let known = Arc::clone(&at_connect);
                Box::pin(async move { known.check.check_new(connection).await })
            })
            .before_acquire(move |connection, meta| {
                let known = Arc::clone(&before_use);
                Box::pin(async move {
                    known.look(connection, meta.idle_for, trusted_for).await.map(|()| true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, known })
    }

    /// A connection, for some statements or a transaction.
    ///
    /// # Errors
    /// None was free or could be made in time.
    pub async fn acquire(&self) -> Result<PooledConnection, sqlx::Error> {
        let has_to_wait = self.is_exhausted();
        if has_to_wait {
            self.known.waits.fetch_add(1, Ordering::Relaxed);
        }
        let connection = self.pool.acquire().await.inspect_err(|_| {
            self.known.note(true);
            // Otherwise it is the server that has none.
            if has_to_wait && self.is_exhausted() {
                self.known.timeouts.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        Ok(PooledConnection { connection, is_good: true, known: Arc::clone(&self.known) })
    }

    /// Whether all of its connections are in use, and no more may be made.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let Usage { used, limit, .. } = self.usage();
        used >= limit
    }

    /// How its connections are used at this moment.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        Usage {
            used: self.pool.size().saturating_sub(idle),
            idle,
            limit: self.pool.options().get_max_connections(),
            waits: self.known.waits.load(Ordering::Relaxed),
            timeouts: self.known.timeouts.load(Ordering::Relaxed),
        }
    }

    /// A connection beside the pool, looked at as those of the pool are.
    ///
    /// # Errors
    /// It cannot be made, or is not to be used.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let options = self.pool.connect_options();
        let mut own = PgConnection::connect_with(&options).await.map_err(explained)?;
        self.known.check.check_new(&mut own).await?;
        Ok(own)
    }

    /// Refuses a pooler in between that gives no session of its own to each of two connections. Not while the database cannot
    /// be asked, since the programs start without it, too: then what the pool connects later is refused.
    ///
    /// # Errors
    /// With a hint.
    pub async fn check_sessions(&self) -> Result<(), String> {
        let two = async {
            let first = self.connect().await?;
            // While the first one is there.
            let second = self.connect().await?;
            tokio::try_join!(first.close(), second.close())
        };
        match timeout(SESSIONS_TIMEOUT, two).await {
            Ok(Err(error)) => match blamed(&error) {
                Some(pooler) => Err(format!("DATABASE_URL: {pooler}")),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Makes sure that the server can still be written to.
    ///
    /// # Errors
    /// It cannot.
    pub async fn check(&self, on: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.known.check.check(on).await
    }

    /// Makes sure that something comes back through the pool.
    ///
    /// # Errors
    /// Nothing does.
    pub async fn prove(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.acquire().await?;
        let answer = timeout(LOOK_TIMEOUT, connection.ping()).await;
        connection.judge(answer)
    }

    /// Whether whoever came last got nothing through the pool.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.known.is_lost.load(Ordering::Relaxed)
    }
}

impl From<PgPool> for Pool {
    /// Of connections that are made as their owner likes.
    fn from(pool: PgPool) -> Self {
        Self { pool, known: Arc::default() }
    }
}

/// For what sqlx wants a pool of its own kind. Its waits have no bounds.
impl Deref for Pool {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}

impl Known {
    /// Looks at a connection that was idle for so long.
    async fn look(
        &self,
        connection: &mut PgConnection,
        idle_for: Duration,
        trusted_for: Duration,
    ) -> Result<(), sqlx::Error> {
        let doubted = *self.doubted();
        if doubted.is_some_and(|doubted| doubted.elapsed() <= idle_for) {
            return Err(sqlx::Error::PoolTimedOut);
        }
        if idle_for < trusted_for {
            return Ok(());
        }
        let looked = timeout(LOOK_TIMEOUT, connection.ping()).await;
        looked.unwrap_or(Err(sqlx::Error::PoolTimedOut)).inspect_err(|_| self.doubt())
    }

    fn doubted(&self) -> MutexGuard<'_, Option<Instant>> {
        // Nothing panics while holding it.
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(&self) {
        *self.doubted() = Some(Instant::now());
    }

    fn note(&self, is_lost: bool) {
        self.is_lost.store(is_lost, Ordering::Relaxed);
    }
}

/// A connection on loan. Whatever becomes of its user, its place in the pool is free again in time.
#[derive(Debug)]
pub struct PooledConnection {
    connection: PoolConnection<Postgres>,
    is_good: bool,
    known: Arc<Known>,
}

impl PooledConnection {
    /// The answer that came back over it, if it came in time. One that is of no more use is given up.
    ///
    /// # Errors
    /// The answer's; [`sqlx::Error::PoolTimedOut`] if none came.
    pub fn judge<T>(
        &mut self,
        answer: Result<Result<T, sqlx::Error>, Elapsed>,
    ) -> Result<T, sqlx::Error> {
        let answer = answer.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        match &answer {
            Err(error) if is_lost(error) => self.give_up(),
            _ => self.answered(),
        }
        answer
    }

    /// Notes that the server answered over this connection: it is not lost.
    pub fn answered(&self) {
        self.known.note(false);
    }

    /// Nothing comes back over it, or its server cannot do what it should: neither it nor what was idle
    /// beside it is used again.
    pub fn give_up(&mut self) {
        self.discard();
        self.known.note(true);
        self.known.doubt();
    }

    pub(super) fn is_good(&self) -> bool {
        self.is_good
    }

    /// Closes the connection when it is given back, instead of keeping it for the next one.
    pub fn discard(&mut self) {
        self.is_good = false;
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let returning = self.connection.return_to_pool();
        // Otherwise it is closed here, as it is, and its place is free.
        if self.is_good {
            tokio::spawn(timeout(RETURN_TIMEOUT, returning));
        }
    }
}

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// Whether the error is one of the connection or its server, and not of what was asked.
#[must_use]
pub fn is_lost(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Database(database) = error {
        // A read-only transaction; too many connections; shut down, crashed or starting; class 08.
        const OF_THE_SERVER: [&str; 5] = ["25006", "53300", "57P01", "57P02", "57P03"];
        let code = &*database.code().unwrap_or_default();
        return [&OF_THE_SERVER[..], &EXCHANGED].iter().any(|codes| codes.contains(&code))
            || code.starts_with("08");
    }
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
    )
}

impl<'c> Executor<'c> for &'c Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let all = async move {
            let mut connection = self.acquire().await?;
            let all = connection.fetch_many(query).try_collect::<Vec<_>>();
            let answer = timeout(STATEMENT_TIMEOUT, all).await;
            let all = connection.judge(answer)?;
            Ok::<_, sqlx::Error>(stream::iter(all.into_iter().map(Ok)))
        };
        stream::once(all).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let mut connection = self.acquire().await?;
            let answer = timeout(STATEMENT_TIMEOUT, connection.fetch_optional(query)).await;
            connection.judge(answer)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.pool.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.pool.describe(sql)
    }
}
