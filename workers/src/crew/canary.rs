//! Whether a line is consumed, not just connected: a line without work is sent a message that has to
//! come out.

use std::time::{Duration, Instant};

use tokio::sync::oneshot::{Receiver, error::TryRecvError};
use uuid::Uuid;

use super::control::Control;
use crate::line::report::Stats;

/// How long a line may be without work until it is sent a canary.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait for a canary to come out: then the line is connected, but not consumed.
const CANARY_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends canaries into a line and waits for them.
#[derive(Debug, Default)]
pub(crate) struct Canaries(Option<Canary>);

/// A canary under way: when it was sent, and whether the broker has it.
#[derive(Debug)]
struct Canary {
    id: Uuid,
    sent: Instant,
    confirmed: Receiver<bool>,
    in_line: bool,
}

impl Canaries {
    /// Sends one into a line that has no work, or has yet to show that it is alive. `true` when one
    /// is overdue. The broker may keep a line's late consumer for `takeover`: what was never seen
    /// alive may be that one's still.
    pub(crate) fn look(
        &mut self,
        stats: &Stats,
        control: &Control,
        queue: String,
        takeover: Duration,
    ) -> bool {
        let idle = stats.idle().unwrap_or_default();
        let is_proven = stats.is_proven();
        let timeout = if is_proven { CANARY_TIMEOUT } else { CANARY_TIMEOUT + takeover };
        let mut is_overdue = false;
        match &mut self.0 {
            _ if idle < IDLE_TIMEOUT && is_proven => self.0 = None,
            None => {
                // What came into the line before this instant comes out before it.
                let (id, sent) = (Uuid::new_v4(), Instant::now());
                let confirmed = control.canary(queue, id);
                self.0 = Some(Canary { id, sent, confirmed, in_line: false });
            }
            Some(canary) => match canary.confirmed.try_recv() {
                // Not in the line: the next one perhaps.
                Ok(false) | Err(TryRecvError::Closed) if !canary.in_line => self.0 = None,
                answer => {
                    canary.in_line |= answer == Ok(true);
                    is_overdue = canary.in_line
                        && canary.sent.elapsed() > timeout
                        && idle > IDLE_TIMEOUT + timeout;
                }
            },
        }
        stats.canary(self.0.as_ref().map(|canary| (canary.id, canary.sent)));
        is_overdue
    }
}
