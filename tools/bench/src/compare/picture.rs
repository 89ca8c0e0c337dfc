//! The picture that a reader looks at first: settled per second on one hot coupon, all sides.

use std::fmt::Write;

use firstcome_rig::figures::count;

use super::{measurements::Measurements, plan::CONNECTIONS, results::Results};

/// Key and label, in the order of the picture; the last one is a floor.
const SIDES: [(&str, &str, &str); 9] = [
    ("optimistic", "Optimistic", "up to 10 retries"),
    ("pessimistic", "Pessimistic lock", "SELECT … FOR UPDATE"),
    ("redis-lock", "Redis lock", "SET NX PX around a transaction"),
    ("atomic", "One atomic statement", "UPDATE + INSERT in one round trip"),
    ("redis-lua-everysec", "Script in Redis", "AOF every second; then batches"),
    ("redis-lua-always", "Script in Redis", "AOF before the answer; then batches"),
    ("firstcome-polled", "Firstcome, polled", "every client waits for its outcome"),
    ("firstcome", "Firstcome", "submit → committed outcome"),
    ("publish", "Floor: confirmed publish", "HTTP + one message, no database"),
];

pub(super) const WIDTH: f64 = 900.0;
const LEFT: f64 = 265.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 96.0;
const BAR: f64 = 17.0;
const GROUP: f64 = 56.0;
/// For 64 and 256 connections.
const OTHERS: (&str, &str) = ("#9db4c8", "#5b7f9e");
const OURS: (&str, &str) = ("#f3a35c", "#d9661f");
const FLOOR: (&str, &str) = ("#d4d4d4", "#b0b0b0");

pub(super) fn is_measured(measurements: &Measurements) -> bool {
    measurements.iter().any(|(key, _)| key.starts_with("hot_coupon."))
}

/// Draws it: bars from zero on a linear scale, median with the range of the rounds.
pub(super) fn draw(results: &Results) -> String {
    let figure = |side: &str, connections: usize| {
        results.measurements.figure(&format!("hot_coupon.{side}.{connections}.per_second"))
    };
    let most = most(results);
    let step = step(most);
    let ticks = (most / step).ceil();
    let scale = (WIDTH - LEFT - RIGHT) / (ticks * step);
    #[expect(clippy::cast_precision_loss, reason = "nine sides")]
    let bottom = TOP + GROUP * SIDES.len() as f64;

    let mut svg = begun(results, bottom + 56.0, "One hot coupon: settled per second");
    let _ = writeln!(
        svg,
        "<text x=\"20\" y=\"74\" fill=\"#555\">Light: 64 connections. Dark: 256. Bar: median of the rounds; line: their range. \
         Load generator and servers share the cores; fsync on.</text>"
    );
    let mut tick = 0.0;
    while tick <= ticks {
        let (x, value) = (LEFT + tick * step * scale, whole(tick * step));
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#777\" font-size=\"12\">{}</text>",
            bottom + 20.0,
            count(value)
        );
        tick += 1.0;
    }
    let mut y = TOP;
    for (side, label, hint) in SIDES {
        let (light, dark) = match side {
            "publish" => FLOOR,
            _ if side.starts_with("firstcome") => OURS,
            _ => OTHERS,
        };
        let _ = writeln!(
            svg,
            "<text x=\"{0}\" y=\"{1:.1}\" text-anchor=\"end\" font-weight=\"600\">{label}</text>\
             <text x=\"{0}\" y=\"{2:.1}\" text-anchor=\"end\" fill=\"#777\" font-size=\"12\">{hint}</text>",
            LEFT - 12.0,
            y + 24.0,
            y + 40.0
        );
        for (bar, (connections, colour)) in
            [10.0, 10.0 + BAR + 2.0].into_iter().zip(CONNECTIONS.into_iter().zip([light, dark]))
        {
            let Some(figure) = figure(side, connections) else { continue };
            let top = y + bar;
            let middle = top + BAR / 2.0;
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\
                 <line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" stroke=\"#333\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"12\">{}</text>",
                figure.median * scale,
                LEFT + figure.min * scale,
                LEFT + figure.max * scale,
                LEFT + figure.max * scale + 6.0,
                middle + 4.5,
                count(whole(figure.median))
            );
        }
        y += GROUP;
    }
    svg += "</svg>\n";
    svg
}

/// A picture of this height with its title, and below that what it was measured on.
pub(super) fn begun(results: &Results, height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"20\" y=\"32\" font-size=\"20\" font-weight=\"600\">{title}</text>\n\
         <text x=\"20\" y=\"54\" fill=\"#555\">{}{}</text>\n",
        escaped(&results.subject()),
        if results.plan.quick { " — QUICK RUN, no result" } else { "" },
    )
}

/// The highest value of the picture.
fn most(results: &Results) -> f64 {
    let of_picture = results
        .measurements
        .iter()
        .filter(|(key, _)| key.starts_with("hot_coupon.") && key.ends_with(".per_second"));
    of_picture.flat_map(|(_, values)| values).copied().fold(1.0, f64::max)
}

/// 1, 2 or 5 times a power of ten, so that there are four to ten ticks.
pub(super) fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / 10.0).log10().ceil());
    match most / power {
        ..2.0 => power / 5.0,
        ..5.0 => power / 2.0,
        _ => power,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive and below 2^53"
)]
pub(super) fn whole(value: f64) -> usize {
    value.round() as usize
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::tests::results;

    #[test]
    fn the_picture_is_well_formed() {
        let picture = draw(&results());
        assert!(picture.contains("A &amp; B") && picture.contains("24,000"), "{picture}");
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }

    #[test]
    fn ticks_are_round_and_few() {
        for most in [1.0, 990.0, 1_500.0, 24_000.0, 31_800.0, 99_000.0, 100_001.0] {
            let ticks = (most / step(most)).ceil();
            assert!((4.0..=10.0).contains(&ticks), "{most}: {ticks} ticks of {}", step(most));
        }
        assert!((step(31_800.0) - 5_000.0).abs() < 1e-6, "{}", step(31_800.0));
    }
}
