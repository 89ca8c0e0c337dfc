//! Cursors of lists in pages, in the query of a request.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use firstcome_api::http::{
    fields::Fields,
    page::Page,
    seek::{Seek, Seen},
};
use firstcome_contract::ids::MAX_ID;
use uuid::Uuid;

use super::number_of;

/// Reads a query as that of a list, and as that of lists with filters.
///
/// # Panics
/// Where something does not hold.
pub fn check(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    let number = number_of(data);
    check_page(query);
    let id = (number % MAX_ID.unsigned_abs()).cast_signed() + 1;
    let list = Page { limit: 1, after: None }.cut(vec![id, id], |id| *id);
    let next = list.next.expect("there is more");
    assert_eq!(page(&format!("cursor={next}")).and_then(|page| page.after), Some(id), "{next}");
    check_seek::<i64>(query, (number >> 1).cast_signed());
    check_seek::<Uuid>(query, Uuid::from_u64_pair(number, !number));
}

/// The cursors of a query.
fn cursors(query: &str) -> Vec<String> {
    let all = form_urlencoded::parse(query.as_bytes());
    all.filter(|(name, _)| name == "cursor").map(|(_, value)| value.into_owned()).collect()
}

fn page(query: &str) -> Option<Page> {
    let mut fields = Fields::from_query(Some(query));
    let page = Page::read(&mut fields);
    fields.finish().ok().map(|()| page)
}

/// A page that is answered is of a good length, and its cursor is the one that leads there.
fn check_page(query: &str) {
    let Some(page) = page(query) else { return };
    assert!((1..=100).contains(&page.limit), "{page:?}");
    let cursors = cursors(query);
    let Some(after) = page.after else {
        assert_eq!(cursors, [""; 0]);
        return;
    };
    assert!((1..=MAX_ID).contains(&after), "{page:?}");
    let rows = vec![after; usize::try_from(page.rows()).expect("few")];
    let list = page.cut(rows, |id| *id);
    assert_eq!(i64::try_from(list.items.len()), Ok(page.limit));
    assert_eq!(cursors, [list.next.expect("there is more")], "a cursor is written in one way");
}

/// Of the list `jobs`, which has two filters.
fn seek<K: Display + FromStr + Copy>(list: &str, query: &str) -> Option<Seek<K>> {
    let mut fields = Fields::from_query(Some(query));
    for filter in ["user", "product"] {
        fields.optional_integer(filter, 0..=100);
    }
    let seek = Seek::read(&mut fields, list, Some(query));
    fields.finish().ok().map(|()| seek)
}

/// A cursor is written in one way, and is good for its list with its filters only.
fn check_seek<K: Display + FromStr + Copy + Debug + PartialEq>(query: &str, key: K) {
    let Some(asked) = seek::<K>("jobs", query) else { return };
    assert!((1..=100).contains(&asked.limit), "{asked:?}");
    let next = |seek: &Seek<K>, key: K| {
        let seen: Vec<Seen<K>> = vec![(key, true); usize::try_from(seek.limit + 1).expect("few")];
        let (page, next) = seek.cut(&seen, seek.limit + 1);
        assert_eq!(i64::try_from(page.len()), Ok(seek.limit));
        next.expect("there is more")
    };
    match asked.after {
        Some(after) => assert_eq!(cursors(query), [next(&asked, after)], "written in one way"),
        None => assert_eq!(cursors(query), [""; 0]),
    }
    // Without its cursor, with the one that leads on.
    let parameters = query.split('&').filter(|one| cursors(one).is_empty());
    let cursor = next(&asked, key);
    let on = parameters.chain([format!("cursor={cursor}").as_str()]).collect::<Vec<_>>().join("&");
    assert_eq!(seek::<K>("jobs", &on).and_then(|seek| seek.after), Some(key), "{on}");
    assert!(seek::<K>("orders", &on).is_none(), "{on}");
    let has = |name: &str| form_urlencoded::parse(on.as_bytes()).any(|(given, _)| given == name);
    if !has("product") {
        assert!(seek::<K>("jobs", &format!("{on}&product=1")).is_none(), "{on}");
    }
}
