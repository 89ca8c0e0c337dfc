//! A picture of what each fault cost.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 80.0;
const ROW: f64 = 20.0;
const DOWN: &str = "#c0392b";
const RECOVERED: &str = "#2d6a9f";

/// Draws it: by fault, for how long no job was accepted and when everything was as before, in seconds.
pub(crate) fn draw(faults: &BTreeMap<&str, Vec<(f64, f64)>>, limit: Duration) -> String {
    let limit = limit.as_secs_f64();
    let longest = faults.values().flatten().map(|(down, recovered)| down.max(*recovered));
    let most = longest.fold(limit, f64::max).ceil();
    let scale = (WIDTH - LEFT - RIGHT) / most;
    #[expect(clippy::cast_precision_loss, reason = "some dozens of faults")]
    let bottom = TOP + ROW * faults.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {0}\" \
         font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"20\" y=\"32\" font-size=\"20\" font-weight=\"600\">What each fault costs</text>\n\
         <text x=\"20\" y=\"54\" fill=\"#555\">In seconds. <tspan fill=\"{DOWN}\">Red: no job was accepted.</tspan> \
         <tspan fill=\"{RECOVERED}\">Blue: from the fault's end until everything that was accepted is settled.</tspan></text>\n",
        bottom + 40.0,
    );
    let mut tick = 0.0;
    while tick <= most {
        let x = LEFT + tick * scale;
        let colour = if (tick - limit).abs() < 0.5 { "#e67e22" } else { "#ddd" };
        // To a string it cannot fail.
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#777\">{tick:.0}</text>",
            bottom + 18.0,
        );
        tick += if most > 30.0 { 15.0 } else { 5.0 };
    }
    let mut y = TOP + ROW / 2.0;
    for (fault, times) in faults {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{fault}</text>",
            LEFT - 10.0,
            y + 4.0
        );
        for (down, recovered) in times {
            for (seconds, colour, dy) in [(down, DOWN, -4.0), (recovered, RECOVERED, 4.0)] {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\" fill-opacity=\"0.6\"/>",
                    LEFT + seconds * scale,
                    y + dy,
                );
            }
        }
        y += ROW;
    }
    svg + "</svg>\n"
}
