//! The `models` topic as an instance follows it: to its end before it starts, and on from there.

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

/// A partition has another leader by then, or nobody is there to lead it.
const LEADER_WITHIN: Duration = Duration::from_secs(30);
/// One look for what has been announced.
const WAIT: Duration = Duration::from_millis(200);

/// Where models come from, and where they go.
pub(super) struct Models<'a> {
    pub(super) config: &'a Config,
    pub(super) cluster: &'a Cluster,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) codec: Arc<dyn Codec<Model>>,
    pub(super) serving: Serving,
    pub(super) metrics: ApplicationMetrics,
}

/// The topic, read so far.
pub(super) struct Following {
    reader: Box<dyn Reader>,
    codec: Arc<dyn Codec<Model>>,
    metrics: ApplicationMetrics,
    table: ModelTable,
    /// Read, and not to be decoded just now.
    waiting: Vec<InputRecord>,
}

impl Models<'_> {
    /// Reads all that was announced.
    ///
    /// # Errors
    /// If no model serves then, or one of other classes than the configuration's.
    pub(super) fn catch_up(self) -> anyhow::Result<Following> {
        let topic = self.config.topics.models.clone();
        let source = TopicPartition { topic, partition: Partition(0) };
        let reader =
            self.once_it_answers(|| self.cluster.broker.read(&source, ReadFrom::Beginning))?;
        let metrics = self.metrics.clone();
        let table = ModelTable::new(self.serving.clone(), metrics.clone());
        let codec = Arc::clone(&self.codec);
        let mut following = Following { reader, codec, metrics, table, waiting: Vec::new() };
        while self.once_it_answers(|| following.read())? == ReadTo::More {}
        let Some(scorer) = self.serving.scorer() else {
            if let Some(why) = following.table.refused() {
                anyhow::bail!(
                    "no model serves: {why}. Start the release that made it, or make another first model with \
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
            "the model that serves tells apart {:?}, but [outcomes] labels says {labels:?}: \
             set them to the model's, or make another first model with `foretell init --force`",
            scorer.classes()
        );
        Ok(following)
    }

    /// A start need not fail because a leader has just died.
    fn once_it_answers<T>(
        &self,
        mut ask: impl FnMut() -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let deadline = self.clock.elapsed() + LEADER_WITHIN;
        loop {
            match ask() {
                Err(BrokerError::Retry(reason)) if self.clock.elapsed() < deadline => {
                    tracing::warn!(reason, "asking for the models again");
                }
                answer => return answer,
            }
        }
    }
}

impl Following {
    /// Goes on until it is told to stop.
    ///
    /// # Errors
    /// What it can't go on after.
    pub(super) fn run(&mut self, stop: &StopSignal) -> Result<(), String> {
        let mut told = None;
        while !stop.is_stopped() {
            match self.read() {
                Ok(_) => told = None,
                Err(BrokerError::Retry(reason)) => {
                    // Told once, however often it is tried again.
                    if told.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "cannot follow the models just now");
                    }
                    told = Some(reason);
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
        let mut waits_for = None;
        for (place, record) in records.iter().enumerate() {
            let Some(bytes) = &record.value else { continue };
            match self.codec.decode(bytes) {
                Ok(model) => models.push(model),
                Err(CodecError::Unavailable { message }) => {
                    self.waiting = records[place..].to_vec();
                    waits_for = Some(message);
                    break;
                }
                Err(error) => {
                    self.metrics.unreadable(TOPICS.models.name);
                    tracing::error!(offset = %record.offset, %error, "a model record cannot be read: it is passed over");
                }
            }
        }
        for (index, model) in models.iter().enumerate() {
            // An alias that is moved again in the same breath is not followed on its way.
            let is_moved_again = |later: &Model| later.alias == model.alias;
            if model.alias.is_some() && models[index + 1..].iter().any(is_moved_again) {
                continue;
            }
            let (version, training) = (model.version.as_str(), model.training);
            match self.table.apply(model) {
                Ok(true) => tracing::info!(version, training, "serving another model"),
                Ok(false) => {}
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::error!(
                        version,
                        error = format!("{error:#}"),
                        "a model cannot be used: the one before goes on serving"
                    );
                }
            }
        }
        match waits_for {
            Some(message) => Err(BrokerError::Retry(message)),
            None => read,
        }
    }
}
