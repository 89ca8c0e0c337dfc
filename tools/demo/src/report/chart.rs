//! Charts made of characters.

use std::{collections::BTreeMap, time::Duration};

/// Columns of a chart.
pub(super) const WIDTH: usize = 56;

/// One character per number, as high as its share of `full`; what is there at all is seen.
pub(super) fn sparkline(numbers: &[usize], full: usize) -> String {
    const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let level = |number: &usize| (number * 8).div_ceil(full.max(1)).min(8);
    numbers.iter().filter_map(|number| LEVELS.get(level(number))).collect()
}

/// A horizontal bar, as long as the number's share of `full`; what is there at all is seen.
pub(super) fn bar(number: usize, full: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (number * WIDTH / 2 * 8).div_ceil(full.max(1));
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS.get(eighths % 8).unwrap_or(&""))
}

/// How many of the instants fall into each of the columns from 0 to `end`.
pub(super) fn histogram(instants: &[Duration], end: Duration) -> Vec<usize> {
    let mut columns: BTreeMap<u128, usize> = BTreeMap::new();
    let width = u128::try_from(WIDTH).unwrap_or(1);
    for instant in instants {
        let column = (instant.as_micros() * width).checked_div(end.as_micros()).unwrap_or_default();
        *columns.entry(column.min(width - 1)).or_default() += 1;
    }
    (0..width).map(|column| columns.get(&column).copied().unwrap_or_default()).collect()
}

/// How many are in at the end of each column and not out yet. The two come from two clocks, so never
/// negative.
pub(super) fn depth(into: &[usize], out: &[usize]) -> Vec<usize> {
    let step = |(total_in, total_out): &mut (usize, usize),
                (more_in, more_out): (&usize, &usize)| {
        *total_in += more_in;
        *total_out += more_out;
        Some(total_in.saturating_sub(*total_out))
    };
    into.iter().zip(out).scan((0, 0), step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_is_never_negative() {
        assert_eq!(depth(&[2, 0, 3, 0], &[0, 3, 1, 1]), [2, 0, 1, 0]);
    }

    #[test]
    fn pictures_show_whatever_is_there() {
        assert_eq!(sparkline(&[0, 1, 4_000, 7_999, 8_000], 8_000), " ▁▄██");
        assert_eq!(sparkline(&[0, 0], 0), "  ");
        assert_eq!(bar(0, 100), "");
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(100, 100), "█".repeat(WIDTH / 2));
    }

    #[test]
    fn the_last_instant_falls_into_the_last_column() {
        let instants = [0, 1, 500, 999, 1_000].map(Duration::from_millis);
        let columns = histogram(&instants, Duration::from_secs(1));
        assert_eq!(columns.len(), WIDTH);
        assert_eq!((columns[0], columns[WIDTH / 2], columns[WIDTH - 1]), (2, 1, 2));
        assert_eq!(histogram(&[], Duration::ZERO), vec![0; WIDTH]);
    }
}
