//! Lists in pages: which part is asked for, and what leads to the next one.

use axum::{extract::FromRequestParts, http::request::Parts};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    fields::{Fields, IDS},
    problem::Problem,
};

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// At most so many items.
    #[param(required = false, minimum = 1, maximum = 100, default = 20)]
    pub limit: i64,
    /// The `next` of the page before.
    #[param(rename = "cursor", value_type = String, required = false, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    pub after: Option<i64>,
}

impl Page {
    /// Reads `limit` and `cursor`.
    pub fn read(fields: &mut Fields) -> Self {
        let limit = fields.optional_integer("limit", 1..=100).unwrap_or(20);
        let after = fields.optional_word("cursor", 64).and_then(|cursor| {
            let id = BASE64_URL_SAFE_NO_PAD
                .decode(&cursor)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok())
                // Only as we write it: what reads alike must not be a page of its own.
                .filter(|id| IDS.contains(id) && cursor_of(*id) == cursor);
            if id.is_none() {
                fields.reject("cursor", "must be the `next` of an earlier page");
            }
            id
        });
        Self { limit, after }
    }

    /// Where lists go on that begin with the highest id: below this one.
    #[must_use]
    pub fn before(&self) -> i64 {
        self.after.unwrap_or(i64::MAX)
    }

    /// Rows to ask for: one more than the page holds tells whether there is a next one.
    #[must_use]
    pub const fn rows(&self) -> i64 {
        self.limit + 1
    }

    /// Cuts the rows to the page.
    #[must_use]
    pub fn cut<T>(&self, mut items: Vec<T>, id: impl Fn(&T) -> i64) -> List<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| cursor_of(id(last)));
        List { items, next }
    }
}

/// The `cursor` of the page after this id.
fn cursor_of(id: i64) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(id.to_string())
}

/// Of a list that takes nothing but `limit` and `cursor`.
impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut fields = Fields::from_query(parts.uri.query());
        let page = Self::read(&mut fields);
        fields.finish()?;
        Ok(page)
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to pass as `cursor` for the next page; `null` on the last one.
    #[schema(required)]
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queries_are_read_alike() {
        let mut fields = Fields::from_query(Some("limit=7&cursor=MTI"));
        let page = Page::read(&mut fields);
        assert_eq!((page.limit, page.after), (7, Some(12)));
        assert!(fields.finish().is_ok());
        let forged = format!("cursor={}", cursor_of(-1));
        for bad in [
            "limit=0",
            "limit=101",
            "limit=1.0",
            "cursor=!",
            "cursor=MTI+",
            "cursor=%20MTI",
            "cursor=MTI%E3%80%80",
            &forged,
            "limit=1&limit=1",
            "what=1",
        ] {
            let mut fields = Fields::from_query(Some(bad));
            Page::read(&mut fields);
            assert!(fields.finish().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_tells_whether_there_is_a_next_one() {
        let page = Page { limit: 2, after: None };
        assert_eq!(page.cut(vec![5, 4, 3], |id| *id).next, Some("NA".to_owned()));
        assert_eq!(page.cut(vec![5, 4], |id| *id).next, None);
    }

    proptest! {
        #[test]
        fn no_query_makes_it_panic(query: String) {
            let mut fields = Fields::from_query(Some(&query));
            Page::read(&mut fields);
            let _ = fields.finish();
        }
    }
}
