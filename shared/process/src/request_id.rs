//! The name of the request that is being answered, for whatever is told about it on the way: log lines, problems. With
//! it go its trace, and what it turns out to be about.

use std::sync::OnceLock;

use firstcome_contract::trace::TraceParent;
use uuid::Uuid;

tokio::task_local! {
    static CURRENT: Request;
}

/// What is known of a request.
#[derive(Debug, Clone)]
struct Request {
    id: String,
    trace: Option<TraceParent>,
    subject: OnceLock<(&'static str, Uuid)>,
}

/// Answers a request of this name, which belongs to this trace.
pub fn scope<F: Future>(
    id: String,
    trace: Option<TraceParent>,
    answering: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(Request { id, trace, subject: OnceLock::new() }, answering)
}

/// A part of the answer that goes on in a task of its own, with what is known by now.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let request = CURRENT.try_with(Request::clone).ok();
    async move {
        match request {
            Some(request) => CURRENT.scope(request, work).await,
            None => work.await,
        }
    }
}

/// The name of the request that this task answers, if it does.
#[must_use]
pub fn current() -> Option<String> {
    CURRENT.try_with(|request| request.id.clone()).ok()
}

/// From now on the request is known to be about this, such as a `job_id`.
pub fn is_about(name: &'static str, id: Uuid) {
    // What came first stays: it is what the request asked for.
    let _ = CURRENT.try_with(|request| request.subject.set((name, id)));
}

/// What a log line that this task writes is to say besides, if it `has` not said it: names and values.
pub(crate) fn names(has: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    let names = CURRENT.try_with(|request| {
        let trace = request.trace.map(|trace| ("trace_id", trace.id()));
        let subject = request.subject.get().map(|(name, id)| (*name, id.to_string()));
        [Some(("request_id", request.id.clone())), trace, subject].into_iter().flatten().collect()
    });
    let names: Vec<(&str, String)> = names.unwrap_or_default();
    names.into_iter().filter(|(name, _)| !has(name)).collect()
}
