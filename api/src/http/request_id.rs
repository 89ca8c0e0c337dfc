//! `X-Request-Id`: one name for a request, with its client, its proxies and in our log.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
};
use firstcome_contract::{job::JobId, request_id::RequestId, trace::TraceParent};
use firstcome_process::request_id;
use uuid::Uuid;

use super::trace;

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Of this process, so that names of several do not meet.
static PREFIX: LazyLock<u32> = LazyLock::new(|| Uuid::new_v4().as_fields().0);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What a request is called.
pub(crate) struct Name {
    id: String,
    trace: Option<TraceParent>,
}

/// The name that a request has, or a new one, and the trace that it belongs to.
pub(crate) fn of(headers: &HeaderMap) -> Name {
    let id = given(headers).map_or_else(made, String::from);
    Name { id, trace: trace::parent(headers) }
}

/// Answers a request of this name, and tells the client.
pub(crate) async fn named(name: Name, answering: impl Future<Output = Response>) -> Response {
    let Name { id, trace } = name;
    let header = HeaderValue::from_str(&id);
    let mut response = request_id::scope(id, trace, answering).await;
    response.headers_mut().extend(header.ok().map(|id| (HEADER, id)));
    response
}

/// From now on it is known which job the request is about.
pub(crate) fn is_about(job: JobId) {
    request_id::is_about("job_id", job.get());
}

/// The one that the client gave; none if it is none that can stand in a line.
pub(crate) fn given(headers: &HeaderMap) -> Option<RequestId> {
    let mut all = headers.get_all(HEADER).iter();
    let (id, None) = (all.next()?, all.next()) else { return None };
    RequestId::parse(id.to_str().ok()?)
}

fn made() -> String {
    format!("{:08x}-{:x}", *PREFIX, NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_if_it_fits_into_a_line() {
        let given = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            super::given(&headers).map(String::from)
        };
        assert_eq!(given(&[b"a/b+c=~1"]).as_deref(), Some("a/b+c=~1"));
        assert_eq!(given(&[&[b'i'; 128]]).map(|id| id.len()), Some(128));
        for bad in [&b""[..], b"a b", b"caf\xc3\xa9", b"a\tb", &[b'i'; 129]] {
            assert_eq!(given(&[bad]), None);
        }
        assert_eq!(given(&[]), None);
        assert_eq!(given(&[b"a", b"b"]), None);
        assert_ne!(made(), made());
    }
}
