//! `X-Request-Id`: what a client calls its request, which travels with the job.

use std::fmt;

/// Longer names are none: they stand in log lines.
const MAX_LENGTH: usize = 128;

/// The name that a client gave to its request: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// Takes the name, if it can stand in a line.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let fits = (1..=MAX_LENGTH).contains(&name.len());
        (fits && name.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<RequestId> for String {
    fn from(RequestId(name): RequestId) -> Self {
        name.into()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
