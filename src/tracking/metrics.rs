//! The metrics and the state of tracking.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use crate::processors::tracking_status::TrackingBoard;
use foretell_streams::{metrics::Registration, time::WallTime};

/// What records are sent as.
const KINDS: [&str; 5] = ["trial", "model", "alias", "decision", "quality"];

/// The metrics of tracking in MLflow, and the board for what a metric cannot say: the reason of an outage.
#[derive(Clone, Debug)]
pub struct TrackingMetrics {
    board: TrackingBoard,
    up: IntGauge,
    lag: IntGauge,
    sent: IntCounterVec,
    failed: IntCounterVec,
    retries: IntCounter,
}

impl TrackingMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If `registry` has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Self::declare(&Registration::in_registry(registry))
    }

    /// Registers the metrics through `to`, which keeps a list of them.
    ///
    /// # Errors
    /// If the registry has them already.
    pub fn declare(to: &Registration<'_>) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            board: TrackingBoard::default(),
            up: to.gauge(
                "foretell_mlflow_up",
                "1 if the last request to the MLflow server was answered, 0 if not. 1 on an instance that sends nothing.",
            )?,
            lag: to.gauge(
                "foretell_mlflow_lag_records",
                "Records that are not sent to MLflow yet, on the instance that sends them. Markers of transactions count, too.",
            )?,
            sent: to.counters_by(
                "foretell_mlflow_sent_total",
                "Records that were sent to MLflow, by kind.",
                &["kind"],
            )?,
            failed: to.counters_by(
                "foretell_mlflow_failed_total",
                "Records that were skipped, because MLflow refused them or they cannot be read, by kind.",
                &["kind"],
            )?,
            retries: to.counter(
                "foretell_mlflow_retries_total",
                "Attempts to send records to MLflow that failed and were repeated.",
            )?,
        };
        for kind in KINDS {
            metrics.sent.with_label_values(&[kind]);
            metrics.failed.with_label_values(&[kind]);
        }
        metrics.up.set(1);
        Ok(metrics)
    }

    /// The state for `/api/v1/status`.
    #[must_use]
    pub fn board(&self) -> &TrackingBoard {
        &self.board
    }

    pub(super) fn answered(&self) {
        self.up.set(1);
        self.board.answered();
    }

    pub(super) fn unavailable(&self, reason: &str, at: WallTime) {
        self.up.set(0);
        self.board.unavailable(reason, at);
    }

    pub(super) fn lag(&self, records: i64) {
        self.lag.set(records);
        self.board.lag(records);
    }

    /// This instance sends from now on.
    pub(super) fn begins(&self) {
        self.board.begins();
    }

    /// This instance sends no more.
    pub(super) fn ends(&self) {
        self.up.set(1);
        self.lag.set(0);
        self.board.ends();
    }

    pub(super) fn sent(&self, kind: &str, records: usize) {
        self.sent.with_label_values(&[kind]).inc_by(records as u64);
    }

    pub(super) fn failed(&self, kind: &str, records: usize) {
        self.failed.with_label_values(&[kind]).inc_by(records as u64);
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }
}
