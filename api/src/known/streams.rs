//! How many streams of events there may be, and the one clock of all of them.

use std::{sync::Arc, time::Duration};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// How often a stream looks whether it has something to tell.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Bounds the streams: each holds a connection for minutes, which polls need, too.
#[derive(Debug)]
pub struct Streams {
    limit: usize,
    free: Arc<Semaphore>,
    ticks: watch::Receiver<()>,
    refused: Counter,
}

/// One stream's share; given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    ticks: watch::Receiver<()>,
}

impl Streams {
    /// At most so many, until `stop`.
    #[must_use]
    pub fn start(limit: usize, stop: CancellationToken) -> Self {
        let (clock, ticks) = watch::channel(());
        let ticking = async move {
            let mut interval = interval(TICK_INTERVAL);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                clock.send_replace(());
            }
        };
        // The clock is dropped with it: that is how the streams learn of the end.
        tokio::spawn(stop.run_until_cancelled_owned(ticking));
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { limit, free: Arc::new(Semaphore::new(limit)), ticks, refused: Counter::default() }
    }

    /// Takes a share; `None`, which is counted, if there is none left.
    #[must_use]
    pub fn open(&self) -> Option<Slot> {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            self.refused.inc();
            return None;
        };
        Some(Slot { _permit: permit, ticks: self.ticks.clone() })
    }

    /// How many are open at present.
    #[must_use]
    pub fn count(&self) -> usize {
        self.limit - self.free.available_permits()
    }

    /// How many there may be.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// How many were refused since the start, for that limit.
    #[must_use]
    pub const fn refused(&self) -> &Counter {
        &self.refused
    }
}

impl Slot {
    /// Waits for the next tick; whether there is one, else the process stops.
    pub async fn tick(&mut self) -> bool {
        self.ticks.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_are_so_many_until_one_goes_and_all_hear_of_the_end() {
        let stop = CancellationToken::new();
        let streams = Streams::start(1, stop.clone());
        let mut first = streams.open().unwrap();
        assert!(streams.open().is_none());
        assert_eq!((streams.count(), streams.refused().get()), (1, 1));
        assert!(first.tick().await);
        stop.cancel();
        while first.tick().await {}
        drop(first);
        assert!(streams.open().is_some());
    }
}
