//! `ETag` and `If-Match`: an edit that was made of what was read does not undo what came between (RFC 9110, sections
//! 8.8.3 and 13.1.1).

use axum::http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use super::problem::{Code, Problem};

/// The header of an edit, for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `if_match` reads")]
pub(crate) struct IfMatchHeader {
    /// The `ETag` of what was read: the edit is made only if that is still so, else it is a 412. Several, separated
    /// by commas, or `*` for whatever is there.
    #[param(rename = "If-Match", required = false)]
    if_match: String,
}

/// Which states an edit may find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// Any: it only has to be there.
    Any,
    /// Those with one of these strong tags. Weak ones match nothing, and are left out.
    Tags(Vec<Vec<u8>>),
}

impl IfMatch {
    /// Whether the edit may be made of what was found.
    ///
    /// # Errors
    /// 412 if not.
    pub(crate) fn check(&self, found: &impl Serialize) -> Result<(), Problem> {
        let Self::Tags(tags) = self else { return Ok(()) };
        let found = tag(found).map_err(|_| Problem::new(Code::InternalError))?;
        let is_one_of_them = tags.iter().any(|tag| tag == found.as_bytes());
        if is_one_of_them { Ok(()) } else { Err(Problem::new(Code::PreconditionFailed)) }
    }
}

/// The `If-Match` of an edit; `None` if it is to be made of whatever is there.
///
/// # Errors
/// 400 if it is malformed: whoever sends it does not mean to edit whatever is there.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, Problem> {
    let values = headers.get_all(header::IF_MATCH).iter();
    let values: Vec<&[u8]> = values.map(|value| value.as_bytes().trim_ascii()).collect();
    let read = match values.as_slice() {
        [] => return Ok(None),
        [b"*"] => Some(IfMatch::Any),
        // Several headers are one list.
        values => strong_tags(&values.join(&b',')).map(IfMatch::Tags),
    };
    let malformed = || Problem::invalid("If-Match", "must be * or entity tags in double quotes");
    read.map(Some).ok_or_else(malformed)
}

/// Whether the client has what this tag names, by its `If-None-Match`; one that is malformed names nothing. Tags are
/// compared weakly: whoever encodes a body on its way weakens its tag.
pub(super) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let values: Vec<&[u8]> = values.map(|value| value.as_bytes().trim_ascii()).collect();
    match values.as_slice() {
        [] => false,
        [b"*"] => true,
        values => {
            let tag = tag.as_bytes().strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\""));
            let known = tags(&values.join(&b',')).unwrap_or_default();
            known.iter().any(|(_, known)| tag == Some(known))
        }
    }
}

/// The strong tags of a list of entity tags; `None` if it is none.
fn strong_tags(list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let strong = tags(list)?.into_iter().filter(|(is_weak, _)| !is_weak);
    Some(strong.map(|(_, tag)| tag).collect())
}

/// The tags of a list of entity tags, and whether each is a weak one; `None` if it is none.
fn tags(list: &[u8]) -> Option<Vec<(bool, Vec<u8>)>> {
    let mut tags = Vec::new();
    let mut rest = list.trim_ascii_start();
    while !rest.is_empty() {
        // Elements of a list may be empty (section 5.6.1.2).
        if let Some(next) = rest.strip_prefix(b",") {
            rest = next.trim_ascii_start();
            continue;
        }
        let weak = rest.strip_prefix(b"W/");
        let quoted = weak.unwrap_or(rest).strip_prefix(b"\"")?;
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        let (tag, next) = quoted.split_at_checked(end)?;
        if tag.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return None;
        }
        tags.push((weak.is_some(), tag.to_vec()));
        rest = next.strip_prefix(b"\"")?.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
    Some(tags)
}

/// The `ETag` of an answer with this body: a strong one, since any other state has another one.
pub(crate) fn header_value(body: &impl Serialize) -> Option<HeaderValue> {
    let tag = tag(body).ok()?;
    HeaderValue::from_str(&format!("\"{tag}\"")).ok()
}

/// The `ETag` of an answer with this very body.
pub(super) fn of_bytes(body: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("\"{}\"", digest(body))).ok()
}

fn tag(body: &impl Serialize) -> serde_json::Result<String> {
    // As a value, whose fields are sorted: an answer that was stored has them in another order.
    Ok(digest(serde_json::to_value(body)?.to_string().as_bytes()))
}

fn digest(body: &[u8]) -> String {
    crate::digest::text(Sha256::new_with_prefix(body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(values: &[&[u8]]) -> Result<Option<IfMatch>, ()> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_bytes(value).unwrap());
        }
        if_match(&headers).map_err(|_| ())
    }

    fn tags(tags: &[&str]) -> Result<Option<IfMatch>, ()> {
        Ok(Some(IfMatch::Tags(tags.iter().map(|tag| tag.as_bytes().to_vec()).collect())))
    }

    #[test]
    fn tags_are_read_as_the_standard_writes_them() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b"*"]), Ok(Some(IfMatch::Any)));
        assert_eq!(read(&[b" * "]), Ok(Some(IfMatch::Any)));
        assert_eq!(read(&[b"\"xyzzy\""]), tags(&["xyzzy"]));
        assert_eq!(
            read(&[b"\"xyzzy\", \"r2d2xxxx\",\"c3piozzzz\""]),
            tags(&["xyzzy", "r2d2xxxx", "c3piozzzz"])
        );
        assert_eq!(read(&[b"\"a\"", b"\"b\""]), tags(&["a", "b"]), "two headers are one list");
        assert_eq!(read(&[b", \"a,b\" ,, \"\","]), tags(&["a,b", ""]));
        assert_eq!(read(&[b"W/\"a\""]), tags(&[]), "a weak tag is no strong one");
        assert_eq!(read(&[b"W/\"a\", \"b\""]), tags(&["b"]));
        assert_eq!(read(&[b""]), tags(&[]));
        for malformed in [
            &b"a"[..],
            b"\"a",
            b"a\"",
            b"\"a\"b",
            b"\"a\" \"b\"",
            b"\"a b\"",
            b"w/\"a\"",
            b"W/",
            b"W/ \"a\"",
            b"*, \"a\"",
            b"\"a\", *",
        ] {
            assert_eq!(read(&[malformed]), Err(()), "{malformed:?}");
        }
        assert_eq!(read(&[b"*", b"*"]), Err(()));
    }

    #[test]
    fn an_edit_is_made_of_what_was_read() {
        let (found, other) = (json!({"id": 1, "stock": 2}), json!({"id": 1, "stock": 3}));
        let tag = header_value(&found).unwrap();
        assert!(tag.len() == 2 * 16 + 2, "{tag:?}");
        let read = |value: &[u8]| read(&[value]).unwrap().unwrap();
        let named = read(tag.as_bytes());
        assert!(named.check(&found).is_ok());
        assert!(named.check(&other).is_err());
        let listed = [&b"\"no\", "[..], tag.as_bytes()].concat();
        assert!(read(&listed).check(&found).is_ok());
        let weak = [&b"W/"[..], tag.as_bytes()].concat();
        assert!(read(&weak).check(&found).is_err(), "an intermediary may have changed it");
        assert!(read(b"*").check(&other).is_ok());
    }

    #[test]
    fn the_order_of_fields_makes_no_other_tag() {
        #[derive(Serialize)]
        struct Fields {
            stock: i64,
            id: i64,
        }
        let stored: serde_json::Value = serde_json::from_str(r#"{"id": 1, "stock": 2}"#).unwrap();
        assert_eq!(header_value(&Fields { stock: 2, id: 1 }), header_value(&stored));
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_reads_back(tags in prop::collection::vec("[!#-~]{0,20}", 0..5)) {
            let list: Vec<String> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
            let expected: Vec<_> = tags.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(strong_tags(list.join(", ").as_bytes()), Some(expected));
        }

        #[test]
        fn no_bytes_make_it_panic(list: Vec<u8>) {
            let _ = strong_tags(&list);
        }
    }
}
