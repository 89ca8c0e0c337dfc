//! The system's own measurements: coupons, orders, and the large database.

use anyhow::ensure;

use super::{
    arena::Scene,
    contender::{Firstcome, Prize, Settled, outcomes, settle},
    contest::{CONNECTIONS, Contest},
    requests,
    storm::Storm,
};
use crate::side::SideName;

/// Campaigns of the spread scenario.
const CAMPAIGNS: i64 = 1_000;
/// What the system is called in the figures.
pub(super) const NAME: &str = "firstcome";
/// The same, when every client polls to its outcome.
const POLLED: &str = "firstcome-polled";
/// The same, beside the large database.
const EMPTY: &str = "firstcome-empty";

impl Contest<'_> {
    pub(super) async fn coupons(&mut self) -> anyhow::Result<()> {
        self.say("firstcome, coupons");
        let scene = self.arena.scene("bench_coupons").await?;
        let (system, mut accepted) = self.firstcome(&scene, false).await?;
        let mut most = 0.0;
        for (side, to_the_outcome) in [(NAME, false), (POLLED, true)] {
            for connections in CONNECTIONS {
                let (settled, _) =
                    self.hot_coupon(&system, &scene, connections, to_the_outcome).await?;
                accepted += settled.harvest.units;
                most = settled.per_second.max(most);
                self.note("hot_coupon", side, connections, &settled);
            }
        }

        let campaigns = scene.many_campaigns(CAMPAIGNS).await?;
        let requests = requests::coupons(&self.arena.bearers, &campaigns)?;
        let storm = self.storm(system.address, 256, requests);
        scene.settle_down().await;
        let settled = settle(&storm, &Prize::Coupons(campaigns), &scene.pool).await?;
        accepted += settled.harvest.units;
        self.note("spread_coupon", NAME, 256, &settled);

        accepted = self.sold_out(&system, &scene, accepted).await?;
        self.latencies(&system, &scene, most, accepted).await?;
        system.stop().await?;
        scene.audit(NAME).await?;
        self.arena.strike(scene).await
    }

    async fn hot_coupon(
        &self,
        system: &Firstcome,
        scene: &Scene,
        connections: usize,
        to_the_outcome: bool,
    ) -> anyhow::Result<(Settled, Prize)> {
        let (requests, prize) = self.hot(SideName::Atomic, scene).await?;
        let storm = Storm { to_the_outcome, ..self.storm(system.address, connections, requests) };
        scene.settle_down().await;
        Ok((settle(&storm, &prize, &scene.pool).await?, prize))
    }

    /// About a hundred want each coupon.
    async fn sold_out(
        &mut self,
        system: &Firstcome,
        scene: &Scene,
        accepted: i64,
    ) -> anyhow::Result<i64> {
        let total = self.plan.users / 150;
        let campaigns = scene.campaigns(1, total).await?;
        let Some(campaign) = campaigns.first() else { anyhow::bail!("no campaign") };
        let requests = requests::coupons_again_and_again(&self.arena.bearers, *campaign)?;
        scene.settle_down().await;
        let harvest = self.storm(system.address, 256, requests).rage().await?;
        let accepted = accepted + harvest.units;
        outcomes(&scene.pool, accepted).await?;
        let issued = Prize::Coupons(campaigns).gone(&scene.pool).await?;
        ensure!(issued == total, "{issued} coupons issued of {total} in a storm for all of them");
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
        let per_second = (harvest.granted + harvest.denied) as f64 / harvest.took.as_secs_f64();
        self.note("sold_out", NAME, 256, &Settled { harvest, per_second });
        Ok(accepted)
    }

    pub(super) async fn orders(&mut self) -> anyhow::Result<()> {
        self.say("firstcome, orders");
        let scene = self.arena.scene("bench_orders").await?;
        let (system, mut accepted) = self.firstcome(&scene, true).await?;
        for connections in CONNECTIONS {
            let (requests, prize) = self.hot(SideName::SyncOrder, &scene).await?;
            let storm = self.storm(system.address, connections, requests);
            scene.settle_down().await;
            let settled = settle(&storm, &prize, &scene.pool).await?;
            accepted += settled.harvest.units;
            self.note("hot_product", NAME, connections, &settled);
        }
        let requests = requests::spread_orders(&self.arena.bearers);
        let products = Prize::Products((1..=requests::PRODUCTS).collect());
        let storm = self.storm(system.address, 256, requests);
        scene.settle_down().await;
        let settled = settle(&storm, &products, &scene.pool).await?;
        accepted += i64::try_from(settled.harvest.granted)?;
        self.note("spread_product", NAME, 256, &settled);
        system.stop().await?;
        outcomes(&scene.pool, accepted).await?;
        scene.audit(NAME).await?;
        self.arena.strike(scene).await
    }

    /// A hot coupon in a database with a history, right after the same in an empty one: machines change
    /// their pace from minute to minute.
    pub(super) async fn large(&mut self, large: &Scene) -> anyhow::Result<()> {
        let rows = self.plan.large_rows;
        self.say(format_args!("firstcome, no rows and {rows} rows in the database"));
        let empty = self.arena.scene("bench_empty").await?;
        self.hot_coupon_in(&empty, EMPTY).await?;
        self.arena.strike(empty).await?;
        self.hot_coupon_in(large, NAME).await
    }

    /// Auditing all of the history would take longer than everything else, so only the new campaign is.
    async fn hot_coupon_in(&mut self, scene: &Scene, side: &str) -> anyhow::Result<()> {
        let (system, _) = self.firstcome(scene, false).await?;
        let (settled, prize) = self.hot_coupon(&system, scene, 256, false).await?;
        self.note("large", side, 256, &settled);
        system.stop().await?;
        let Prize::Coupons(campaign) = prize else { return Ok(()) };
        let (held, highest, holders): (i64, i64, i64) = sqlx::query_as(
            "SELECT count(*), max(issue_number), count(DISTINCT user_id) FROM user_coupons
             WHERE coupon_id = ANY($1)",
        )
        .bind(campaign)
        .fetch_one(&scene.pool)
        .await?;
        ensure!(
            held == settled.harvest.units && held == highest && held == holders,
            "{} accepted, {held} coupons up to number {highest} in {holders} hands",
            settled.harvest.units
        );
        Ok(())
    }
}
