//! The order of events.

use std::collections::BTreeMap;

use super::{
    arena::{Arena, Scene},
    contender::{self, Firstcome, Prize, Settled, Side, outcomes, settle},
    ledger::Ledger,
    machine::{self, Machine},
    plan::{Part, Plan},
    requests,
    results::Results,
    storm::{Requests, Storm},
};
use crate::{
    demo::free_port,
    screen::Screen,
    settings::Settings,
    side::SideName,
    system::{LARGE, System},
};

/// How many connections send requests.
pub(super) const CONNECTIONS: [usize; 2] = [64, 256];
/// The sides whose best pool is searched.
const WITH_POOL: [SideName; 5] = [
    SideName::Pessimistic,
    SideName::Optimistic,
    SideName::RedisLock,
    SideName::Atomic,
    SideName::SyncOrder,
];
/// Connections of the side while its pool is searched.
const SEARCH_CONNECTIONS: usize = 64;

/// Everything that takes part.
pub(super) struct Contest<'a> {
    pub(super) plan: Plan,
    pub(super) arena: &'a Arena,
    pub(super) ledger: Ledger,
    pub(super) pools: BTreeMap<SideName, u32>,
    screen: &'a mut Screen,
    round: u32,
    only: Vec<Part>,
}

impl<'a> Contest<'a> {
    /// With all parts, or only some.
    pub(super) fn new(
        plan: Plan,
        only: Vec<Part>,
        arena: &'a Arena,
        screen: &'a mut Screen,
    ) -> Self {
        let (ledger, pools) = (Ledger::default(), BTreeMap::new());
        Self { plan, arena, ledger, pools, screen, round: 0, only }
    }

    fn measures(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub(super) fn results(self, machine: Machine) -> Results {
        Results::new(self.plan, self.ledger, self.pools, machine)
    }

    /// What this is measured on; refuses servers that are not durable.
    pub(super) async fn machine(&self, redis_url: &str) -> anyhow::Result<Machine> {
        let scene = self.arena.scene("bench_look").await?;
        machine::is_durable(&scene.pool).await?;
        let machine = Machine::look(&scene.pool, redis_url).await?;
        self.arena.strike(scene).await?;
        Ok(machine)
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

    /// Finds the pool with which each side is fastest.
    pub(super) async fn search(&mut self) -> anyhow::Result<()> {
        if !self.measures(Part::Sides) {
            return Ok(());
        }
        let scene = self.arena.scene("bench_search").await?.with_foreign_keys().await?;
        let mut granted = 0;
        for name in WITH_POOL {
            let mut best = (0.0, 0);
            let mut seen = Vec::new();
            for pool in self.plan.pools {
                let (requests, prize) = self.hot(name, &scene).await?;
                let side = Side::start(&scene, name, *pool).await?;
                granted += self.warm_up(side.address, &scene, name).await?;
                let storm = Storm {
                    address: side.address,
                    connections: SEARCH_CONNECTIONS,
                    window: self.plan.search_window,
                    requests,
                    to_the_outcome: false,
                };
                let settled = settle(&storm, &prize, &scene.pool).await?;
                side.stop().await?;
                granted += settled.harvest.units;
                seen.push(format!("{pool}: {:.0}/s", settled.per_second));
                if settled.per_second > best.0 {
                    best = (settled.per_second, *pool);
                }
            }
            self.pools.insert(name, best.1);
            self.say(format_args!(
                "best pool of {}: {} ({})",
                name.as_str(),
                best.1,
                seen.join(", ")
            ));
        }
        outcomes(&scene.pool, granted).await?;
        scene.audit("a side").await?;
        self.arena.strike(scene).await
    }

    /// What the idle system costs: each role in a process of its own.
    pub(super) async fn idle(&mut self) -> anyhow::Result<()> {
        if !self.measures(Part::Idle) {
            return Ok(());
        }
        self.say("what the idle system costs");
        let scene = self.arena.scene("bench_idle").await?;
        let settings =
            Settings { data_platform: Some(free_port().await?), ..scene.settings.clone() };
        let mut system = System::start(settings, &LARGE)?;
        system.ready().await?;
        // The first leases, the first connections.
        tokio::time::sleep(self.plan.idle / 2).await;
        for idle in contender::idle(&system, self.plan.idle).await? {
            // A stand-in that is there for the demo.
            if idle.program != "data-platform" {
                self.ledger.add(format!("idle.{}.rss_mib", idle.program), idle.rss_mib);
                self.ledger.add(format!("idle.{}.cpu_percent", idle.program), idle.cpu_percent);
            }
        }
        let troubles = system.stop().await;
        anyhow::ensure!(troubles.is_empty(), "{}", troubles.join("; "));
        self.arena.strike(scene).await
    }

    pub(super) async fn large_scene(&mut self) -> anyhow::Result<Option<Scene>> {
        if !self.measures(Part::Large) {
            return Ok(None);
        }
        let filling = self.arena.large_scene(self.plan.large_rows);
        self.screen.during("filling the large database", filling).await.map(Some)
    }

    /// Everything once.
    pub(super) async fn round(&mut self, round: u32, large: Option<&Scene>) -> anyhow::Result<()> {
        self.round = round;
        let mut sides =
            [SideName::Pessimistic, SideName::Optimistic, SideName::RedisLock, SideName::Atomic];
        // Nobody is always the first.
        for _ in 1..round {
            sides.rotate_left(1);
        }
        if self.measures(Part::Sides) {
            for side in sides {
                self.side(side).await?;
            }
        }
        if self.measures(Part::Floors) {
            self.side(SideName::Publish).await?;
            self.side(SideName::Hello).await?;
        }
        if self.measures(Part::Coupons) {
            self.coupons().await?;
        }
        if self.measures(Part::Sides) {
            self.side(SideName::SyncOrder).await?;
        }
        if self.measures(Part::Orders) {
            self.orders().await?;
        }
        if self.measures(Part::Backlogs) {
            self.backlogs().await?;
        }
        if self.measures(Part::Fresh) {
            self.fresh(round).await?;
        }
        if let Some(large) = large {
            self.large(large).await?;
        }
        Ok(())
    }

    /// Another design on the hot key, or a floor.
    async fn side(&mut self, name: SideName) -> anyhow::Result<()> {
        self.say(name.as_str());
        let scene = self.arena.scene(&format!("bench_{}", name.as_str().replace('-', "_"))).await?;
        let scene = scene.with_foreign_keys().await?;
        let pool = self.pools.get(&name).copied().unwrap_or(1);
        let side = Side::start(&scene, name, pool).await?;
        let mut granted = self.warm_up(side.address, &scene, name).await?;
        for connections in CONNECTIONS {
            let (requests, prize) = self.hot(name, &scene).await?;
            let storm = self.storm(side.address, connections, requests);
            scene.settle_down().await;
            let scenario = if name == SideName::SyncOrder { "hot_product" } else { "hot_coupon" };
            if matches!(name, SideName::Hello | SideName::Publish) {
                let harvest = storm.rage().await?;
                #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
                let per_second = harvest.granted as f64 / harvest.took.as_secs_f64();
                let scenario = if name == SideName::Hello { "hello" } else { scenario };
                self.note(scenario, name.as_str(), connections, &Settled { harvest, per_second });
            } else {
                let settled = settle(&storm, &prize, &scene.pool).await?;
                granted += settled.harvest.units;
                self.note(scenario, name.as_str(), connections, &settled);
            }
        }
        if name == SideName::SyncOrder {
            let products = Prize::Products((1..=requests::PRODUCTS).collect());
            let requests = requests::spread_orders(&self.arena.bearers);
            scene.settle_down().await;
            let storm = self.storm(side.address, 256, requests);
            let settled = settle(&storm, &products, &scene.pool).await?;
            granted += i64::try_from(settled.harvest.granted)?;
            self.note("spread_product", name.as_str(), 256, &settled);
        }
        side.stop().await?;
        if !matches!(name, SideName::Hello | SideName::Publish) {
            outcomes(&scene.pool, granted).await?;
            scene.audit(name.as_str()).await?;
        }
        self.arena.strike(scene).await
    }

    /// The requests for a new hot key, and what they contend for.
    pub(super) async fn hot(
        &self,
        name: SideName,
        scene: &Scene,
    ) -> anyhow::Result<(Requests, Prize)> {
        let bearers = &self.arena.bearers;
        if name == SideName::Hello {
            return Ok((requests::hellos(), Prize::Coupons(Vec::new())));
        }
        if name == SideName::SyncOrder {
            let products = Prize::Products(vec![requests::HOT_PRODUCT]);
            return Ok((requests::hot_orders(bearers, None), products));
        }
        let campaign = vec![scene.campaign().await?];
        Ok((requests::coupons(bearers, &campaign)?, Prize::Coupons(campaign)))
    }

    /// Connections, prepared statements, caches; tells how many requests were granted.
    async fn warm_up(
        &self,
        address: std::net::SocketAddr,
        scene: &Scene,
        name: SideName,
    ) -> anyhow::Result<i64> {
        let (requests, _) = self.hot(name, scene).await?;
        let storm = Storm { window: self.plan.warm_up, ..self.storm(address, 256, requests) };
        Ok(storm.rage().await?.units)
    }

    /// The system, warmed up; tells how many jobs were accepted.
    pub(super) async fn firstcome(
        &self,
        scene: &Scene,
        orders: bool,
    ) -> anyhow::Result<(Firstcome, i64)> {
        let system = Firstcome::start(scene).await?;
        let like = if orders { SideName::SyncOrder } else { SideName::Atomic };
        let (requests, prize) = self.hot(like, scene).await?;
        let storm =
            Storm { window: self.plan.warm_up, ..self.storm(system.address, 256, requests) };
        let settled = settle(&storm, &prize, &scene.pool).await?;
        Ok((system, settled.harvest.units))
    }

    pub(super) fn storm(
        &self,
        address: std::net::SocketAddr,
        connections: usize,
        requests: Requests,
    ) -> Storm {
        Storm { address, connections, window: self.plan.window, requests, to_the_outcome: false }
    }

    /// Puts a measurement down.
    pub(super) fn note(
        &mut self,
        scenario: &str,
        side: &str,
        connections: usize,
        settled: &Settled,
    ) {
        let Settled { harvest, per_second } = settled;
        let key = |metric: &str| format!("{scenario}.{side}.{connections}.{metric}");
        self.ledger.add(key("per_second"), *per_second);
        for (metric, percent) in [("p50_ms", 50.0), ("p99_ms", 99.0)] {
            let took = harvest.latencies.percentile(percent);
            self.ledger.add(key(metric), took.as_secs_f64() * 1e3);
        }
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
        let share = |part: usize| {
            100.0 * part as f64 / (harvest.granted + harvest.denied + harvest.refused) as f64
        };
        self.ledger.add(key("gave_up_percent"), share(harvest.refused));
        self.say(format_args!(
            "  {scenario}, {side}, {connections} connections: {per_second:.0}/s"
        ));
    }
}
