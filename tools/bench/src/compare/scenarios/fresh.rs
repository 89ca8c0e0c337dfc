//! A sale as its operator opens it: on a new database that PostgreSQL knows nothing about, with nothing
//! warmed up; with an `Idempotency-Key` on every request and without, orders with a coupon and without.
//!
//! What such a sale costs must not depend on whether autovacuum has come by: a plan that is made for
//! empty tables, and kept, is the plan still when they are full.

use super::backlog::{Backlog, drain};
use crate::compare::{
    databases::Database,
    load::Requests,
    plan::MOST_CONNECTIONS,
    requests::{self, HOT_PRODUCT},
    run::{FIRSTCOME, Run},
    sale::Sale,
    servers::Firstcome,
    throughput::{Goods, measure, outcomes},
};

/// The system with a key on every request.
const KEYED: &str = "firstcome-keyed";
/// The system with a coupon in every order.
const WITH_COUPON: &str = "firstcome-with-coupon";

/// A request mix.
#[derive(Debug, Clone, Copy)]
struct Mix {
    sale: Sale,
    keyed: bool,
    with_coupon: bool,
}

/// In turns: two that are compared follow each other, as machines change their pace.
const MIXES: [Mix; 5] = [
    Mix { sale: Sale::Coupons, keyed: false, with_coupon: false },
    Mix { sale: Sale::Coupons, keyed: true, with_coupon: false },
    Mix { sale: Sale::Orders, keyed: true, with_coupon: false },
    Mix { sale: Sale::Orders, keyed: false, with_coupon: false },
    Mix { sale: Sale::Orders, keyed: false, with_coupon: true },
];

impl Mix {
    const fn side(self) -> &'static str {
        match self {
            Self { with_coupon: true, .. } => WITH_COUPON,
            Self { keyed: true, .. } => KEYED,
            Self { .. } => FIRSTCOME,
        }
    }

    const fn scenario(self) -> &'static str {
        match self.sale {
            Sale::Coupons => "fresh_coupon",
            Sale::Orders => "fresh_order",
        }
    }
}

/// A mix's requests on its database.
struct Asked {
    requests: Requests,
    goods: Goods,
    /// Outcomes that are there before.
    settled: i64,
}

/// Each mix on databases of its own.
pub(super) async fn fresh(run: &mut Run<'_>) -> anyhow::Result<()> {
    let mut mixes = MIXES;
    // Nobody is always the first.
    if run.round.is_multiple_of(2) {
        mixes.reverse();
    }
    for mix in mixes {
        fresh_sale(run, mix).await?;
    }
    for mix in mixes {
        fresh_drain(run, mix).await?;
    }
    Ok(())
}

async fn fresh_sale(run: &mut Run<'_>, mix: Mix) -> anyhow::Result<()> {
    let database = run.databases.fresh("bench_fresh_sale").await?;
    let asked = asked(run, mix, &database, run.plan.users).await?;
    let system = Firstcome::start(&database).await?;
    let load = run.load(system.address, MOST_CONNECTIONS, asked.requests);
    database.settle_down().await;
    let throughput = measure(&load, &asked.goods, &database.pool).await?;
    database.is_fresh().await?;
    run.note(mix.scenario(), mix.side(), MOST_CONNECTIONS, &throughput);
    outcomes(&database.pool, asked.settled + throughput.answered.units).await?;
    close(run, database, system).await
}

async fn fresh_drain(run: &mut Run<'_>, mix: Mix) -> anyhow::Result<()> {
    let database = run.databases.fresh("bench_fresh_drain").await?;
    let jobs = run.plan.fresh_backlog;
    let asked = asked(run, mix, &database, i64::try_from(jobs)?).await?;
    // They declare the lines; not a single job is theirs.
    let system = Firstcome::start(&database).await?.stop_workers().await?;
    let backlog = Backlog { jobs, requests: asked.requests, settled: asked.settled };
    let (system, drained) = drain(run, &database, system, backlog).await?;
    database.is_fresh().await?;
    run.note_backlog(&format!("drain_{}", mix.scenario()), mix.side(), &drained);
    close(run, database, system).await
}

/// The requests of at least so many users.
async fn asked(run: &Run<'_>, mix: Mix, database: &Database, users: i64) -> anyhow::Result<Asked> {
    let bearers = &run.databases.bearers;
    let (requests, goods, settled) = match mix.sale {
        Sale::Coupons => {
            let campaign = vec![database.campaign().await?];
            (requests::coupons(bearers, &campaign)?, Goods::Coupons(campaign), 0)
        }
        Sale::Orders => {
            let (campaign, settled) = if mix.with_coupon {
                (Some(database.campaign_of_holders(users).await?), users)
            } else {
                (None, 0)
            };
            let goods = Goods::Products(vec![HOT_PRODUCT]);
            (requests::hot_orders(bearers, campaign), goods, settled)
        }
    };
    let requests =
        if mix.keyed { requests::keyed(requests, usize::try_from(users)?)? } else { requests };
    Ok(Asked { requests, goods, settled })
}

async fn close(run: &Run<'_>, database: Database, system: Firstcome) -> anyhow::Result<()> {
    system.stop().await?;
    database.analyze().await?;
    database.audit(FIRSTCOME).await?;
    run.databases.delete(database).await
}
