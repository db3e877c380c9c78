//! The models of an application for the command line: reads them, and sends commands about them to the learner.

pub mod command;
pub mod files;
#[cfg(test)]
mod fixture;
pub mod reproduce;

use std::sync::Arc;

use crate::{
    app::{cluster::Cluster, telemetry},
    config::Config,
    events::codecs::Codecs,
    processors::{
        library::Library, metrics::ApplicationMetrics, model_archive::ModelArchive,
        topic_reader::TopicReader,
    },
};
use foretell_streams::record::{Partition, Topic, TopicPartition};

/// Opens the library of the configured application.
///
/// # Errors
/// If a topic or a schema is missing; the message says what to run.
pub fn open(config: &Config, cluster: &Cluster) -> anyhow::Result<Library> {
    let topics = &config.topics;
    for topic in [&topics.models, &topics.decisions, &topics.commands] {
        if cluster.broker.partitions(topic)?.is_none() {
            anyhow::bail!("topic {topic} does not exist: run `foretell init` first");
        }
    }
    let metrics = ApplicationMetrics::register(&telemetry::metrics_registry()?)?;
    Ok(with_codecs(config, cluster, &cluster.codecs(config)?, &metrics))
}

/// The library on codecs that are open.
pub(super) fn with_codecs(
    config: &Config,
    cluster: &Cluster,
    codecs: &Codecs,
    metrics: &ApplicationMetrics,
) -> Library {
    let first = |topic: &Topic| TopicPartition { topic: topic.clone(), partition: Partition(0) };
    let archive = ModelArchive {
        broker: Arc::clone(&cluster.broker),
        source: first(&config.topics.models),
        codec: Arc::clone(&codecs.model),
        metrics: metrics.clone(),
    };
    let decisions = TopicReader {
        broker: Arc::clone(&cluster.broker),
        source: first(&config.topics.decisions),
        codec: Arc::clone(&codecs.decision),
        metrics: metrics.clone(),
    };
    Library::new(archive, decisions)
}
