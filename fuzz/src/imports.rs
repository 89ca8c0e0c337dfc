//! Imports: rows of a table, or an object per line.

use std::fmt::Debug;

use firstcome_api::{
    admin::imports::{
        reader::{Format, Layout, Reader},
        records::{Record, Records, cells},
    },
    http::fields::Fields,
};
use serde_json::{Map, Value};

use super::json::accepted;

/// Where each row begins, and the row as it is told by `{:?}`, or what is wrong with it.
type Rows = Vec<(u64, Result<String, Vec<String>>)>;

/// Reads a stream that comes in these parts; `Err` if it has no good header.
fn rows<R: Layout + Debug>(format: Format, parts: &[&[u8]]) -> Result<Rows, String> {
    let (mut reader, mut rows) = (Reader::<R>::new(format), Vec::new());
    let problem = |problem| format!("{problem:?}");
    for part in parts.iter().map(Some).chain([None]) {
        match part {
            Some(part) => reader.push(part),
            None => reader.end(),
        }
        while let Some((line, row)) = reader.next_row().map_err(problem)? {
            rows.push((line, row.map(|row| format!("{row:?}"))));
        }
    }
    reader.finish().map_err(problem)?;
    Ok(rows)
}

/// Wherever the stream is split, its rows are the same; and so they are if they are written in another way.
pub(crate) fn check<R: Layout + Debug>(format: Format, stream: &[u8]) {
    let whole = rows::<R>(format, &[stream]);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(rows::<R>(format, &bytes), whole);
    let Ok(whole) = whole else { return };
    assert!(whole.is_sorted_by(|earlier, later| earlier.0 < later.0), "in order: {whole:?}");
    let reasons = whole.iter().filter_map(|(_, row)| row.as_ref().err());
    assert!(reasons.into_iter().all(|reasons| (1..=10).contains(&reasons.len())));
    match format {
        Format::Csv => check_table::<R>(stream, &whole),
        Format::Ndjson => check_objects::<R>(stream, &whole),
    }
}

fn records(has_cells: bool, stream: &[u8]) -> Vec<Record> {
    let mut records = Records::new(has_cells);
    records.push(stream);
    records.end();
    std::iter::from_fn(|| records.next_record()).collect()
}

/// A table means the same with all cells in quotation marks, and its rows what objects with the same fields do.
fn check_table<R: Layout + Debug>(stream: &[u8], whole: &Rows) {
    let mut records = records(true, stream).into_iter();
    let text = |record: Record| {
        let content = record.content.ok()?;
        std::str::from_utf8(&content).ok().map(cells)
    };
    let header = records.next().and_then(text).expect("names of columns");
    let lines: Vec<u64> = records.as_slice().iter().map(|record| record.line).collect();
    assert_eq!(lines, whole.iter().map(|(line, _)| *line).collect::<Vec<_>>());
    let table: Vec<(Vec<String>, _)> =
        records.zip(whole).filter_map(|(record, (_, row))| Some((text(record)?, row))).collect();

    let quoted = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
    let line = |cells: &Vec<String>| cells.iter().map(quoted).collect::<Vec<_>>().join(",");
    let lines: Vec<String> =
        [&header].into_iter().chain(table.iter().map(|row| &row.0)).map(line).collect();
    // A record may be too long by its quotation marks.
    if lines.iter().all(|line| line.len() < 60_000) {
        let again = rows::<R>(Format::Csv, &[lines.join("\r\n").as_bytes()]).expect("a header");
        let again: Vec<_> = again.iter().map(|(_, row)| row).collect();
        assert_eq!(again, table.iter().map(|(_, row)| *row).collect::<Vec<_>>());
    }
    for (cells, row) in table {
        let Ok(row) = row else { continue };
        let object = object(&header, &cells).to_string();
        let again = rows::<R>(Format::Ndjson, &[object.as_bytes()]);
        assert_eq!(again, Ok(vec![(1, Ok(row.clone()))]), "{object}");
    }
}

/// What a row says, as an object.
fn object(header: &[String], cells: &[String]) -> Value {
    const NUMBERS: [&str; 8] =
        ["id", "balance", "price", "stock", "perCustomer", "discountValue", "maxDiscount", "total"];
    let value = |name: &str, cell: &str| match cell {
        "" => Value::Null,
        number if NUMBERS.contains(&name) => number.parse::<i64>().expect("a number").into(),
        text => text.into(),
    };
    let fields = header.iter().zip(cells);
    let fields = fields.map(|(name, cell)| (name.trim().to_owned(), value(name.trim(), cell)));
    fields.collect::<Map<_, _>>().into()
}

/// Each line is read as it would be alone, and a good one has each field once, and none that is not known.
fn check_objects<R: Layout + Debug>(stream: &[u8], whole: &Rows) {
    for (record, (line, row)) in records(false, stream).into_iter().zip(whole) {
        assert_eq!(record.line, *line);
        let Ok(content) = record.content else { continue };
        let alone = accepted(&content, R::COLUMNS, |fields: &mut Fields| R::read(fields));
        assert_eq!(alone.map(|(row, _)| format!("{row:?}")), row.as_ref().ok().cloned());
    }
}
