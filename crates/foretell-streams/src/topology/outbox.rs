//! The outputs of a task that the worker has not taken yet. The bytes of the records are stored in one buffer, which is
//! reused, so that sending does not allocate.

use crate::{
    record::{Header, Offset, OutputRecord, OutputRecordRef, Partition, Topic},
    time::EventTime,
};

/// The outputs of a task, in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The keys and values of all records.
    bytes: Vec<u8>,
    records: Vec<QueuedRecord>,
    /// The topics of the records: those of the sinks and of the dead letters. They stay when the records are removed.
    topics: Vec<Topic>,
    /// The origin of the records that are sent next.
    origin: Option<Origin>,
}

/// The input record for which an output was sent: the index of its source in the topology, and its offset.
pub(crate) type Origin = (usize, Offset);

#[derive(Debug)]
struct QueuedRecord {
    /// The index of its topic: a copy of the topic would be a shared count to change, twice for each record.
    topic: usize,
    partition: Option<Partition>,
    timestamp: EventTime,
    start: usize,
    /// The end of its key, if it has one.
    key_end: Option<usize>,
    /// The end of its value, if it has one.
    value_end: Option<usize>,
    headers: Vec<Header>,
    origin: Option<Origin>,
}

impl Outbox {
    /// Sets the origin of the records that are sent from now on; `None` in a punctuation.
    pub(crate) fn set_origin(&mut self, origin: Option<Origin>) {
        self.origin = origin;
    }

    /// The origin of the record at `index`.
    pub(crate) fn origin(&self, index: usize) -> Option<Origin> {
        self.records.get(index)?.origin
    }

    /// Adds a record whose value is appended by `write`, for the partition that its key determines. If `write` fails, nothing
    /// is added.
    pub(crate) fn send<E>(
        &mut self,
        topic: &Topic,
        timestamp: EventTime,
        key: Option<&[u8]>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key.unwrap_or_default());
        let key_end = key.map(|key| start + key.len());
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        let topic = self.index_of(topic);
        self.records.push(QueuedRecord {
            topic,
            partition: None,
            timestamp,
            start,
            key_end,
            value_end: Some(self.bytes.len()),
            headers: Vec::new(),
            origin: self.origin,
        });
        Ok(())
    }

    /// Adds a record as it is.
    pub(crate) fn push(&mut self, record: OutputRecord) {
        let start = self.bytes.len();
        let mut append = |part: Option<Vec<u8>>| {
            let part = part?;
            self.bytes.extend_from_slice(&part);
            Some(self.bytes.len())
        };
        let (key_end, value_end) = (append(record.key), append(record.value));
        let OutputRecord { topic, partition, timestamp, headers, .. } = record;
        let (topic, origin) = (self.index_of(&topic), self.origin);
        self.records.push(QueuedRecord {
            topic,
            partition,
            timestamp,
            start,
            key_end,
            value_end,
            headers,
            origin,
        });
    }

    fn index_of(&mut self, topic: &Topic) -> usize {
        let known = self.topics.iter().position(|known| known == topic);
        known.unwrap_or_else(|| {
            self.topics.push(topic.clone());
            self.topics.len() - 1
        })
    }

    /// Iterates over the records, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = OutputRecordRef<'_>> {
        self.records.iter().map(|record| {
            let QueuedRecord { start, key_end, value_end, .. } = *record;
            let value_start = key_end.unwrap_or(start);
            OutputRecordRef {
                topic: &self.topics[record.topic],
                partition: record.partition,
                timestamp: record.timestamp,
                key: key_end.map(|end| &self.bytes[start..end]),
                value: value_end.map(|end| &self.bytes[value_start..end]),
                headers: &record.headers,
            }
        })
    }

    /// Returns the number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Removes all records but the first `count`: those of a record that is rolled back.
    pub(crate) fn truncate(&mut self, count: usize) {
        if let Some(first) = self.records.get(count) {
            self.bytes.truncate(first.start);
            self.records.truncate(count);
        }
    }

    /// Removes all records and keeps the buffer.
    pub(crate) fn clear(&mut self) {
        self.truncate(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&str>, value: Option<&str>) -> OutputRecord {
        OutputRecord {
            topic: Topic::new(key.unwrap_or("any")),
            partition: value.map(|value| Partition(i32::try_from(value.len()).unwrap())),
            timestamp: EventTime(7),
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: vec![Header { name: "why".to_owned(), value: b"so".to_vec() }],
        }
    }

    fn contents(outbox: &Outbox) -> Vec<OutputRecord> {
        outbox.iter().map(OutputRecordRef::to_owned).collect()
    }

    #[test]
    fn pushed_records_are_iterated_unchanged() {
        let records = [
            record(Some("k"), Some("value")),
            record(None, Some("")),
            record(Some(""), None),
            record(None, None),
            record(Some("last"), Some("one")),
        ];
        let mut outbox = Outbox::default();
        records.iter().cloned().for_each(|record| outbox.push(record));
        assert_eq!(contents(&outbox), records);
        outbox.truncate(9);
        outbox.truncate(3);
        outbox.push(records[4].clone());
        assert_eq!(contents(&outbox), [&records[..3], &records[4..]].concat());
        outbox.clear();
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_record_that_cannot_be_encoded_adds_nothing() {
        let (mut outbox, topic) = (Outbox::default(), Topic::new("any"));
        let good = |bytes: &mut Vec<u8>| -> Result<(), ()> {
            bytes.extend_from_slice(b"good");
            Ok(())
        };
        let bad = |bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(b"half");
            Err(())
        };
        outbox.send(&topic, EventTime(1), Some(b"a"), good).unwrap();
        assert_eq!(outbox.send(&topic, EventTime(2), Some(b"b"), bad), Err(()));
        outbox.send(&topic, EventTime(3), None, good).unwrap();
        let sent: Vec<_> = outbox.iter().map(|record| (record.key, record.value)).collect();
        assert_eq!(sent, [(Some(&b"a"[..]), Some(&b"good"[..])), (None, Some(&b"good"[..]))]);
    }
}
