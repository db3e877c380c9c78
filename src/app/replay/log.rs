//! The topics that the trainer of a replay reads, on the embedded broker: the training log, of which records that were read
//! are deleted, and the models, of which those without an alias are.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    app::replay::{shared_work::SharedWork, task::PARTITION},
    config::Config,
    events::model::Model,
};
use foretell_streams::{
    local::LocalBroker,
    record::{InputRecord, Offset, OutputRecord, Topic, TopicPartition},
    runtime::broker::{Broker as _, Isolation, Publisher, ReadFrom, ReadTo},
    time::EventTime,
};

/// Number of records on the log until the trainer reads them into its training set, which the policy of `[learning]` bounds.
const RECORDS_MAX: i64 = 10_000;
/// The time that a read may wait; the records are there already.
const READ_WAIT: std::time::Duration = std::time::Duration::from_millis(200);

/// The training log.
pub(super) struct TrainingTopic {
    source: TopicPartition,
    publisher: Box<dyn Publisher>,
    work: SharedWork,
    /// Whether a job can ever read the log.
    is_learned_from: bool,
    /// The offset of the next record.
    next: Offset,
    /// Records before it were deleted.
    start: Offset,
}

impl TrainingTopic {
    pub(super) fn new(
        config: &Config,
        broker: &LocalBroker,
        work: SharedWork,
    ) -> anyhow::Result<Self> {
        let topic = config.topics.labelled_examples.clone();
        let source = TopicPartition { topic, partition: PARTITION };
        let learning = &config.learning;
        let is_learned_from = learning.rules.retrain_after > 0
            || learning.schedule.is_some()
            || config.quality.retrain_on_drift;
        Ok(Self {
            next: broker.end(&source, Isolation::ReadUncommitted)?,
            source,
            publisher: broker.publish()?,
            work,
            is_learned_from,
            start: Offset(0),
        })
    }

    /// Appends a record, and returns it as the learner reads it.
    pub(super) fn append(&mut self, record: OutputRecord) -> anyhow::Result<InputRecord> {
        let record = OutputRecord { partition: Some(PARTITION), ..record };
        let offset = self.next;
        self.next = offset.next();
        let input = InputRecord {
            source: self.source.clone(),
            offset,
            timestamp: record.timestamp,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        };
        self.publisher.send(record)?;
        Ok(input)
    }

    /// Appends records without a value, which trainings skip, until the next record has this offset: models name offsets of the
    /// log that they were trained on.
    pub(super) fn fill_to(&mut self, broker: &LocalBroker, offset: Offset) -> anyhow::Result<()> {
        while self.next < offset {
            let empty = OutputRecord::new(&self.source.topic, None, None, EventTime(0));
            self.append(empty)?;
            self.trim(broker)?;
        }
        Ok(())
    }

    /// Passes every record of the log to `visit`.
    pub(super) fn each(
        &self,
        broker: &LocalBroker,
        mut visit: impl FnMut(InputRecord) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut reader = broker.read(&self.source, ReadFrom::Beginning)?;
        let mut read_to = ReadTo::More;
        while read_to == ReadTo::More {
            let mut records = Vec::new();
            read_to = reader.read(READ_WAIT, &mut records)?;
            records.into_iter().try_for_each(&mut visit)?;
        }
        Ok(())
    }

    /// Has the trainer read the log, and deletes what it has read, if there are many records. No job may run.
    pub(super) fn trim(&mut self, broker: &LocalBroker) -> anyhow::Result<()> {
        if self.next.0 - self.start.0 < RECORDS_MAX {
            return Ok(());
        }
        if self.is_learned_from {
            let read = self.work.lock().log.read_to(self.next.0, &|_, _, _| true);
            read.map_err(|failure| anyhow::anyhow!("cannot read the training log: {failure}"))?;
        }
        broker.delete_records(&self.source, self.next);
        self.start = self.next;
        Ok(())
    }
}

/// The models on their topic.
#[derive(Default)]
pub(super) struct StoredModels {
    versions: BTreeSet<String>,
    aliases: BTreeMap<String, String>,
}

impl StoredModels {
    /// Notes a record of the topic.
    pub(super) fn note(&mut self, model: &Model) {
        if model.bundle.is_some() {
            self.versions.insert(model.version.clone());
        }
        if let Some(alias) = &model.alias {
            self.aliases.insert(alias.clone(), model.version.clone());
        }
    }

    /// Tombstones for the models that no alias points to. A job can need the others only.
    pub(super) fn unreferenced(&mut self, topic: &Topic) -> Vec<OutputRecord> {
        let aliases = &self.aliases;
        let is_free = |version: &String| !aliases.values().any(|named| named == version);
        let free: Vec<String> = self.versions.extract_if(.., |version| is_free(version)).collect();
        let tombstone = |version: &String| {
            OutputRecord::new(topic, Some(version.as_bytes()), None, EventTime(0))
        };
        free.iter().map(tombstone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::{learning::outputs::records_of, small_model::small_bundle};
    use foretell_streams::time::WallTime;

    #[test]
    fn models_without_an_alias_are_deleted() {
        let topic = Topic::new("models");
        let mut stored = StoredModels::default();
        let records = |training| {
            let mut bundle = small_bundle();
            bundle.lineage.origin.training = training;
            records_of(&bundle, "test", WallTime(0)).unwrap()
        };
        let (first, second, third) = (records(0), records(1), records(2));
        first.iter().chain(&second).for_each(|model| stored.note(model));
        stored.note(&Model { alias: Some("predecessor".to_owned()), ..first[1].clone() });
        assert!(stored.unreferenced(&topic).is_empty());
        stored.note(&third[0]);
        stored.note(&Model {
            alias: Some("predecessor".to_owned()),
            version: String::new(),
            ..first[1].clone()
        });
        let keys: BTreeSet<_> =
            stored.unreferenced(&topic).into_iter().filter_map(|record| record.key).collect();
        let expected = [&first[0], &third[0]].map(|model| model.version.clone().into_bytes());
        assert_eq!(keys, expected.into_iter().collect());
        assert!(stored.unreferenced(&topic).is_empty());
    }
}
