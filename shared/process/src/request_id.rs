//! The name of the request that is being answered, for whatever is told about it on the way: log lines, problems.

use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static CURRENT: String;
}

/// Answers a request of this name.
pub fn scope<F: Future>(id: String, answering: F) -> TaskLocalFuture<String, F> {
    CURRENT.scope(id, answering)
}

/// The name of the request that this task answers, if it does.
#[must_use]
pub fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}
