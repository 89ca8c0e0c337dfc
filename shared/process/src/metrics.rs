//! Metrics as Prometheus reads them: the OpenMetrics text format.
//!
//! A process keeps its counters itself and puts a registry together for each scrape, so nothing is
//! global and figures of lines that it no longer serves are not told.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

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

/// The text of a scrape.
///
/// # Errors
/// Never: a string takes it all.
pub fn text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
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
