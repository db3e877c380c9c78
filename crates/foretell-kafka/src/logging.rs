//! What librdkafka has to say goes to `tracing`, under the target `librdkafka`.
//!
//! It tries to connect a few times a second, from every client, and complains each time, in its log and as an error.
//! So a complaint is told once, and then once a minute with how often it came; the rest is for the level `debug`.

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

/// Of one broker and cause, so often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// As many brokers and causes are told apart; beyond that, the one that was told of first is told of again.
const CAUSES_MAX: usize = 256;

/// All clients of the process complain of the same brokers.
static COMPLAINTS: LazyLock<(SystemClock, Mutex<Complaints>)> =
    LazyLock::new(|| (SystemClock::new(), Mutex::default()));

/// A client's context that only logs.
pub(crate) struct LogOnly;

impl ClientContext for LogOnly {
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

/// Passes one line on.
pub(crate) fn forward(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => match admit(message) {
            Some(held) => tracing::error!(target: TARGET, facility, "{message}{}", more(held)),
            None => tracing::debug!(target: TARGET, facility, "{message}"),
        },
        RDKafkaLogLevel::Warning => match admit(message) {
            Some(held) => tracing::warn!(target: TARGET, facility, "{message}{}", more(held)),
            None => tracing::debug!(target: TARGET, facility, "{message}"),
        },
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: TARGET, facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: TARGET, facility, "{message}"),
    }
}

/// Logs one line at the level of details: another line says what it comes down to.
pub(crate) fn forward_quietly(facility: &str, message: &str) {
    tracing::debug!(target: TARGET, facility, "{message}");
}

/// Reports an error that belongs to no call. librdkafka goes on by itself after all but the fatal
/// ones, and those the next call returns. The end of a partition is an error by name only, and comes
/// whenever a reader has caught up.
pub(crate) fn report(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() == Some(Code::PartitionEOF) {
        return;
    }
    match admit(reason) {
        Some(held) => tracing::warn!(target: TARGET, %error, "{reason}{}", more(held)),
        None => tracing::debug!(target: TARGET, %error, "{reason}"),
    }
}

fn admit(message: &str) -> Option<u64> {
    let (clock, complaints) = &*COMPLAINTS;
    let mut complaints = complaints.lock().unwrap_or_else(PoisonError::into_inner);
    complaints.admit(message, clock.elapsed())
}

fn more(held: u64) -> String {
    if held == 0 { String::new() } else { format!(" (and {held} times more since it was told)") }
}

/// What was complained of, and when that was told.
#[derive(Default)]
struct Complaints(BTreeMap<String, Told>);

struct Told {
    at: Duration,
    held: u64,
}

impl Complaints {
    /// Whether to tell of it now: how often it came since it was told, or not.
    fn admit(&mut self, message: &str, now: Duration) -> Option<u64> {
        let cause = cause(message);
        if let Some(told) = self.0.get_mut(cause) {
            if now.saturating_sub(told.at) < TELL_EVERY {
                told.held += 1;
                return None;
            }
            let held = told.held;
            *told = Told { at: now, held: 0 };
            return Some(held);
        }
        if self.0.len() >= CAUSES_MAX {
            let first = self.0.iter().min_by_key(|(_, told)| told.at);
            if let Some(first) = first.map(|(cause, _)| cause.clone()) {
                self.0.remove(&first);
            }
        }
        self.0.insert(cause.to_owned(), Told { at: now, held: 0 });
        Some(0)
    }
}

/// A complaint without the thread that has it, and without its counting and its times:
/// `[thrd:a:1/bootstrap]: a:1/bootstrap: Connect to … failed: … (after 3ms in state CONNECT, 2 identical error(s) suppressed)`.
fn cause(message: &str) -> &str {
    let message = match message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        Some((_, message)) => message,
        None => message,
    };
    message.rsplit_once(" (after ").map_or(message, |(cause, _)| cause)
}

/// Asks librdkafka for no more lines than somebody listens to: every line costs an event.
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
    fn a_complaint_is_reported_once_a_minute_with_how_often_it_came() {
        let refused = |number: u32| {
            format!(
                "[thrd:a:1/{number}]: a:1/bootstrap: Connect to ipv4#10.0.0.1:1 failed: Connection refused \
                 (after {number}ms in state CONNECT, {number} identical error(s) suppressed)"
            )
        };
        let mut complaints = Complaints::default();
        let mut told = Vec::new();
        for millis in (0..150_000).step_by(250) {
            let now = Duration::from_millis(millis);
            let number = u32::try_from(millis).unwrap();
            told.extend(complaints.admit(&refused(number), now).map(|held| (millis, held)));
        }
        assert_eq!(told, [(0, 0), (60_000, 239), (120_000, 239)]);
        let now = Duration::from_secs(151);
        let bare = "a:1/bootstrap: Connect to ipv4#10.0.0.1:1 failed: Connection refused";
        assert_eq!(complaints.admit(bare, now), None, "the same, as an error");
        assert_eq!(
            complaints.admit("b:1/bootstrap: Connect failed", now),
            Some(0),
            "another broker"
        );
        assert_eq!(complaints.admit("a:1/bootstrap: Timed out", now), Some(0), "another cause");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut complaints = Complaints::default();
        for number in 0..10 * CAUSES_MAX {
            let now = Duration::from_millis(u64::try_from(number).unwrap());
            assert_eq!(complaints.admit(&number.to_string(), now), Some(0));
        }
        assert_eq!(complaints.0.len(), CAUSES_MAX);
    }
}
