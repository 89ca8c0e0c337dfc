//! A stream of bytes as records: lines, which in a table (RFC 4180) go on where a quoted cell holds their end.
//!
//! Ours rather than the csv crates', which read on to the next quotation mark, wherever that is, if one is not closed:
//! here it is a fault of its own line, and the lines after it are read for themselves.

use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use crate::http::body::MAX_BODY;

/// The longest record, and all that is held of a stream beside the part that came last.
const MAX_RECORD: usize = MAX_BODY;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A record that is not blank, and the line that it begins in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The first one is 1.
    pub line: u64,
    /// Without the end of its line.
    pub content: Result<Bytes, Unreadable>,
}

/// Why a line is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// More than a record may have.
    TooLong,
    /// A quotation mark that begins a cell has none that ends it, or something comes between that one and the comma.
    Quotation,
}

/// Where in a record the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the beginning of a cell.
    Start,
    Plain,
    Quoted,
    /// After a quotation mark in a quoted cell: it was the end, or the first of two.
    Closing,
    /// After a carriage return behind the end of a quoted cell.
    Returned,
    /// In a line that is left out.
    LeftOut(Unreadable),
}

/// Tells records apart as their bytes come.
#[derive(Debug)]
pub struct Records {
    has_cells: bool,
    /// What is not told yet; it begins with a record.
    bytes: BytesMut,
    /// How much of it was looked at, and what was found.
    looked_at: usize,
    at: At,
    /// Where the first line of a record of several lines ends.
    first_end: Option<usize>,
    /// The line of the record.
    line: u64,
    has_begun: bool,
    is_over: bool,
}

impl Records {
    /// Records of a table, or lines.
    #[must_use]
    pub fn new(has_cells: bool) -> Self {
        let at = if has_cells { At::Start } else { At::Plain };
        let bytes = BytesMut::new();
        let (looked_at, first_end, line, has_begun, is_over) = (0, None, 1, false, false);
        Self { has_cells, bytes, looked_at, at, first_end, line, has_begun, is_over }
    }

    /// More bytes came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// All have come.
    pub fn end(&mut self) {
        self.is_over = true;
    }

    /// The next record; `None` until more bytes come, or after the end.
    pub fn next_record(&mut self) -> Option<Record> {
        if !self.has_begun {
            let seen = self.bytes.len().min(BYTE_ORDER_MARK.len());
            if self.bytes.get(..seen) == BYTE_ORDER_MARK.get(..seen) {
                if seen < BYTE_ORDER_MARK.len() && !self.is_over {
                    return None;
                }
                if seen == BYTE_ORDER_MARK.len() {
                    self.bytes.advance(seen);
                }
            }
            self.has_begun = true;
        }
        loop {
            let record = self.look()?;
            let is_blank = |content: &Bytes| content.iter().all(|byte| b" \t\r".contains(byte));
            if !record.content.as_ref().is_ok_and(is_blank) {
                return Some(record);
            }
        }
    }

    /// Looks at the bytes until a record ends.
    fn look(&mut self) -> Option<Record> {
        while let Some(byte) = self.bytes.get(self.looked_at).copied() {
            let ends = byte == b'\n';
            self.looked_at += 1;
            self.at = match (self.at, byte) {
                (At::LeftOut(reason), b'\n') => return Some(self.take(Err(reason))),
                (At::Start | At::Plain | At::Closing | At::Returned, b'\n') => {
                    return Some(self.take(Ok(())));
                }
                (At::Start, b'"') if self.has_cells => At::Quoted,
                (At::Start | At::Plain | At::Closing, b',') if self.has_cells => At::Start,
                (At::Start | At::Plain, _) => At::Plain,
                (At::Quoted, b'"') => At::Closing,
                (At::Closing, b'"') | (At::Quoted, _) => At::Quoted,
                (At::Closing, b'\r') => At::Returned,
                (At::Closing | At::Returned, _) => At::LeftOut(Unreadable::Quotation),
                (left_out @ At::LeftOut(_), _) => left_out,
            };
            if ends && self.first_end.is_none() {
                self.first_end = Some(self.looked_at);
            }
            if self.looked_at > MAX_RECORD && !matches!(self.at, At::LeftOut(_)) {
                // So long a cell is none of ours: it is the quotation mark that was not closed.
                let is_open = self.first_end.is_some();
                self.at =
                    At::LeftOut(if is_open { Unreadable::Quotation } else { Unreadable::TooLong });
            }
            if let At::LeftOut(reason) = self.at {
                if let Some(end) = self.first_end {
                    self.looked_at = end;
                    return Some(self.take(Err(reason)));
                }
                // Nobody will read it.
                self.bytes.advance(mem::take(&mut self.looked_at));
            }
        }
        if !self.is_over {
            return None;
        }
        match self.at {
            At::LeftOut(reason) => Some(self.take(Err(reason))),
            At::Quoted => {
                self.looked_at = self.first_end.unwrap_or(self.looked_at);
                Some(self.take(Err(Unreadable::Quotation)))
            }
            _ if self.bytes.is_empty() => None,
            At::Start | At::Plain | At::Closing | At::Returned => Some(self.take(Ok(()))),
        }
    }

    /// Takes out what was looked at.
    fn take(&mut self, found: Result<(), Unreadable>) -> Record {
        let mut content = self.bytes.split_to(mem::take(&mut self.looked_at)).freeze();
        let lines = content.iter().filter(|byte| **byte == b'\n').count();
        // A left-out line has its end here, if it has one.
        let line = self.line;
        self.line += u64::try_from(lines).unwrap_or(u64::MAX);
        if content.ends_with(b"\n") {
            content.truncate(content.len() - 1);
        }
        if content.ends_with(b"\r") {
            content.truncate(content.len() - 1);
        }
        self.at = if self.has_cells { At::Start } else { At::Plain };
        self.first_end = None;
        Record { line, content: found.map(|()| content) }
    }
}

/// The cells of a record as [`Records`] tells them.
#[must_use]
pub fn cells(record: &str) -> Vec<String> {
    let (mut cells, mut rest) = (Vec::new(), record);
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (cell, after) = rest.split_at(end);
                (cell.to_owned(), after)
            }
        };
        cells.push(cell);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return cells,
        }
    }
}

/// A quoted cell, without its first quotation mark, and what comes after its last one.
fn unquoted(mut quoted: &str) -> (String, &str) {
    let mut cell = String::new();
    loop {
        let (text, after) = quoted.split_once('"').unwrap_or((quoted, ""));
        cell.push_str(text);
        let Some(more) = after.strip_prefix('"') else { return (cell, after) };
        cell.push('"');
        quoted = more;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The records of a stream that comes in these parts.
    fn told(has_cells: bool, parts: &[&[u8]]) -> Vec<Record> {
        let (mut records, mut told) = (Records::new(has_cells), Vec::new());
        for part in parts {
            records.push(part);
            told.extend(std::iter::from_fn(|| records.next_record()));
        }
        records.end();
        told.extend(std::iter::from_fn(|| records.next_record()));
        told
    }

    fn lines(has_cells: bool, text: &str) -> Vec<(u64, Result<String, Unreadable>)> {
        let text_of = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let records = told(has_cells, &[text.as_bytes()]).into_iter();
        records.map(|record| (record.line, record.content.map(text_of))).collect()
    }

    fn good(line: u64, text: &str) -> (u64, Result<String, Unreadable>) {
        (line, Ok(text.to_owned()))
    }

    #[test]
    fn lines_and_their_numbers() {
        let expected = [good(1, "a"), good(2, "b"), good(5, "c")];
        assert_eq!(lines(false, "\u{feff}a\r\nb\n\n \t\r\nc"), expected);
        assert_eq!(lines(true, "\u{feff}a\r\nb\n\n \t\r\nc"), expected);
        assert_eq!(lines(false, "\"a\nb\"\n"), [good(1, "\"a"), good(2, "b\"")]);
        for nothing in ["", "\u{feff}", "\n", "\r\n\r\n"] {
            assert_eq!(lines(true, nothing), []);
        }
        // Only the first one is a mark.
        assert_eq!(lines(false, "a\n\u{feff}b"), [good(1, "a"), good(2, "\u{feff}b")]);
    }

    #[test]
    fn a_quoted_cell_may_hold_the_end_of_a_line() {
        let text = "1,\"a\n2,b\",c\r\n3,\"\"\"\"\r\n4,5\" nail\n";
        let expected = [good(1, "1,\"a\n2,b\",c"), good(3, "3,\"\"\"\""), good(4, "4,5\" nail")];
        assert_eq!(lines(true, text), expected);
        assert_eq!(cells("1,\"a\n2,b\",c"), ["1", "a\n2,b", "c"]);
        assert_eq!(cells("3,\"\"\"\",\"\","), ["3", "\"", "", ""]);
        assert_eq!(cells("4,5\" nail"), ["4", "5\" nail"]);
        assert_eq!(cells(""), [""]);
    }

    #[test]
    fn an_unclosed_quotation_mark_is_a_fault_of_its_line() {
        let fault = |line| (line, Err(Unreadable::Quotation));
        let (before, after) = (good(1, "1,a"), good(3, "3,c"));
        for line in ["2,\"b", "2,\"b\"b", "2,\"b\" ,", "\"", "2,\"b\"\rx"] {
            let expected = [before.clone(), fault(2), after.clone()];
            assert_eq!(lines(true, &format!("1,a\n{line}\n3,c")), expected, "{line}");
            assert_eq!(lines(true, &format!("1,a\r\n{line}\r\n3,c\r\n")), expected, "{line}");
        }
        assert_eq!(lines(true, "1,a\n2,\"b"), [before.clone(), fault(2)]);
        // Followed by another cell in quotation marks, and by more than a record can be.
        let text = "1,a\n2,\"b\n3,\"c\"\n";
        assert_eq!(lines(true, text), [before.clone(), fault(2), good(3, "3,\"c\"")]);
        let many = "3,c\n".repeat(MAX_RECORD);
        let found = lines(true, &format!("1,a\n2,\"b\n{many}"));
        assert_eq!(found.len(), 2 + MAX_RECORD);
        assert_eq!(found[..3], [before, fault(2), after]);
    }

    #[test]
    fn what_is_too_long_is_left_out_and_not_held() {
        let longest = "x".repeat(MAX_RECORD - 1);
        let too_long = "x".repeat(MAX_RECORD + 1);
        for has_cells in [false, true] {
            let text = format!("{longest}\n{too_long}\nb");
            let expected = [good(1, &longest), (2, Err(Unreadable::TooLong)), good(3, "b")];
            assert_eq!(lines(has_cells, &text), expected);
            assert_eq!(lines(has_cells, &too_long), [(1, Err(Unreadable::TooLong))]);
            let mut records = Records::new(has_cells);
            for _ in 0..100 {
                records.push(too_long.as_bytes());
                assert_eq!(records.next_record(), None);
                assert!(records.bytes.len() <= MAX_RECORD);
            }
        }
    }

    /// What a record can be made of, often enough.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"\"".to_vec()),
            Just(b",".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"a".to_vec()),
            Just(BYTE_ORDER_MARK.to_vec()),
            any::<u8>().prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn wherever_a_stream_is_split_its_records_are_the_same(
            stream in streams(), has_cells: bool, splits in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut splits: Vec<usize> = splits.iter().map(|split| split.index(stream.len() + 1)).collect();
            splits.extend([0, stream.len()]);
            splits.sort_unstable();
            let parts: Vec<&[u8]> = splits.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            let whole = told(has_cells, &[&stream]);
            prop_assert_eq!(&told(has_cells, &parts), &whole);
            prop_assert_eq!(&told(has_cells, &bytes), &whole);
            // Each line is in one record at most, in order.
            prop_assert!(whole.windows(2).all(|pair| pair[0].line < pair[1].line));
        }

        #[test]
        fn what_is_written_as_a_table_is_read_back(rows in prop::collection::vec(prop::collection::vec("[a\",\r\n 한]{0,6}", 1..5), 1..8)) {
            let quoted = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(quoted).collect::<Vec<_>>().join(",");
            let text = rows.iter().map(line).collect::<Vec<_>>().join("\r\n");
            let read: Vec<Vec<String>> = told(true, &[text.as_bytes()])
                .into_iter()
                .map(|record| cells(std::str::from_utf8(&record.content.unwrap()).unwrap()))
                .collect();
            prop_assert_eq!(read, rows);
        }
    }
}
