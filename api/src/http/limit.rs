//! So many requests per second and caller, or address of those whom no token names: one that runs wild must not slow
//! the others down.
//!
//! Counted by each process alone; a fleet of them admits that many times more.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    extract::{FromRef, FromRequestParts},
    http::request::Parts,
};
use firstcome_contract::ids::UserId;
use governor::{
    NotUntil, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::DashMapStateStore,
};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::{
    address::{self, Peer, Source},
    problem::{Code, Problem},
    slots::Slots,
};
use crate::config::Network;

/// How often callers that did not ask for long are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// How many addresses have an allowance of their own, about; half a MiB. Of more, some share one.
const ADDRESSES: usize = 1 << 16;

type Callers = RateLimiter<UserId, DashMapStateStore<UserId>, DefaultClock>;
type Addresses = RateLimiter<Source, Slots<Source>, DefaultClock>;

/// How much is admitted.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    /// Requests per second of a caller, and as many at once; 0 for any number.
    pub caller: u32,
    /// The same of an address, without a valid token.
    pub address: u32,
    /// Who is believed in what address is before it.
    pub proxies: Vec<Network>,
}

/// Admits requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Limiter(Option<Arc<Limits>>);

#[derive(Debug)]
struct Limits {
    callers: Option<Callers>,
    addresses: Option<Addresses>,
    proxies: Vec<Network>,
}

impl Limiter {
    /// Admits everything.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self(None)
    }

    /// Admits as much as these rates say. Forgets callers until `stop`.
    #[must_use]
    pub fn start(rates: Rates, stop: &CancellationToken) -> Self {
        let quota = |rate| NonZeroU32::new(rate).map(Quota::per_second);
        let limits = Arc::new(Limits {
            callers: quota(rates.caller).map(Callers::dashmap),
            addresses: quota(rates.address)
                .map(|quota| Addresses::new(quota, Slots::new(ADDRESSES), DefaultClock::default())),
            proxies: rates.proxies,
        });
        let forgetting = {
            let limits = Arc::clone(&limits);
            async move {
                let Some(callers) = &limits.callers else { return };
                let mut ticks = interval(FORGET_INTERVAL);
                loop {
                    ticks.tick().await;
                    callers.retain_recent();
                    callers.shrink_to_fit();
                }
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(forgetting));
        Self(Some(limits))
    }

    /// Counts a request of this caller.
    ///
    /// # Errors
    /// 429, with when to come back.
    pub fn admit(&self, caller: UserId) -> Result<(), Problem> {
        let Some(callers) = self.0.as_ref().and_then(|limits| limits.callers.as_ref()) else {
            return Ok(());
        };
        callers.check_key(&caller).map_err(|until| limited(Problem::new(Code::RateLimited), &until))
    }

    /// Counts a request that names no caller, by the address that it comes from. What takes a token is never counted here
    /// if that is good, so who shares an address with somebody wild can go on buying.
    ///
    /// # Errors
    /// 429, with when to come back.
    pub(crate) fn admit_stranger(&self, request: &Parts) -> Result<(), Problem> {
        let Some(limits) = &self.0 else { return Ok(()) };
        let (Some(addresses), Some(Peer(peer))) =
            (&limits.addresses, request.extensions.get::<Peer>())
        else {
            return Ok(());
        };
        let Some(address) = address::of(*peer, &request.headers, &limits.proxies) else {
            return Ok(());
        };
        addresses.check_key(&address.into()).map_err(|until| {
            let detail = "Too many requests without a valid token come from this address.";
            limited(Problem::with_detail(Code::RateLimited, detail), &until)
        })
    }
}

fn limited(problem: Problem, until: &NotUntil<<DefaultClock as Clock>::Instant>) -> Problem {
    let wait = until.wait_time_from(DefaultClock::default().now());
    problem.retry_after(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

/// Anybody, counted by address: who reads what needs no token.
#[derive(Debug)]
pub struct Anyone;

impl<S> FromRequestParts<S> for Anyone
where
    S: Send + Sync,
    Limiter: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Limiter::from_ref(state).admit_stranger(parts).map(|()| Self)
    }
}
