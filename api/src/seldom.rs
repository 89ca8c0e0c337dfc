//! What is not to be done each time that there is a reason.

use std::time::Duration;

use tokio::time::Instant;

/// How often the log tells of the same trouble, at most.
pub(crate) const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// True once in an interval.
pub(crate) struct Seldom {
    interval: Duration,
    last: Option<Instant>,
}

impl Seldom {
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    pub(crate) fn now(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= self.interval);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}
