//! Jobs: one outcome each, told as it is, of what somebody asked for.

use std::collections::{BTreeMap, BTreeSet};

use firstcome_contract::{failure::Failure, job::Status};
use firstcome_rig::answers::Outcome;
use uuid::Uuid;

use super::case::{Case, Effect, groups, merged};
use crate::{
    history::{Operation, Request, State},
    report::Verdict,
};

/// A job id stands for one request: operations that were answered with the same share their key. That an outcome
/// is stored once is the database's primary key.
pub(super) fn accepted(case: &Case<'_>) -> Verdict {
    let mut violations = Vec::new();
    for (job, asked) in &case.asked {
        if !case.stored.jobs.contains_key(job) {
            violations.push(format!("job {job} of user {} has no outcome", asked.user));
        }
        let whose = |operation: &&Operation| {
            (operation.user, operation.request.kind(), operation.key.clone().ok_or(operation.id))
        };
        let askers: BTreeSet<_> = asked.operations.iter().map(whose).collect();
        if askers.len() > 1 {
            violations.push(format!("job {job} was given for {} requests", askers.len()));
        }
    }
    Verdict::new("every 202 has exactly one outcome", case.asked.len(), violations)
}

/// Of answers that overlap, either may be the older one. A failed job that was redriven may be told anew.
pub(super) fn told(case: &Case<'_>) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    for (job, polls) in &case.history.polls {
        let stored = case.stored.jobs.get(job);
        let settled = case.told.get(job);
        let accepted = case.asked.get(job).map(|asked| asked.accepted);
        for poll in polls {
            checked += 1;
            let is_after = settled.is_some_and(|settled| *settled < poll.asked);
            let false_one = match &poll.state {
                State::Queued { .. } if is_after => "queued after it was settled".to_owned(),
                State::Missing { status }
                    if is_after || accepted.is_some_and(|accepted| accepted < poll.asked) =>
                {
                    format!("missing ({status}) after it was accepted")
                }
                State::Settled(outcome) => {
                    let is_redriven = stored.is_some_and(|stored| stored.redriven)
                        && outcome.status == Status::Failed.as_str();
                    if is_redriven || stored.is_some_and(|stored| stored.outcome == *outcome) {
                        continue;
                    }
                    let stored = stored.map_or("nothing", |stored| stored.outcome.name());
                    format!("{} where {stored} is stored", outcome.name())
                }
                State::Queued { .. } | State::Missing { .. } => continue,
            };
            violations.push(format!("job {job} was told as {false_one}"));
        }
    }
    Verdict::new("what the polls told stays told, and is what is stored", checked, violations)
}

/// Whether the request asks for what was done.
fn fits(request: &Request, effect: &Request) -> bool {
    match (request, effect) {
        (
            Request::PlaceOrder { items, coupon, partial },
            Request::PlaceOrder { items: got, coupon: used, partial: is_dropped },
        ) => merged(items.iter().copied()) == *got && coupon == used && (*partial || !is_dropped),
        _ => request == effect,
    }
}

/// Of jobs that no answer told of there are at most as many as requests of this user and kind that are in doubt, and what
/// they did is what one of these asked for: which one, the answer would have said.
pub(super) fn asked(case: &Case<'_>) -> Verdict {
    let mut violations = Vec::new();
    let operations = case.history.operations.values();
    let mut in_doubt: BTreeMap<(i64, &str), Vec<&Request>> = BTreeMap::new();
    for operation in operations.filter(|operation| operation.is_in_doubt()) {
        let of = (operation.user, operation.request.kind());
        in_doubt.entry(of).or_default().push(&operation.request);
    }
    let mut foreign: BTreeMap<(i64, &str), usize> = BTreeMap::new();
    for (id, job) in case.decided() {
        match case.asked.get(&id) {
            None => *foreign.entry((job.user, &job.kind)).or_default() += 1,
            Some(asked) if (asked.user, asked.request.kind()) != (job.user, &job.kind) => {
                violations.push(format!("job {id} is {} of user {}", job.kind, job.user));
            }
            Some(_) => {}
        }
    }
    for ((user, kind), jobs) in foreign {
        let possible = in_doubt.get(&(user, kind)).map_or(0, Vec::len);
        if jobs > possible {
            let what = format!("{jobs} jobs {kind} of user {user} that no answer told of");
            violations.push(format!("{what}, {possible} in doubt"));
        }
    }
    for effect in &case.effects {
        violations.extend(unasked(case, &mut in_doubt, effect));
    }
    let checked = case.decided().count() + case.effects.len();
    Verdict::new("every outcome and every effect was asked for", checked, violations)
}

/// Why nobody can have asked for this.
fn unasked(
    case: &Case<'_>,
    in_doubt: &mut BTreeMap<(i64, &str), Vec<&Request>>,
    Effect { job, user, what, name }: &Effect,
) -> Option<String> {
    let Some((id, job)) = job.and_then(|id| Some((id, case.stored.jobs.get(&id)?))) else {
        return Some(format!("{name} is of no job"));
    };
    if job.outcome.status != Status::Succeeded.as_str() {
        return Some(format!("{name} is of job {id}, which was told as {}", job.outcome.name()));
    }
    if user.is_some_and(|user| user != job.user) {
        return Some(format!("{name} is of job {id} of user {}", job.user));
    }
    if let Some(asked) = case.asked.get(&id) {
        let is_asked = fits(asked.request, what);
        return (!is_asked).then(|| format!("{name} is not what job {id} asked for"));
    }
    let waiting = in_doubt.get_mut(&(job.user, what.kind()));
    // The one that fits exactly first: others may fit what only they can.
    let found = waiting.as_ref().and_then(|waiting| {
        let exact = waiting.iter().position(|request| *request == what);
        exact.or_else(|| waiting.iter().position(|request| fits(request, what)))
    });
    match (waiting, found) {
        (Some(waiting), Some(found)) => {
            waiting.swap_remove(found);
            None
        }
        _ => Some(format!("{name} is of job {id}, which nobody asked for")),
    }
}

/// Repetitions get the first one's outcome. Of charges, the balance tells.
pub(super) fn keys(case: &Case<'_>) -> Verdict {
    let mut jobs: BTreeMap<(i64, &str, &str), BTreeSet<Uuid>> = BTreeMap::new();
    for ((user, kind, key), group) in groups(case.history) {
        let Ok(key) = key else { continue };
        jobs.entry((user, kind, key)).or_default().extend(group.iter().filter_map(|one| one.job()));
    }
    for (id, job) in case.decided() {
        let Some(key) = &job.key else { continue };
        jobs.entry((job.user, &job.kind, key)).or_default().insert(id);
    }
    let did: BTreeSet<Uuid> = case.effects.iter().filter_map(|effect| effect.job).collect();
    let mut violations = Vec::new();
    for ((user, kind, key), jobs) in &jobs {
        let effects = jobs.intersection(&did).count();
        let results =
            jobs.iter().filter_map(|job| case.stored.jobs.get(job)?.outcome.result.as_ref());
        let results: Vec<_> = results.collect();
        if effects > 1 || results.windows(2).any(|pair| pair.first() != pair.last()) {
            let what = format!("{kind} of user {user} with key {key}");
            violations.push(format!("{what}: {effects} effects of {} jobs", jobs.len()));
        }
    }
    Verdict::new("a key has one effect", jobs.len(), violations)
}

/// Sales that are checked contain nothing that could not be processed. What stood in a line when that was emptied is
/// lost, and says so.
pub(super) fn failed(case: &Case<'_>) -> Verdict {
    let is_excused = |id: &Uuid, outcome: &Outcome| {
        let waited = case.asked.get(id).map(|asked| asked.invoked..=outcome.settled_at);
        outcome.code.as_deref() == Some(Failure::Lost.code())
            && waited.is_some_and(|waited| case.history.purged.iter().any(|at| waited.contains(at)))
    };
    let failed = case.decided().filter(|(id, job)| {
        job.outcome.status == Status::Failed.as_str() && !is_excused(id, &job.outcome)
    });
    let mut violations: Vec<String> =
        failed.map(|(id, job)| format!("job {id} failed: {}", job.outcome.name())).collect();
    let known = case.opening.dead_letters.len();
    let letters = case.stored.dead_letters.iter().skip(known);
    violations.extend(letters.map(|letter| format!("dead letter of {letter}")));
    let checked = case.decided().count() + case.stored.dead_letters.len();
    Verdict::new("no job failed, nothing was dead-lettered", checked, violations)
}
