//! Makes the work of the trainer thread from the configuration.

use std::sync::Arc;

use crate::{
    app::cluster::Cluster,
    config::Config,
    events::{answered::AnsweredCodec, codecs::Codecs},
    processors::{
        learning::{
            training_log::{DiskCopy, ReadLog, TrainingLog},
            work::{HoldoutRule, LearningWork, WorkSettings},
        },
        metrics::ApplicationMetrics,
        model_archive::ModelArchive,
        topic_reader::TopicReader,
    },
};
use foretell_ml::{DataPolicy, Seed};
use foretell_streams::{
    record::{Partition, Topic, TopicPartition},
    time::Clock,
};

/// The work of the trainer thread. The training set has a copy on disk if the stores are on disk.
pub(super) fn learning_work(
    config: &Config,
    cluster: &Cluster,
    codecs: Codecs,
    clock: &Arc<dyn Clock>,
    metrics: ApplicationMetrics,
) -> LearningWork {
    let learning = &config.learning;
    let broker = || Arc::clone(&cluster.broker);
    let log = training_log(config, cluster, &codecs, learning.policy, metrics.clone());
    LearningWork {
        log: TrainingLog { disk: disk_copy(config, cluster), ..log },
        models: ModelArchive {
            broker: broker(),
            source: only_partition(&config.topics.models),
            codec: codecs.model,
            metrics: metrics.clone(),
        },
        trials: TopicReader {
            broker: broker(),
            source: only_partition(&config.topics.trials),
            codec: codecs.trial,
            metrics,
        },
        settings: WorkSettings {
            threshold: learning.threshold,
            calibration: learning.calibration,
            seed: Seed(learning.seed),
            judge: learning.judge,
            holdout: HoldoutRule {
                share: learning.holdout,
                retrain_after: learning.rules.retrain_after,
            },
            tuning: learning.tuning.clone(),
        },
        clock: Arc::clone(clock),
        recent: Vec::new(),
    }
}

/// The folder of the training sets in `state_dir`, beside those of the applications' stores.
const TRAINING_SETS: &str = "training-sets";

/// The copy of this instance's training set on disk.
fn disk_copy(config: &Config, cluster: &Cluster) -> Option<DiskCopy> {
    // A copy is useless without the log, which ends with an embedded broker.
    let folder = config.streams.state_dir.as_ref().filter(|_| cluster.is_lasting)?;
    let folder = folder.join(TRAINING_SETS).join(config.application());
    DiskCopy::open(&folder.join(config.instance()))
}

/// The training log, of which nothing was read yet.
pub(super) fn training_log(
    config: &Config,
    cluster: &Cluster,
    codecs: &Codecs,
    policy: DataPolicy,
    metrics: ApplicationMetrics,
) -> TrainingLog {
    TrainingLog {
        broker: Arc::clone(&cluster.broker),
        source: only_partition(&config.topics.labelled_examples),
        codec: Arc::<AnsweredCodec<_>>::clone(&codecs.labelled_example),
        events: Arc::clone(&config.event_schema),
        spec: config.pipeline.clone(),
        classes: config.classes.clone(),
        policy,
        metrics,
        seed: Seed(config.learning.seed),
        read: ReadLog::default(),
        disk: None,
    }
}

fn only_partition(topic: &Topic) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: Partition(0) }
}
