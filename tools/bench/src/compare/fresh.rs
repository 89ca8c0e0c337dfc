//! A sale as its operator opens it: on a new database that PostgreSQL knows nothing about, with nothing
//! warmed up; with an `Idempotency-Key` on every request and without, orders with a coupon and without.
//!
//! What such a sale costs must not depend on whether autovacuum has come by: a plan that is made for
//! empty tables, and kept, is the plan still when they are full.

use firstcome_contract::job::JobKind;

use super::{
    arena::Scene,
    backlog::Backlog,
    contender::{Firstcome, Prize, outcomes, settle},
    contest::Contest,
    requests::{self, HOT_PRODUCT},
    sales::NAME,
    storm::Requests,
};

/// The same with a key on every request.
const KEYED: &str = "firstcome-keyed";
/// The same with a coupon in every order.
const WITH_COUPON: &str = "firstcome-with-coupon";

/// How it is asked for.
#[derive(Debug, Clone, Copy)]
struct Manner {
    kind: JobKind,
    keyed: bool,
    with_coupon: bool,
}

/// In turns: two that are compared follow each other, as machines change their pace.
const MANNERS: [Manner; 5] = [
    Manner { kind: JobKind::IssueCoupon, keyed: false, with_coupon: false },
    Manner { kind: JobKind::IssueCoupon, keyed: true, with_coupon: false },
    Manner { kind: JobKind::PlaceOrder, keyed: true, with_coupon: false },
    Manner { kind: JobKind::PlaceOrder, keyed: false, with_coupon: false },
    Manner { kind: JobKind::PlaceOrder, keyed: false, with_coupon: true },
];

impl Manner {
    const fn side(self) -> &'static str {
        match self {
            Self { with_coupon: true, .. } => WITH_COUPON,
            Self { keyed: true, .. } => KEYED,
            Self { .. } => NAME,
        }
    }

    const fn scenario(self) -> &'static str {
        match self.kind {
            JobKind::IssueCoupon => "fresh_coupon",
            JobKind::PlaceOrder => "fresh_order",
        }
    }
}

/// A manner's requests on its database.
struct Asked {
    requests: Requests,
    prize: Prize,
    /// Outcomes that are there before.
    settled: i64,
}

impl Contest<'_> {
    /// Each on a database of its own.
    pub(super) async fn fresh(&mut self, round: u32) -> anyhow::Result<()> {
        let mut manners = MANNERS;
        // Nobody is always the first.
        if round.is_multiple_of(2) {
            manners.reverse();
        }
        for manner in manners {
            self.fresh_sale(manner).await?;
        }
        for manner in manners {
            self.fresh_drain(manner).await?;
        }
        Ok(())
    }

    async fn fresh_sale(&mut self, manner: Manner) -> anyhow::Result<()> {
        let scene = self.arena.fresh_scene("bench_fresh_sale").await?;
        let asked = self.asked(manner, &scene, self.plan.users).await?;
        let system = Firstcome::start(&scene).await?;
        let storm = self.storm(system.address, 256, asked.requests);
        scene.settle_down().await;
        let settled = settle(&storm, &asked.prize, &scene.pool).await?;
        scene.is_fresh().await?;
        self.note(manner.scenario(), manner.side(), 256, &settled);
        outcomes(&scene.pool, asked.settled + settled.harvest.units).await?;
        self.close(scene, system).await
    }

    async fn fresh_drain(&mut self, manner: Manner) -> anyhow::Result<()> {
        let scene = self.arena.fresh_scene("bench_fresh_drain").await?;
        let jobs = self.plan.fresh_backlog;
        let asked = self.asked(manner, &scene, i64::try_from(jobs)?).await?;
        // They declare the lines; not a single job is theirs.
        let system = Firstcome::start(&scene).await?.stop_workers().await?;
        let backlog = Backlog { jobs, requests: asked.requests, settled: asked.settled };
        let (system, per_second) = self.drain_backlog(&scene, system, backlog).await?;
        scene.is_fresh().await?;
        let (scenario, side) = (manner.scenario(), manner.side());
        self.ledger.add(format!("drain_{scenario}.{side}.per_second"), per_second);
        self.say(format_args!("  drain_{scenario}, {side}: {per_second:.0}/s"));
        self.close(scene, system).await
    }

    /// The requests of at least so many users.
    async fn asked(&self, manner: Manner, scene: &Scene, users: i64) -> anyhow::Result<Asked> {
        let bearers = &self.arena.bearers;
        let (requests, prize, settled) = match manner.kind {
            JobKind::IssueCoupon => {
                let campaign = vec![scene.campaign().await?];
                (requests::coupons(bearers, &campaign)?, Prize::Coupons(campaign), 0)
            }
            JobKind::PlaceOrder => {
                let (campaign, settled) = if manner.with_coupon {
                    (Some(scene.campaign_of_holders(users).await?), users)
                } else {
                    (None, 0)
                };
                let prize = Prize::Products(vec![HOT_PRODUCT]);
                (requests::hot_orders(bearers, campaign), prize, settled)
            }
        };
        let requests = if manner.keyed { requests::keyed(requests) } else { requests };
        Ok(Asked { requests, prize, settled })
    }

    async fn close(&self, scene: Scene, system: Firstcome) -> anyhow::Result<()> {
        system.stop().await?;
        scene.analyze().await?;
        scene.audit(NAME).await?;
        self.arena.strike(scene).await
    }
}
