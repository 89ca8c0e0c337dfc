//! What the rules look at: the history and the database, put together.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    history::{End, History, Item, Operation, Request, State},
    stored::{Job, Stored},
};

/// How far the clock of the clients and that of the database may be apart.
pub(super) const CLOCKS: TimeDelta = TimeDelta::seconds(2);
/// Within which time every process knows of an edit; and how long that takes at most after a fault.
const EDITS_KNOWN: TimeDelta = TimeDelta::seconds(2);
const EDITS_KNOWN_LATE: TimeDelta = TimeDelta::seconds(30);

/// All there is to look at.
pub(super) struct Case<'a> {
    pub(super) history: &'a History,
    pub(super) opening: &'a Stored,
    pub(super) stored: &'a Stored,
    pub(super) delivered: &'a BTreeSet<Uuid>,
    /// The jobs that were accepted.
    pub(super) asked: BTreeMap<Uuid, Asked<'a>>,
    /// What the jobs of the sale did.
    pub(super) effects: Vec<Effect>,
    /// The totals that were set, by campaign.
    pub(super) edits: BTreeMap<i64, Vec<Change>>,
    /// When a client was first told that a job is settled.
    pub(super) told: BTreeMap<Uuid, DateTime<Utc>>,
}

/// An accepted job.
pub(super) struct Asked<'a> {
    pub(super) user: i64,
    pub(super) request: &'a Request,
    /// When it was first sent, as far as it may have arrived then.
    pub(super) invoked: DateTime<Utc>,
    /// When it was first said to be accepted.
    pub(super) accepted: DateTime<Utc>,
    /// Those that were answered with it.
    pub(super) operations: Vec<&'a Operation>,
}

/// What a job did, as the request that asks for just that.
pub(super) struct Effect {
    /// None where no job is known that did it.
    pub(super) job: Option<Uuid>,
    /// Who got it; none where anybody may have asked for it.
    pub(super) user: Option<i64>,
    pub(super) what: Request,
    /// For people.
    pub(super) name: String,
}

/// A change that was asked for, however often: operations that share a key are one.
pub(super) struct Change {
    pub(super) amount: i64,
    pub(super) invoked: DateTime<Utc>,
    /// When it was certain; none if it may never have happened.
    pub(super) done: Option<DateTime<Utc>>,
}

/// Amounts at moments, added up.
#[derive(Default)]
pub(super) struct Sums(Vec<(DateTime<Utc>, i64)>);

impl Sums {
    fn of(mut amounts: Vec<(DateTime<Utc>, i64)>) -> Self {
        amounts.sort_unstable();
        let mut sum = 0;
        for (_, amount) in &mut amounts {
            sum += *amount;
            *amount = sum;
        }
        Self(amounts)
    }

    /// The sum of each key's amounts.
    pub(super) fn by<K: Ord>(
        amounts: impl Iterator<Item = (K, DateTime<Utc>, i64)>,
    ) -> BTreeMap<K, Self> {
        let mut all: BTreeMap<K, Vec<(DateTime<Utc>, i64)>> = BTreeMap::new();
        for (key, at, amount) in amounts {
            all.entry(key).or_default().push((at, amount));
        }
        all.into_iter().map(|(key, amounts)| (key, Self::of(amounts))).collect()
    }

    /// What came up to this moment, with it.
    pub(super) fn until(&self, at: DateTime<Utc>) -> i64 {
        self.first(self.0.partition_point(|(then, _)| *then <= at))
    }

    /// What came before this moment.
    pub(super) fn before(&self, at: DateTime<Utc>) -> i64 {
        self.first(self.0.partition_point(|(then, _)| *then < at))
    }

    fn first(&self, count: usize) -> i64 {
        count.checked_sub(1).and_then(|last| self.0.get(last)).map_or(0, |(_, sum)| *sum)
    }
}

/// By product, each once.
pub(super) fn merged(items: impl IntoIterator<Item = Item>) -> Vec<Item> {
    let mut quantities: BTreeMap<i64, i64> = BTreeMap::new();
    for Item { product, quantity } in items {
        *quantities.entry(product).or_default() += quantity;
    }
    quantities.into_iter().map(|(product, quantity)| Item { product, quantity }).collect()
}

impl<'a> Case<'a> {
    pub(super) fn new(
        history: &'a History,
        opening: &'a Stored,
        stored: &'a Stored,
        delivered: &'a BTreeSet<Uuid>,
    ) -> Self {
        let mut told = BTreeMap::new();
        for (job, polls) in &history.polls {
            let settled = polls.iter().filter(|poll| matches!(poll.state, State::Settled(_)));
            told.extend(settled.map(|poll| poll.at).min().map(|at| (*job, at)));
        }
        let (asked, effects) = (asked(history), effects(opening, stored));
        let edits = changes(history, |operation| {
            let Request::SetTotal { coupon, total } = operation.request else { return None };
            Some((coupon, total))
        });
        Self { history, opening, stored, delivered, asked, effects, edits, told }
    }

    /// The jobs that were decided in the sale.
    pub(super) fn decided(&self) -> impl Iterator<Item = (Uuid, &'a Job)> {
        let jobs = self.stored.jobs.iter();
        jobs.filter(|(id, _)| !self.opening.jobs.contains_key(id)).map(|(id, job)| (*id, job))
    }

    /// When a cancellation was decided. What locks what it gave back later than this sees it.
    pub(super) fn cancelled(&self, order: i64) -> Option<DateTime<Utc>> {
        let cancellation = self.stored.cancellations.get(&order)?;
        let job = self.stored.jobs.get(&cancellation.job);
        // Without its outcome, the only instant that is known.
        Some(job.map_or(cancellation.cancelled_at, |job| job.outcome.settled_at))
    }

    /// Since when an answer that was given before the line may be true no more: an edit is known to every process within
    /// a time, and nobody knows when in a fault.
    pub(super) fn known_since(&self, operation: &Operation) -> DateTime<Utc> {
        let late = operation.invoked - EDITS_KNOWN_LATE;
        let mut faults = self.history.faults.iter();
        let is_faulty = faults.any(|(begin, end)| *begin <= operation.ended && late <= *end);
        let since = operation.invoked - EDITS_KNOWN - CLOCKS;
        if is_faulty { DateTime::<Utc>::MIN_UTC } else { since }
    }
}

/// The changes of a kind that may have happened, by what they change.
pub(super) fn changes(
    history: &History,
    pick: impl Fn(&Operation) -> Option<(i64, i64)>,
) -> BTreeMap<i64, Vec<Change>> {
    let mut changes: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    for group in groups(history).into_values() {
        let happened = group.iter().filter(|operation| operation.may_have_happened());
        let Some(first) = happened.min_by_key(|operation| operation.invoked) else { continue };
        let Some((subject, amount)) = pick(first) else { continue };
        let certain = group.iter().filter(|operation| matches!(operation.end, End::Ok(_)));
        let done = certain.map(|operation| operation.ended).min();
        changes.entry(subject).or_default().push(Change { amount, invoked: first.invoked, done });
    }
    changes
}

/// The charges that may have happened, by user.
pub(super) fn charges(history: &History) -> BTreeMap<i64, Vec<Change>> {
    changes(history, |operation| {
        let Request::Charge { amount } = operation.request else { return None };
        Some((operation.user, amount))
    })
}

/// The additions to stocks that may have happened, by product.
pub(super) fn additions(history: &History) -> BTreeMap<i64, Vec<Change>> {
    changes(history, |operation| {
        let Request::AddStock { product, delta } = operation.request else { return None };
        Some((product, delta))
    })
}

type Group<'a> = (i64, &'static str, Result<&'a str, u64>);

/// Operations that share a key, and those without one each for itself.
pub(super) fn groups(history: &History) -> BTreeMap<Group<'_>, Vec<&Operation>> {
    let mut groups: BTreeMap<Group<'_>, Vec<&Operation>> = BTreeMap::new();
    for operation in history.operations.values() {
        let key = operation.key.as_deref().ok_or(operation.id);
        groups.entry((operation.user, operation.request.kind(), key)).or_default().push(operation);
    }
    groups
}

fn asked(history: &History) -> BTreeMap<Uuid, Asked<'_>> {
    let mut asked: BTreeMap<Uuid, Asked<'_>> = BTreeMap::new();
    for group in groups(history).into_values() {
        let happened = group.iter().filter(|operation| operation.may_have_happened());
        let Some(first) = happened.map(|operation| operation.invoked).min() else { continue };
        for operation in group {
            let Some(job) = operation.job() else { continue };
            let entry = asked.entry(job).or_insert_with(|| Asked {
                user: operation.user,
                request: &operation.request,
                invoked: first,
                accepted: operation.ended,
                operations: Vec::new(),
            });
            entry.accepted = entry.accepted.min(operation.ended);
            entry.operations.push(operation);
        }
    }
    asked
}

fn effects(opening: &Stored, stored: &Stored) -> Vec<Effect> {
    let issued = stored.jobs.iter().filter(|(_, job)| job.replay_of.is_none());
    let issued =
        issued.filter_map(|(id, job)| Some((job.outcome.coupon()?.user_coupon_id.get(), *id)));
    let issued: BTreeMap<i64, Uuid> = issued.collect();
    let known: BTreeSet<i64> = opening.holders.iter().map(|holder| holder.id).collect();
    let coupons = stored.holders.iter().filter(|holder| !known.contains(&holder.id));
    let coupons = coupons.map(|holder| Effect {
        job: issued.get(&holder.id).copied(),
        user: Some(holder.user),
        what: Request::IssueCoupon { coupon: holder.coupon },
        name: format!("coupon {} number {} of user {}", holder.coupon, holder.number, holder.user),
    });
    let orders = stored.orders.iter().filter(|(id, _)| !opening.orders.contains_key(id));
    let orders = orders.map(|(id, order)| Effect {
        job: Some(order.job),
        user: Some(order.user),
        what: Request::PlaceOrder {
            items: merged(order.items.iter().chain(&order.dropped).copied()),
            coupon: order.coupon,
            partial: !order.dropped.is_empty(),
        },
        name: format!("order {id} of user {}", order.user),
    });
    let undone = stored.cancellations.values();
    let undone = undone.filter(|undone| !opening.cancellations.contains_key(&undone.order));
    let undone = undone.map(|undone| Effect {
        job: Some(undone.job),
        user: None,
        what: Request::CancelOrder { order: undone.order },
        name: format!("the cancellation of order {}", undone.order),
    });
    coupons.chain(orders).chain(undone).collect()
}
