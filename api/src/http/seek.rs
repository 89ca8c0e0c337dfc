//! Lists with filters, in pages: where a page begins, and how far is looked for it.
//!
//! **Architecture invariant:** a page costs at most `MOST_SEEN` rows, however few of them it is about. What is asked
//! for leads to one index; rows that the other filters leave out are passed over, and where too many were, the page ends
//! early: with `next`, but fewer items than asked for, or none.

use std::{fmt::Display, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use super::fields::Fields;

/// Rows that are looked at for one page.
pub(crate) const MOST_SEEN: i64 = 2_000;
/// The longest cursor, in characters.
const LONGEST_CURSOR: usize = 128;

/// Which part of a list with filters is asked for; `K` is what the list is in the order of.
#[derive(Debug, Clone)]
pub struct Seek<K> {
    /// At most so many items.
    pub limit: i64,
    /// The last row that the page before came to.
    pub after: Option<K>,
    /// What the list and its filters are known by.
    list: String,
}

/// As it stands in a query.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Seek` reads")]
pub(crate) struct SeekParams {
    /// At most so many items. There may be fewer, or none, though `next` leads on: where the filters leave out nearly
    /// all.
    #[param(required = false, minimum = 1, maximum = 100, default = 20)]
    limit: i64,
    /// The `next` of the page before, with the same filters.
    #[param(required = false, max_length = 128, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: String,
}

/// A row that was looked at, by its key, and whether the filters leave it in.
pub type Seen<K> = (K, bool);

impl<K: Display + FromStr + Copy> Seek<K> {
    /// Reads `limit` and `cursor` of a list, whose name and filters its cursors are of.
    pub fn read(fields: &mut Fields, list: &str, query: Option<&str>) -> Self {
        let limit = fields.optional_integer("limit", 1..=100).unwrap_or(20);
        let mut seek = Self { limit, after: None, list: known_by(list, query) };
        seek.after = fields.optional_word("cursor", LONGEST_CURSOR).and_then(|cursor| {
            let key = seek.key(&cursor);
            if key.is_none() {
                fields.reject(
                    "cursor",
                    "must be the `next` of an earlier page with the same filters",
                );
            }
            key
        });
        seek
    }

    /// Rows to look at: one more than the page holds, unless filters may leave out some.
    pub(crate) const fn rows(&self, is_filtered: bool) -> i64 {
        if is_filtered { MOST_SEEN } else { self.limit + 1 }
    }

    /// What of these rows is the page, and what leads to the next one. They are all there are if they are fewer than
    /// were to be looked at.
    #[must_use]
    pub fn cut(&self, seen: &[Seen<K>], rows: i64) -> (Vec<K>, Option<String>) {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let is_cut_off = i64::try_from(seen.len()).is_ok_and(|seen| seen >= rows);
        let mut wanted = seen.iter().filter(|(_, is_wanted)| *is_wanted).map(|(key, _)| *key);
        let page: Vec<K> = wanted.by_ref().take(limit).collect();
        let next = match page.last() {
            Some(last) if page.len() == limit => {
                (is_cut_off || wanted.next().is_some()).then_some(*last)
            }
            _ => seen.last().filter(|_| is_cut_off).map(|(last, _)| *last),
        };
        (page, next.map(|key| self.cursor(key)))
    }

    fn cursor(&self, key: K) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{}{key}", self.list))
    }

    /// Only as we write it: what reads alike must not be a page of its own.
    fn key(&self, cursor: &str) -> Option<K> {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let key = text.strip_prefix(&self.list)?.parse().ok()?;
        (self.cursor(key) == cursor).then_some(key)
    }
}

/// Eight characters of a list with these filters.
fn known_by(list: &str, query: Option<&str>) -> String {
    let filters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let filters = filters.filter(|(name, _)| name != "limit" && name != "cursor");
    let mut filters: Vec<_> = filters.collect();
    filters.sort_unstable();
    let mut digest = Sha256::new();
    for part in
        [list].into_iter().chain(filters.iter().flat_map(|(name, value)| [&**name, &**value]))
    {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    BASE64_URL_SAFE_NO_PAD.encode(digest.finalize().iter().take(6).copied().collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seek(list: &str, query: &str) -> Option<Seek<i64>> {
        let mut fields = Fields::from_query(Some(query));
        fields.optional_integer("user", 0..=100);
        fields.optional_integer("product", 0..=100);
        let seek = Seek::read(&mut fields, list, Some(query));
        fields.finish().ok().map(|()| seek)
    }

    #[test]
    fn a_cursor_is_good_for_its_list_and_its_filters() {
        let cursor = seek("jobs", "user=7&product=1&limit=5").unwrap().cursor(12);
        let after = |list, query: &str| {
            seek(list, &format!("{query}&cursor={cursor}")).map(|seek| seek.after)
        };
        assert_eq!(after("jobs", "user=7&product=1"), Some(Some(12)));
        assert_eq!(after("jobs", "product=1&limit=100&user=7"), Some(Some(12)));
        for (list, query) in [
            ("orders", "user=7&product=1"),
            ("jobs", "user=7"),
            ("jobs", "user=71&product="),
            ("jobs", ""),
        ] {
            assert_eq!(after(list, query), None, "{list}?{query}");
        }
        for space in ["%20", "+", "%E3%80%80"] {
            let query = format!("user=7&product=1&cursor={cursor}{space}");
            assert!(seek("jobs", &query).is_none(), "{query}");
        }
        for bad in ["cursor=MTI", "cursor=!", "limit=0", "limit=101", "what=1"] {
            assert!(seek("jobs", bad).is_none(), "{bad}");
        }
    }

    proptest! {
        /// Page by page one comes to every row that is wanted, once, whatever is left out.
        #[test]
        fn pages_lead_to_all_that_is_wanted(wanted in prop::collection::vec(any::<bool>(), 0..200), limit in 1i64..8, rows in 9i64..30) {
            let all: Vec<Seen<i64>> = (1..).zip(wanted).collect();
            let mut seek = Seek { limit, after: None, list: known_by("jobs", None) };
            let mut found = Vec::new();
            loop {
                let from = seek.after.unwrap_or(0);
                let seen: Vec<Seen<i64>> = all.iter().filter(|(key, _)| *key > from).take(usize::try_from(rows).unwrap()).copied().collect();
                let (page, next) = seek.cut(&seen, rows);
                prop_assert!(page.len() <= usize::try_from(limit).unwrap());
                found.extend(page);
                match next {
                    Some(next) => seek.after = Some(seek.key(&next).unwrap()),
                    None => break,
                }
                prop_assert!(seek.after > Some(from), "it leads on");
            }
            let expected: Vec<i64> = all.iter().filter(|(_, is_wanted)| *is_wanted).map(|(key, _)| *key).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
