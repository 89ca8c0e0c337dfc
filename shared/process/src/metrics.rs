//! Metrics as Prometheus reads them: the OpenMetrics text format.
//!
//! A process keeps its counters itself and puts a registry together for each scrape, so nothing is
//! global and figures of lines that it no longer serves are not told.

use metrics_process::collector;
use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::database::Usage;

/// The media type of the OpenMetrics text format, as Prometheus expects it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The labels by which the figures of one line are told from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LineLabels {
    /// The family to which it belongs.
    pub family: &'static str,
    /// Which of the family's lines it is: generation and name.
    pub line: String,
}

/// Makes a registry for one scrape, whose names all begin with `firstcome_`; so far it tells which build this is.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("firstcome");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    registry.register("build", "Which release this is", Info::new(version));
    registry
}

/// The text of a scrape, with the figures of this process at its end.
///
/// # Errors
/// Never: a string takes it all.
pub fn text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode_registry(&mut text, registry)?;
    encode_registry(&mut text, &process())?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// What this process takes of its machine, by the names that every Prometheus client has for it. What the machine does
/// not tell is left out.
fn process() -> Registry {
    let mut all = Registry::default();
    let told = collector::collect();
    let seconds = Unit::Seconds;
    if let Some(cpu) = told.cpu_seconds_total {
        let help = "Time of processors that the process used, its own and the system's";
        all.register_with_unit("process_cpu", help, seconds.clone(), ConstCounter::new(cpu));
    }
    let number = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    if let Some(memory) = told.resident_memory_bytes {
        let help = "Memory of the process that is in the machine's";
        all.register_with_unit("process_resident_memory", help, Unit::Bytes, number(memory));
    }
    if let Some(start) = told.start_time_seconds {
        let help = "When the process started, in Unix time";
        all.register_with_unit("process_start_time", help, seconds, number(start));
    }
    if let Some(files) = told.open_fds {
        all.register("process_open_fds", "Files and sockets that are open", number(files));
    }
    if let Some(files) = told.max_fds {
        all.register("process_max_fds", "How many of them there may be", number(files));
    }
    all
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    pool: &'static str,
    state: &'static str,
}

/// Registers how the process' pools of connections to PostgreSQL are used.
pub fn pools(registry: &mut Registry, pools: &[(&'static str, Usage)]) {
    let states = pools.iter().flat_map(|(pool, usage)| {
        let labels = |state| ConnectionLabels { pool, state };
        [(labels("used"), usage.used.into()), (labels("idle"), usage.idle.into())]
    });
    let help = "Connections to PostgreSQL, those that are at work and those that wait for it";
    gauge(registry, "database_connections", help, None, states);
    let limits = pools.iter().map(|(pool, usage)| (PoolLabels { pool }, usage.limit.into()));
    gauge(registry, "database_connections_limit", "How many there may be", None, limits);
    let (waits, timeouts) = (Family::default(), Family::default());
    for (pool, usage) in pools {
        let count = |counters: &Family<PoolLabels, Counter>, value| {
            counters.get_or_create(&PoolLabels { pool }).inc_by(value);
        };
        count(&waits, usage.waits);
        count(&timeouts, usage.timeouts);
    }
    let help = "Times that a connection was wanted while all were at work";
    registry.register("database_connection_waits", help, waits);
    let help = "Times that none of them was free in time";
    registry.register("database_connection_timeouts", help, timeouts);
}

/// Registers a gauge with these values, seconds if it says so; it stays out of the answer without
/// any.
pub fn gauge<L>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    values: impl IntoIterator<Item = (L, f64)>,
) where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Family::<L, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(value);
    }
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family),
        None => registry.register(name, help, family),
    }
}
