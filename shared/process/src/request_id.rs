//! The name of the request that is being answered, for whatever is told about it on the way: log lines, problems. With
//! it go its trace, and what it turns out to be about.

use std::{fmt::Write, sync::OnceLock};

use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static CURRENT: Request;
}

/// What is known of a request.
#[derive(Debug)]
struct Request {
    id: String,
    trace_id: Option<u128>,
    subject: OnceLock<(&'static str, u128)>,
}

/// Answers a request of this name, which belongs to this trace.
pub fn scope<F: Future>(
    id: String,
    trace_id: Option<u128>,
    answering: F,
) -> impl Future<Output = F::Output> {
    let scope: TaskLocalFuture<Request, F> =
        CURRENT.scope(Request { id, trace_id, subject: OnceLock::new() }, answering);
    scope
}

/// The name of the request that this task answers, if it does.
#[must_use]
pub fn current() -> Option<String> {
    CURRENT.try_with(|request| request.id.clone()).ok()
}

/// From now on the request is known to be about the thing with this UUID: `job_id`.
pub fn is_about(name: &'static str, uuid: u128) {
    // What came first stays: it is what the request asked for.
    let _ = CURRENT.try_with(|request| request.subject.set((name, uuid)));
}

/// What a log line that this task writes is to say besides, if the line `has` not said it: names and values.
pub(crate) fn names(has: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    let names = CURRENT.try_with(|request| {
        let trace_id = request.trace_id.map(|id| ("trace_id", format!("{id:032x}")));
        let subject = request.subject.get().map(|(name, id)| (*name, uuid(*id)));
        [Some(("request_id", request.id.clone())), trace_id, subject]
            .into_iter()
            .flatten()
            .collect()
    });
    let names: Vec<(&str, String)> = names.unwrap_or_default();
    names.into_iter().filter(|(name, _)| !has(name)).collect()
}

/// As it is written everywhere.
fn uuid(id: u128) -> String {
    let digits = format!("{id:032x}");
    let mut text = String::with_capacity(36);
    for (position, digit) in digits.chars().enumerate() {
        if [8, 12, 16, 20].contains(&position) {
            text.push('-');
        }
        // To a string it cannot fail.
        let _ = text.write_char(digit);
    }
    text
}
