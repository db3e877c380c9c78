//! Forwards librdkafka's log lines and errors to `tracing`, under the target `librdkafka`.
//!
//! Every client retries a failed connection a few times a second, and reports each failure, in its log and as an error. So a
//! message is logged once, and then once a minute with the number of repetitions; the others have the level `debug`.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, client::OAuthToken, config::RDKafkaLogLevel, error::KafkaError,
    types::RDKafkaErrorCode as Code,
};
use tracing::Level;

use crate::token;
use foretell_streams::time::{Clock, SystemClock};

const TARGET: &str = "librdkafka";

/// Interval at which a message about one broker and cause is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of brokers and causes that are tracked. Beyond it, the one that was logged first is dropped.
const CAUSES_MAX: usize = 256;

/// Shared by all clients of the process, because they report the same brokers.
static OCCURRENCES: LazyLock<(SystemClock, Mutex<Occurrences>)> =
    LazyLock::new(|| (SystemClock::new(), Mutex::default()));

/// The context of a client: logs, and provides tokens. `state` is shared by the client's other callbacks and its owner.
#[derive(Default)]
pub(crate) struct LoggingContext<T> {
    pub(crate) state: T,
}

/// The context of a client without other callbacks.
pub(crate) type LogOnly = LoggingContext<()>;

impl<T: Send + Sync + 'static> ClientContext for LoggingContext<T> {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, file: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        token::generate(file)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

/// Forwards a log line.
pub(crate) fn forward(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => match admit(message) {
            Some(suppressed) => {
                tracing::error!(target: TARGET, facility, "{message}{}", more(suppressed))
            }
            None => tracing::debug!(target: TARGET, facility, "{message}"),
        },
        RDKafkaLogLevel::Warning => match admit(message) {
            Some(suppressed) => {
                tracing::warn!(target: TARGET, facility, "{message}{}", more(suppressed))
            }
            None => tracing::debug!(target: TARGET, facility, "{message}"),
        },
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: TARGET, facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: TARGET, facility, "{message}"),
    }
}

/// Logs a line at the level `debug`, if another message will summarise it.
pub(crate) fn forward_quietly(facility: &str, message: &str) {
    tracing::debug!(target: TARGET, facility, "{message}");
}

/// Logs an error that belongs to no call. librdkafka recovers by itself from all but fatal ones, which the next call
/// returns. The end of a partition is no error, although it is reported as one.
pub(crate) fn report(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() == Some(Code::PartitionEOF) {
        return;
    }
    match admit(reason) {
        Some(suppressed) => tracing::warn!(target: TARGET, %error, "{reason}{}", more(suppressed)),
        None => tracing::debug!(target: TARGET, %error, "{reason}"),
    }
}

fn admit(message: &str) -> Option<u64> {
    let (clock, occurrences) = &*OCCURRENCES;
    let mut occurrences = occurrences.lock().unwrap_or_else(PoisonError::into_inner);
    occurrences.admit(message, clock.elapsed())
}

fn more(suppressed: u64) -> String {
    if suppressed == 0 {
        String::new()
    } else {
        format!(" (repeated {suppressed} times since it was logged)")
    }
}

/// The messages that were logged, by cause.
#[derive(Default)]
struct Occurrences(BTreeMap<String, Occurrence>);

struct Occurrence {
    /// Time of the last log line.
    at: Duration,
    /// Repetitions since then.
    suppressed: u64,
}

impl Occurrences {
    /// Whether to log `message` now: the number of repetitions since it was last logged, or `None` to suppress it.
    fn admit(&mut self, message: &str, now: Duration) -> Option<u64> {
        let cause = cause(message);
        if let Some(logged) = self.0.get_mut(cause) {
            if now.saturating_sub(logged.at) < LOG_INTERVAL {
                logged.suppressed += 1;
                return None;
            }
            let suppressed = logged.suppressed;
            *logged = Occurrence { at: now, suppressed: 0 };
            return Some(suppressed);
        }
        if self.0.len() >= CAUSES_MAX {
            let first = self.0.iter().min_by_key(|(_, logged)| logged.at);
            if let Some(first) = first.map(|(cause, _)| cause.clone()) {
                self.0.remove(&first);
            }
        }
        self.0.insert(cause.to_owned(), Occurrence { at: now, suppressed: 0 });
        Some(0)
    }
}

/// A message without the thread that reports it, its counts and its times:
/// `[thrd:a:1/bootstrap]: a:1/bootstrap: Connect to … failed: … (after 3ms in state CONNECT, 2 identical error(s) suppressed)`.
fn cause(message: &str) -> &str {
    let message = match message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        Some((_, message)) => message,
        None => message,
    };
    message.rsplit_once(" (after ").map_or(message, |(cause, _)| cause)
}

/// Sets librdkafka's log level to what `tracing` records, because every line costs an event.
pub(crate) fn listen(config: &mut ClientConfig) {
    let level = if tracing::enabled!(target: TARGET, Level::DEBUG) {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Info
    };
    config.set_log_level(level);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_logged_once_a_minute_with_its_repetitions() {
        let refused = |number: u32| {
            format!(
                "[thrd:a:1/{number}]: a:1/bootstrap: Connect to ipv4#10.0.0.1:1 failed: Connection refused \
                 (after {number}ms in state CONNECT, {number} identical error(s) suppressed)"
            )
        };
        let mut occurrences = Occurrences::default();
        let mut logged = Vec::new();
        for millis in (0..150_000).step_by(250) {
            let now = Duration::from_millis(millis);
            let number = u32::try_from(millis).unwrap();
            logged.extend(
                occurrences.admit(&refused(number), now).map(|suppressed| (millis, suppressed)),
            );
        }
        assert_eq!(logged, [(0, 0), (60_000, 239), (120_000, 239)]);
        let now = Duration::from_secs(151);
        let bare = "a:1/bootstrap: Connect to ipv4#10.0.0.1:1 failed: Connection refused";
        assert_eq!(occurrences.admit(bare, now), None, "the same message, as an error");
        assert_eq!(
            occurrences.admit("b:1/bootstrap: Connect failed", now),
            Some(0),
            "another broker"
        );
        assert_eq!(occurrences.admit("a:1/bootstrap: Timed out", now), Some(0), "another cause");
    }

    #[test]
    fn the_number_of_tracked_causes_is_bounded() {
        let mut occurrences = Occurrences::default();
        for number in 0..10 * CAUSES_MAX {
            let now = Duration::from_millis(u64::try_from(number).unwrap());
            assert_eq!(occurrences.admit(&number.to_string(), now), Some(0));
        }
        assert_eq!(occurrences.0.len(), CAUSES_MAX);
    }
}
