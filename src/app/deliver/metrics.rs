//! The metrics of `foretell deliver`.

use std::time::Duration;

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use crate::app::deliver::outcome::REJECTION_CLASSES;
use foretell_streams::metrics::Registration;

/// The results of deliveries: delivered, one more attempt, or the class of the dead letter.
const DELIVERED: &str = "delivered";
const RETRIED: &str = "retried";

/// Bounds for one attempt; the default time limit is 10 s.
const ATTEMPT_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// The metrics of the deliveries.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryMetrics {
    deliveries: IntCounterVec,
    seconds: HistogramVec,
    open: IntGaugeVec,
    oldest: GaugeVec,
    unreadable: IntCounterVec,
}

impl DeliveryMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If `registry` has them already.
    pub(super) fn register(
        registry: &Registry,
        channels: &[String],
    ) -> Result<Self, prometheus::Error> {
        let metrics = Self::declare(&Registration::in_registry(registry))?;
        for channel in channels {
            for result in [DELIVERED, RETRIED].iter().chain(&REJECTION_CLASSES) {
                metrics.deliveries.with_label_values(&[channel.as_str(), result]);
            }
            metrics.open(channel, 0, Duration::ZERO);
        }
        Ok(metrics)
    }

    /// Registers the metrics through `to`, which keeps a list of them.
    ///
    /// # Errors
    /// If the registry has them already.
    pub(crate) fn declare(to: &Registration<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            deliveries: to.counters_by(
                "foretell_deliveries_total",
                "Results of deliveries, by channel: `delivered`, `retried` (an attempt failed, and another follows), or the class \
                 of the dead letter.",
                &["channel", "result"],
            )?,
            seconds: to.histograms(
                "foretell_delivery_seconds",
                "Time of one attempt, by channel.",
                ("channel", &[]),
                &ATTEMPT_SECONDS,
            )?,
            open: to.gauges(
                "foretell_deliveries_open",
                "Deliveries that were read and are neither delivered nor dead-lettered, by channel.",
                &["channel"],
            )?,
            oldest: to.gauges(
                "foretell_delivery_age_seconds",
                "Time since the earliest due time of an open delivery, by channel; 0 without one.",
                &["channel"],
            )?,
            unreadable: to.counters_by(
                "foretell_delivery_unreadable_total",
                "Records of the topic of actions that cannot be decoded and were dead-lettered, by class.",
                &["class"],
            )?,
        })
    }

    pub(super) fn attempted(&self, channel: &str, seconds: f64) {
        self.seconds.with_label_values(&[channel]).observe(seconds);
    }

    pub(super) fn delivered(&self, channel: &str) {
        self.count(channel, DELIVERED);
    }

    pub(super) fn retried(&self, channel: &str) {
        self.count(channel, RETRIED);
    }

    /// Counts a delivery that is given up; `class` is that of its dead letter.
    pub(super) fn rejected(&self, channel: &str, class: &str) {
        self.count(channel, class);
    }

    fn count(&self, channel: &str, result: &str) {
        self.deliveries.with_label_values(&[channel, result]).inc();
    }

    pub(super) fn unreadable(&self, class: &str) {
        self.unreadable.with_label_values(&[class]).inc();
    }

    pub(super) fn open(&self, channel: &str, open: usize, oldest: Duration) {
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.open.with_label_values(&[channel]).set(open);
        self.oldest.with_label_values(&[channel]).set(oldest.as_secs_f64());
    }
}
