//! Metrics of HTTP, and `/metrics` in Prometheus' text format.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use crate::http::{HttpState, ROUTES};
use foretell_streams::metrics::Registration;

/// Metrics of requests, connections and waiting requests.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    connections: IntGauge,
    connections_refused: IntCounter,
    handshakes_failed: IntCounter,
    rows_scored: IntCounterVec,
    waits: IntGauge,
    waits_refused: IntCounter,
}

/// Classes of status codes.
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];
/// The serving protocols.
const PROTOCOLS: [&str; 2] = ["invocations", "open_inference"];
/// Label of paths that are not routes. Clients choose those, so they must not become labels.
const UNKNOWN: &str = "unknown";

impl HttpMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If `registry` has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Self::declare(&Registration::in_registry(registry))
    }

    /// Registers the metrics through `to`, which lists them.
    ///
    /// # Errors
    /// If the registry has them already.
    pub fn declare(to: &Registration<'_>) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: to.counters_by(
                "foretell_http_requests_total",
                "HTTP requests answered, by route and by class of status code.",
                &["route", "status"],
            )?,
            connections: to.gauge("foretell_http_connections", "Open HTTP connections.")?,
            connections_refused: to.counter(
                "foretell_http_connections_refused_total",
                "HTTP connections refused because http.connections_max were open.",
            )?,
            handshakes_failed: to.counter(
                "foretell_http_tls_handshakes_failed_total",
                "TLS handshakes that failed, or were not complete within http.read_timeout.",
            )?,
            rows_scored: to.counters_by(
                "foretell_http_rows_scored_total",
                "Rows scored by the serving protocols, without the stream, by protocol.",
                &["protocol"],
            )?,
            waits: to.gauge("foretell_http_waits", "HTTP requests that wait for a prediction.")?,
            waits_refused: to.counter(
                "foretell_http_waits_refused_total",
                "HTTP requests refused because http.waits_max requests were waiting.",
            )?,
        };
        for protocol in PROTOCOLS {
            metrics.rows_scored.with_label_values(&[protocol]);
        }
        // They begin with 0, so that the first request is an increase.
        for route in ROUTES.iter().map(|route| route.path).chain([UNKNOWN]) {
            for class in CLASSES {
                metrics.requests.with_label_values(&[route, class]);
            }
        }
        Ok(metrics)
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.connections)
    }

    pub(super) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    pub(super) fn rows_scored(&self, protocol: &str, rows: usize) {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        self.rows_scored.with_label_values(&[protocol]).inc_by(rows);
    }

    pub(super) fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// Counts a waiting request until the guard is dropped.
    pub(super) fn wait(&self) -> GaugeGuard {
        GaugeGuard::new(&self.waits)
    }

    pub(super) fn wait_refused(&self) {
        self.waits_refused.inc();
    }
}

#[cfg(test)]
impl HttpMetrics {
    pub(super) fn connections_open(&self) -> i64 {
        self.connections.get()
    }
}

/// Increments a gauge until it is dropped.
pub(super) struct GaugeGuard(IntGauge);

impl GaugeGuard {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Middleware that counts requests by route and status.
pub(super) async fn count(
    State(metrics): State<HttpMetrics>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let route = route.as_ref().map_or(UNKNOWN, MatchedPath::as_str);
    let class = match response.status().as_u16() {
        400..500 => "4xx",
        500.. => "5xx",
        _ => "2xx",
    };
    metrics.requests.with_label_values(&[route, class]).inc();
    response
}

pub(super) async fn metrics(State(state): State<HttpState>) -> Response {
    in_text(&state.registry)
}

/// The metrics in Prometheus' text format.
pub(super) fn in_text(registry: &Registry) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => {
            let format = encoder.format_type().to_owned();
            ([(header::CONTENT_TYPE, format)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
