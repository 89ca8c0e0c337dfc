//! What waits for one line, and when it may leave.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use chrono::{DateTime, Utc};
use firstcome_broker::publish::{Address, ConfirmedPublisher, MessageType};
use firstcome_contract::{job::envelope, line::Line};
use tokio::{sync::oneshot, time::Instant};

use super::Refusal;

/// Submissions that may wait for one line; beyond it they are refused, and those for others are not.
const LINE_BACKLOG: usize = 8_192;
/// When who is refused for that should come back: one line takes some ten thousand jobs a second.
const BACKLOG_SECONDS: u64 = 1;
/// Parcels of one line under way at once. While they are, submissions gather and share the next
/// one; two keep the broker busy while a confirm travels.
const PARCELS_PER_LINE: usize = 2;
/// With so many jobs a parcel is no longer small: its message costs little for each of them.
const ENOUGH: usize = 32;
/// With so many bytes a parcel is full, too, but for the last job: the largest orders are a hundred times as large as a
/// coupon's job, and what the broker pushes ahead to a worker is counted in parcels.
const ENOUGH_BYTES: usize = 64 * 1024;
/// How long after the last parcel of its line a small one leaves. A parcel costs the
/// broker and both ends of its connections nearly as much with one job as with many: without a
/// pace, a quarter of the load that a machine can bear keeps all of it busy with small ones. Who comes
/// into a quiet line is sent at once.
const PARCEL_INTERVAL: Duration = Duration::from_millis(3);
/// How many busy lines share that pace; with more of them each is slower in proportion, up to a bound: what
/// costs is how many parcels there are in all.
const LINES_AT_A_PACE: usize = 4;
/// How much slower a line gets by its neighbours.
const MAX_SLOWDOWN: u32 = 4;
/// Parcels whose time comes so soon leave with one that leaves now: they share its way.
const NEARLY: Duration = Duration::from_millis(1);
/// How long parcels may come back because of a change of the routing: this process hears of it within a
/// second.
const ROUTING_TIMEOUT: Duration = Duration::from_secs(2);

/// A job that is to be published, and who waits for it.
#[derive(Debug)]
pub struct Submission {
    pub(super) line: Line,
    /// When it was submitted, unless it stands in its line already.
    pub(super) came_at: Option<DateTime<Utc>>,
    /// The job as a line of JSON, as it goes over the wire.
    pub(super) record: Vec<u8>,
    pub(super) answer: oneshot::Sender<Result<(), Refusal>>,
}

impl Submission {
    /// Tells who waits for it that it is not published.
    pub fn refuse(self, refusal: Refusal) {
        let _ = self.answer.send(Err(refusal));
    }
}

/// A parcel under way: who waits for it.
pub(super) struct Parcel {
    pub(super) line: Line,
    pub(super) submissions: Vec<Submission>,
}

/// The submissions that wait for one line, and how its parcels fare.
pub(super) struct Waiting {
    exchange: String,
    routing_key: String,
    pub(super) waiting: VecDeque<Submission>,
    /// Parcels that are not confirmed yet.
    pub(super) in_flight: usize,
    /// Since when all that is published comes back.
    returns_since: Option<Instant>,
    /// When a small parcel may leave.
    next: Instant,
}

impl Waiting {
    /// Nothing waits yet for the line behind this exchange and routing key.
    pub(super) fn new(exchange: String, routing_key: String) -> Self {
        let (waiting, next) = (VecDeque::new(), Instant::now());
        Self { exchange, routing_key, waiting, in_flight: 0, returns_since: None, next }
    }

    /// A parcel was answered; whether they come back for longer than a change of the routing lasts.
    pub(super) fn answered(&mut self, is_back: bool) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !is_back {
            self.returns_since = None;
            return false;
        }
        self.returns_since.get_or_insert_with(Instant::now).elapsed() > ROUTING_TIMEOUT
    }

    /// Puts a submission behind the others, or refuses it.
    pub(super) fn push(&mut self, submission: Submission) {
        if self.waiting.len() >= LINE_BACKLOG {
            // Who no longer waits makes room.
            self.waiting.retain(|submission| !submission.answer.is_closed());
        }
        if self.waiting.len() < LINE_BACKLOG {
            self.waiting.push_back(submission);
        } else {
            submission.refuse(Refusal::LineFull(BACKLOG_SECONDS));
        }
    }

    /// Sends what is waiting, as full as it is, where it may leave by then; small ones from now on at this pace.
    fn publish(
        &mut self,
        now: Instant,
        pace: Duration,
        line: Line,
        publisher: &mut ConfirmedPublisher<Parcel>,
    ) {
        while self.may_send(now + NEARLY) {
            let (body, submissions) = self.fill();
            if !submissions.is_empty() {
                let address =
                    Address::Exchange { exchange: &self.exchange, key: &self.routing_key };
                let parcel = Parcel { line, submissions };
                publisher.publish(address, MessageType::Jobs, body, parcel);
                self.in_flight += 1;
                self.next = now + pace;
            }
        }
    }

    /// A parcel of those who have waited longest, and they.
    fn fill(&mut self) -> (Vec<u8>, Vec<Submission>) {
        let (mut body, mut submissions) = (Vec::new(), Vec::new());
        while submissions.len() < envelope::MAX_PARCEL
            && body.len() < ENOUGH_BYTES
            && let Some(submission) = self.waiting.pop_front()
        {
            // Who no longer waits was told "unavailable"; that stays true.
            if !submission.answer.is_closed() {
                body.extend_from_slice(&submission.record);
                submissions.push(submission);
            }
        }
        (body, submissions)
    }

    /// Whether it has sent lately, or is to send.
    fn is_busy(&self, now: Instant) -> bool {
        !self.waiting.is_empty() || self.next > now
    }

    fn may_send(&self, now: Instant) -> bool {
        let are_enough = self.waiting.len() >= ENOUGH;
        self.waits_until().is_some_and(|next| now >= next || are_enough)
    }

    /// When what waits may leave, however little it is; `None` if nothing does, or a confirm comes first.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let waits = self.in_flight < PARCELS_PER_LINE && !self.waiting.is_empty();
        waits.then_some(self.next)
    }
}

/// Sends what may leave, of all lines; tells when the first one may send what only the pace keeps back.
pub(super) fn publish_all(
    lines: &mut BTreeMap<Line, Waiting>,
    publisher: &mut ConfirmedPublisher<Parcel>,
) -> Option<Instant> {
    let now = Instant::now();
    if lines.values().any(|waiting| waiting.may_send(now)) {
        let busy = lines.values().filter(|waiting| waiting.is_busy(now)).count();
        let pace = pace(busy);
        for (line, waiting) in &mut *lines {
            waiting.publish(now, pace, *line, publisher);
        }
    }
    lines.values().filter_map(Waiting::waits_until).min()
}

/// The time between two small parcels of a line, with so many busy lines.
fn pace(busy: usize) -> Duration {
    let slowdown = u32::try_from(busy / LINES_AT_A_PACE).unwrap_or(MAX_SLOWDOWN);
    PARCEL_INTERVAL * slowdown.clamp(1, MAX_SLOWDOWN)
}

#[cfg(test)]
mod tests {
    use firstcome_contract::{
        family::Family,
        line::{LineName, Naming},
    };

    use super::*;

    const HERE: Line = Line {
        family: Family::Coupon,
        generation: 1,
        name: LineName::Partition(0),
        naming: Naming::Family,
    };

    fn line(next: Instant, in_flight: usize) -> Waiting {
        Waiting { in_flight, next, ..Waiting::new(String::new(), String::new()) }
    }

    fn submit(line: &mut Waiting) -> oneshot::Receiver<Result<(), Refusal>> {
        let (answer, answered) = oneshot::channel();
        line.push(Submission { line: HERE, came_at: None, record: Vec::new(), answer });
        answered
    }

    /// A line that moves no more fills up with those who gave up: they must not count for ever.
    #[test]
    fn a_line_refuses_only_while_so_many_wait() {
        let mut line = line(Instant::now(), PARCELS_PER_LINE);
        let mut waiting: Vec<_> = (0..LINE_BACKLOG).map(|_| submit(&mut line)).collect();
        let refused = submit(&mut line).try_recv().map(|answer| answer.unwrap_err());
        assert_eq!(refused, Ok(Refusal::LineFull(BACKLOG_SECONDS)));
        waiting.truncate(LINE_BACKLOG - 1);
        assert!(submit(&mut line).try_recv().is_err(), "it waits");
    }

    #[test]
    fn a_parcel_is_full_with_so_many_jobs_or_bytes() {
        let mut line = line(Instant::now(), 0);
        let mut waiting: Vec<_> = (0..300).map(|_| submit(&mut line)).collect();
        // They gave up.
        waiting.drain(..50);
        let parcels: Vec<usize> = (0..3).map(|_| line.fill().1.len()).collect();
        assert_eq!(parcels, [128, 122, 0]);
        waiting.extend((0..100).map(|_| submit(&mut line)));
        let large = |submission: &mut Submission| submission.record = vec![b'x'; 2_000];
        line.waiting.iter_mut().for_each(large);
        let parcels: Vec<usize> = (0..4).map(|_| line.fill().0.len()).collect();
        assert_eq!(parcels, [66_000, 66_000, 66_000, 2_000]);
    }

    #[test]
    fn the_more_lines_are_busy_the_slower_is_each() {
        let millis = [0, 1, 7, 8, 15, 16, 80].map(|busy| pace(busy).as_millis());
        assert_eq!(millis, [3, 3, 3, 6, 9, 12, 12]);
    }

    #[test]
    fn small_parcels_keep_their_pace_and_large_ones_need_not() {
        let (now, next) = (Instant::now(), Instant::now() + PARCEL_INTERVAL);
        let mut line = line(next, 0);
        assert!(!line.may_send(next) && line.waits_until().is_none(), "nobody waits");
        let first = submit(&mut line);
        assert!(!line.may_send(now) && line.waits_until() == Some(next), "too soon");
        assert!(line.may_send(next), "alone, but it is time");
        let others: Vec<_> = (1..ENOUGH).map(|_| submit(&mut line)).collect();
        assert!(line.may_send(now), "enough of them");
        line.in_flight = PARCELS_PER_LINE;
        assert!(!line.may_send(next) && line.waits_until().is_none(), "a confirm is waited for");
        drop((first, others));
    }
}
