//! Records as rows of what is imported.

use std::{marker::PhantomData, str};

use axum::http::{HeaderMap, header};
use bytes::Bytes;

use super::records::{Record, Records, Unreadable, cells};
use crate::http::{
    body::{MAX_BODY, is_of_type},
    fields::Fields,
    problem::{Code, FieldError, Problem},
};

/// Nobody reads more of a row's faults.
const MAX_REASONS: usize = 10;
/// The field by which the first line of a table is told of.
const HEADER: &str = "header";

/// What a row is read from.
pub trait Layout: Sized {
    /// The fields, which are a table's columns.
    const COLUMNS: &'static [&'static str];
    /// Those that every row has.
    const REQUIRED: &'static [&'static str];

    /// Reads the fields of a row, and notes what is wrong with them.
    fn read(fields: &mut Fields) -> Self;
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table: RFC 4180, with names of columns.
    Csv,
    /// An object per line.
    Ndjson,
}

impl Format {
    /// That of a request's body.
    ///
    /// # Errors
    /// 415 for any other.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let formats = [(Self::Csv, "text/csv"), (Self::Ndjson, "application/x-ndjson")];
        let is_it = |(_, name): &(Self, &str)| is_of_type(headers, name);
        let format = formats.into_iter().find(is_it);
        format.filter(|_| !headers.contains_key(header::CONTENT_ENCODING)).map(|(format, _)| format).ok_or_else(|| {
            let detail = "The body must be text/csv or application/x-ndjson, in UTF-8 and not compressed.";
            Problem::with_detail(Code::UnsupportedMediaType, detail)
        })
    }
}

/// Where a row begins, and the row, or what is wrong with it.
pub type Entry<R> = (u64, Result<R, Vec<String>>);

/// Reads rows as their bytes come.
#[derive(Debug)]
pub struct Reader<R> {
    format: Format,
    records: Records,
    /// Of a table, once they are read.
    columns: Vec<String>,
    rows: PhantomData<fn() -> R>,
}

impl<R: Layout> Reader<R> {
    /// Of rows that are written so.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let records = Records::new(format == Format::Csv);
        Self { format, records, columns: Vec::new(), rows: PhantomData }
    }

    /// More bytes came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.records.push(bytes);
    }

    /// All have come.
    pub fn end(&mut self) {
        self.records.end();
    }

    /// The next row; `None` until more bytes come, or after the end.
    ///
    /// # Errors
    /// 400 for a table whose columns are not those of a row.
    pub fn next_row(&mut self) -> Result<Option<Entry<R>>, Problem> {
        if self.format == Format::Csv && self.columns.is_empty() {
            let Some(record) = self.records.next_record() else { return Ok(None) };
            self.columns = columns::<R>(record)?;
        }
        let Some(Record { line, content }) = self.records.next_record() else { return Ok(None) };
        let row = content.map_err(|reason| vec![told(reason)]).and_then(|content| {
            self.row(&content).map_err(|mut reasons| {
                reasons.truncate(MAX_REASONS);
                reasons
            })
        });
        Ok(Some((line, row)))
    }

    /// Makes sure that a table had names of columns: without one line there are none.
    ///
    /// # Errors
    /// 400 if not.
    pub fn finish(&self) -> Result<(), Problem> {
        if self.format == Format::Csv && self.columns.is_empty() {
            return Err(Problem::invalid(HEADER, "the first line must name the columns"));
        }
        Ok(())
    }

    fn row(&self, content: &Bytes) -> Result<R, Vec<String>> {
        let mut fields = match self.format {
            Format::Csv => {
                let record =
                    str::from_utf8(content).map_err(|_| vec!["it is not UTF-8".to_owned()])?;
                let (cells, columns) = (cells(record), self.columns.len());
                if cells.len() != columns {
                    let reason = format!("it has {} cells, not {columns}", cells.len());
                    return Err(vec![reason]);
                }
                Fields::from_cells(&self.columns, cells)
            }
            Format::Ndjson => Fields::from_json(content).map_err(Problem::reasons)?,
        };
        let row = R::read(&mut fields);
        fields.finish().map_err(Problem::reasons)?;
        Ok(row)
    }
}

/// The names of a table's columns.
///
/// # Errors
/// 400 with each that is unknown, missing or there twice.
fn columns<R: Layout>(record: Record) -> Result<Vec<String>, Problem> {
    let content = record.content.map_err(|reason| Problem::invalid(HEADER, told(reason)))?;
    let text = str::from_utf8(&content).map_err(|_| Problem::invalid(HEADER, "is not UTF-8"))?;
    let names: Vec<String> = cells(text).iter().map(|name| name.trim().to_owned()).collect();
    let error = |field: &str, detail: &str| {
        // Whatever it is, not all of it is echoed.
        let field = field.chars().take(100).collect();
        FieldError { field, detail: detail.to_owned() }
    };
    let mut errors = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if !R::COLUMNS.contains(&name.as_str()) {
            errors.push(error(name, "is not a known column"));
        } else if names.iter().take(at).any(|earlier| earlier == name) {
            errors.push(error(name, "appears more than once"));
        }
    }
    let missing = R::REQUIRED.iter().filter(|name| !names.iter().any(|there| there == *name));
    errors.extend(missing.map(|name| error(name, "is a column that every row needs")));
    errors.truncate(100);
    if errors.is_empty() { Ok(names) } else { Err(Problem::validation(errors)) }
}

fn told(reason: Unreadable) -> String {
    match reason {
        Unreadable::TooLong => format!("it is longer than {MAX_BODY} bytes"),
        Unreadable::Quotation => {
            "its quotation mark is not closed, or not right before a comma or the end of the line"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::users::UserRow, *};

    fn read(format: Format, text: &[u8]) -> Result<Vec<Entry<UserRow>>, Problem> {
        let mut reader = Reader::new(format);
        reader.push(text);
        reader.end();
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row()? {
            rows.push(row);
        }
        reader.finish().map(|()| rows)
    }

    fn faults(format: Format, text: &[u8]) -> Vec<(u64, String)> {
        let rows = read(format, text).unwrap();
        let faults = rows.into_iter().filter_map(|(line, row)| Some((line, row.err()?.join("; "))));
        faults.collect()
    }

    #[test]
    fn a_table_names_columns_that_there_are() {
        for (header, field) in [
            ("", "header"),
            ("\n\n", "header"),
            ("name,email,colour", "colour"),
            ("name,email,Id", "Id"),
            ("name,email,name", "name"),
            ("id,name", "email"),
            ("name;email", "name;email"),
            ("name,email,", ""),
            ("name,\"email", "header"),
        ] {
            let problem =
                serde_json::to_value(read(Format::Csv, header.as_bytes()).unwrap_err()).unwrap();
            assert_eq!(problem["errors"][0]["field"], field, "{header}: {problem}");
        }
        assert!(read(Format::Csv, b"name,email\xff").is_err());
        assert!(read(Format::Csv, "\u{feff}email, name\r\n".as_bytes()).unwrap().is_empty());
        assert!(read(Format::Ndjson, b"").unwrap().is_empty());
    }

    #[test]
    fn a_faulty_row_harms_no_other() {
        let text = b"id,name,email\n1,Ann,a@x\n2,B\xff,b@x\n3,C\0,c@x\n4,D\n5,,e@x\n9007199254740992,F,f@x\n-7,G,g@x\n8,\"H,h@x\n9,I,i@x\n";
        let lines: Vec<u64> = faults(Format::Csv, text).iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9]);
        let text = b"{\"name\":\"Ann\",\"email\":\"a@x\"}\nnull\n{\"name\":\"B\xff\",\"email\":\"b@x\"}\n{\"name\":\"C\",\"email\":\"c@x\",\"colour\":1}\n{\"name\":\"D\",\"email\":\"d@x\",\"id\":1.0}\n{\n{\"name\":\"E\",\"email\":\"e@x\",\"id\":null}\n";
        let faults = faults(Format::Ndjson, text);
        assert_eq!(faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(faults[2].1, "colour: is not a known field");
    }
}
