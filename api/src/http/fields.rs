//! The fields of a request: every offending one is named at once, nothing is silently ignored.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "JSON's kinds are closed, and whatever is not the expected one is wrong alike"
)]

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, Utc};
use firstcome_contract::ids::MAX_ID;

use super::{
    problem::{Code, FieldError, Problem},
    strict_json::Json,
    text::{is_invisible, is_turning},
};

/// The range of ids in bodies.
pub const IDS: RangeInclusive<i64> = 1..=MAX_ID;

/// The fields of a body or a query string. Each reader takes one field out and returns its value;
/// where the field is missing or wrong it notes that and returns a placeholder. So read everything
/// first, then call [`Fields::finish`]: after it succeeded, every value is a real one.
#[derive(Debug, Default)]
pub struct Fields {
    entries: Vec<(String, Json)>,
    errors: Vec<FieldError>,
    /// Query strings and tables know only text, so `7` there is an integer.
    from_query: bool,
    /// Where a nested object stands, such as `items[0].`.
    prefix: String,
}

/// More fields than any request has; beyond it a body is not worth reading.
const MAX_FIELDS: usize = 100;
/// Nobody reads on after so many errors.
const MAX_ERRORS: usize = 100;
/// The longest field name that is echoed.
const MAX_NAME: usize = 100;

impl Fields {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// 400 if it is not one.
    pub fn from_json(body: &[u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(body) {
            Ok(Json::Object(entries)) => Ok(Self::new(entries, false, String::new())),
            Ok(_) => {
                Err(Problem::with_detail(Code::MalformedBody, "The body must be a JSON object."))
            }
            Err(error) => {
                Err(Problem::with_detail(Code::MalformedBody, format!("Not JSON: {error}.")))
            }
        }
    }

    /// Reads a query string.
    #[must_use]
    pub fn from_query(query: Option<&str>) -> Self {
        let entries = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .map(|(name, value)| (name.into_owned(), Json::Text(value.into_owned())))
            .take(MAX_FIELDS + 1)
            .collect();
        Self::new(entries, true, String::new())
    }

    /// Reads a row of a table by the names of its columns. An empty cell counts as `null`.
    pub(crate) fn from_cells(names: &[String], cells: Vec<String>) -> Self {
        let value = |cell: String| if cell.is_empty() { Json::Null } else { Json::Text(cell) };
        let entries = names.iter().cloned().zip(cells.into_iter().map(value)).collect();
        Self::new(entries, true, String::new())
    }

    fn new(entries: Vec<(String, Json)>, from_query: bool, prefix: String) -> Self {
        let mut fields = Self { from_query, prefix, ..Self::default() };
        if entries.len() > MAX_FIELDS {
            fields.reject("*", format!("there are more than {MAX_FIELDS} fields"));
        }
        for (name, value) in entries.into_iter().take(MAX_FIELDS) {
            if fields.entries.iter().any(|(seen, _)| *seen == name) {
                fields.reject(&name, "appears more than once");
            } else {
                fields.entries.push((name, value));
            }
        }
        fields
    }

    /// Notes an error that no reader can find.
    pub fn reject(&mut self, field: &str, detail: impl Into<String>) {
        if self.errors.len() >= MAX_ERRORS {
            return;
        }
        let field: String = self.prefix.chars().chain(field.chars()).take(MAX_NAME).collect();
        if !self.errors.iter().any(|error| error.field == field) {
            self.errors.push(FieldError { field, detail: detail.into() });
        }
    }

    /// A list of objects, each read by `read`; `None` if absent or `null`.
    pub fn optional_objects<T>(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        read: impl Fn(&mut Self) -> T,
    ) -> Option<Vec<T>> {
        let items = match self.take(name)? {
            Json::List(items) if length.contains(&items.len()) => items,
            _ => {
                let (least, most) = length.into_inner();
                self.reject(name, format!("must be a list of {least} to {most} objects"));
                return Some(Vec::new());
            }
        };
        let mut objects = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let Json::Object(entries) = item else {
                self.reject(&format!("{name}[{index}]"), "must be an object");
                continue;
            };
            let prefix = format!("{}{name}[{index}].", self.prefix);
            let mut object = Self::new(entries, self.from_query, prefix);
            objects.push(read(&mut object));
            object.reject_unknown();
            self.errors.append(&mut object.errors);
            if self.errors.len() >= MAX_ERRORS {
                break;
            }
        }
        Some(objects)
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.entries.iter().position(|(field, _)| field == name)?;
        match self.entries.swap_remove(at).1 {
            Json::Null => None,
            value => Some(value),
        }
    }

    fn required<T: Default>(&mut self, name: &str, value: Option<T>) -> T {
        value.unwrap_or_else(|| {
            self.reject(name, "is required");
            T::default()
        })
    }

    /// An integer that may be absent or `null`.
    pub fn optional_integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = match self.take(name)? {
            Json::Integer(value) => Some(value),
            Json::Text(text) if self.from_query && is_digits(&text) => text.parse().ok(),
            _ => None,
        };
        match value {
            Some(value) if range.contains(&value) => Some(value),
            _ => {
                self.reject(
                    name,
                    format!("must be an integer from {} to {}", range.start(), range.end()),
                );
                Some(*range.start())
            }
        }
    }

    /// An integer whose range has a code of its own: that is told where it is none at all.
    pub fn any_integer(&mut self, name: &str, range: RangeInclusive<i64>) -> i64 {
        match self.entries.iter().find(|(field, _)| field == name) {
            Some((_, Json::Integer(_))) => self.integer(name, i64::MIN..=i64::MAX),
            _ => self.integer(name, range),
        }
    }

    /// An integer.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> i64 {
        let value = self.optional_integer(name, range);
        self.required(name, value)
    }

    /// A text that may be absent or `null`, of 1..=`longest` characters, without the space around it. None of
    /// them is a control character, and not all are invisible.
    pub fn optional_text(&mut self, name: &str, longest: usize) -> Option<String> {
        match self.take(name)? {
            Json::Text(text)
                if text.chars().count() <= longest
                    && !text.chars().any(|c| c.is_control() || is_turning(c))
                    && !text.chars().all(|c| c.is_whitespace() || is_invisible(c)) =>
            {
                Some(text.trim().to_owned())
            }
            _ => {
                self.reject(
                    name,
                    format!(
                        "must be a text of 1 to {longest} visible characters, without control characters"
                    ),
                );
                Some(String::new())
            }
        }
    }

    /// A text.
    pub fn text(&mut self, name: &str, longest: usize) -> String {
        let value = self.optional_text(name, longest);
        self.required(name, value)
    }

    /// A word that may be absent or `null`, of 1..=`longest` visible ASCII characters, as it was written.
    pub fn optional_word(&mut self, name: &str, longest: usize) -> Option<String> {
        match self.take(name)? {
            Json::Text(word)
                if (1..=longest).contains(&word.len())
                    && word.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Some(word)
            }
            _ => {
                self.reject(name, format!("must be 1 to {longest} visible ASCII characters"));
                Some(String::new())
            }
        }
    }

    /// One of a few names, which may be absent or `null`.
    pub fn optional_choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.take(name)?;
        let chosen =
            choices.iter().find(|(choice, _)| matches!(&value, Json::Text(text) if text == choice));
        if chosen.is_none() {
            let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
            self.reject(name, format!("must be one of: {}", names.join(", ")));
        }
        chosen.map(|(_, value)| *value)
    }

    /// A flag that may be absent or `null`.
    pub fn optional_flag(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Json::Bool(value) => Some(value),
            Json::Text(text) if self.from_query && text == "true" => Some(true),
            Json::Text(text) if self.from_query && text == "false" => Some(false),
            _ => {
                self.reject(name, "must be true or false");
                Some(false)
            }
        }
    }

    /// Whether the field is there, even if it is `null`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(field, _)| field == name)
    }

    /// An RFC 3339 instant that may be absent or `null`.
    pub fn optional_instant(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let at = match self.take(name)? {
            Json::Text(text) => DateTime::parse_from_rfc3339(&text).ok(),
            _ => None,
        };
        // To the microsecond, without leap seconds: as PostgreSQL will compare it.
        let at = at.and_then(|at| DateTime::from_timestamp_micros(at.timestamp_micros()));
        // What PostgreSQL and every JSON client can hold.
        if !at.is_some_and(|at| (1..=9999).contains(&at.year())) {
            self.reject(name, "must be an RFC 3339 date and time, such as 2026-01-31T12:00:00Z");
        }
        Some(at.unwrap_or_default())
    }

    /// An RFC 3339 instant.
    pub fn instant(&mut self, name: &str) -> DateTime<Utc> {
        let value = self.optional_instant(name);
        self.required(name, value)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 400 `validation-failed` with every field that is wrong, missing, unknown or repeated.
    pub fn finish(mut self) -> Result<(), Problem> {
        self.reject_unknown();
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::validation(self.errors)) }
    }

    fn reject_unknown(&mut self) {
        for (name, _) in std::mem::take(&mut self.entries) {
            self.reject(&name, "is not a known field");
        }
    }
}

pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn errors(body: &str, read: impl Fn(&mut Fields)) -> Vec<String> {
        let mut fields = Fields::from_json(body.as_bytes()).unwrap();
        read(&mut fields);
        let problem = fields.finish().map_or_else(
            |problem| serde_json::to_value(problem).unwrap(),
            |()| serde_json::Value::Null,
        );
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_offending_field_is_named_at_once() {
        let body = r#"{"a": 1.0, "b": "x", "c": 11, "d": null, "e": 1, "e": 2, "f": {}, "g": 99999999999999999999}"#;
        let named = errors(body, |fields| {
            for name in ["a", "b", "c", "d", "e", "g"] {
                fields.integer(name, 1..=10);
            }
        });
        assert_eq!(named, ["e", "a", "b", "c", "d", "g", "f"]);
    }

    #[test]
    fn null_is_absent() {
        assert_eq!(
            errors(r#"{"a": null}"#, |fields| assert_eq!(
                fields.optional_integer("a", 1..=2),
                None
            )),
            [""; 0]
        );
    }

    #[test]
    fn a_text_is_seen() {
        let read = |text: &str| {
            let body = serde_json::json!({ "a": text }).to_string();
            let mut fields = Fields::from_json(body.as_bytes()).unwrap();
            let text = fields.text("a", 10);
            fields.finish().is_ok().then_some(text)
        };
        for (text, expected) in [
            (" Kim ", "Kim"),
            ("김민지", "김민지"),
            ("👩\u{200d}🚀", "👩\u{200d}🚀"),
            ("1234567890", "1234567890"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected));
        }
        for unseen in
            ["", "  ", "\u{200b}", "\u{3164} \u{2800}", "a\u{202e}b", "a\nb", "12345678901"]
        {
            assert_eq!(read(unseen), None, "{unseen:?}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>) {
            let _ = Fields::from_json(&body).map(Fields::finish);
        }
    }
}
