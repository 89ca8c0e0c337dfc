//! What a worker tells Prometheus: what it has counted, the lines that it serves, how its roles are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use firstcome_contract::{
    family as contract,
    line::{Line, LineName, Naming},
};
use firstcome_process::{
    database::Usage,
    metrics::{self, LineLabels},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};

use super::Report;
use crate::{
    line::{LineFigures, Stats},
    metrics::{FamilyLabels, Metrics},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    role: &'static str,
}

/// The lines that this worker serves, with their figures.
#[derive(Debug, Default)]
pub(crate) struct Served(Mutex<BTreeMap<Line, Weak<Stats>>>);

impl Served {
    /// Adds a line, which is served for as long as its figures live.
    pub(super) fn add(&self, line: Line, stats: &Arc<Stats>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.insert(line, Arc::downgrade(stats));
    }

    fn register(&self, all: &mut Registry) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, stats| stats.strong_count() > 0);
        let held = Family::<FamilyLabels, Gauge>::default();
        for labels in contract::Family::ALL.map(FamilyLabels::of) {
            held.get_or_create(&labels).set(0);
        }
        let mut figures = Vec::new();
        let settled = Family::<LineLabels, Counter>::default();
        for (line, stats) in &*lines {
            let Some(stats) = stats.upgrade() else { continue };
            held.get_or_create(&FamilyLabels::of(line.family)).inc();
            let labels = LineLabels { family: line.family.as_str(), line: line.routing_key() };
            let line = stats.line();
            settled.get_or_create(&labels).inc_by(line.settled);
            figures.push((labels, line));
        }
        all.register("leases_held", "Lines that this worker serves", held);
        let help = "Jobs settled in the line since this worker serves it";
        all.register("line_settled_jobs", help, settled);
        let in_hand = figures.iter().map(|(labels, line)| (labels.clone(), line.in_hand.into()));
        let help = "Messages of the line's batch in hand";
        metrics::gauge(all, "line_messages_in_hand", help, None, in_hand);
        let seconds = |value: fn(&LineFigures) -> Duration| {
            let value =
                move |(labels, line): &(LineLabels, _)| (labels.clone(), value(line).as_secs_f64());
            figures.iter().map(value)
        };
        let help = "Since something last came out of the line, be it a canary";
        metrics::gauge(all, "line_idle", help, Some(Unit::Seconds), seconds(|line| line.idle));
        let help = "Since the canary under way was sent; 0 without one";
        let age = seconds(|line| line.canary);
        metrics::gauge(all, "line_canary_age", help, Some(Unit::Seconds), age);
    }
}

/// Which services answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Up {
    pub(super) broker: bool,
    pub(super) database: bool,
    pub(super) redis: bool,
}

impl Up {
    fn register(self, all: &mut Registry) {
        let mut gauge = |name, help, is_up: bool| {
            all.register(name, help, ConstGauge::new(i64::from(is_up)));
        };
        let help = "1 while each of the process' roles works on a connection to the broker";
        gauge("broker_up", help, self.broker);
        gauge("database_up", "1 while PostgreSQL answers", self.database);
        gauge("redis_up", "1 while Redis answers", self.redis);
    }
}

/// All metrics of a worker, as they are at this moment.
pub(super) fn registry(
    counted: &Metrics,
    served: &Served,
    roles: &[Report],
    up: Up,
    pools: &[(&'static str, Usage)],
) -> Registry {
    let mut all = metrics::registry();
    let ready = roles.iter();
    let ready = ready.map(|role| (RoleLabels { role: role.role }, f64::from(u8::from(role.ready))));
    let help = "1 while the role does its work: /health/ready says what ails it";
    metrics::gauge(&mut all, "role_ready", help, None, ready);
    up.register(&mut all);
    metrics::pools(&mut all, pools);
    counted.register(&mut all);
    served.register(&mut all);
    all
}

/// With one of everything, for the list in the documentation.
#[must_use]
pub fn example() -> Registry {
    let (served, stats) = (Served::default(), Stats::new());
    let first = LineName::Partition(0);
    let (family, naming) = (contract::Family::Coupon, Naming::Family);
    served.add(Line { family, generation: 1, name: first, naming }, &stats);
    let role = Report { role: "role", ready: true, halted: false, reason: None };
    let pools = ["roles", "settling"].map(|pool| (pool, Usage::default()));
    registry(&Metrics::default(), &served, &[role], Up::default(), &pools)
}
