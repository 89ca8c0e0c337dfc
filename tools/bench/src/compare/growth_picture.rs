//! The picture of what databases of several sizes come to: jobs settled per second, and what each of them costs.

use std::fmt::Write;

use firstcome_rig::figures::count;

use super::{
    growth::{PROGRAMS, key, micros, sides},
    measurements::{Figure, Measurements},
    picture::{WIDTH, begun, step, whole},
    results::Results,
    sale::Sale,
};

const LEFT: f64 = 72.0;
const RIGHT: f64 = 20.0;
const GROUPS: usize = 7;
const GROUP: f64 = (WIDTH - LEFT - RIGHT) / 7.0;
/// Where the first panel begins, how far the next one is, and how high the bars can be.
const TOP: f64 = 148.0;
const PANEL: f64 = 280.0;
const HEIGHT: f64 = 190.0;
const BAR: f64 = 40.0;
const GAP: f64 = 6.0;
/// Of coupons and orders.
const COLOURS: [&str; 2] = ["#d9661f", "#5b7f9e"];
/// Of the programs.
const PARTS: [&str; 4] = ["#f3a35c", "#c9b458", "#7fae8b", "#9a86b8"];

/// A bar of one or more parts, each with its colour.
struct Bar {
    parts: Vec<(f64, &'static str)>,
    range: Option<Figure>,
}

impl Bar {
    fn height(&self) -> f64 {
        self.parts.iter().map(|(part, _)| part).sum()
    }

    fn most(&self) -> f64 {
        self.range.map_or(0.0, |figure| figure.max).max(self.height())
    }
}

/// For each of [`sides`] coupons and orders.
type Bars = [[Option<Bar>; 2]; GROUPS];

/// Draws it: bars from zero on a linear scale, three panels one below the other.
pub(super) fn draw(results: &Results) -> String {
    let (measurements, rows) = (&results.measurements, results.plan.growth_rows);
    let sides = sides(rows);
    let of_all = |bar: &dyn Fn(Sale, usize, &str) -> Option<Bar>| -> Bars {
        sides
            .each_ref()
            .map(|side| [bar(Sale::Coupons, 0, side.as_str()), bar(Sale::Orders, 1, side.as_str())])
    };
    let most = rows.last().copied().unwrap_or_default();
    let mut svg = head(results, most);
    let mut top = TOP;
    for (title, bars) in [
        (
            "Settled per second (256 connections)",
            of_all(&|sale, colour, side| {
                plain(measurements, sale, colour, side, "per_second", 1.0)
            }),
        ),
        (
            "Microseconds of a core per job",
            of_all(&|sale, _, side| stacked(measurements, sale, side)),
        ),
        (
            "KiB of write-ahead log per job",
            of_all(&|sale, colour, side| {
                plain(measurements, sale, colour, side, "wal_bytes", 1.0 / 1024.0)
            }),
        ),
    ] {
        panel(&mut svg, top, title, &bars, rows);
        top += PANEL;
    }
    svg += "</svg>\n";
    svg
}

fn head(results: &Results, most: i64) -> String {
    let title = format!("A hot coupon and a hot product, up to {} rows", size(most));
    let mut svg = begun(results, TOP + 3.0 * PANEL - 10.0, &title);
    let mut x = 20.0;
    let sales = [("left: coupons", COLOURS[0]), ("right: orders", COLOURS[1])];
    let programs = PROGRAMS.into_iter().zip(PARTS).map(|((program, _), colour)| (program, colour));
    for (index, (label, colour)) in sales.into_iter().chain(programs).enumerate() {
        // The programs are for the second panel.
        let label = if index == sales.len() { format!("cost: {label}") } else { label.to_owned() };
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"68\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"79\" fill=\"#555\">{label}</text>",
            x + 18.0
        );
        x += 128.0;
    }
    let _ = writeln!(
        svg,
        "<text x=\"20\" y=\"100\" fill=\"#555\">Bar: median of the rounds; line: their range. \
         Load generator and servers share the cores; fsync on.</text>"
    );
    svg
}

/// Of one figure, in a colour of its sale.
fn plain(
    measurements: &Measurements,
    sale: Sale,
    colour: usize,
    side: &str,
    metric: &str,
    scale: f64,
) -> Option<Bar> {
    let Figure { median, min, max } = measurements.figure(&key(sale, side, metric))?;
    let figure = Figure { median: median * scale, min: min * scale, max: max * scale };
    let colour = COLOURS.get(colour)?;
    Some(Bar { parts: vec![(figure.median, colour)], range: Some(figure) })
}

/// Of what the programs used.
fn stacked(measurements: &Measurements, sale: Sale, side: &str) -> Option<Bar> {
    let parts = micros(measurements, sale, side).into_iter().zip(PARTS);
    let parts: Vec<(f64, &'static str)> =
        parts.filter_map(|(micros, colour)| Some((micros?, colour))).collect();
    (!parts.is_empty()).then_some(Bar { parts, range: None })
}

fn panel(svg: &mut String, top: f64, title: &str, bars: &Bars, rows: [i64; 3]) {
    let most = bars.iter().flatten().flatten().map(Bar::most).fold(1.0, f64::max);
    let step = step(most);
    // The highest bar has its figure above it.
    let ticks = (1.1 * most / step).ceil();
    let scale = HEIGHT / (ticks * step);
    let bottom = top + HEIGHT;
    let _ =
        writeln!(svg, "<text x=\"20\" y=\"{:.1}\" font-weight=\"600\">{title}</text>", top - 14.0);
    let mut tick = 0.0;
    while tick <= ticks {
        let y = bottom - tick * step * scale;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#777\" font-size=\"12\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            number(tick * step)
        );
        tick += 1.0;
    }
    let mut x = LEFT;
    for (group, [name, hint]) in bars.iter().zip(labels(rows)) {
        let middle = x + GROUP / 2.0;
        let lefts = [middle - GAP / 2.0 - BAR, middle + GAP / 2.0];
        for (left, bar) in lefts.into_iter().zip(group) {
            if let Some(bar) = bar {
                draw_bar(svg, bar, left, bottom, scale);
            }
        }
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-weight=\"600\">{name}</text>\
             <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#777\" font-size=\"12\">{hint}</text>",
            bottom + 18.0,
            bottom + 34.0
        );
        x += GROUP;
    }
    // The sizes are compared with each other, the others with the largest.
    let x = LEFT + 3.0 * GROUP;
    let _ = writeln!(
        svg,
        "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#999\" stroke-dasharray=\"3 3\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#777\" font-size=\"12\">The largest one:</text>",
        bottom + 36.0,
        x + 8.0,
        top - 14.0
    );
}

fn draw_bar(svg: &mut String, bar: &Bar, left: f64, bottom: f64, scale: f64) {
    let mut y = bottom;
    for (part, colour) in &bar.parts {
        y -= part * scale;
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{BAR}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            part * scale
        );
    }
    let middle = left + BAR / 2.0;
    if let Some(Figure { min, max, .. }) = bar.range {
        let _ = writeln!(
            svg,
            "<line x1=\"{middle:.1}\" y1=\"{:.1}\" x2=\"{middle:.1}\" y2=\"{:.1}\" stroke=\"#333\"/>",
            bottom - min * scale,
            bottom - max * scale
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"12\">{}</text>",
        bottom - bar.most() * scale - 5.0,
        number(bar.height())
    );
}

/// What stands below the bars, in the order of [`sides`].
fn labels([none, some, most]: [i64; 3]) -> [[String; 2]; GROUPS] {
    let fresh = |rows: i64| [size(rows), "rows".to_owned()];
    let then = |what: &str, how: &str| [what.to_owned(), how.to_owned()];
    [
        fresh(none),
        fresh(some),
        fresh(most),
        then("Purged", "and vacuumed"),
        then("Statistics", "absent"),
        then("Statistics", "wrong"),
        then("pg_dump", "running"),
    ]
}

fn size(rows: i64) -> String {
    match rows {
        0 => "No".to_owned(),
        1..1_000_000 => count(usize::try_from(rows).unwrap_or_default()),
        _ => format!("{} million", rows / 1_000_000),
    }
}

/// With a digit after the point where that tells something.
fn number(value: f64) -> String {
    if value < 20.0 && value.fract() > 0.0 { format!("{value:.1}") } else { count(whole(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::tests::results;

    fn grown() -> Results {
        let mut results = results();
        for (index, side) in (0u32..).zip(sides(results.plan.growth_rows)) {
            for (sale, less) in [(Sale::Coupons, 1.0), (Sale::Orders, 0.6)] {
                let slower = f64::from(index + 1).sqrt();
                for value in [24_000.0, 23_000.0, 26_100.0] {
                    let value = value * less / slower;
                    results.measurements.add(key(sale, &side, "per_second"), value);
                }
                for (program, micros) in
                    [("api", 9.0), ("rabbitmq", 11.0), ("coupons", 2.0), ("postgres", 14.0)]
                {
                    let key = key(sale, &side, &format!("{program}.cpu_us"));
                    results.measurements.add(key, micros * slower);
                }
                results.measurements.add(key(sale, &side, "wal_bytes"), 600.0 * slower);
            }
        }
        results
    }

    #[test]
    fn the_picture_is_well_formed() {
        let picture = draw(&grown());
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
        for part in ["A &amp; B", "24,000", "300,000", "pg_dump", "36"] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
        for element in ["svg", "text"] {
            let (opened, closed) = (format!("<{element} "), format!("</{element}>"));
            assert_eq!(picture.matches(&opened).count(), picture.matches(&closed).count());
        }
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let picture = draw(&results());
        assert!(picture.contains("Purged") && !picture.contains("24,000"), "{picture}");
    }
}
