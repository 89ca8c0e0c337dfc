//! The results: for people (Markdown) and for scripts (JSON).

use std::{collections::BTreeMap, fmt::Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::{
    growth,
    machine::Machine,
    measurements::{Figure, Measurements},
    plan::{MOST_CONNECTIONS, Plan},
    ratios::{FURTHER_RATIOS, RATIOS, Target},
    run::FIRSTCOME,
    tables::{micros, shown, table},
};
use crate::rivals::Rival;

/// What each scenario is, in the order of the report.
const SCENARIOS: [(&str, &str); 17] = [
    ("hot_coupon", "One hot coupon: granted and committed"),
    ("spread_coupon", "1,000 coupons evenly"),
    ("sold_out", "Sold-out storm, about 99% of the requests lose: answered"),
    ("hello", "HTTP hello: answered"),
    ("hot_product", "One hot product: orders committed"),
    ("spread_product", "100 products evenly, orders of 1 to 3 lines: orders committed"),
    (
        "drain_coupon",
        "Draining a backlog of one coupon, the API idle; raw: the same batches without broker and HTTP",
    ),
    ("drain_order", "The same with orders of one product"),
    (
        "fresh_coupon",
        "One hot coupon on a fresh database (by pg_stat_user_tables and pg_stats no table was ever analyzed), nothing warmed up: committed",
    ),
    ("fresh_order", "The same with orders of one product"),
    (
        "drain_fresh_coupon",
        "Draining a backlog of one coupon on a fresh database, nothing warmed up",
    ),
    ("drain_fresh_order", "The same with orders of one product"),
    (
        "cold_start",
        "The first 10 s of one hot coupon: on a fresh database with nothing warmed up, and on one in use: committed",
    ),
    ("streams", "One hot coupon, without event streams and beside 5,000 of them: committed"),
    ("fleet", "One hot coupon through one API, and through a fleet of them: committed"),
    ("large", "One hot coupon, in a database with a history"),
    (
        "latency",
        "From when a request was due to its outcome (open loop), by share of the maximum in percent",
    ),
];

/// Everything that was found.
pub(super) struct Results {
    pub(super) plan: Plan,
    pub(super) measurements: Measurements,
    pools: BTreeMap<Rival, u32>,
    pub(super) machine: Machine,
    pub(super) at: DateTime<Utc>,
}

impl Results {
    pub(super) fn new(
        plan: Plan,
        measurements: Measurements,
        pools: BTreeMap<Rival, u32>,
        machine: Machine,
    ) -> Self {
        Self { plan, measurements, pools, machine, at: Utc::now() }
    }

    /// Date, machine and versions, in a line.
    pub(super) fn subject(&self) -> String {
        let Machine { cpu, cores, memory_gib, .. } = &self.machine;
        format!("{}, {cores} cores of {cpu}, {memory_gib} GiB", self.at.format("%Y-%m-%d"))
    }

    /// Markdown that also reads well on a terminal.
    pub(super) fn text(&self) -> String {
        let Plan { rounds, quick, window, .. } = self.plan;
        let mut text = format!("# Benchmark, {}\n\n", self.subject());
        if quick {
            text += "**Quick run: one short round. It shows that everything works; its figures are no results.**\n\n";
        }
        let Machine { postgresql, rabbitmq, redis, rustc, commit, .. } = &self.machine;
        let _ = writeln!(
            text,
            "PostgreSQL {postgresql} (fsync on), RabbitMQ {rabbitmq}, Redis {redis}, {rustc}, commit {commit}.\n\
             The load generator and all servers share the cores. {rounds} round(s) of {window:?} per figure: median [min..max].\n\
             How to read it: tools/bench/README.md; why a target is missed: tools/bench/NOTES.md.\n"
        );
        self.ratios(&mut text);
        for (scenario, title) in SCENARIOS {
            self.scenario(&mut text, scenario, title);
        }
        self.accepted(&mut text);
        self.mixed(&mut text);
        self.cost(&mut text);
        growth::tables(&mut text, &self.measurements, self.plan.growth_rows);
        self.idle(&mut text);
        self.idle_fleet(&mut text);
        if let Some(figure) = self.measurements.figure("streams.firstcome-streams.rss_mib") {
            let grown = shown(Some(figure), 0);
            let _ =
                writeln!(text, "5,000 event streams take {grown} MiB more of the API's memory.\n");
        }
        let pools = self.pools.iter().map(|(side, pool)| format!("{} {pool}", side.as_str()));
        let _ = writeln!(
            text,
            "Best pools (connections to PostgreSQL), as searched before: {}.",
            pools.collect::<Vec<_>>().join(", ")
        );
        text
    }

    fn ratios(&self, text: &mut String) {
        let rows = RATIOS.iter().chain(&FURTHER_RATIOS).map(|ratio| {
            let value = ratio.of(&self.measurements);
            let verdict = match value {
                Some(value) if ratio.target.is_met(value) => "met",
                Some(_) => "missed",
                None => "not measured",
            };
            let value = value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
            [
                ratio.key.to_owned(),
                value,
                ratio.target.to_string(),
                verdict.to_owned(),
                ratio.what.to_owned(),
            ]
        });
        text.push_str("## Ratios\n\n");
        table(text, ["key", "ratio", "target", "", "what"], &rows.collect::<Vec<_>>());
    }

    fn scenario(&self, text: &mut String, scenario: &str, title: &str) {
        let prefix = format!("{scenario}.");
        let rate = |key: &str| {
            let key = key.strip_prefix(&prefix)?;
            let metric = if scenario == "latency" { ".offered_per_second" } else { ".per_second" };
            Some(key.strip_suffix(metric)?.to_owned())
        };
        let measured: Vec<String> =
            self.measurements.iter().filter_map(|(key, _)| rate(key)).collect();
        if measured.is_empty() {
            return;
        }
        let rows = measured.iter().map(|who| {
            let figure =
                |metric: &str| self.measurements.figure(&format!("{scenario}.{who}.{metric}"));
            let per_second = figure("per_second").or_else(|| figure("offered_per_second"));
            let (side, at) = who.rsplit_once('.').unwrap_or((who, ""));
            [
                side.to_owned(),
                at.to_owned(),
                shown(per_second, 0),
                shown(figure("p50_ms"), 1),
                shown(figure("p99_ms"), 1),
                match (figure("gave_up_percent"), figure("told_p99_ms")) {
                    (Some(figure), _) if figure.median > 0.0 => format!("{:.1}%", figure.median),
                    (_, told) => shown(told, 1),
                },
            ]
        });
        let _ = writeln!(text, "## {title}\n");
        let heads = match scenario {
            "latency" => {
                ["side", "load %", "offered per second", "p50 ms", "p99 ms", "p99 ms to the client"]
            }
            _ => ["side", "connections", "per second", "answer p50 ms", "answer p99 ms", "gave up"],
        };
        table(text, heads, &rows.collect::<Vec<_>>());
    }

    /// Of the sides that answer before the commit: what was promised by when.
    fn accepted(&self, text: &mut String) {
        let keys = self.measurements.iter().filter_map(|(key, _)| {
            let who = key.strip_prefix("hot_coupon.")?.strip_suffix(".accepted_per_second")?;
            let (side, connections) = who.rsplit_once('.')?;
            (side == FIRSTCOME || side.starts_with("redis-lua")).then_some((side, connections))
        });
        let rows = keys.map(|(side, connections)| {
            let figure = |metric: &str| {
                self.measurements.figure(&format!("hot_coupon.{side}.{connections}.{metric}"))
            };
            let killed = |metric: &str| {
                self.measurements.figure(&format!("killed.{side}.{connections}.{metric}"))
            };
            let accepted = figure("accepted_per_second");
            let lost = killed("lost").zip(killed("accepted"));
            [
                side.to_owned(),
                connections.to_owned(),
                shown(accepted, 0),
                // Of the others an answer is the promise that it is.
                shown(figure("durable_per_second").or(accepted), 0),
                shown(figure("per_second"), 0),
                lost.map_or_else(String::new, |(lost, accepted)| {
                    format!("{} of {}", shown(Some(lost), 0), shown(Some(accepted), 0))
                }),
            ]
        });
        let rows: Vec<[String; 6]> = rows.collect();
        if rows.is_empty() {
            return;
        }
        text.push_str("## One hot coupon: accepted, durable, in PostgreSQL\n\n");
        let heads = [
            "side",
            "connections",
            "accepted per second",
            "durable per second",
            "in PostgreSQL per second",
            "lost when Redis is killed",
        ];
        table(text, heads, &rows);
    }

    fn mixed(&self, text: &mut String) {
        let rows = [
            ("all", ""),
            ("read", "read."),
            ("poll", "poll."),
            ("submit", "submit."),
            ("settled", "settled_"),
        ];
        let rows = rows.map(|(what, prefix)| {
            let figure = |metric: &str| {
                let key = format!("mixed.{FIRSTCOME}.{MOST_CONNECTIONS}.{prefix}{metric}");
                self.measurements.figure(&key)
            };
            [
                what.to_owned(),
                shown(figure("per_second"), 0),
                shown(figure("p50_ms"), 1),
                shown(figure("p99_ms"), 1),
            ]
        });
        if rows.iter().all(|[_, per_second, ..]| per_second.is_empty()) {
            return;
        }
        text.push_str(
            "## Mixed: 70% reads and polls (held until the outcome), 20% coupons, 10% orders, 256 connections\n\n",
        );
        table(text, ["answers", "per second", "p50 ms", "p99 ms"], &rows);
    }

    fn cost(&self, text: &mut String) {
        let rows: Vec<[String; 6]> = self
            .measurements
            .iter()
            .filter_map(|(key, _)| {
                let backlog = key.strip_prefix("cost.")?.strip_suffix(".wal_bytes")?;
                let micros = |who: &[&str]| {
                    let keys = who.iter().map(|who| format!("cost.{backlog}.{who}.cpu_us"));
                    micros(self.measurements.sum(keys))
                };
                Some([
                    backlog.to_owned(),
                    micros(&["accepting.api"]),
                    micros(&["accepting.rabbitmq", "settling.rabbitmq"]),
                    micros(&["settling.coupons", "settling.products"]),
                    micros(&["accepting.postgres", "settling.postgres"]),
                    shown(self.measurements.figure(key), 0),
                ])
            })
            .collect();
        if rows.is_empty() {
            return;
        }
        text.push_str("## What a job costs: microseconds of a core, and bytes of WAL\n\n");
        let heads = ["backlog", "API", "RabbitMQ", "workers", "PostgreSQL", "WAL"];
        table(text, heads, &rows);
    }

    fn idle(&self, text: &mut String) {
        let rows = self.measurements.iter().filter_map(|(key, _)| {
            let program = key.strip_prefix("idle.")?.strip_suffix(".rss_mib")?;
            let cpu = self.measurements.figure(&format!("idle.{program}.cpu_percent"));
            Some([program.to_owned(), shown(self.measurements.figure(key), 1), shown(cpu, 2)])
        });
        text.push_str("## What the idle system costs\n\n");
        table(text, ["process", "RSS MiB", "CPU % of a core"], &rows.collect::<Vec<_>>());
    }

    fn idle_fleet(&self, text: &mut String) {
        let rows = self.measurements.iter().filter_map(|(key, _)| {
            let (side, program) = key.strip_prefix("fleet.")?.split_once(".idle.")?;
            let program = program.strip_suffix(".cpu_percent")?;
            let cpu = shown(self.measurements.figure(key), 2);
            Some([side.to_owned(), program.to_owned(), cpu])
        });
        let rows: Vec<[String; 3]> = rows.collect();
        if rows.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "## What an idle fleet of {} APIs costs; the API is the first of them\n",
            self.plan.apis
        );
        table(text, ["side", "process", "CPU % of a core"], &rows);
    }

    /// Everything, for scripts: the names of its keys never change.
    pub(super) fn json(&self) -> Value {
        let mut medians = Map::new();
        let mut measurements = Map::new();
        for (key, values) in self.measurements.iter() {
            let Some(Figure { median, min, max }) = Figure::of(values) else { continue };
            medians.insert(key.to_owned(), json!(median));
            let figure = json!({ "median": median, "min": min, "max": max, "values": values });
            measurements.insert(key.to_owned(), figure);
        }
        let (mut ratios, mut targets) = (Map::new(), Map::new());
        for ratio in &RATIOS {
            let value = ratio.of(&self.measurements);
            ratios.insert(ratio.key.to_owned(), json!(value));
            let (bound, target) = match ratio.target {
                Target::AtLeast(target) => ("at_least", target),
                Target::AtMost(target) => ("at_most", target),
            };
            let met = value.is_some_and(|value| ratio.target.is_met(value));
            targets.insert(
                ratio.key.to_owned(),
                json!({ bound: target, "met": met, "what": ratio.what }),
            );
        }
        let further = FURTHER_RATIOS
            .iter()
            .map(|ratio| (ratio.key.to_owned(), json!(ratio.of(&self.measurements))));
        let further: Map<String, Value> = further.collect();
        let pools: Map<String, Value> =
            self.pools.iter().map(|(side, pool)| (side.as_str().to_owned(), json!(pool))).collect();
        json!({
            "date": self.at.to_rfc3339_opts(SecondsFormat::Secs, true),
            "quick": self.plan.quick,
            "rounds": self.plan.rounds,
            "window_seconds": self.plan.window.as_secs_f64(),
            "backlog": self.plan.backlog,
            "fresh_backlog": self.plan.fresh_backlog,
            "cold_window_seconds": self.plan.cold_window.as_secs_f64(),
            "large_rows": self.plan.large_rows,
            "growth_rows": self.plan.growth_rows,
            "machine": self.machine,
            "pools": pools,
            "ratios": ratios,
            "targets": targets,
            "further_ratios": further,
            "medians": medians,
            "measurements": measurements,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::sale::Sale;

    pub(crate) fn results() -> Results {
        let mut measurements = Measurements::default();
        for value in [24_000.0, 25_000.0, 23_000.0] {
            measurements.add("hot_coupon.firstcome.64.per_second", value);
        }
        measurements.add("hot_coupon.pessimistic.64.per_second", 1_000.0);
        measurements.add("hot_coupon.pessimistic.64.p99_ms", 80.0);
        measurements.add("latency.firstcome.50.p99_ms", 20.0);
        measurements.add("latency.firstcome.50.offered_per_second", 12_000.0);
        let machine = Machine {
            cpu: "A & B".to_owned(),
            cores: 2,
            memory_gib: 8,
            postgresql: "17".to_owned(),
            rabbitmq: "4".to_owned(),
            redis: "8".to_owned(),
            rustc: "rustc 1".to_owned(),
            commit: "abc".to_owned(),
        };
        Results::new(Plan::QUICK, measurements, BTreeMap::from([(Rival::Atomic, 8)]), machine)
    }

    #[test]
    fn every_ratio_is_in_the_json_under_its_key() {
        let json = results().json();
        assert_eq!(json["ratios"]["hot_coupon_vs_pessimistic_64"], 24.0);
        assert_eq!(json["targets"]["hot_coupon_vs_pessimistic_64"]["met"], true);
        assert_eq!(json["ratios"]["p99_at_half_vs_pessimistic_saturated"], 0.25);
        assert_eq!(json["targets"]["p99_at_half_vs_pessimistic_saturated"]["met"], false);
        assert_eq!(json["ratios"].as_object().unwrap().len(), RATIOS.len());
        assert_eq!(json["ratios"]["large_vs_empty"], Value::Null);
        assert_eq!(json["medians"]["hot_coupon.firstcome.64.per_second"], 24_000.0);
    }

    #[test]
    fn the_largest_database_is_compared_with_none() {
        let mut results = results();
        for (rows, value) in [(0, 10_000.0), (50_000_000, 8_500.0)] {
            let key = growth::key(Sale::Coupons, &growth::side(rows), "per_second");
            results.measurements.add(key, value);
        }
        assert_eq!(results.json()["ratios"]["fifty_million_vs_empty"], 0.85);
    }

    #[test]
    fn what_is_accepted_and_what_is_mixed_have_tables_of_their_own() {
        let mut results = results();
        assert!(!results.text().contains("## Mixed"));
        for (key, value) in [
            ("hot_coupon.redis-lua-everysec.256.accepted_per_second", 9_000.0),
            ("hot_coupon.redis-lua-everysec.256.durable_per_second", 8_000.0),
            ("killed.redis-lua-everysec.256.accepted", 500.0),
            ("killed.redis-lua-everysec.256.lost", 2.0),
            ("mixed.firstcome.256.poll.per_second", 700.0),
        ] {
            results.measurements.add(key, value);
        }
        let text = results.text();
        for part in ["9,000 [", "8,000 [", "2 [2..2] of 500 [", "| poll    | 700 ["] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_text_tells_what_was_met_and_what_was_not() {
        let text = results().text();
        let line = |key: &str| text.lines().find(|line| line.contains(key)).unwrap().to_owned();
        assert!(line("| hot_coupon_vs_pessimistic_64 ").contains("| 24.00 | ≥ 12   | met "));
        assert!(line("p99_at_half").contains("| missed "));
        assert!(line("large_vs_empty").contains("| not measured "));
        assert!(text.contains("24,000 [23,000..25,000]"), "{text}");
        assert!(text.contains("Quick run"));
    }
}
