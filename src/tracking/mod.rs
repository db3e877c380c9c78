//! Tracking in MLflow: an experiment for the application, a run for each training with its trials as child runs, the model as
//! a logged model and a registered version, and aliases that follow the promotions.
//!
//! ```text
//!   models, trials, decisions, quality ─▶ outbox (a group <application>-tracking, one thread)
//!                                           │  backlog: in which order
//!                                           ▼
//!                                         sender (one thread) ─▶ tracker ─▶ api, client ─▶ MLflow
//!                                                                   │
//!                                                                   ├─ mapping: what a record becomes
//!                                                                   └─ artifacts: the files of a model
//! ```
//!
//! Nothing waits for MLflow: not a worker, not the trainer. The reasons are in docs/decisions/028-mlflow-outbox.md.

mod api;
mod artifacts;
mod backlog;
mod client;
mod mapping;
pub mod metrics;
mod outbox;
mod probe;
mod sender;
#[cfg(test)]
mod tests;
mod tracker;

use std::sync::Arc;

pub use client::SetupError;
pub use outbox::{Outbox, TrackingCodecs};
pub use probe::{Probed, check, probe};

use crate::{
    config::{Config, MlflowSettings},
    tracking::{
        backlog::Backlog,
        client::Client,
        metrics::TrackingMetrics,
        outbox::{OutboxParts, Readers, only_partition},
        sender::SenderThread,
        tracker::Tracker,
    },
};
use foretell_streams::{
    runtime::broker::{Broker, Membership, ProcessingGuarantee},
    time::Clock,
};

/// The last part of the group's name.
const GROUP: &str = "tracking";

/// Maximum numbers of records at hand: a model may have 16 MiB, others have some kilobytes.
const MODELS_MAX: usize = 2;
const RECORDS_MAX: usize = 500;

/// Reasons why tracking cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TrackingStartError {
    /// The settings are invalid.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The system has no more threads.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// What tracking is made of.
pub struct TrackingParts<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The cluster.
    pub broker: Arc<dyn Broker>,
    /// The codecs of the topics.
    pub codecs: TrackingCodecs,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: TrackingMetrics,
    /// For the random part of the waits between attempts.
    pub seed: u64,
}

/// The name of the consumer group.
#[must_use]
pub fn group(application: &str) -> String {
    format!("{application}-{GROUP}")
}

impl TrackingParts<'_> {
    /// The consumer that sends to the server of `settings`. Connects to nothing yet.
    ///
    /// # Errors
    /// [`TrackingStartError`].
    pub fn outbox(self, settings: &MlflowSettings) -> Result<Outbox, TrackingStartError> {
        let client = Client::new(settings)?;
        let Self { config, broker, codecs, clock, metrics, seed } = self;
        let (application, topics) = (config.application(), &config.topics);
        let examples = topics.labelled_examples.clone();
        let tracker = Tracker::new(client, settings.clone(), application.clone(), examples);
        let group = group(&application);
        let membership = Membership {
            member: format!("{group}-{}", config.instance()),
            group,
            lead: topics.models.clone(),
            co_partitioned: [&topics.trials, &topics.decisions, &topics.quality]
                .map(Clone::clone)
                .to_vec(),
            // Nothing is written, and a transaction would not include what MLflow has.
            guarantee: ProcessingGuarantee::AtLeastOnce,
            commit_interval: Membership::COMMIT_INTERVAL,
        };
        // A training writes its trials, its model and its decision with one time.
        let inputs = [
            (&topics.trials, RECORDS_MAX),
            (&topics.models, MODELS_MAX),
            (&topics.decisions, RECORDS_MAX),
            (&topics.quality, RECORDS_MAX),
        ];
        let inputs = inputs.map(|(topic, records_max)| (only_partition(topic), records_max));
        Ok(Outbox::new(OutboxParts {
            broker,
            membership,
            backlog: Backlog::new(inputs),
            readers: Readers {
                trials: only_partition(&topics.trials),
                models: only_partition(&topics.models),
                decisions: only_partition(&topics.decisions),
                codecs,
                with_trials: settings.trials,
                with_quality: settings.live_metrics,
            },
            sender: SenderThread::start(tracker, metrics.clone(), Arc::clone(&clock), seed)?,
            clock,
            metrics,
        }))
    }
}
