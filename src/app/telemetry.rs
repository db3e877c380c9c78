//! Logging to standard error, and the registry of metrics.

use std::io::{self, IsTerminal, Write};

use prometheus::Registry;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use foretell_address as address;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The targets that a filter may name: the crates of this workspace, and librdkafka. `foretell` is a prefix of all crates,
/// and so selects them all.
const TARGETS: [&str; 6] = [
    "foretell",
    "foretell_avro",
    "foretell_kafka",
    "foretell_ml",
    "foretell_streams",
    "librdkafka",
];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A filter that would log nothing, or not what it seems to select.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{directive:?} is {problem}: use off, error, warn, info, debug or trace, for one part as in \
     foretell=debug,librdkafka=warn"
)]
pub struct FilterError {
    directive: String,
    problem: String,
}

/// A checked filter of log lines.
#[derive(Debug)]
pub struct LogFilter(EnvFilter);

impl LogFilter {
    /// Parses `info` or `foretell=debug,librdkafka=warn`, the syntax of `RUST_LOG`. tracing would take a mistyped level for a
    /// target that does not exist, and log nothing.
    ///
    /// # Errors
    /// [`FilterError`] for the first directive that is neither a level nor a target of this program.
    pub fn parse(filter: &str) -> Result<Self, FilterError> {
        let directives = filter.split(',').map(str::trim).filter(|piece| !piece.is_empty());
        let directives: Vec<&str> = directives.collect();
        for directive in directives.iter().copied() {
            let refuse =
                |problem: String| Err(FilterError { directive: directive.to_owned(), problem });
            let (target, level) = match directive.split_once('=') {
                // Span fields, as in `foretell[worker{id=1}]=debug`, are parsed by tracing.
                _ if directive.contains('[') => continue,
                Some((target, level)) => (target, Some(level)),
                None => (directive, None),
            };
            let is_level = |word: &str| {
                LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level))
                    || matches!(word, "0" | "1" | "2" | "3" | "4" | "5")
            };
            let part = target.split("::").next().unwrap_or_default();
            match level {
                Some(level) if !is_level(level) => return refuse(format!("no level: {level:?}")),
                // The target may be any crate.
                Some(_) if part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {}
                None if is_level(target) || TARGETS.contains(&part) => {}
                Some(_) | None => {
                    return refuse("no level, and no part of this program".to_owned());
                }
            }
        }
        match EnvFilter::builder().parse(directives.join(",")) {
            Ok(filter) => Ok(Self(filter)),
            Err(error) => {
                Err(FilterError { directive: filter.to_owned(), problem: error.to_string() })
            }
        }
    }
}

/// Standard error, with the secrets in addresses hidden: libraries quote the addresses that they cannot use.
struct SafeStderr;

impl Write for SafeStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        io::stderr().lock().write_all(address::hide_in(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Logs the lines that `filter` selects to standard error. Called once, by the command line.
pub fn log_to_stderr(filter: LogFilter, format: LogFormat) {
    let registry = tracing_subscriber::registry().with(filter.0);
    let writer = || SafeStderr;
    let is_colored = io::stderr().is_terminal();
    // A second call fails, and the first subscriber stays.
    let done = match format {
        LogFormat::Text => {
            registry.with(fmt::layer().with_writer(writer).with_ansi(is_colored)).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(writer)).try_init(),
    };
    if let Err(error) = done {
        tracing::debug!(%error, "logging is already set up");
    }
}

/// Creates a registry with the metrics of the process.
///
/// # Errors
/// If they cannot be registered.
pub fn metrics_registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process))?;
    Ok(registry)
}

/// The sum of a metric's series, as `/metrics` shows them; 0 without series.
#[must_use]
pub fn total(registry: &Registry, name: &str) -> f64 {
    sum(registry, name, None)
}

/// Like [`total`], of the series with this label value.
#[must_use]
pub fn total_of(registry: &Registry, name: &str, label: &str) -> f64 {
    sum(registry, name, Some(label))
}

fn sum(registry: &Registry, name: &str, label: Option<&str>) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map_or(&[][..], |family| family.get_metric());
    let is_of = |metric: &&prometheus::proto::Metric| {
        label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label))
    };
    metrics
        .iter()
        .filter(is_of)
        .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_would_log_nothing_is_an_error() {
        for good in [
            "info",
            "INFO",
            "3",
            "",
            "foretell",
            "foretell=debug,librdkafka=warn",
            "foretell_kafka",
            "off,foretell_kafka=trace",
            "warn, hyper_util=debug",
            "foretell[worker{id=1}]=debug",
        ] {
            assert!(LogFilter::parse(good).is_ok(), "{good}");
        }
        let check = |filter: &str, named: &str| {
            let error = LogFilter::parse(filter).unwrap_err().to_string();
            let expected = format!("{named:?} is no level");
            assert!(error.starts_with(&expected) && error.contains("trace"), "{error}");
        };
        check("verbose", "verbose");
        check("info,verbose", "verbose");
        check("foretell=verbose", "foretell=verbose");
        check("foretell=", "foretell=");
        check("in info", "in info");
        check("fore tell=info", "fore tell=info");
    }
}
