//! The topics of a cluster: their policies and logs, the partitioning of records, and the limit on memory.
//!
//! When a record does not fit, the largest log with a finite retention drops its oldest quarter, and so on until the
//! record fits, as with `retention.bytes`: consumers that are far behind get `OutOfRange`. Records that must be kept
//! (no retention, or the last value of a key) are never dropped: if they fill the memory, sending fails with an error
//! that says so.

use std::collections::BTreeMap;

use crate::{
    local::{
        LocalSettings,
        log::{Ending, Log, LogRules},
        now::Now,
        transaction::{Transaction, TransactionId},
    },
    record::{Header, Offset, OutputRecord, Partition, Topic, TopicPartition, partition_of},
    runtime::broker::{BrokerError, Cleanup, TopicSpec},
};

/// Kafka's default of `message.max.bytes`.
const MESSAGE_BYTES_MAX_DEFAULT: u32 = 1024 * 1024 + 12;
/// The size of the header of Kafka's record batch.
const BATCH_BYTES: usize = 61;
/// Guards against a typing error. An empty log takes about 200 bytes.
const PARTITIONS_MAX: u32 = 10_000;

/// The topics by name, and the memory of all their logs.
#[derive(Debug)]
pub(crate) struct Topics {
    settings: LocalSettings,
    by_name: BTreeMap<Topic, TopicLogs>,
    /// The memory of all logs, in bytes.
    bytes: u64,
}

#[derive(Debug)]
struct TopicLogs {
    spec: TopicSpec,
    logs: Vec<Log>,
    /// The index of the partition for the next record without a key.
    keyless_next: usize,
}

impl Topics {
    pub(crate) fn new(settings: LocalSettings) -> Self {
        Self { settings, by_name: BTreeMap::new(), bytes: 0 }
    }

    /// Creates a topic unless it exists. Returns whether it was created.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if it exists with another number of partitions, or the number of partitions is invalid.
    pub(crate) fn create(&mut self, spec: &TopicSpec) -> Result<bool, BrokerError> {
        let TopicSpec { name, partitions, .. } = spec;
        if *partitions == 0 || *partitions > PARTITIONS_MAX {
            let reason =
                format!("topic {name}: {partitions} partitions, expected 1 to {PARTITIONS_MAX}");
            return Err(BrokerError::Fatal(reason));
        }
        if let Some(existing) = self.partitions(name) {
            if existing == *partitions {
                return Ok(false);
            }
            return Err(BrokerError::Fatal(format!(
                "topic {name} has {existing} partitions, expected {partitions}: with another number, keys would move \
                 to other tasks than their state; use {existing} partitions or another topic"
            )));
        }
        let rules = self.settings.rules(spec.cleanup);
        let logs = (0..*partitions).map(|_| Log::new(rules)).collect();
        let topic = TopicLogs { spec: spec.clone(), logs, keyless_next: 0 };
        self.by_name.insert(name.clone(), topic);
        Ok(true)
    }

    /// Maximum number of records that one poll or read returns.
    pub(crate) fn batch_records_max(&self) -> usize {
        self.settings.batch_records_max
    }

    /// Replaces the logs of a topic by empty ones. No open transaction may have written to them.
    pub(crate) fn recreate_topic(&mut self, topic: &Topic) {
        let Some(topic) = self.by_name.get_mut(topic) else { return };
        let rules = self.settings.rules(topic.spec.cleanup);
        for log in &mut topic.logs {
            self.bytes -= log.bytes();
            *log = Log::new(rules);
            self.bytes += log.bytes();
        }
    }

    /// Raises the number of partitions of a topic to `partitions`.
    pub(crate) fn add_partitions(&mut self, topic: &Topic, partitions: u32) {
        let Some(topic) = self.by_name.get_mut(topic) else { return };
        let rules = self.settings.rules(topic.spec.cleanup);
        topic.spec.partitions = topic.spec.partitions.max(partitions.min(PARTITIONS_MAX));
        let count = usize::try_from(topic.spec.partitions).unwrap_or(usize::MAX);
        topic.logs.resize_with(count, || Log::new(rules));
    }

    /// Deletes the records of a partition before `offset`. Does nothing if there is no such partition.
    pub(crate) fn delete_records(&mut self, partition: &TopicPartition, offset: Offset) {
        if self.log(partition).is_some() {
            self.change(partition, |log| log.delete_before(offset));
        }
    }

    /// The number of partitions of a topic, or `None` if it does not exist.
    pub(crate) fn partitions(&self, topic: &Topic) -> Option<u32> {
        self.by_name.get(topic).map(|topic| topic.spec.partitions)
    }

    /// The error for a partition without a log.
    pub(crate) fn missing(&self, source: &TopicPartition) -> BrokerError {
        match self.partitions(&source.topic) {
            None => BrokerError::Gone(source.topic.clone()),
            Some(_) => BrokerError::Fatal(format!("partition {source} does not exist")),
        }
    }

    /// The log of a partition, or `None` if the partition does not exist.
    pub(crate) fn log(&self, source: &TopicPartition) -> Option<&Log> {
        let index = usize::try_from(source.partition.0).ok()?;
        self.by_name.get(&source.topic)?.logs.get(index)
    }

    /// The memory of all logs, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Validates a record and chooses its partition.
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`] if the partition does not exist, the record is too large, or the topic is compacted
    /// and the record has no key; [`BrokerError::Gone`] if the topic does not exist.
    pub(crate) fn route(&mut self, record: &OutputRecord) -> Result<TopicPartition, BrokerError> {
        let unsendable = |reason| BrokerError::Unsendable { topic: record.topic.clone(), reason };
        let Some(topic) = self.by_name.get_mut(&record.topic) else {
            return Err(BrokerError::Gone(record.topic.clone()));
        };
        let bytes = message_bytes(record);
        let bytes_max = topic.spec.message_bytes_max.unwrap_or(MESSAGE_BYTES_MAX_DEFAULT);
        if bytes > bytes_max as usize {
            let reason = format!("record of {bytes} bytes exceeds max.message.bytes = {bytes_max}");
            return Err(unsendable(reason));
        }
        let needs_key = match topic.spec.cleanup {
            Cleanup::Delete { .. } => false,
            Cleanup::Compact | Cleanup::CompactDelete { .. } => true,
        };
        if needs_key && record.key.is_none() {
            return Err(unsendable("a compacted topic takes no record without a key".to_owned()));
        }
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) if (0..topic.logs.len()).contains(&index_of(partition)) => {
                partition
            }
            (Some(partition), _) => {
                return Err(unsendable(format!("partition {partition} does not exist")));
            }
            (None, Some(key)) => partition_of(key, topic.spec.partitions),
            (None, None) => {
                let index = topic.keyless_next;
                topic.keyless_next = (index + 1) % topic.logs.len();
                Partition(i32::try_from(index).expect("there are at most PARTITIONS_MAX"))
            }
        };
        Ok(TopicPartition { topic: record.topic.clone(), partition })
    }

    /// Appends a record to the partition that [`Self::route`] has chosen.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if the memory is full of records that must be kept.
    pub(crate) fn append(
        &mut self,
        to: &TopicPartition,
        record: OutputRecord,
        transaction: Option<TransactionId>,
        now: Now,
    ) -> Result<(), BrokerError> {
        self.make_room_for(&record)?;
        self.change(to, |log| {
            log.append(record, transaction, now);
            log.clean(now);
        });
        Ok(())
    }

    /// Ends a transaction in all logs that it wrote to.
    pub(crate) fn finish(&mut self, transaction: &Transaction, ending: Ending, now: Now) {
        for partition in &transaction.partitions {
            self.change(partition, |log| {
                log.finish(transaction.id, ending);
                log.clean(now);
            });
        }
    }

    fn make_room_for(&mut self, record: &OutputRecord) -> Result<(), BrokerError> {
        let bytes_max = self.settings.log_bytes_max;
        while self.bytes + message_bytes(record) as u64 > bytes_max {
            if !self.drop_oldest() {
                return Err(BrokerError::Fatal(format!(
                    "the local broker is full: its logs take {} of {bytes_max} bytes, and no record may be \
                     dropped; raise the limit, set a retention on a topic, or use a Kafka",
                    self.bytes
                )));
            }
        }
        Ok(())
    }

    /// Drops the oldest quarter of the largest log that has records to drop. Returns whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let mut by_size: Vec<&mut Log> =
            self.by_name.values_mut().flat_map(|topic| &mut topic.logs).collect();
        by_size.retain(|log| log.may_drop_oldest());
        by_size.sort_by_key(|log| std::cmp::Reverse(log.bytes()));
        for log in by_size {
            let freed = log.drop_oldest(log.bytes().div_ceil(4));
            if freed > 0 {
                self.bytes -= freed;
                return true;
            }
        }
        false
    }

    fn change(&mut self, partition: &TopicPartition, change: impl FnOnce(&mut Log)) {
        let topic = self.by_name.get_mut(&partition.topic).expect("topics are never deleted");
        let log = &mut topic.logs[index_of(partition.partition)];
        let before = log.bytes();
        change(log);
        self.bytes = self.bytes + log.bytes() - before;
    }
}

impl LocalSettings {
    fn rules(&self, cleanup: Cleanup) -> LogRules {
        LogRules {
            cleanup,
            compaction_bytes_min: self.compaction_bytes_min,
            tombstone_retention: self.tombstone_retention,
        }
    }
}

/// The index of a partition's log. A negative partition becomes an index that no topic has.
fn index_of(partition: Partition) -> usize {
    usize::try_from(partition.0).unwrap_or(usize::MAX)
}

/// The approximate size of a record as a message of its own: Kafka encodes lengths with variable size.
fn message_bytes(record: &OutputRecord) -> usize {
    let header_bytes = |header: &Header| header.name.len() + header.value.len();
    BATCH_BYTES
        + record.key.as_ref().map_or(0, Vec::len)
        + record.value.as_ref().map_or(0, Vec::len)
        + record.headers.iter().map(header_bytes).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::{EventTime, WallTime};

    const NOW: Now = Now { elapsed: Duration::ZERO, wall: WallTime(0) };
    const FOREVER: Cleanup = Cleanup::Delete { retention: None };
    const A_DAY: Cleanup = Cleanup::Delete { retention: Some(Duration::from_secs(86_400)) };

    fn spec(name: &str, partitions: u32, cleanup: Cleanup) -> TopicSpec {
        TopicSpec { name: Topic::new(name), partitions, cleanup, message_bytes_max: None }
    }

    fn topics(log_bytes_max: u64, specs: &[TopicSpec]) -> Topics {
        let mut topics = Topics::new(LocalSettings { log_bytes_max, ..LocalSettings::default() });
        for spec in specs {
            assert!(topics.create(spec).unwrap());
        }
        topics
    }

    fn record(topic: &str, key: Option<&str>, value_bytes: usize) -> OutputRecord {
        OutputRecord {
            topic: Topic::new(topic),
            partition: None,
            timestamp: EventTime(0),
            key: key.map(|key| key.as_bytes().to_vec()),
            value: Some(vec![0; value_bytes]),
            headers: Vec::new(),
        }
    }

    fn append(topics: &mut Topics, record: OutputRecord) -> Result<(), BrokerError> {
        let to = topics.route(&record)?;
        topics.append(&to, record, None, NOW)
    }

    #[test]
    fn creation_is_idempotent_and_never_changes_the_partitions() {
        let mut topics = topics(1000, &[spec("t", 2, FOREVER)]);
        assert!(!topics.create(&spec("t", 2, FOREVER)).unwrap());
        for partitions in [0, 1, 3, PARTITIONS_MAX + 1] {
            let refused = topics.create(&spec("t", partitions, FOREVER));
            assert!(matches!(refused, Err(BrokerError::Fatal(_))), "{partitions}");
        }
        assert_eq!(topics.partitions(&Topic::new("t")), Some(2));
        assert_eq!(topics.partitions(&Topic::new("u")), None);
    }

    #[test]
    fn keyed_records_are_partitioned_by_hash_and_others_round_robin() {
        let mut topics = topics(1000, &[spec("t", 3, FOREVER)]);
        let mut route = |record: &OutputRecord| topics.route(record).unwrap().partition;
        assert_eq!(route(&record("t", Some("foobar"), 1)), partition_of(b"foobar", 3));
        let turns: Vec<i32> = (0..4).map(|_| route(&record("t", None, 1)).0).collect();
        assert_eq!(turns, [0, 1, 2, 0]);
        let chosen =
            OutputRecord { partition: Some(Partition(2)), ..record("t", Some("foobar"), 1) };
        assert_eq!(route(&chosen), Partition(2));
    }

    #[test]
    fn a_record_that_can_never_be_written_is_unsendable() {
        let small = TopicSpec { message_bytes_max: Some(100), ..spec("small", 1, FOREVER) };
        let mut topics =
            topics(1 << 30, &[small, spec("t", 1, FOREVER), spec("c", 1, Cleanup::Compact)]);
        let elsewhere = |partition| OutputRecord {
            partition: Some(Partition(partition)),
            ..record("t", None, 1)
        };
        let max = MESSAGE_BYTES_MAX_DEFAULT as usize - BATCH_BYTES;
        for (record, is_sendable) in [
            (record("small", None, 100 - BATCH_BYTES), true),
            (record("small", None, 101 - BATCH_BYTES), false),
            (record("t", None, max), true),
            (record("t", None, max + 1), false),
            (elsewhere(0), true),
            (elsewhere(1), false),
            (elsewhere(-1), false),
            (record("c", None, 1), false),
            (record("c", Some("k"), 1), true),
        ] {
            match topics.route(&record) {
                Ok(_) => assert!(is_sendable, "{}", record.topic),
                Err(BrokerError::Unsendable { topic, .. }) => {
                    assert!(!is_sendable && topic == record.topic);
                }
                Err(other) => panic!("{other}"),
            }
        }
        let nowhere = topics.route(&record("nowhere", None, 1));
        assert!(matches!(nowhere, Err(BrokerError::Gone(_))), "{nowhere:?}");
    }

    #[test]
    fn memory_is_bounded_and_the_largest_log_drops_records_first() {
        let mut topics = topics(100_000, &[spec("large", 1, A_DAY), spec("small", 1, A_DAY)]);
        append(&mut topics, record("small", None, 100)).unwrap();
        for _ in 0..1000 {
            append(&mut topics, record("large", None, 500)).unwrap();
            assert!(topics.bytes() <= 101_000);
        }
        let start = |topic| {
            let source = TopicPartition { topic: Topic::new(topic), partition: Partition(0) };
            topics.log(&source).unwrap().start()
        };
        assert!(start("large") > Offset(800));
        assert_eq!(start("small"), Offset(0));
    }

    #[test]
    fn sending_fails_when_memory_is_full_of_records_that_must_be_kept() {
        let kept = [spec("kept", 1, FOREVER), spec("compact", 1, Cleanup::Compact)];
        let mut topics = topics(10_000, &kept);
        for topic in ["kept", "compact"].into_iter().cycle() {
            let key = topics.bytes().to_string();
            match append(&mut topics, record(topic, Some(&key), 500)) {
                Ok(()) => {}
                Err(BrokerError::Fatal(reason)) => {
                    return assert!(reason.contains("full"), "{reason}");
                }
                Err(other) => panic!("{other}"),
            }
            assert!(topics.bytes() <= 11_000);
        }
    }
}
