//! `GET /api/jobs/{jobId}` with `Accept: text/event-stream`: where a job stands, until it is settled.
//!
//! **Architecture invariant:** a stream has no task, no timer and no query of its own. It is asked for its next
//! event only when the connection has taken the last one, so nothing is kept for slow readers: they miss places in
//! between, and who takes nothing at all is cut off like any other (`server/client.rs`).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse, Response},
};
use firstcome_contract::{
    ids::UserId,
    job::{JobId, JobKind, Settled},
};
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    outcome::{cannot_be_told, outcome},
    view::JobView,
};
use crate::{
    http::{
        accept,
        problem::{Code, Problem},
    },
    known::{
        outcomes::{Outcomes, Place},
        streams::Slot,
    },
    lines::{Position, seconds_to_wait, whole},
    state::AppState,
};

const EVENT_STREAM: &str = "text/event-stream";
/// How long a stream is silent at most: proxies take longer silence for a connection that is gone.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// A comment, which clients skip.
const HEARTBEAT: &str = ":\n\n";
/// A place is told once a second, at the ticks of one clock: only the first may be followed too soon.
const MIN_INTERVAL: Duration = Duration::from_millis(900);
/// How long a stream goes on: whoever keeps one comes anew, to another process, and with a token that is still good.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// When to come again after the end, in milliseconds, and over how many more all that end together are spread.
const RETRY: u128 = 1_000;
const RETRY_SPREAD: u128 = 2_000;

/// Where a job stands; both are estimates, and `null` while unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Queued {
    position: Option<u64>,
    estimated_seconds: Option<u64>,
}

impl From<Option<Position>> for Queued {
    fn from(place: Option<Position>) -> Self {
        let seconds = place.and_then(|place| place.seconds);
        Self {
            position: place.map(|place| place.position),
            estimated_seconds: seconds.map(|seconds| whole(seconds.ceil())),
        }
    }
}

/// Whether the client asks for events: one of the types that it accepts.
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    accept::names(headers, EVENT_STREAM)
}

/// Answers with the events of a job. `Last-Event-ID` changes nothing: a stream begins with what is so by now.
///
/// # Errors
/// 503 where there are as many streams as there may be, or while the state cannot be told.
pub(super) async fn open(
    state: AppState,
    user: UserId,
    id: JobId,
    kind: JobKind,
) -> Result<Response, Problem> {
    let Some(slot) = state.streams.open() else {
        let seconds = seconds_to_wait(id, state.lines.position(id));
        return Err(Problem::new(Code::TooManyStreams).retry_after(seconds.max(1)));
    };
    // Before looking: what is settled in between wakes it.
    let place = state.jobs.watch(id);
    let settled = outcome(&state, id, user, None).await;
    let settled = settled.map_err(|_| cannot_be_told(&state, id))?;
    let mut events = Events { state, user, id, kind, place, slot, told: Told::new(Instant::now()) };
    let body = match settled {
        Some(settled) => Body::from(events.settled(&settled)),
        None => Body::from_stream(unfold(Some(events), async |events| {
            let mut events = events?;
            let (text, goes_on) = events.next().await;
            Some((Ok::<_, Infallible>(text), goes_on.then_some(events)))
        })),
    };
    let headers = [
        (header::CONTENT_TYPE, EVENT_STREAM),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies pass on each event as it comes.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

/// One stream.
struct Events {
    state: AppState,
    user: UserId,
    id: JobId,
    kind: JobKind,
    place: Place<Arc<Outcomes>>,
    slot: Slot,
    told: Told,
}

impl Events {
    /// What is to be told next, once there is something, and whether more follows.
    async fn next(&mut self) -> (String, bool) {
        if self.told.place.is_none() {
            let begin = self.retry();
            let place = self.state.lines.position(self.id).into();
            return (begin + &self.queued(place), true);
        }
        loop {
            let ticks = tokio::select! {
                biased;
                Some(settled) = self.place.outcome() => return (self.settled(&settled), false),
                ticks = self.slot.tick() => ticks,
            };
            // Seldom, and too large to be kept beside each stream that waits.
            if self.state.lost.has_come_out(self.id)
                && let Ok(Some(settled)) =
                    Box::pin(self.state.lost.outcome(self.id, self.user)).await
            {
                return (self.settled(&settled), false);
            }
            let place = Queued::from(self.state.lines.position(self.id));
            match if ticks { self.told.due(Instant::now(), place) } else { Due::End } {
                Due::Nothing => {}
                Due::Place => return (self.queued(place), true),
                Due::Heartbeat => return (HEARTBEAT.to_owned(), true),
                Due::End => return (self.retry() + "\n", false),
            }
        }
    }

    fn queued(&mut self, place: Queued) -> String {
        self.told.place = Some(place);
        self.event("queued", &place)
    }

    fn settled(&mut self, settled: &Settled) -> String {
        let view = JobView::new(self.id, self.kind, Some(settled), None);
        self.event("settled", &view)
    }

    fn event(&mut self, name: &str, data: &impl Serialize) -> String {
        self.told.at = Instant::now();
        self.told.count += 1;
        // Strings and numbers always serialize, and to a single line.
        let data = serde_json::to_string(data).unwrap_or_default();
        format!("id: {}\nevent: {name}\ndata: {data}\n\n", self.told.count)
    }

    /// Ids are random enough to spread those that end together.
    fn retry(&self) -> String {
        let spread = self.id.get().as_u128() % RETRY_SPREAD;
        format!("retry: {}\n", RETRY + spread)
    }
}

/// What one stream has told.
struct Told {
    ends: Instant,
    place: Option<Queued>,
    /// When something was told last.
    at: Instant,
    /// How many events there were.
    count: u64,
}

/// What a stream is to tell at a tick.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Place,
    Heartbeat,
    End,
}

impl Told {
    fn new(now: Instant) -> Self {
        Self { ends: now + LIFETIME, place: None, at: now, count: 0 }
    }

    fn due(&mut self, now: Instant, place: Queued) -> Due {
        let silent = now.saturating_duration_since(self.at);
        if now >= self.ends {
            Due::End
        } else if Some(place) != self.place && silent >= MIN_INTERVAL {
            Due::Place
        } else if silent >= HEARTBEAT_INTERVAL {
            self.at = now;
            Due::Heartbeat
        } else {
            Due::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn events_are_for_those_who_ask_for_them() {
        let wanted = |accept| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            are_wanted(&headers)
        };
        assert!(wanted("text/event-stream"));
        assert!(wanted("application/json;q=0.5, Text/Event-Stream; charset=utf-8"));
        assert!(!wanted("*/*") && !wanted("application/json") && !wanted("text/*"));
        assert!(!are_wanted(&HeaderMap::new()));
    }

    /// Five minutes of ticks in a line that stands still, and in one that moves at each.
    #[test]
    fn a_silent_stream_is_kept_open_by_heartbeats_and_ends_in_time() {
        let stands = Queued { position: Some(7), estimated_seconds: None };
        let ticks = |place: &dyn Fn(u64) -> Queued| {
            let begin = Instant::now();
            let mut told = Told::new(begin);
            told.place = Some(stands);
            let mut dues = Vec::new();
            for tick in 1.. {
                let now = begin + Duration::from_secs(tick);
                match told.due(now, place(tick)) {
                    Due::Nothing => {}
                    Due::Place => (told.place, told.at) = (Some(place(tick)), now),
                    Due::End => return (dues, tick),
                    Due::Heartbeat => dues.push(tick),
                }
            }
            unreachable!()
        };
        let (heartbeats, end) = ticks(&|_| stands);
        assert_eq!(end, LIFETIME.as_secs());
        let every = HEARTBEAT_INTERVAL.as_secs();
        assert_eq!(heartbeats, (1..end / every).map(|at| at * every).collect::<Vec<_>>());
        let moves = |tick| Queued { position: Some(1_000 - tick), ..stands };
        assert_eq!(ticks(&moves), (Vec::new(), end));
    }
}
