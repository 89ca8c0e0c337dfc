//! How jobs travel: one line of JSON per job, 1..=128 lines per message (a *parcel*).
//!
//! Lines, not an array, so that each job can be decoded alone: whatever one of them holds, its
//! neighbours are still found.
//!
//! Fields that a reader does not know are ignored, at every level: a newer release may have added them, and
//! adds only what may be ignored.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Job, JobId, JobKind};
use crate::{
    ids::UserId,
    reason::bounded,
    request_id::RequestId,
    trace::{Trace, TraceParent, TraceState},
};

/// The most jobs in one message. The broker's cost per job hardly falls beyond some 64 of them, but in a
/// storm fewer wait for the next one; a redelivered message gets more expensive.
pub const MAX_PARCEL: usize = 128;

/// A job with what was known when it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Identifies the job; also says when it was submitted.
    pub id: JobId,
    /// The caller who submitted the job, and may poll it.
    pub user_id: UserId,
    /// Set when the request carried an `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
    /// Set when the request carried a valid `traceparent`.
    pub trace: Option<Trace>,
    /// Set when the request carried a valid `X-Request-Id`.
    pub request_id: Option<RequestId>,
    /// What is to be done, by its kind.
    pub job: Job,
}

/// The client's claim that two requests are the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Idempotency {
    /// The `Idempotency-Key` header, scoped to the caller and the job kind.
    pub key: String,
    /// A digest of the request: the same key with another digest is a misuse.
    pub fingerprint: String,
}

/// A line that is not a job we know. Whose it is may still be readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// The job that was accepted, where the line still tells: it must get its outcome.
    pub accepted: Option<(JobId, UserId)>,
    /// The trace of its request, where the line still tells.
    pub trace: Option<TraceParent>,
    /// What the client called its request, where the line still tells.
    pub request_id: Option<RequestId>,
    /// What is wrong with the line, for people, in at most 500 characters.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    id: JobId,
    user_id: UserId,
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency: Option<std::borrow::Cow<'a, Idempotency>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_state: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    job: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    id: JobId,
    user_id: UserId,
}

/// Read apart from the [`Header`], which must not depend on it.
#[derive(Deserialize)]
struct Traced {
    trace: String,
}

/// Likewise.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    request_id: String,
}

impl Envelope {
    /// The `traceparent` of its request.
    #[must_use]
    pub fn trace_parent(&self) -> Option<TraceParent> {
        self.trace.as_ref().map(|trace| trace.parent)
    }

    /// Appends the job as one line.
    ///
    /// # Errors
    /// Never for the jobs of this crate: all of them serialize to JSON objects.
    pub fn encode(&self, line: &mut Vec<u8>) -> serde_json::Result<()> {
        let job = self.job.to_json()?;
        let wire = Wire {
            id: self.id,
            user_id: self.user_id,
            kind: self.job.kind().as_str().into(),
            idempotency: self.idempotency.as_ref().map(std::borrow::Cow::Borrowed),
            trace: self.trace.as_ref().map(|trace| trace.parent.to_string()),
            trace_state: self
                .trace
                .as_ref()
                .and_then(|trace| Some(trace.state.as_ref()?.as_str().into())),
            request_id: self.request_id.as_ref().map(|id| id.as_str().into()),
            job: &job,
        };
        serde_json::to_writer(&mut *line, &wire)?;
        line.push(b'\n');
        Ok(())
    }

    /// Reads one line of a parcel.
    ///
    /// # Errors
    /// [`Undecodable`], with the accepted job's id where the line still tells it.
    #[expect(clippy::result_large_err, reason = "an envelope is larger still")]
    pub fn decode(line: &[u8]) -> Result<Self, Undecodable> {
        Self::decode_whole(line).map_err(|reason| Undecodable {
            accepted: serde_json::from_slice::<Header>(line)
                .ok()
                .map(|header| (header.id, header.user_id)),
            trace: serde_json::from_slice::<Traced>(line)
                .ok()
                .and_then(|traced| TraceParent::parse(&traced.trace)),
            request_id: serde_json::from_slice::<Named>(line)
                .ok()
                .and_then(|named| RequestId::parse(&named.request_id)),
            reason: bounded(reason),
        })
    }

    fn decode_whole(line: &[u8]) -> Result<Self, String> {
        let wire: Wire<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let kind = JobKind::from_name(&wire.kind);
        let kind = kind.ok_or_else(|| format!("unknown job kind {:?}", wire.kind))?;
        Ok(Self {
            id: wire.id,
            user_id: wire.user_id,
            idempotency: wire.idempotency.map(std::borrow::Cow::into_owned),
            // As at the edge: what is invalid is ignored.
            trace: wire.trace.and_then(|parent| {
                let state = wire.trace_state.and_then(|state| TraceState::parse(&state));
                Some(Trace { parent: TraceParent::parse(&parent)?, state })
            }),
            request_id: wire.request_id.and_then(|id| RequestId::parse(&id)),
            job: Job::from_json(kind, wire.job)?,
        })
    }
}

/// The lines of a parcel.
pub fn lines(parcel: &[u8]) -> impl Iterator<Item = &[u8]> {
    parcel.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{CouponId, ProductId},
        job::{IssueCoupon, PlaceOrder},
        line::Place,
        order::{Fulfilment, Item},
        reason::LONGEST,
    };
    use proptest::prelude::*;

    fn envelope(user: i64, coupon: i64, idempotency: Option<(String, String)>) -> Envelope {
        Envelope {
            id: JobId::compose(1_750_000_000_000, JobKind::IssueCoupon, Place::from_bits(5), 7, 9),
            user_id: UserId::new(user),
            idempotency: idempotency.map(|(key, fingerprint)| Idempotency { key, fingerprint }),
            trace: None,
            request_id: None,
            job: Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) }),
        }
    }

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn traced(state: Option<&str>) -> Option<Trace> {
        let state = state.and_then(TraceState::parse);
        TraceParent::parse(TRACE).map(|parent| Trace { parent, state })
    }

    #[test]
    fn the_wire_form_never_changes() {
        let mut line = Vec::new();
        envelope(7, 1, Some(("k".into(), "f".into()))).encode(&mut line).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"id\":\"01977420-dc00-7000-8405-070000000009\",\"userId\":7,\"kind\":\"issue-coupon\",\
             \"idempotency\":{\"key\":\"k\",\"fingerprint\":\"f\"},\"job\":{\"couponId\":1}}\n"
        );
        let mut line = Vec::new();
        Envelope { trace: traced(Some("congo=t61rcWkgMzE")), ..envelope(7, 1, None) }
            .encode(&mut line)
            .unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"id\":\"01977420-dc00-7000-8405-070000000009\",\"userId\":7,\"kind\":\"issue-coupon\",\
             \"trace\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\",\"traceState\":\"congo=t61rcWkgMzE\",\"job\":{\"couponId\":1}}\n"
        );
        let mut line = Vec::new();
        Envelope { request_id: RequestId::parse("edge/1~\"x\""), ..envelope(7, 1, None) }
            .encode(&mut line)
            .unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"id\":\"01977420-dc00-7000-8405-070000000009\",\"userId\":7,\"kind\":\"issue-coupon\",\
             \"requestId\":\"edge/1~\\\"x\\\"\",\"job\":{\"couponId\":1}}\n"
        );
    }

    #[test]
    fn what_a_newer_release_adds_is_ignored() {
        let order = PlaceOrder {
            items: vec![Item { product_id: ProductId::new(1), quantity: 2 }],
            coupon_id: None,
            fulfilment: Fulfilment::All,
            from_cart: false,
        };
        let order = Envelope { job: Job::PlaceOrder(order), ..envelope(7, 1, None) };
        for (original, objects) in [
            (
                envelope(7, 1, Some(("k".into(), "f".into()))),
                vec!["{", "{\"key\"", "{\"couponId\""],
            ),
            (order, vec!["{", "{\"lines\"", "{\"productId\""]),
        ] {
            let mut line = Vec::new();
            original.encode(&mut line).unwrap();
            let mut line = String::from_utf8(line).unwrap();
            for object in objects {
                let newer = object.replacen('{', "{\"added\":[{}],", 1);
                assert!(line.contains(object), "{object} in {line}");
                line = line.replacen(object, &newer, 1);
            }
            assert_eq!(Envelope::decode(line.as_bytes()), Ok(original));
        }
    }

    #[test]
    fn one_bad_line_leaves_its_neighbours_readable() {
        let mut parcel = Vec::new();
        envelope(1, 1, None).encode(&mut parcel).unwrap();
        parcel.extend_from_slice(b"\xff\x00 not json\n");
        envelope(2, 1, None).encode(&mut parcel).unwrap();
        let decoded: Vec<_> = lines(&parcel).map(Envelope::decode).collect();
        assert_eq!(decoded[0], Ok(envelope(1, 1, None)));
        assert_eq!(decoded[1].as_ref().unwrap_err().accepted, None);
        assert_eq!(decoded[2], Ok(envelope(2, 1, None)));
    }

    #[test]
    fn a_reason_is_short_however_long_the_line_is() {
        let mut line = Vec::new();
        envelope(7, 1, None).encode(&mut line).unwrap();
        let kind = "é".repeat(1_000_000);
        let line = String::from_utf8(line).unwrap().replace("issue-coupon", &kind);
        let reason = Envelope::decode(line.as_bytes()).unwrap_err().reason;
        assert!(reason.starts_with("unknown job kind \"éé"), "{reason}");
        assert_eq!(reason.chars().count(), LONGEST + 1);
    }

    #[test]
    fn an_undecodable_job_still_tells_whose_it_is() {
        let mut line = Vec::new();
        let original = Envelope {
            trace: traced(None),
            request_id: RequestId::parse("edge-1"),
            ..envelope(7, 1, None)
        };
        original.encode(&mut line).unwrap();
        for (from, to) in
            [("\"couponId\":1", "\"couponId\":\"one\""), ("issue-coupon", "from-the-future")]
        {
            let line = String::from_utf8(line.clone()).unwrap().replace(from, to);
            let undecodable = Envelope::decode(line.as_bytes()).unwrap_err();
            assert_eq!(undecodable.accepted, Some((original.id, original.user_id)));
            assert_eq!(undecodable.trace, TraceParent::parse(TRACE));
            assert_eq!(undecodable.request_id, original.request_id);
        }
        // Whatever stands for the trace, it hides nothing else.
        for (trace, known) in [("7", false), ("\"00-no-trace\"", true)] {
            let line = String::from_utf8(line.clone()).unwrap();
            let line = line.replace(&format!("\"{TRACE}\""), trace);
            let decoded = Envelope::decode(line.as_bytes());
            let (id, trace) = match &decoded {
                Ok(envelope) => (Some(envelope.id), envelope.trace_parent()),
                Err(undecodable) => (undecodable.accepted.map(|(id, _)| id), undecodable.trace),
            };
            assert_eq!((id, trace), (Some(original.id), None));
            assert_eq!(decoded.is_ok(), known);
        }
        for (name, known) in [("7", false), ("\"two words\"", true), ("\"\"", true)] {
            let line = String::from_utf8(line.clone()).unwrap();
            let line = line.replace("\"edge-1\"", name);
            let decoded = Envelope::decode(line.as_bytes());
            let (id, name, trace) = match &decoded {
                Ok(envelope) => {
                    (Some(envelope.id), envelope.request_id.clone(), envelope.trace_parent())
                }
                Err(undecodable) => (
                    undecodable.accepted.map(|(id, _)| id),
                    undecodable.request_id.clone(),
                    undecodable.trace,
                ),
            };
            assert_eq!((id, name, trace), (Some(original.id), None, TraceParent::parse(TRACE)));
            assert_eq!(decoded.is_ok(), known);
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_reads_back(
            user: i64,
            coupon: i64,
            idempotency: Option<(String, String)>,
            trace in proptest::option::of((1u128.., 1u64.., 0u8..=3, proptest::option::of("[!-+.-~]{1,512}"))),
            request_id in proptest::option::of("[!-~]{1,128}"),
        ) {
            let trace = trace.map(|(trace_id, parent_id, flags, state)| Trace {
                parent: TraceParent { trace_id, parent_id, flags },
                state: state.and_then(|state| TraceState::parse(&state)),
            });
            let request_id = request_id.and_then(|name| RequestId::parse(&name));
            let original = Envelope { trace, request_id, ..envelope(user, coupon, idempotency) };
            let mut parcel = Vec::new();
            original.encode(&mut parcel).unwrap();
            let read: Vec<_> = lines(&parcel).map(Envelope::decode).collect();
            prop_assert_eq!(read, vec![Ok(original)]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            for line in lines(&bytes) {
                let _ = Envelope::decode(line);
            }
        }
    }
}
