//! Drift and live quality: counts what models are given and how good their predictions are, by tumbling window of event time,
//! and raises alerts.
//!
//! ```text
//!   scoring    predictions ─▶ summarize ─▶ window-summaries (counts by window, every second)
//!   (P tasks)                                    │
//!   learning                                     ▼
//!   (1 task)                            report-quality ─every 5 s─▶ quality; status, metrics, alerts
//!                                           [store]
//!              labelled-examples ─▶ count-labels ─an alert, if drift may retrain─▶ commands (retrain)
//! ```
//!
//! A prediction is in the window of the event time of its observation, and so is its label, however late it comes. So a record
//! has the estimate of a window's metrics and, later, the truth beside it.

mod alert;
mod labels;
mod maturity;
pub mod metrics;
mod report;
mod status;
mod store;
mod summarize;
mod summary;

use std::time::Duration;

use crate::{
    events::{
        answered::Encoded, codecs::Codecs, labelled_example::LabelledExample,
        prediction::Prediction, topics::Topics,
    },
    processors::{metrics::ApplicationMetrics, model_table::Serving},
};
use foretell_streams::{
    record::Topic,
    time::EventTime,
    topology::{Edge, TopologyBuilder},
};

pub use alert::{Alert, AlertCause};
pub use labels::{CountLabels, REQUESTED_BY_DRIFT};
pub use maturity::Maturity;
pub use report::ReportQuality;
pub use status::{DISTRIBUTIONS_MAX, QualityBoard, QualityStatus, VERSIONS_MAX, VersionQuality};
pub use store::{QualityEntry, QualityStore};
pub use summarize::Summarize;
pub use summary::{ModelReference, TrainedMetrics, WindowSummary};

/// The settings of drift and live quality.
#[derive(Clone, Debug, PartialEq)]
pub struct QualitySettings {
    /// The length of a window, in event time.
    pub window: Duration,
    /// The time after its observation in which a label can come: window and grace of the outcome join.
    pub labels_within: Duration,
    /// The population stability index from which a feature or the scores have drifted.
    pub psi_alert: f64,
    /// The relative increase of the log loss over that of the evaluation which is tolerated.
    pub log_loss_alert: f64,
    /// The number of labels from which the log loss is judged.
    pub labels_min: u64,
    /// The number of predictions from which the population stability index is judged.
    pub predictions_min: u64,
    /// Whether an alert requests a training.
    pub retrain_on_drift: bool,
}

/// The parts of the learning topology that concern quality.
pub struct QualityParts {
    /// The settings.
    pub settings: QualitySettings,
    /// Where the status is published.
    pub board: QualityBoard,
    /// The model that serves.
    pub serving: Serving,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// The names of the topics.
    pub topics: Topics,
    /// The codecs of the topics.
    pub codecs: Codecs,
}

/// Adds the processor of summaries to the scoring topology. Every task begins with a copy of `summarize`, without counts.
pub fn add_summaries_to(
    topology: &mut TopologyBuilder,
    predicted: Edge<Encoded<Prediction>>,
    summarize: Summarize,
    topic: Topic,
) {
    let summaries = topology.process("summarize", &[predicted], &[], move || summarize.fresh());
    topology.sink("window-summaries", &[summaries], topic, WindowSummary::codec());
}

/// Adds the processors of quality to the learning topology.
pub fn add_to(
    topology: &mut TopologyBuilder,
    labelled: Edge<LabelledExample>,
    parts: QualityParts,
) {
    let QualityParts { settings, board, serving, metrics, topics, codecs } = parts;
    let summaries =
        topology.source("window-summaries", topics.window_summaries, WindowSummary::codec());
    let store = topology.key_value_store("quality", QualityEntry::codec());
    let stores = [store.id()];
    let store = QualityStore::new(store);
    let labels = CountLabels {
        settings: settings.clone(),
        serving: serving.clone(),
        metrics: metrics.clone(),
        store: store.clone(),
    };
    let requested = topology.process("count-labels", &[labelled], &stores, move || labels.clone());
    topology.sink("requested-trainings", &[requested], topics.commands, codecs.command);
    let reported = topology.process("report-quality", &[summaries], &stores, move || {
        let (settings, serving, metrics) = (settings.clone(), serving.clone(), metrics.clone());
        ReportQuality::new(settings, serving, metrics, board.clone(), store.clone())
    });
    topology.sink("quality", &[reported], topics.quality, codecs.quality);
}

impl QualitySettings {
    /// The start of the window of `time`.
    pub(super) fn window_of(&self, time: EventTime) -> EventTime {
        window_of(time, self.window)
    }
}

/// The start of the window of `time`; windows are aligned to 1970.
fn window_of(time: EventTime, window: Duration) -> EventTime {
    let length = i64::try_from(window.as_millis()).unwrap_or(i64::MAX).max(1);
    EventTime(time.0.div_euclid(length).saturating_mul(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_to_1970() {
        let check = |time: i64, window: Duration, expected: i64| {
            assert_eq!(
                window_of(EventTime(time), window),
                EventTime(expected),
                "{time} {window:?}"
            );
        };
        check(0, Duration::from_secs(1), 0);
        check(1_999, Duration::from_secs(1), 1_000);
        check(-1, Duration::from_secs(1), -1_000);
        check(7, Duration::MAX, 0);
        check(7, Duration::ZERO, 7);
    }
}
