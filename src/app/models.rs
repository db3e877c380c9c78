//! Follows the `models` topic: reads it to its end before the instance starts, and continues from there.

use std::{sync::Arc, time::Duration};

use crate::{
    app::cluster::Cluster,
    config::Config,
    events::{model::Model, topics::TOPICS},
    processors::{
        metrics::ApplicationMetrics,
        model_table::{ModelTable, Serving},
    },
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{InputRecord, Partition, TopicPartition},
    runtime::{
        StopSignal,
        broker::{BrokerError, ReadFrom, ReadTo, Reader},
    },
    time::Clock,
};

/// The time for a partition to elect a leader, and for the registry to answer, before a start fails.
const LEADER_WITHIN: Duration = Duration::from_secs(30);
/// The time that one read waits for records.
const WAIT: Duration = Duration::from_millis(200);

/// The source of the models, and the scorers that serve them.
pub(super) struct Models<'a> {
    pub(super) config: &'a Config,
    pub(super) cluster: &'a Cluster,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) codec: Arc<dyn Codec<Model>>,
    pub(super) serving: Serving,
    pub(super) metrics: ApplicationMetrics,
}

/// The reader of the topic.
pub(super) struct ModelFollower {
    reader: Box<dyn Reader>,
    codec: Arc<dyn Codec<Model>>,
    metrics: ApplicationMetrics,
    table: ModelTable,
    /// Records that were read, and wait for the registry to be decoded.
    waiting: Vec<InputRecord>,
}

impl Models<'_> {
    /// Reads the topic to its end.
    ///
    /// # Errors
    /// If no model serves then, or a model with other classes than the configured ones.
    pub(super) fn catch_up(self) -> anyhow::Result<ModelFollower> {
        let topic = self.config.topics.models.clone();
        let source = TopicPartition { topic, partition: Partition(0) };
        let reader =
            self.with_retries(|| self.cluster.broker.read(&source, ReadFrom::Beginning))?;
        let metrics = self.metrics.clone();
        let table = ModelTable::new(self.serving.clone(), metrics.clone());
        let codec = Arc::clone(&self.codec);
        let mut follower = ModelFollower { reader, codec, metrics, table, waiting: Vec::new() };
        while self.with_retries(|| follower.read())? == ReadTo::More {}
        let Some(scorer) = self.serving.scorer() else {
            if let Some(why) = follower.table.refused() {
                anyhow::bail!(
                    "no model serves: {why}. Start the release that trained it, or train another first model with \
                     `foretell init --force`"
                );
            }
            anyhow::bail!(
                "no model serves: topic {} is empty. Run `foretell init` first",
                source.topic
            );
        };
        let labels = &self.config.classes;
        anyhow::ensure!(
            scorer.classes() == labels.as_slice(),
            "the model that serves has the classes {:?}, but [outcomes] labels is {labels:?}: \
             set it to the classes of the model, or train another first model with `foretell init --force`",
            scorer.classes()
        );
        Ok(follower)
    }

    /// Repeats `request` while it fails with `Retry`, for at most [`LEADER_WITHIN`].
    fn with_retries<T>(
        &self,
        mut request: impl FnMut() -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let deadline = self.clock.elapsed() + LEADER_WITHIN;
        loop {
            match request() {
                Err(BrokerError::Retry(reason)) if self.clock.elapsed() < deadline => {
                    tracing::warn!(reason, "cannot read the models; retrying");
                }
                answer => return answer,
            }
        }
    }
}

impl ModelFollower {
    /// Follows the topic until `stop`.
    ///
    /// # Errors
    /// The first error that a retry cannot recover from.
    pub(super) fn run(&mut self, stop: &StopSignal) -> Result<(), String> {
        let mut logged = None;
        while !stop.is_stopped() {
            match self.read() {
                Ok(_) => logged = None,
                Err(BrokerError::Retry(reason)) => {
                    // Logged once for all retries.
                    if logged.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "cannot follow the models now; retrying");
                    }
                    logged = Some(reason);
                }
                Err(error) => return Err(format!("cannot follow the models: {error}")),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<ReadTo, BrokerError> {
        let mut records: Vec<InputRecord> = std::mem::take(&mut self.waiting);
        let read = self.reader.read(WAIT, &mut records);
        let mut models = Vec::new();
        let mut unavailable = None;
        for (index, record) in records.iter().enumerate() {
            let Some(bytes) = &record.value else { continue };
            match self.codec.decode(bytes) {
                Ok(model) => models.push(model),
                Err(CodecError::Unavailable { message }) => {
                    self.waiting = records[index..].to_vec();
                    unavailable = Some(message);
                    break;
                }
                Err(error) => {
                    self.metrics.unreadable(TOPICS.models.name);
                    tracing::error!(offset = %record.offset, %error, "skipping a model record that cannot be decoded");
                }
            }
        }
        for (index, model) in models.iter().enumerate() {
            // Of several moves of an alias in one batch, only the last is applied.
            let is_moved_again = |later: &Model| later.alias == model.alias;
            if model.alias.is_some() && models[index + 1..].iter().any(is_moved_again) {
                continue;
            }
            let (version, training) = (model.version.as_str(), model.training);
            match self.table.apply(model) {
                Ok(true) => tracing::info!(version, training, "serving a new model"),
                Ok(false) => {}
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::error!(
                        version,
                        error = format!("{error:#}"),
                        "a model cannot be used: the previous one continues to serve"
                    );
                }
            }
        }
        match unavailable {
            Some(message) => Err(BrokerError::Retry(message)),
            None => read,
        }
    }
}
