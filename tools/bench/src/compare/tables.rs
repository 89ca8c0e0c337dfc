//! Figures and tables in Markdown, as people read them.

use firstcome_rig::figures::count;

use super::measurements::Figure;

/// Median and range, with so many digits after the point; nothing of nothing.
pub(super) fn shown(figure: Option<Figure>, digits: usize) -> String {
    let Some(Figure { median, min, max }) = figure else { return String::new() };
    let number = |value: f64| match digits {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rates are positive and below 2^53"
        )]
        0 => count(value.round() as usize),
        _ => format!("{value:.digits$}"),
    };
    format!("{} [{}..{}]", number(median), number(min), number(max))
}

/// Microseconds; a dash where nothing is known.
pub(super) fn micros(micros: Option<f64>) -> String {
    micros.map_or_else(|| "–".to_owned(), |micros| format!("{micros:.1}"))
}

/// Padded, so that it is a table also before it is rendered.
pub(super) fn table<const N: usize>(text: &mut String, heads: [&str; N], rows: &[[String; N]]) {
    let heads = heads.map(str::to_owned);
    let mut widths = [0; N];
    for row in std::iter::once(&heads).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    *text += &line(&heads);
    let rules = widths.map(|width| "-".repeat(width));
    *text += &line(&rules);
    for row in rows {
        *text += &line(row);
    }
    text.push('\n');
}
