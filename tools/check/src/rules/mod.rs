//! What must hold: each rule is a function of what was seen.

mod case;
mod coupons;
mod events;
mod jobs;
mod lines;
mod money;
mod products;
mod refusals;

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::{history::History, report::Report, stored::Stored};

/// All rules.
pub(crate) fn all(
    history: &History,
    opening: &Stored,
    stored: &Stored,
    delivered: &BTreeSet<Uuid>,
) -> Report {
    let case = case::Case::new(history, opening, stored, delivered);
    let mut verdicts = vec![
        jobs::accepted(&case),
        jobs::told(&case),
        jobs::asked(&case),
        jobs::keys(&case),
        jobs::failed(&case),
        coupons::issued(&case),
        products::stocks(&case),
        products::limits(&case),
        money::balances(&case),
        events::statistics(&case),
        events::delivered(&case),
        lines::order(&case),
        lines::liveness(&case),
    ];
    verdicts.extend(refusals::all(&case));
    Report { verdicts }
}
