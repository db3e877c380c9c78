//! The reason why no broker can be reached. librdkafka retries by itself, and reports reasons only as log lines and errors
//! that belong to no call.

use std::{
    error::Error,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, client::OAuthToken, config::RDKafkaLogLevel, consumer::ConsumerContext,
    error::KafkaError, types::RDKafkaErrorCode as Code,
};

use crate::{logging, token};
use foretell_address as address;

/// No broker could be reached, or none accepted the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}: {fix}")]
pub struct Unreachable {
    /// Description of the problem, with the address.
    pub detail: String,
    /// Instruction to the user.
    pub fix: String,
}

/// Kind of a connection failure, in ascending order of how specific it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    /// Nothing listens at the address, or a firewall drops the packets.
    NoResponse,
    /// The host name cannot be resolved.
    Name,
    /// The broker closes the connection during the handshake: one side expects TLS, the other does not.
    Protocol,
    /// The TLS handshake failed.
    Tls,
    /// The broker rejected the credentials.
    Authentication,
}

/// A client context that keeps the most specific of the errors that belong to no call. Until a broker has responded, errors
/// are logged at the level `debug` only, because the caller that waits for the broker reports the summary.
#[derive(Default)]
pub(crate) struct ErrorCollector {
    worst: Mutex<Option<(Obstacle, String)>>,
    is_connected: AtomicBool,
}

impl ErrorCollector {
    /// Starts to log errors.
    pub(crate) fn connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
    }

    /// Whether waiting longer is useless, because the broker refused the client.
    pub(crate) fn is_refused(&self) -> bool {
        let collector = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        collector.as_ref().is_some_and(|(obstacle, _)| *obstacle >= Obstacle::Tls)
    }

    /// Whether a broker may have closed the connection: connecting and name resolution did not fail.
    pub(crate) fn may_be_disconnecting(&self) -> bool {
        let collector = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        collector.as_ref().is_none_or(|(obstacle, reason)| {
            *obstacle == Obstacle::NoResponse && !reason.contains("Connect to ")
        })
    }

    /// Summarises the errors, after `servers` did not respond within `seconds`.
    pub(crate) fn unreachable(&self, servers: &str, seconds: u64) -> Unreachable {
        let collector = self.worst.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (obstacle, reason) = collector.unwrap_or((Obstacle::NoResponse, String::new()));
        describe(obstacle, &reason, servers, seconds)
    }

    fn record(&self, code: Option<Code>, reason: &str) {
        if let Some(obstacle) = obstacle(code, reason) {
            self.record_obstacle(obstacle, reason);
        }
    }

    fn record_obstacle(&self, obstacle: Obstacle, reason: &str) {
        let mut collector = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        if collector.as_ref().is_none_or(|(before, _)| *before < obstacle) {
            *collector = Some((obstacle, reason.to_owned()));
        }
    }
}

impl ClientContext for ErrorCollector {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, file: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        token::generate(file)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A closed connection is only logged, and only if "log.connection.close" is set.
        if facility == "FAIL" && message.contains("Disconnected") {
            self.record_obstacle(Obstacle::Protocol, message);
        }
        if self.is_connected.load(Ordering::Relaxed) {
            logging::forward(level, facility, message);
        } else {
            logging::forward_quietly(facility, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.record(error.rdkafka_error_code(), reason);
        if self.is_connected.load(Ordering::Relaxed) {
            logging::report(&error, reason);
        } else {
            logging::forward_quietly("ERROR", reason);
        }
    }
}

impl ConsumerContext for ErrorCollector {}

#[expect(clippy::wildcard_enum_match_arm, reason = "of 180 codes these are connection failures")]
fn obstacle(code: Option<Code>, reason: &str) -> Option<Obstacle> {
    match code? {
        Code::Authentication | Code::SaslAuthenticationFailed => Some(Obstacle::Authentication),
        Code::SSL if reason.contains("listener?") => Some(Obstacle::Protocol),
        Code::SSL => Some(Obstacle::Tls),
        Code::Resolve => Some(Obstacle::Name),
        // librdkafka's guess, if a connection is closed during the handshake.
        Code::BrokerTransportFailure
            if reason.contains("security.protocol") || reason.contains("listener?") =>
        {
            Some(Obstacle::Protocol)
        }
        // A TLS alert of the broker, which requires a client certificate, or another one.
        Code::BrokerTransportFailure if reason.contains("SSL routines") => Some(Obstacle::Tls),
        Code::BrokerTransportFailure => Some(Obstacle::NoResponse),
        _ => None,
    }
}

fn describe(obstacle: Obstacle, reason: &str, servers: &str, seconds: u64) -> Unreachable {
    let reason = short(reason);
    let servers = address::shown(servers);
    let (detail, fix) = match obstacle {
        Obstacle::NoResponse if reason.is_empty() => (
            format!("no broker answers at {servers} after {seconds} s"),
            "is it running? set [broker] bootstrap_servers",
        ),
        Obstacle::NoResponse => (
            format!("no broker answers at {servers} after {seconds} s ({reason})"),
            "is it running? set [broker] bootstrap_servers",
        ),
        Obstacle::Name => (
            format!("the host name of a broker at {servers} is not known ({reason})"),
            "correct [broker] bootstrap_servers, or the brokers' advertised.listeners",
        ),
        Obstacle::Protocol => (
            format!("a broker at {servers} closed the connection during the handshake ({reason})"),
            "set \"security.protocol\" in [broker.properties] to the protocol of the listener: PLAINTEXT, SSL, \
             SASL_PLAINTEXT or SASL_SSL",
        ),
        Obstacle::Tls => (
            format!("no TLS connection to {servers} could be established ({reason})"),
            "set \"ssl.ca.location\" in [broker.properties] to the certificate of the authority that signed the \
             broker's; if the broker requires a client certificate, \"ssl.certificate.location\" and \
             \"ssl.key.location\"",
        ),
        Obstacle::Authentication => (
            format!("{servers} rejected the credentials ({reason})"),
            "correct \"sasl.mechanisms\", \"sasl.username\" and \"sasl.password\" in [broker.properties], or \
             [broker] token_file",
        ),
    };
    Unreachable { detail, fix: fix.to_owned() }
}

/// A reason of librdkafka without the broker's name, which the message has already, and without counts:
/// `ssl://host:1/bootstrap: SSL handshake failed: … (after 3ms in state CONNECT, 2 identical error(s) suppressed)`.
fn short(reason: &str) -> &str {
    let reason = reason.rsplit_once(" (after ").map_or(reason, |(text, _)| text);
    let reason = reason.rsplit_once("/bootstrap: ").map_or(reason, |(_, text)| text);
    reason.trim().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(errors: &[(Code, &str)], refused: bool, expected: &[&str]) {
        let collector = ErrorCollector::default();
        for (code, reason) in errors {
            collector.record(Some(*code), reason);
        }
        assert_eq!(collector.is_refused(), refused, "{errors:?}");
        let text = collector.unreachable("kafka:9092", 10).to_string();
        for words in expected {
            assert!(text.contains(words), "{words} in {text}");
        }
    }

    #[test]
    fn a_closed_connection_is_found_in_the_log() {
        let collector = ErrorCollector::default();
        assert!(collector.may_be_disconnecting());
        let line = "[thrd:kafka:9092/bootstrap]: kafka:9092/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 1ms in state APIVERSION_QUERY)";
        collector.log(RDKafkaLogLevel::Info, "FAIL", line);
        assert!(!collector.may_be_disconnecting());
        let text = collector.unreachable("kafka:9092", 10).to_string();
        assert!(text.contains("handshake (Disconnected: connection closed by peer"), "{text}");
    }

    #[test]
    fn the_most_specific_error_is_reported() {
        let down = (Code::AllBrokersDown, "1/1 brokers are down");
        let refused = (
            Code::BrokerTransportFailure,
            "kafka:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)",
        );
        check(&[], false, &["no broker answers at kafka:9092 after 10 s: is it running?"]);
        check(
            &[refused, down],
            false,
            &["no broker answers", "10.0.0.1:9092 failed: Connection refused):"],
        );
        let password = (
            Code::Authentication,
            "sasl_ssl://kafka:9092/bootstrap: SASL authentication error: Authentication failed (after 301ms in state AUTH_REQ)",
        );
        check(&[refused, password, refused], true, &["SASL authentication error", "sasl.password"]);
        let certificate = (
            Code::SSL,
            "ssl://kafka:9092/bootstrap: SSL handshake failed: certificate verify failed: broker certificate could not be verified",
        );
        check(&[certificate, down], true, &["no TLS connection", "ssl.ca.location"]);
        let plain = (
            Code::BrokerTransportFailure,
            "kafka:9092/bootstrap: Disconnected: verify that security.protocol is correctly configured, broker might require SASL authentication",
        );
        check(&[plain], false, &["closed the connection", "SASL_SSL"]);
        let name = (
            Code::Resolve,
            "kafka:9092/bootstrap: Failed to resolve 'kafka:9092': Name or service not known",
        );
        check(&[name, refused], false, &["is not known", "Failed to resolve"]);
    }
}
