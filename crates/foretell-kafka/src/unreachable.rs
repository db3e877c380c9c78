//! Why no broker answers, in words: librdkafka tries again and again by itself, and tells why only on the side.

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

/// Nobody answers, or nobody lets us in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}: {fix}")]
pub struct Unreachable {
    /// What happened.
    pub detail: String,
    /// What to do.
    pub fix: String,
}

/// What stands in the way. A later one tells more than an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    /// Nobody listens, or a firewall swallows what we say.
    Silence,
    /// The name is nobody's.
    Name,
    /// A broker hangs up at the first words: it speaks TLS and we do not, or the other way.
    Protocol,
    /// No TLS connection comes about.
    Tls,
    /// A broker does not believe that we are who we say.
    Authentication,
}

/// A client's context that keeps the most telling of the errors that belong to no call. Until a broker has answered
/// it does not log them: the caller that waits for one says what they come down to.
#[derive(Default)]
pub(crate) struct ErrorCollector {
    worst: Mutex<Option<(Obstacle, String)>>,
    is_connected: AtomicBool,
}

impl ErrorCollector {
    /// From here on, what is heard is logged.
    pub(crate) fn connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
    }

    /// Whether waiting longer is of no use: who is refused now is refused again.
    pub(crate) fn is_refused(&self) -> bool {
        let collector = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        collector.as_ref().is_some_and(|(obstacle, _)| *obstacle >= Obstacle::Tls)
    }

    /// Whether somebody may be there who hung up: nobody was missed at the address, nor in the name service.
    pub(crate) fn may_be_hanging_up(&self) -> bool {
        let collector = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        collector.as_ref().is_none_or(|(obstacle, reason)| {
            *obstacle == Obstacle::Silence && !reason.contains("Connect to ")
        })
    }

    /// What it comes down to, when `servers` did not answer within `seconds`.
    pub(crate) fn unreachable(&self, servers: &str, seconds: u64) -> Unreachable {
        let collector = self.worst.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (obstacle, reason) = collector.unwrap_or((Obstacle::Silence, String::new()));
        in_words(obstacle, &reason, servers, seconds)
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
        // A connection that was made and ended is told in the log only, and there only if we ask for it.
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

#[expect(clippy::wildcard_enum_match_arm, reason = "of 180 codes these tell why nobody answers")]
fn obstacle(code: Option<Code>, reason: &str) -> Option<Obstacle> {
    match code? {
        Code::Authentication | Code::SaslAuthenticationFailed => Some(Obstacle::Authentication),
        Code::SSL if reason.contains("listener?") => Some(Obstacle::Protocol),
        Code::SSL => Some(Obstacle::Tls),
        Code::Resolve => Some(Obstacle::Name),
        // Its own guess, from a connection that ends where it should begin.
        Code::BrokerTransportFailure
            if reason.contains("security.protocol") || reason.contains("listener?") =>
        {
            Some(Obstacle::Protocol)
        }
        // An alert of the broker's, which wants a certificate of ours, or another one.
        Code::BrokerTransportFailure if reason.contains("SSL routines") => Some(Obstacle::Tls),
        Code::BrokerTransportFailure => Some(Obstacle::Silence),
        _ => None,
    }
}

fn in_words(obstacle: Obstacle, reason: &str, servers: &str, seconds: u64) -> Unreachable {
    let reason = short(reason);
    let servers = address::shown(servers);
    let (detail, fix) = match obstacle {
        Obstacle::Silence if reason.is_empty() => (
            format!("no broker answers at {servers} after {seconds} s"),
            "is it running? set [broker] bootstrap_servers",
        ),
        Obstacle::Silence => (
            format!("no broker answers at {servers} after {seconds} s ({reason})"),
            "is it running? set [broker] bootstrap_servers",
        ),
        Obstacle::Name => (
            format!("the name of a broker at {servers} is not known ({reason})"),
            "correct [broker] bootstrap_servers, or the brokers' advertised.listeners",
        ),
        Obstacle::Protocol => (
            format!("a broker at {servers} hangs up at the first words ({reason})"),
            "set \"security.protocol\" in [broker.properties] to what the listener speaks: PLAINTEXT, SSL, \
             SASL_PLAINTEXT or SASL_SSL",
        ),
        Obstacle::Tls => (
            format!("no TLS connection to {servers} comes about ({reason})"),
            "set \"ssl.ca.location\" in [broker.properties] to who signed the broker's certificate; if the \
             broker wants one of ours, \"ssl.certificate.location\" and \"ssl.key.location\"",
        ),
        Obstacle::Authentication => (
            format!("{servers} does not accept who we are ({reason})"),
            "correct \"sasl.mechanisms\", \"sasl.username\" and \"sasl.password\" in [broker.properties], or \
             [broker] token_file",
        ),
    };
    Unreachable { detail, fix: fix.to_owned() }
}

/// `ssl://host:1/bootstrap: SSL handshake failed: … (after 3ms in state CONNECT, 2 identical error(s) suppressed)`:
/// neither who it was, which the sentence says, nor the counting.
fn short(reason: &str) -> &str {
    let reason = reason.rsplit_once(" (after ").map_or(reason, |(what, _)| what);
    let reason = reason.rsplit_once("/bootstrap: ").map_or(reason, |(_, what)| what);
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
    fn hang_ups_are_reported_in_the_log() {
        let collector = ErrorCollector::default();
        assert!(collector.may_be_hanging_up());
        let line = "[thrd:kafka:9092/bootstrap]: kafka:9092/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 1ms in state APIVERSION_QUERY)";
        collector.log(RDKafkaLogLevel::Info, "FAIL", line);
        assert!(!collector.may_be_hanging_up());
        let told = collector.unreachable("kafka:9092", 10).to_string();
        assert!(told.contains("first words (Disconnected: connection closed by peer"), "{told}");
    }

    #[test]
    fn the_most_telling_error_counts() {
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
        check(&[plain], false, &["hangs up", "SASL_SSL"]);
        let name = (
            Code::Resolve,
            "kafka:9092/bootstrap: Failed to resolve 'kafka:9092': Name or service not known",
        );
        check(&[name, refused], false, &["is not known", "Failed to resolve"]);
    }
}
