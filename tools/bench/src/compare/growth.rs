//! What a job costs by the size of the database and by what else goes on there: names, and tables for people.

use std::fmt::Write;

use super::{
    measurements::Measurements,
    plan::MOST_CONNECTIONS,
    sale::Sale,
    tables::{self, shown, table},
};

/// The largest database while it is copied by `pg_dump`.
pub(super) const PG_DUMP: &str = "firstcome-pg-dump";
/// With statistics that are wrong, and with none.
pub(super) const WRONG_STATISTICS: &str = "firstcome-wrong-statistics";
pub(super) const NO_STATISTICS: &str = "firstcome-no-statistics";
/// After the oldest day was purged, and a vacuum.
pub(super) const PURGED: &str = "firstcome-purged";

/// Who uses the processors, in tables and pictures, and what the processes are called.
pub(super) const PROGRAMS: [(&str, &[&str]); 4] = [
    ("API", &["api"]),
    ("RabbitMQ", &["rabbitmq"]),
    ("workers", &["coupons", "products"]),
    ("PostgreSQL", &["postgres"]),
];

/// What figures of this sale are called.
pub(super) const fn scenario(sale: Sale) -> &'static str {
    match sale {
        Sale::Coupons => "growth_coupon",
        Sale::Orders => "growth_order",
    }
}

/// A database of so many rows.
pub(super) fn side(rows: i64) -> String {
    match rows {
        0..1_000 => format!("firstcome-{rows}"),
        1_000..1_000_000 => format!("firstcome-{}k", rows / 1_000),
        _ => format!("firstcome-{}M", rows / 1_000_000),
    }
}

/// All that are compared.
pub(super) fn sides(rows: [i64; 3]) -> [String; 7] {
    let [none, some, most] = rows.map(side);
    let of_most = [PURGED, NO_STATISTICS, WRONG_STATISTICS, PG_DUMP];
    let [purged, no_statistics, wrong_statistics, pg_dump] = of_most.map(str::to_owned);
    [none, some, most, purged, no_statistics, wrong_statistics, pg_dump]
}

pub(super) fn key(sale: Sale, side: &str, metric: &str) -> String {
    format!("{}.{side}.{MOST_CONNECTIONS}.{metric}", scenario(sale))
}

pub(super) fn is_measured(measurements: &Measurements) -> bool {
    measurements.iter().any(|(key, _)| key.starts_with("growth_"))
}

/// Microseconds of a processor that a job costs, by [`PROGRAMS`]; `None` of servers that nothing is known of.
pub(super) fn micros(
    measurements: &Measurements,
    sale: Sale,
    side: &str,
) -> [Option<f64>; PROGRAMS.len()] {
    PROGRAMS.map(|(_, processes)| {
        let processes = processes.iter();
        measurements.sum(processes.map(|process| key(sale, side, &format!("{process}.cpu_us"))))
    })
}

/// Nothing if nothing was measured.
pub(super) fn tables(text: &mut String, measurements: &Measurements, rows: [i64; 3]) {
    for (sale, title) in [
        (Sale::Coupons, "One hot coupon in databases of several sizes"),
        (Sale::Orders, "One hot product in the same databases"),
    ] {
        let measured = sides(rows).into_iter().filter_map(|side| {
            let figure = |metric: &str| measurements.figure(&key(sale, &side, metric));
            let per_second = shown(Some(figure("per_second")?), 0);
            let [api, rabbitmq, workers, postgres] =
                micros(measurements, sale, &side).map(tables::micros);
            let (p99, wal) = (shown(figure("p99_ms"), 1), shown(figure("wal_bytes"), 0));
            Some([side.clone(), per_second, p99, api, rabbitmq, workers, postgres, wal])
        });
        let measured: Vec<[String; 8]> = measured.collect();
        if measured.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "## {title}: committed, and what a job costs in microseconds of a core and bytes of WAL\n"
        );
        let heads = [
            "side",
            "per second",
            "answer p99 ms",
            "API",
            "RabbitMQ",
            "workers",
            "PostgreSQL",
            "WAL",
        ];
        table(text, heads, &measured);
    }
    let figure = |metric: &str| measurements.median(&format!("growth.{PURGED}.{metric}"));
    if let Some(((outcomes, purge), vacuum)) =
        figure("outcomes").zip(figure("purge_seconds")).zip(figure("vacuum_seconds"))
    {
        let _ = writeln!(
            text,
            "The purge of a day deleted {outcomes} outcomes in {purge:.0} s, the vacuum after it took {vacuum:.0} s.\n"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_names() {
        let names = [0, 50_000, 300_000, 5_000_000, 50_000_000].map(side);
        let short = names.each_ref().map(|name| name.trim_start_matches("firstcome-"));
        assert_eq!(short, ["0", "50k", "300k", "5M", "50M"]);
    }

    #[test]
    fn what_was_measured_has_a_table() {
        let mut measurements = Measurements::default();
        let rows = [0, 5_000_000, 50_000_000];
        let mut text = String::new();
        tables(&mut text, &measurements, rows);
        assert!(text.is_empty() && !is_measured(&measurements), "{text}");
        for (metric, value) in [
            ("per_second", 9_000.0),
            ("coupons.cpu_us", 1.5),
            ("products.cpu_us", 0.5),
            ("postgres.cpu_us", 7.0),
            ("wal_bytes", 8_000.0),
        ] {
            measurements.add(key(Sale::Coupons, &side(50_000_000), metric), value);
        }
        tables(&mut text, &measurements, rows);
        assert!(is_measured(&measurements));
        assert!(text.contains("| firstcome-50M | 9,000 ["), "{text}");
        assert!(text.contains("| –   | –        | 2.0     | 7.0        | 8,000 ["), "{text}");
        assert!(!text.contains("firstcome-5M") && !text.contains("One hot product"), "{text}");
    }
}
