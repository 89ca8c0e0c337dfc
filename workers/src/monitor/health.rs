//! Whether a role does its work. Being connected proves nothing: a role is well for some time after
//! it got something done, or saw that there is nothing to do; then it has to prove it again.

use std::{
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

/// Until when a role counts as ready, and why it may not be.
#[derive(Debug)]
pub struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    well_until: Instant,
    /// Why the role is not ready, once that instant has passed.
    doubt: String,
    /// An operator has halted what the role serves.
    is_halted: bool,
}

/// What `/health/ready` says of a role.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The role's name, which is that of its command.
    pub role: &'static str,
    /// Whether it does its work.
    pub ready: bool,
    /// An operator has halted what it serves: it is ready to go on.
    pub halted: bool,
    /// Why it does not, and for how many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        let doubt = "not connected to the broker yet".to_owned();
        Self(Mutex::new(State { well_until: Instant::now(), doubt, is_halted: false }))
    }
}

impl Health {
    /// Notes that the role got something done, or has nothing to do: it counts as ready for this period.
    pub fn well(&self, period: Duration) {
        let mut state = self.lock();
        state.well_until = Instant::now() + period;
        "no progress".clone_into(&mut state.doubt);
    }

    /// Notes that something is wrong, which may pass by itself: it counts when the role is not well in time.
    pub fn doubt(&self, reason: impl Display) {
        self.lock().doubt = reason.to_string();
    }

    /// Notes that something is wrong: the role is not ready until it is well again.
    pub fn ails(&self, reason: impl Display) {
        let mut state = self.lock();
        state.well_until = Instant::now();
        state.doubt = reason.to_string();
    }

    /// Notes whether an operator has halted what the role serves.
    pub fn is_halted(&self, is_halted: bool) {
        self.lock().is_halted = is_halted;
    }

    pub(super) fn report(&self, role: &'static str) -> Report {
        let state = self.lock();
        let overdue = state.well_until.elapsed();
        let ready = Instant::now() < state.well_until;
        let reason = (!ready).then(|| format!("{} (for {} s)", state.doubt, overdue.as_secs()));
        Report { role, ready, halted: state.is_halted, reason }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_well_for_a_while_only() {
        let health = Health::default();
        assert!(!health.report("role").ready);
        health.well(Duration::from_secs(60));
        health.doubt("the database is away");
        assert!(health.report("role").ready && health.report("role").reason.is_none());
        health.well(Duration::ZERO);
        health.doubt("the database is away");
        let report = health.report("role");
        assert_eq!(report.reason.as_deref(), Some("the database is away (for 0 s)"));
        health.well(Duration::from_secs(60));
        health.ails("the connection is lost");
        assert!(!health.report("role").ready);
    }
}
