//! So many requests per second and caller: one that runs wild must not slow the others down.
//!
//! Counted by each process alone; a fleet of them admits that many times more.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use firstcome_contract::ids::UserId;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::DashMapStateStore,
};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::problem::{Code, Problem};

/// How often callers that did not ask for long are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

type Callers = RateLimiter<UserId, DashMapStateStore<UserId>, DefaultClock>;

/// Admits requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Limiter(Option<Arc<Callers>>);

impl Limiter {
    /// Admits everything.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self(None)
    }

    /// Admits so many requests per second and caller, and as many at once; 0 admits everything.
    /// Forgets callers until `stop`.
    #[must_use]
    pub fn start(per_second: u32, stop: &CancellationToken) -> Self {
        let Some(per_second) = NonZeroU32::new(per_second) else { return Self(None) };
        let callers = Arc::new(Callers::dashmap(Quota::per_second(per_second)));
        let forgetting = {
            let callers = Arc::clone(&callers);
            async move {
                let mut ticks = interval(FORGET_INTERVAL);
                loop {
                    ticks.tick().await;
                    callers.retain_recent();
                    callers.shrink_to_fit();
                }
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(forgetting));
        Self(Some(callers))
    }

    /// Counts a request of this caller.
    ///
    /// # Errors
    /// 429, with when to come back.
    pub fn admit(&self, caller: UserId) -> Result<(), Problem> {
        let Some(callers) = &self.0 else { return Ok(()) };
        callers.check_key(&caller).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Problem::new(Code::RateLimited).retry_after(seconds)
        })
    }
}
