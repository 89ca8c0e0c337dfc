//! A role that settles jobs: joins its fellows, serves its share of the lines, hands over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use firstcome_broker::{
    connect::{self, Connection, SessionError, answered},
    consume::ConsumeError,
    topology,
};
use firstcome_contract::line::Line;
use firstcome_process::{database::within, fault_point};
use sqlx::PgConnection;
use tokio::{
    task::{self, JoinError, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Role,
    canary::Canaries,
    control::Control,
    redrive,
    sharing::{Heartbeat, Member, Share},
    upkeep::Upkeep,
};
use crate::line::{
    consume::{Source, consume},
    lease::Lease,
    report::{self, Stats},
};

/// Time between two looks for lines to take and give, and between two reports.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a worker keeps its lines without reaching the database: others may reach it, and have leases by
/// now. Longer than the leases last, so that a short outage is sat out in place.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(15);
/// The heartbeats (of AMQP) that a silent consumer can miss until the broker has surely let go of it: it counts
/// whole intervals.
const MAX_MISSED_HEARTBEATS: u32 = 3;
/// How long the role counts as ready after a tick without trouble.
const READY_TTL: Duration = Duration::from_secs(10);
/// The longest that sharing the lines may take. Less than [`DATABASE_TIMEOUT`], so that one slow tick is no
/// reason to give up.
const SHARE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two attempts to consume a line that the broker fails at.
const SUSPECT_INTERVAL: Duration = Duration::from_secs(5);
/// The longest that storing the reports of the lines may take.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker keeps its lines while its heartbeats reach the database and its batches do not: those of
/// others may. The attempts that it has under way are over some seconds later.
const POOL_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a share of the family's lines until `stop`, reconnecting as long as it takes. On `stop` it
/// pulls nothing more, settles what it has in hand, gives its lines back and closes the connection.
pub async fn run(role: Arc<Role>, stop: CancellationToken) {
    let name = format!("firstcome-worker {}", role.monitor.name);
    let control = Control::start(&role.broker, role.monitor.name, &stop);
    let redriving = redrive::run(Arc::clone(&role), control.clone(), stop.clone());
    let suspects = Suspects::default();
    let serving = connect::supervise(&role.broker, &name, &stop, |connection| {
        // Of this session: its consumers end with it, not only with the process.
        let (role, control, stop) = (Arc::clone(&role), control.clone(), stop.child_token());
        let suspects = suspects.clone();
        async move {
            let Means { member, beating, keeping } =
                match stop.run_until_cancelled(Means::of(&role)).await {
                    None => return Ok(()),
                    Some(Ok(means)) => means,
                    Some(Err(error)) => {
                        let error = SessionError::Unusable(format!("the database: {error}"));
                        role.monitor.ails(&error);
                        return Err(error);
                    }
                };
            let _connected = role.monitor.connected();
            let mut session = Session {
                heartbeat: Heartbeat::start(&member, beating),
                upkeep: Upkeep::start(&role, &connection, &control, keeping),
                connection,
                member,
                role,
                control,
                lines: BTreeMap::new(),
                consumers: JoinSet::new(),
                consumed: HashMap::new(),
                suspects,
            };
            let ended = session.serve(&stop).await;
            stop.cancel();
            let monitor = session.role.monitor.clone();
            let settled = session.close().await;
            ended.and(settled).inspect_err(|error| monitor.ails(error))
        }
    });
    tokio::join!(serving, redriving);
}

/// What a worker needs of the database before it counts as alive. Who cannot settle, or lacks a connection,
/// takes no lines from those who do not.
struct Means {
    member: Member,
    /// The connection of its heartbeat.
    beating: PgConnection,
    /// The connection of its upkeep.
    keeping: PgConnection,
}

impl Means {
    async fn of(role: &Role) -> Result<Self, sqlx::Error> {
        role.context.pool.prove().await?;
        let mut member = Member::new(role.context.family, &role.context.pool);
        let (sharing, beating, keeping) =
            tokio::try_join!(member.connect(), member.connect(), member.connect())?;
        member.keep(sharing);
        Ok(Self { member, beating, keeping })
    }
}

/// One broker connection's worth of serving. What goes wrong with one line ends that line, which begins
/// anew with a fresh channel, here or elsewhere; only what goes wrong with the connection ends it for
/// all.
struct Session {
    connection: Arc<Connection>,
    member: Member,
    heartbeat: Heartbeat,
    upkeep: Upkeep,
    role: Arc<Role>,
    control: Control,
    lines: BTreeMap<Line, Serving>,
    consumers: JoinSet<Result<(), ConsumeError>>,
    /// What each of them consumes: a line, or what the broker gives up on.
    consumed: HashMap<task::Id, Option<Lease>>,
    suspects: Suspects,
}

/// Lines of which nothing had come out yet when the broker failed, and with it a connection: the queue of
/// one of them may have no leader. They are consumed on connections of their own until something does.
#[derive(Debug, Clone, Default)]
struct Suspects(Arc<Mutex<BTreeSet<Line>>>);

impl Suspects {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Line>> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line that this worker consumes.
struct Serving {
    lease: Lease,
    stop: CancellationToken,
    stats: Arc<Stats>,
    canaries: Canaries,
}

impl Session {
    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), SessionError> {
        let mut well_at = Instant::now();
        let mut cut_off_at = None;
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = self.consumers.join_next_with_id() => {
                    self.ended(ended).await?;
                    continue;
                }
                _ = ticks.tick() => {}
                () = self.upkeep.stepped() => {}
            }
            if !self.connection.status().connected() {
                return Err(SessionError::Unusable("the connection is gone".to_owned()));
            }
            match self.share().await {
                Ok(share) => {
                    well_at = Instant::now();
                    if !self.role.context.pool.is_lost() {
                        cut_off_at = None;
                    } else if cut_off_at.get_or_insert(well_at).elapsed() > POOL_TIMEOUT {
                        let reason = "the database answers heartbeats, and no batches";
                        return Err(SessionError::Unusable(reason.to_owned()));
                    }
                    self.upkeep.is_first(share.is_first);
                    self.role.monitor.is_halted(share.is_halted);
                    self.adopt(&share, stop).await;
                    self.tell().await;
                    self.vouch();
                }
                // What is in hand is retried by itself; what is lost meanwhile is fenced.
                Err(error) => {
                    cut_off_at = None;
                    let family = self.role.context.family.as_str();
                    tracing::warn!(family, %error, "lines not shared, trying again");
                    if well_at.elapsed() > DATABASE_TIMEOUT {
                        let reason = format!("the database is away: {error}");
                        return Err(SessionError::Unusable(reason));
                    }
                    self.role.monitor.doubt(error);
                }
            }
        }
    }

    /// Takes our share. A connection on which anything went wrong is not used again.
    async fn share(&mut self) -> Result<Share, sqlx::Error> {
        let sharing = async {
            let mut connection = self.member.connection().await?;
            let share = self.member.share(&mut connection).await?;
            Ok((share, connection))
        };
        let (share, connection) = within(SHARE_TIMEOUT, sharing).await?;
        self.member.keep(connection);
        Ok(share)
    }

    /// Stores how the lines fare: what cannot be told now is told with the next tick.
    async fn tell(&mut self) {
        let lines = self.lines.iter().map(|(line, serving)| (*line, Arc::clone(&serving.stats)));
        let telling = async {
            let mut connection = self.member.connection().await?;
            report::store(&mut connection, lines).await?;
            Ok(connection)
        };
        match within(REPORT_TIMEOUT, telling).await {
            Ok(connection) => self.member.keep(connection),
            Err(error) => {
                let family = self.role.context.family.as_str();
                tracing::warn!(family, %error, "figures not stored, trying again");
            }
        }
    }

    /// Consumes from what is ours, up to a fair share; hands over the rest.
    async fn adopt(&mut self, share: &Share, stop: &CancellationToken) {
        if !self.consumed.values().any(Option::is_none) {
            self.consume(Source::DeadLetters, stop);
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
                None => self.consume(Source::Line(lease), stop),
            }
        }
        self.look_after_idle_lines();
    }

    fn consume(&mut self, source: Source, stop: &CancellationToken) {
        let (queue, lease) = (source.queue(&self.role.broker.queue_namespace), source.lease());
        let is_suspect = lease.is_some_and(|lease| self.suspects.lock().contains(&lease.line));
        let connection = Arc::clone(&self.connection);
        let (role, stop, stats) = (Arc::clone(&self.role), stop.child_token(), Stats::new());
        if let Some(lease) = lease {
            tracing::info!(queue, epoch = lease.epoch, "serving");
            let (stop, stats) = (stop.clone(), Arc::clone(&stats));
            self.role.monitor.serves(lease.line, &stats);
            self.lines
                .insert(lease.line, Serving { lease, stop, stats, canaries: Canaries::default() });
        }
        let consumer = self.consumers.spawn(async move {
            if lease.is_none() {
                // Its queue is nobody's lease: it is made by whoever consumes it.
                let declared = topology::declare(&connection, &role.broker.queue_namespace);
                answered(declared).await.map_err(ConsumeError::Queue)?;
            }
            if !is_suspect {
                return consume(&connection, source, &queue, &role.context, &stats, &stop).await;
            }
            let name = format!("firstcome-worker {queue}");
            let own = connect::connect(&role.broker, &name).await;
            let own = own.map_err(ConsumeError::Queue)?;
            let ended = consume(&own, source, &queue, &role.context, &stats, &stop).await;
            connect::close(&own).await;
            if ended.is_err() {
                stop.run_until_cancelled(sleep(SUSPECT_INTERVAL)).await;
            }
            ended.map_err(|error| ConsumeError::Queue(error.into()))
        });
        self.consumed.insert(consumer.id(), lease);
    }

    /// A consumer has ended: told to, or because its line is another's, or with an error.
    async fn ended(
        &mut self,
        joined: Result<(task::Id, Result<(), ConsumeError>), JoinError>,
    ) -> Result<(), SessionError> {
        let (id, result) = match joined {
            Ok(ended) => ended,
            Err(panic) => {
                let error = SessionError::Unusable(panic.to_string());
                (panic.id(), Err(ConsumeError::Queue(error)))
            }
        };
        let lease = self.consumed.remove(&id).flatten();
        match result {
            Ok(()) => {}
            Err(ConsumeError::Queue(error)) if self.connection.status().connected() => {
                let queue = lease.map(|lease| lease.line.queue(&self.role.broker.queue_namespace));
                tracing::warn!(queue, %error, "a line is given up, its neighbours go on");
                self.role.monitor.doubt(error);
                self.upkeep.damaged();
            }
            Err(ConsumeError::Queue(error) | ConsumeError::Connection(error)) => {
                if error.is_failure() {
                    let silent =
                        self.lines.iter().filter(|(_, serving)| !serving.stats.is_proven());
                    self.suspects.lock().extend(silent.map(|(line, _)| *line));
                }
                return Err(error);
            }
        }
        if let Some(lease) = lease {
            self.lines.remove(&lease.line);
            // Its channel is closed: now, and not before, another worker may have it.
            self.release(&lease).await;
        }
        Ok(())
    }

    async fn release(&mut self, lease: &Lease) {
        fault_point::pass(fault_point::MID_HANDOVER);
        let queue = lease.line.queue(&self.role.broker.queue_namespace);
        match self.member.release(lease).await {
            Ok(()) => {
                tracing::info!(queue, "handed over");
                self.role.context.metrics.handed_over(self.role.context.family);
            }
            Err(error) => tracing::warn!(queue, %error, "lease not released, it will expire"),
        }
    }

    /// Says that the role is well, unless nothing comes out of one of its lines.
    fn vouch(&self) {
        let dead = self.lines.iter().find(|(_, serving)| !serving.stats.is_alive());
        match dead {
            None => self.role.monitor.well(READY_TTL),
            Some((line, _)) => {
                let queue = line.queue(&self.role.broker.queue_namespace);
                self.role.monitor.doubt(format!("{queue}: connected, but nothing comes out"));
            }
        }
    }

    /// Looks whether something comes out of lines without work; gives up those where nothing does.
    fn look_after_idle_lines(&mut self) {
        let heartbeat = self.connection.configuration().heartbeat();
        let takeover = MAX_MISSED_HEARTBEATS * Duration::from_secs(heartbeat.into());
        for (line, serving) in &mut self.lines {
            let queue = line.queue(&self.role.broker.queue_namespace);
            let Serving { stop, stats, canaries, .. } = serving;
            if stats.is_proven() {
                self.suspects.lock().remove(line);
            }
            if canaries.look(stats, &self.control, queue.clone(), takeover) && !stop.is_cancelled()
            {
                tracing::warn!(queue, "connected, but nothing comes out of the line");
                stop.cancel();
            }
        }
    }

    /// Lets every consumer, told to stop, finish what it has in hand, then gives the lines back.
    async fn close(mut self) -> Result<(), SessionError> {
        drop(self.upkeep);
        let mut ended = Ok(());
        while let Some(joined) = self.consumers.join_next().await {
            let result = joined.map_err(|panic| SessionError::Unusable(panic.to_string()));
            let result = result.and_then(|result| result.map_err(SessionError::from));
            ended = ended.and(result);
        }
        // Or it would count as alive again.
        self.heartbeat.end().await;
        if self.member.leave().await.is_err() {
            tracing::warn!(
                family = self.role.context.family.as_str(),
                "leases not released, they will expire"
            );
        }
        ended
    }
}
