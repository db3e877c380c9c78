//! What librdkafka has to say goes to `tracing`, under the target `librdkafka`.

use std::error::Error;

use rdkafka::{
    ClientConfig, ClientContext, client::OAuthToken, config::RDKafkaLogLevel, error::KafkaError,
    types::RDKafkaErrorCode as Code,
};
use tracing::Level;

use crate::kafka::token;

const TARGET: &str = "librdkafka";

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
        | RDKafkaLogLevel::Error => tracing::error!(target: TARGET, facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: TARGET, facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: TARGET, facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: TARGET, facility, "{message}"),
    }
}

/// Reports an error that belongs to no call. librdkafka goes on by itself after all but the fatal
/// ones, and those the next call returns. The end of a partition is an error by name only, and comes
/// whenever a reader has caught up.
pub(crate) fn report(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() == Some(Code::PartitionEOF) {
        return;
    }
    tracing::warn!(target: TARGET, %error, "{reason}");
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
