//! A run of the benchmark: what its scenarios share.

use std::{collections::BTreeMap, net::SocketAddr};

use firstcome_rig::screen::Screen;

use super::{
    cost::Drained,
    databases::{Database, Databases},
    load::{ClosedLoop, Requests},
    measurements::Measurements,
    plan::{MOST_CONNECTIONS, Plan},
    requests,
    sale::Sale,
    servers::Firstcome,
    throughput::{Goods, Throughput, measure},
};
use crate::rivals::Rival;

/// What the system is called in the figures.
pub(super) const FIRSTCOME: &str = "firstcome";

/// How much is measured, where, and what was found so far.
pub(super) struct Run<'a> {
    pub(super) plan: Plan,
    pub(super) databases: &'a Databases,
    pub(super) measurements: Measurements,
    /// The best pool of each rival, as searched.
    pub(super) pools: BTreeMap<Rival, u32>,
    pub(super) screen: &'a mut Screen,
    /// Rounds count from 1; 0 is what comes before them.
    pub(super) round: u32,
}

impl<'a> Run<'a> {
    /// Nothing is measured yet.
    pub(super) fn new(plan: Plan, databases: &'a Databases, screen: &'a mut Screen) -> Self {
        let (measurements, pools) = (Measurements::default(), BTreeMap::new());
        Self { plan, databases, measurements, pools, screen, round: 0 }
    }

    /// Says what is going on.
    pub(super) fn say(&mut self, what: impl std::fmt::Display) {
        match self.round {
            0 => self.screen.line(what),
            round => {
                self.screen.line(format_args!("round {round} of {}: {what}", self.plan.rounds))
            }
        }
    }

    /// The requests for a new hot key, and what they contend for.
    pub(super) async fn hot(
        &self,
        sale: Sale,
        database: &Database,
    ) -> anyhow::Result<(Requests, Goods)> {
        let bearers = &self.databases.bearers;
        match sale {
            Sale::Coupons => {
                let campaign = vec![database.campaign().await?];
                Ok((requests::coupons(bearers, &campaign)?, Goods::Coupons(campaign)))
            }
            Sale::Orders => {
                let products = Goods::Products(vec![requests::HOT_PRODUCT]);
                Ok((requests::hot_orders(bearers, None), products))
            }
        }
    }

    /// Starts the system and warms it up with such jobs; tells how many were accepted.
    pub(super) async fn firstcome(
        &self,
        database: &Database,
        sale: Sale,
    ) -> anyhow::Result<(Firstcome, i64)> {
        let system = Firstcome::start(database).await?;
        let (requests, goods) = self.hot(sale, database).await?;
        let load = self.warm_up(system.address, requests);
        let throughput = measure(&load, &goods, &database.pool).await?;
        Ok((system, throughput.answered.units))
    }

    /// A load that is measured.
    pub(super) fn load(
        &self,
        address: SocketAddr,
        connections: usize,
        requests: Requests,
    ) -> ClosedLoop {
        let window = self.plan.window;
        let addresses = vec![address];
        ClosedLoop { addresses, connections, window, requests, to_the_outcome: false }
    }

    /// A load before it: for connections, prepared statements, caches.
    pub(super) fn warm_up(&self, address: SocketAddr, requests: Requests) -> ClosedLoop {
        ClosedLoop { window: self.plan.warm_up, ..self.load(address, MOST_CONNECTIONS, requests) }
    }

    /// Puts a measurement down.
    pub(super) fn note(
        &mut self,
        scenario: &str,
        side: &str,
        connections: usize,
        throughput: &Throughput,
    ) {
        let Throughput { answered, per_second } = throughput;
        let key = |metric: &str| format!("{scenario}.{side}.{connections}.{metric}");
        self.measurements.add(key("per_second"), *per_second);
        self.measurements.add(key("accepted_per_second"), answered.granted_per_second());
        for (metric, percent) in [("p50_ms", 50.0), ("p99_ms", 99.0)] {
            let took = answered.latencies.percentile(percent);
            self.measurements.add(key(metric), took.as_secs_f64() * 1e3);
        }
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
        let share = |part: usize| {
            100.0 * part as f64 / (answered.granted + answered.denied + answered.refused) as f64
        };
        self.measurements.add(key("gave_up_percent"), share(answered.refused));
        self.say(format_args!(
            "  {scenario}, {side}, {connections} connections: {per_second:.0}/s"
        ));
    }

    /// Puts down how fast a backlog was drained, and what each of its jobs cost.
    pub(super) fn note_backlog(&mut self, scenario: &str, side: &str, drained: &Drained) {
        self.note_drained(scenario, side, drained.per_second);
        for (part, costs) in [("accepting", &drained.accepting), ("settling", &drained.settling)] {
            for (program, micros) in costs {
                let key = format!("cost.{scenario}.{side}.{part}.{program}.cpu_us");
                self.measurements.add(key, *micros);
            }
        }
        let key = format!("cost.{scenario}.{side}.wal_bytes");
        self.measurements.add(key, drained.wal_bytes);
    }

    /// Puts down how fast a backlog was drained.
    pub(super) fn note_drained(&mut self, scenario: &str, side: &str, per_second: f64) {
        self.measurements.add(format!("{scenario}.{side}.per_second"), per_second);
        self.say(format_args!("  {scenario}, {side}: {per_second:.0}/s"));
    }
}
