//! What the application counts, beside what the streams layer counts for it.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use crate::streams::metrics::Counter;

/// Counters of the scoring and learning topologies.
#[derive(Clone, Debug)]
pub struct ApplicationMetrics {
    predictions: IntCounterVec,
    outcomes: IntCounterVec,
    unlabelled: IntCounter,
    unseen_categories: IntCounter,
    out_of_range: IntCounter,
    scoring_latency: Histogram,
    trainings: IntCounterVec,
    training_seconds: Histogram,
    model_info: IntGaugeVec,
    contract: IntGaugeVec,
}

/// From a record's own timestamp to its score; what the commit adds is in the streams layer's.
const LATENCY_SECONDS: [f64; 11] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0];
const TRAINING_SECONDS: [f64; 9] = [0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

impl ApplicationMetrics {
    /// Registers the application's metrics.
    ///
    /// # Errors
    /// If `registry` has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            predictions: IntCounterVec::new(
                Opts::new(
                    "foretell_predictions_total",
                    "Predictions, by the model that made them.",
                ),
                &["model_version"],
            )?,
            outcomes: IntCounterVec::new(
                Opts::new("foretell_outcomes_total", "Outcomes, by what became of them."),
                &["result"],
            )?,
            unlabelled: IntCounter::new(
                "foretell_unlabelled_total",
                "Predictions whose window closed without an outcome.",
            )?,
            unseen_categories: IntCounter::new(
                "foretell_unseen_categories_total",
                "Answers scored with a category that the model has never seen.",
            )?,
            out_of_range: IntCounter::new(
                "foretell_out_of_range_total",
                "Answers scored with a number beyond those that the model was trained on.",
            )?,
            scoring_latency: Histogram::with_opts(
                HistogramOpts::new(
                    "foretell_scoring_latency_seconds",
                    "From a record's timestamp to its score; the commit is not in it.",
                )
                .buckets(LATENCY_SECONDS.to_vec()),
            )?,
            trainings: IntCounterVec::new(
                Opts::new("foretell_trainings_total", "Trainings, by how they ended."),
                &["result"],
            )?,
            training_seconds: Histogram::with_opts(
                HistogramOpts::new("foretell_training_seconds", "How long trainings took.")
                    .buckets(TRAINING_SECONDS.to_vec()),
            )?,
            model_info: IntGaugeVec::new(
                Opts::new("foretell_model_info", "1 for the model that this instance serves."),
                &["version"],
            )?,
            contract: IntGaugeVec::new(
                Opts::new(
                    "foretell_feature_contract_violated",
                    "1 for a feature that is not as the model that serves was fitted, by what no longer holds.",
                ),
                &["feature", "problem"],
            )?,
        };
        // From 0 on, so that the first of a kind is an increase.
        for result in ["succeeded", "retried", "failed"] {
            metrics.trainings.with_label_values(&[result]);
        }
        registry.register(Box::new(metrics.predictions.clone()))?;
        registry.register(Box::new(metrics.outcomes.clone()))?;
        registry.register(Box::new(metrics.unlabelled.clone()))?;
        registry.register(Box::new(metrics.unseen_categories.clone()))?;
        registry.register(Box::new(metrics.out_of_range.clone()))?;
        registry.register(Box::new(metrics.scoring_latency.clone()))?;
        registry.register(Box::new(metrics.trainings.clone()))?;
        registry.register(Box::new(metrics.training_seconds.clone()))?;
        registry.register(Box::new(metrics.model_info.clone()))?;
        registry.register(Box::new(metrics.contract.clone()))?;
        Ok(metrics)
    }

    pub(super) fn predictions(&self, version: &str) -> Counter {
        Counter::new(self.predictions.with_label_values(&[version]))
    }

    pub(super) fn outcomes(&self, result: &str) -> Counter {
        Counter::new(self.outcomes.with_label_values(&[result]))
    }

    pub(super) fn unlabelled(&self) -> Counter {
        Counter::new(self.unlabelled.clone())
    }

    pub(super) fn unseen_categories(&self) -> Counter {
        Counter::new(self.unseen_categories.clone())
    }

    pub(super) fn out_of_range(&self) -> Counter {
        Counter::new(self.out_of_range.clone())
    }

    pub(super) fn scored_after(&self, seconds: f64) {
        self.scoring_latency.observe(seconds);
    }

    pub(super) fn trained(&self, result: &str, seconds: f64) {
        self.trainings.with_label_values(&[result]).inc();
        self.training_seconds.observe(seconds);
    }

    pub(super) fn contract(&self, feature: &str, problem: &str, is_violated: bool) {
        self.contract.with_label_values(&[feature, problem]).set(i64::from(is_violated));
    }

    /// This instance serves `version` from here on. A version long gone takes its series with it,
    /// so that they stay few however often we retrain.
    pub(super) fn serving(&self, version: &str, retired: Option<&str>) {
        self.model_info.reset();
        self.model_info.with_label_values(&[version]).set(1);
        if let Some(retired) = retired
            && let Err(error) = self.predictions.remove_label_values(&[retired])
        {
            tracing::debug!(retired, %error, "it had predicted nothing");
        }
    }
}
