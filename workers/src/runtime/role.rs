//! A role that settles jobs: joins its fellows, serves its share of the lines, hands over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use firstcome_database::Pool;
use firstcome_shared::{
    broker::{
        BrokerArgs,
        connect::{self, Connection, SessionError},
        topology,
    },
    job::JobKind,
    partition::Partition,
};
use sqlx::{PgConnection, PgPool};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    announce::Announcer,
    canary::Canaries,
    consume::{ConsumeError, Source, consume},
    control::Control,
    lease::{Lease, Member, Share},
    notify::Notifier,
    redrive,
    report::{self, Stats},
    routing::{self, State, StepError},
};
use crate::monitor;

/// How often a worker says that it lives, looks for lines to take and give, and reports.
const TICK: Duration = Duration::from_secs(1);
/// A worker that has not reached the database for so long gives its lines up: others may reach it,
/// and have leases by now. Longer than the leases last, so that a short outage is sat out in place.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);
/// Heartbeats after which the broker has surely let go of a silent consumer: it counts whole intervals.
const MISSED_HEARTBEATS: u32 = 3;
/// How long a good tick proves that the role is well.
const TICK_PROVES: Duration = Duration::from_secs(10);
/// How long making all lines may take.
const RESTORE_DEADLINE: Duration = Duration::from_secs(120);
/// A worker whose heartbeats reach the database for so long, and its batches do not, gives its lines up to
/// those whose batches may. The attempts that it has under way are over some seconds later.
const CUT_OFF_AFTER: Duration = Duration::from_secs(5);
/// How often it is looked whether another worker is done with them.
const RESTORE_AGAIN: Duration = Duration::from_millis(50);
/// How long a tick may take: some of it is the broker's work. Less than [`GIVE_UP_AFTER`], so that
/// one slow tick is no reason to give up.
const TICK_DEADLINE: Duration = Duration::from_secs(10);
/// How much of it making the lines again may take that a broker has lost.
const MEND_DEADLINE: Duration = Duration::from_secs(3);

/// All that a role needs to serve a kind of job.
#[derive(Debug)]
pub struct Role {
    /// Which jobs.
    pub kind: JobKind,
    /// Where they wait.
    pub broker: BrokerArgs,
    /// Where they are settled.
    pub pool: Pool,
    /// Who hears of it.
    pub announcer: Announcer,
    /// Wakes who publishes its events.
    pub notifier: Notifier,
    /// Who looks after it.
    pub monitor: monitor::Role,
}

/// Serves a share of the kind's lines until `stop`, reconnecting as long as it takes. On `stop` it
/// pulls nothing more, settles what it has in hand, gives its lines back and closes the connection.
pub async fn run(role: Arc<Role>, stop: CancellationToken) {
    let name = format!("firstcome-worker {}", role.kind.as_str());
    let control = Control::start(&role.broker, role.kind.as_str(), &stop);
    let redriving = redrive::run(Arc::clone(&role), control.clone(), stop.clone());
    let serving = connect::supervise(&role.broker.amqp_url, &name, &stop, |connection| {
        // Of this session: its consumers end with it, not only with the process.
        let (role, control, stop) = (Arc::clone(&role), control.clone(), stop.child_token());
        async move {
            let member = Member::new(role.kind, &role.pool);
            let mut session = Session {
                connection,
                member,
                role,
                control,
                lines: BTreeMap::new(),
                serves_dead_letters: false,
                is_damaged: false,
                consumers: JoinSet::new(),
            };
            let ended = session.serve(&stop).await;
            stop.cancel();
            let settled = session.close().await;
            ended.and(settled).inspect_err(|error| session.role.monitor.ails(error))
        }
    });
    tokio::join!(serving, redriving);
}

/// Makes the lines of every kind, as its first worker would: then jobs are accepted before one
/// runs.
///
/// # Errors
/// The broker's or the database's.
pub async fn make_lines(broker: &BrokerArgs, pool: &PgPool) -> Result<(), SessionError> {
    let connection = Arc::new(connect::connect(&broker.amqp_url, "firstcome-worker").await?);
    let namespace = &broker.queue_namespace;
    topology::declare(&connection, namespace).await?;
    let stop = CancellationToken::new();
    let control = Control::start(broker, "lines", &stop);
    let restored = async {
        let mut on = pool.acquire().await?;
        restore(&mut on, &connection, namespace, &control).await
    };
    restored.await.map_err(SessionError::from)?;
    stop.cancel();
    connect::close(&connection).await;
    Ok(())
}

/// Makes the lines of every kind that should be there: the first ones, those that a broker has lost.
async fn restore(
    on: &mut PgConnection,
    connection: &Arc<Connection>,
    namespace: &str,
    control: &Control,
) -> Result<(), StepError> {
    for kind in JobKind::ALL {
        // Another worker may be at it: whoever is first.
        while !routing::advance(on, kind, connection, namespace, control).await? {
            tokio::time::sleep(RESTORE_AGAIN).await;
        }
    }
    Ok(())
}

/// One broker connection's worth of serving. What goes wrong with one line ends that line, which begins
/// anew with a fresh channel, here or elsewhere; only what goes wrong with the connection ends it for
/// all.
struct Session {
    connection: Arc<Connection>,
    member: Member,
    role: Arc<Role>,
    control: Control,
    lines: BTreeMap<Partition, Serving>,
    serves_dead_letters: bool,
    /// Something went wrong with a line: its queue may be gone.
    is_damaged: bool,
    /// Tell which line they served.
    consumers: JoinSet<(Option<Lease>, Result<(), ConsumeError>)>,
}

/// A line that is being consumed.
struct Serving {
    lease: Lease,
    stop: CancellationToken,
    stats: Arc<Stats>,
    canaries: Canaries,
}

impl Session {
    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), SessionError> {
        let namespace = self.role.broker.queue_namespace.clone();
        // Who cannot settle takes no lines from those who can.
        match stop.run_until_cancelled(self.role.pool.prove()).await {
            None => return Ok(()),
            Some(proved) => proved.map_err(StepError::from)?,
        }
        self.serve_dead_letters(TICK_DEADLINE, stop).await?;
        // Before the first heartbeat: it may take a while, and nobody waits for us yet.
        let mut on = self.member.connection().await.map_err(StepError::from)?;
        let restoring = restore(&mut on, &self.connection, &namespace, &self.control);
        match stop.run_until_cancelled(timeout(RESTORE_DEADLINE, restoring)).await {
            None => return Ok(()),
            Some(Ok(restored)) => restored?,
            Some(Err(_)) => return Err(SessionError::Timeout(RESTORE_DEADLINE)),
        }
        self.member.keep(on);
        let mut well_at = Instant::now();
        let mut cut_off_at = None;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = self.consumers.join_next() => self.ended(ended).await?,
                _ = ticks.tick() => match self.share().await {
                    Ok(share) => {
                        well_at = Instant::now();
                        if !self.role.pool.is_lost() {
                            cut_off_at = None;
                        } else if cut_off_at.get_or_insert(well_at).elapsed() > CUT_OFF_AFTER {
                            let reason = "the database answers heartbeats, and no batches";
                            return Err(SessionError::Unusable(reason.to_owned()));
                        }
                        // Without one another worker is at it: our turn comes with the next tick.
                        if let Some(share) = share {
                            self.adopt(&share, stop).await?;
                        }
                        self.vouch();
                    }
                    Err(StepError::Session(error)) => return Err(error),
                    // What is in hand is retried by itself; what is lost meanwhile is fenced.
                    Err(StepError::Database(error)) => {
                        cut_off_at = None;
                        let kind = self.role.kind.as_str();
                        tracing::warn!(kind, %error, "lines not shared, trying again");
                        if well_at.elapsed() > GIVE_UP_AFTER {
                            let reason = format!("the database is away: {error}");
                            return Err(SessionError::Unusable(reason));
                        }
                        self.role.monitor.doubt(error);
                    }
                },
            }
        }
    }

    /// One tick, within its deadline. A connection on which anything went wrong is not used again.
    async fn share(&mut self) -> Result<Option<Share>, StepError> {
        let ticking = async {
            let mut connection = self.member.connection().await?;
            let share = self.tick(&mut connection).await?;
            Ok((share, connection))
        };
        let ticked = timeout(TICK_DEADLINE, ticking).await;
        let (share, connection) =
            ticked.unwrap_or(Err(StepError::Database(sqlx::Error::PoolTimedOut)))?;
        self.member.keep(connection);
        Ok(share)
    }

    /// Tells the others that we live, takes the next steps of the routing, and our share.
    async fn tick(&mut self, connection: &mut PgConnection) -> Result<Option<Share>, StepError> {
        let Role { kind, broker, .. } = &*self.role;
        let namespace = &broker.queue_namespace;
        self.member.heartbeat(connection).await?;
        let lines = self.lines.iter().map(|(line, serving)| (*line, Arc::clone(&serving.stats)));
        // Figures: what cannot be told now is told with the next tick, and must not keep lines from being
        // shared.
        if let Err(error) = report::store(connection, lines).await {
            tracing::warn!(kind = kind.as_str(), %error, "figures not stored, trying again");
        }
        while let Some(mut locked) = routing::lock(connection, *kind).await? {
            let state = State::load(&mut locked, *kind).await?;
            if std::mem::take(&mut self.is_damaged) {
                let mending = state.restore(&mut locked, &self.connection, namespace);
                match timeout(MEND_DEADLINE, mending).await {
                    Ok(Err(error @ StepError::Database(_))) => return Err(error),
                    // What cannot be mended fails again, alone.
                    Ok(Err(error)) => tracing::warn!(%error, "lines not made again"),
                    Err(_) => tracing::warn!("lines not made again in time"),
                    Ok(Ok(())) => {}
                }
            }
            if state.step(&mut locked, &self.connection, namespace, &self.control).await? {
                locked.commit().await?;
                continue;
            }
            let share = self.member.share(&mut locked, &state.rows).await?;
            locked.commit().await?;
            return Ok(share);
        }
        Ok(None)
    }

    /// Consumes from what is ours, up to a fair share; hands over the rest.
    async fn adopt(&mut self, share: &Share, stop: &CancellationToken) -> Result<(), SessionError> {
        if let Err(error) = self.serve_dead_letters(MEND_DEADLINE, stop).await {
            if !self.connection.status().connected() {
                return Err(error);
            }
            tracing::warn!(%error, "what the broker gives up on is not consumed, trying again");
        }
        let ours: BTreeSet<Lease> = share.leases.iter().copied().collect();
        for serving in self.lines.values().filter(|serving| !ours.contains(&serving.lease)) {
            serving.stop.cancel();
        }
        let going = |lease: &Lease| {
            self.lines.get(&lease.line).is_some_and(|serving| serving.stop.is_cancelled())
        };
        let staying: Vec<Lease> = ours.into_iter().filter(|lease| !going(lease)).collect();
        for (position, lease) in staying.into_iter().enumerate() {
            match self.lines.get(&lease.line) {
                Some(serving) if position >= share.fair => serving.stop.cancel(),
                Some(_) => {}
                None if position >= share.fair => self.release(&lease).await,
                None => {
                    let queue = lease.line.queue(&self.role.broker.queue_namespace);
                    self.consume(Source::Line(lease), queue, Some(lease), stop);
                }
            }
        }
        self.look_after_idle_lines();
        Ok(())
    }

    /// Consumes what the broker gave up on, unless that is being done.
    async fn serve_dead_letters(
        &mut self,
        deadline: Duration,
        stop: &CancellationToken,
    ) -> Result<(), SessionError> {
        if !self.serves_dead_letters {
            let namespace = &self.role.broker.queue_namespace;
            let declared = timeout(deadline, topology::declare(&self.connection, namespace));
            declared.await.map_err(|_| SessionError::Timeout(deadline))??;
            let queue = topology::dead_letters(namespace);
            self.consume(Source::DeadLetters, queue, None, stop);
            self.serves_dead_letters = true;
        }
        Ok(())
    }

    fn consume(
        &mut self,
        source: Source,
        queue: String,
        lease: Option<Lease>,
        stop: &CancellationToken,
    ) {
        let connection = Arc::clone(&self.connection);
        let (role, stop, stats) = (Arc::clone(&self.role), stop.child_token(), Stats::new());
        if let Some(lease) = lease {
            tracing::info!(queue, epoch = lease.epoch, "serving");
            let (stop, stats) = (stop.clone(), Arc::clone(&stats));
            self.role.monitor.metrics.serves(queue.clone(), lease.line.kind, &stats);
            self.lines
                .insert(lease.line, Serving { lease, stop, stats, canaries: Canaries::default() });
        }
        self.consumers.spawn(async move {
            (lease, consume(&connection, source, &queue, &role, &stats, &stop).await)
        });
    }

    /// A consumer has ended: told to, or because its line is another's, or with an error.
    async fn ended(
        &mut self,
        joined: Result<(Option<Lease>, Result<(), ConsumeError>), tokio::task::JoinError>,
    ) -> Result<(), SessionError> {
        let (lease, result) = joined.map_err(|panic| SessionError::Unusable(panic.to_string()))?;
        match result {
            Ok(()) => {}
            Err(ConsumeError::Line(error)) if self.connection.status().connected() => {
                tracing::warn!(%error, "a line is given up, its neighbours go on");
                self.role.monitor.doubt(error);
                self.is_damaged = true;
            }
            Err(ConsumeError::Line(error) | ConsumeError::Connection(error)) => return Err(error),
        }
        match lease {
            Some(lease) => {
                self.lines.remove(&lease.line);
                // Its channel is closed: now, and not before, another worker may have it.
                self.release(&lease).await;
            }
            None => self.serves_dead_letters = false,
        }
        Ok(())
    }

    async fn release(&mut self, lease: &Lease) {
        let queue = lease.line.queue(&self.role.broker.queue_namespace);
        match self.member.release(lease).await {
            Ok(()) => {
                tracing::info!(queue, "handed over");
                self.role.monitor.metrics.handed_over(self.role.kind);
            }
            Err(error) => tracing::warn!(queue, %error, "lease not released, it will expire"),
        }
    }

    /// Says that the role is well, unless nothing comes out of one of its lines.
    fn vouch(&self) {
        let dead = self.lines.iter().find(|(_, serving)| !serving.stats.is_alive());
        match dead {
            None => self.role.monitor.well(TICK_PROVES),
            Some((line, _)) => {
                let queue = line.queue(&self.role.broker.queue_namespace);
                self.role.monitor.doubt(format!("{queue}: connected, but nothing comes out"));
            }
        }
    }

    /// Looks whether something comes out of lines without work; gives up those where nothing does.
    fn look_after_idle_lines(&mut self) {
        let heartbeat = self.connection.configuration().heartbeat();
        let takeover = MISSED_HEARTBEATS * Duration::from_secs(heartbeat.into());
        for (line, serving) in &mut self.lines {
            let queue = line.queue(&self.role.broker.queue_namespace);
            let Serving { stop, stats, canaries, .. } = serving;
            if canaries.look(stats, &self.control, queue.clone(), takeover) && !stop.is_cancelled()
            {
                tracing::warn!(queue, "connected, but nothing comes out of the line");
                stop.cancel();
            }
        }
    }

    /// Lets every consumer, told to stop, finish what it has in hand, then gives the lines back.
    async fn close(&mut self) -> Result<(), SessionError> {
        let mut ended = Ok(());
        while let Some(joined) = self.consumers.join_next().await {
            let result = joined.map_err(|panic| SessionError::Unusable(panic.to_string()));
            let result = result.and_then(|(_, result)| result.map_err(SessionError::from));
            ended = ended.and(result);
        }
        if self.member.leave().await.is_err() {
            tracing::warn!(kind = self.role.kind.as_str(), "leases not released, they will expire");
        }
        ended
    }
}
