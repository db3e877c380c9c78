//! Log lines to standard error, metrics to a registry.

use std::io::{self, IsTerminal};

use prometheus::Registry;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log lines of `filter` (as `RUST_LOG` has it: `info`, `foretell=debug,librdkafka=warn`) to
/// standard error. Called once, by the command line.
pub fn log_to_stderr(filter: &str, format: LogFormat) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let writer = io::stderr;
    let is_colored = io::stderr().is_terminal();
    // A second subscriber is a second call, and the first one goes on.
    let done = match format {
        LogFormat::Text => {
            registry.with(fmt::layer().with_writer(writer).with_ansi(is_colored)).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(writer)).try_init(),
    };
    if let Err(error) = done {
        tracing::debug!(%error, "log lines go where they went before");
    }
}

/// A registry with the process's own metrics in it.
///
/// # Errors
/// If they can't be registered.
pub fn metrics_registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process))?;
    Ok(registry)
}

/// The sum of a metric over all its labels, as `/metrics` would show it; 0 if it is not there.
#[must_use]
pub fn total(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map_or(&[][..], |family| family.get_metric());
    metrics
        .iter()
        .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
        .sum()
}
