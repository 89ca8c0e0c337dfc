//! What is measured, and in which order.

mod backlog;
mod cold_start;
mod coupons;
mod fleet;
mod fresh;
mod growth;
mod idle;
mod large;
mod latency;
mod mixed;
mod orders;
mod redis_lua;
mod rivals;
mod streams;

use super::{plan::Part, run::Run};
use crate::rivals::Rival;

/// Measures these parts, or all that take no hour if there are none: the searches and what is measured once, then the
/// rounds.
pub(super) async fn measure(run: &mut Run<'_>, only: &[Part]) -> anyhow::Result<()> {
    let wanted = |part: Part| only.is_empty() || only.contains(&part);
    if wanted(Part::RedisLua) {
        redis_lua::can_start()?;
    }
    if wanted(Part::Rivals) {
        rivals::search(run).await?;
    }
    if wanted(Part::Idle) {
        idle::idle(run).await?;
    }
    let cold = if wanted(Part::ColdStart) {
        let users = run.databases.bearers_of(run.plan.cold_users);
        Some(run.screen.during("creating more tokens", users).await?)
    } else {
        None
    };
    let large = if wanted(Part::Large) { Some(large::fill(run).await?) } else { None };
    let grown = if only.contains(&Part::Growth) { Some(growth::fill(run).await?) } else { None };
    let mut rivals = [Rival::Pessimistic, Rival::Optimistic, Rival::RedisLock, Rival::Atomic];
    let mut redis_luas = [Rival::RedisLuaEverysec, Rival::RedisLuaAlways];
    for round in 1..=run.plan.rounds {
        run.round = round;
        if wanted(Part::Rivals) {
            for rival in rivals {
                rivals::rival(run, rival).await?;
            }
            // Nobody is always the first.
            rivals.rotate_left(1);
        }
        if wanted(Part::RedisLua) {
            for rival in redis_luas {
                redis_lua::redis_lua(run, rival).await?;
            }
            redis_luas.rotate_left(1);
        }
        if wanted(Part::Floors) {
            rivals::rival(run, Rival::Publish).await?;
            rivals::rival(run, Rival::Hello).await?;
        }
        if wanted(Part::Coupons) {
            coupons::coupons(run).await?;
        }
        if wanted(Part::Rivals) {
            rivals::rival(run, Rival::SyncOrder).await?;
        }
        if wanted(Part::Orders) {
            orders::orders(run).await?;
        }
        if wanted(Part::Backlogs) {
            backlog::backlogs(run).await?;
        }
        if wanted(Part::Fresh) {
            fresh::fresh(run).await?;
        }
        if let Some(bearers) = &cold {
            cold_start::cold_start(run, bearers).await?;
        }
        if wanted(Part::Mixed) {
            mixed::mixed(run).await?;
        }
        if wanted(Part::Streams) {
            streams::streams(run).await?;
        }
        if wanted(Part::Fleet) {
            fleet::fleet(run).await?;
        }
        if let Some(large) = &large {
            large::large(run, large).await?;
        }
        if let Some(grown) = &grown {
            growth::growth(run, grown).await?;
        }
    }
    if let Some(grown) = grown {
        growth::purged(run, grown).await?;
    }
    match large {
        Some(large) => run.databases.delete(large).await,
        None => Ok(()),
    }
}
