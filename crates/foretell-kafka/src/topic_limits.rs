//! What a topic takes, so that a record which can never be written is refused before it fails a
//! transaction.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use crate::admin::Admin;
use foretell_streams::{
    record::{OutputRecordRef, Partition, Topic},
    runtime::broker::BrokerError,
};

/// Around every record: its own lengths and times, and the batch's header (61 bytes, KIP-98).
const OVERHEAD_BYTES: usize = 100;

/// Around every header of a record: two lengths.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// The topics that one producer has written to so far.
pub(crate) struct TopicLimits {
    admin: Arc<Admin>,
    known: BTreeMap<Topic, Limits>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    partitions: u32,
    message_bytes_max: Option<usize>,
}

impl TopicLimits {
    pub(crate) fn new(admin: &Arc<Admin>) -> Self {
        Self { admin: Arc::clone(admin), known: BTreeMap::new() }
    }

    /// Whether `record` can be written at all.
    pub(crate) fn check(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        let destination = match self.known.get(record.topic) {
            Some(known) => *known,
            None => self.ask(record.topic)?,
        };
        destination.check(record)
    }

    /// Asks again about `topic` before the next record: it has just refused one.
    pub(crate) fn forget(&mut self, topic: &Topic) {
        self.known.remove(topic);
        self.shared().remove(topic);
    }

    fn shared(&self) -> MutexGuard<'_, BTreeMap<Topic, Limits>> {
        self.admin.topic_limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&mut self, topic: &Topic) -> Result<Limits, BrokerError> {
        let shared = self.shared().get(topic).copied();
        if let Some(destination) = shared {
            self.known.insert(topic.clone(), destination);
            return Ok(destination);
        }
        let Some(partitions) = self.admin.partitions(topic)? else {
            return Err(BrokerError::Gone(topic.clone()));
        };
        let message_bytes_max = self.admin.message_bytes_max(topic);
        let destination = Limits { partitions, message_bytes_max };
        self.known.insert(topic.clone(), destination);
        self.shared().insert(topic.clone(), destination);
        Ok(destination)
    }
}

impl Limits {
    fn check(self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        if let Some(Partition(partition)) = record.partition
            && u32::try_from(partition).map_or(true, |number| number >= self.partitions)
        {
            let reason = format!("it has no partition {partition}, only {}", self.partitions);
            return Err(unsendable(record.topic, reason));
        }
        let bytes = size(record);
        match self.message_bytes_max {
            Some(most) if bytes > most => {
                let reason = format!("{bytes} bytes are more than its max.message.bytes, {most}");
                Err(unsendable(record.topic, reason))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What `record` takes on the wire, uncompressed, at most.
fn size(record: OutputRecordRef<'_>) -> usize {
    let headers = record.headers.iter();
    let headers: usize =
        headers.map(|header| header.name.len() + header.value.len() + HEADER_OVERHEAD_BYTES).sum();
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    length(record.key) + length(record.value) + headers + OVERHEAD_BYTES
}

pub(crate) fn unsendable(topic: &Topic, reason: String) -> BrokerError {
    BrokerError::Unsendable { topic: topic.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_streams::{record::OutputRecord, time::EventTime};

    fn check(partition: Option<i32>, bytes: usize, expected: bool) {
        let record = OutputRecord {
            topic: Topic::new("predictions"),
            partition: partition.map(Partition),
            timestamp: EventTime(1),
            key: Some(b"key".to_vec()),
            value: Some(vec![0; bytes]),
            headers: Vec::new(),
        };
        let destination = Limits { partitions: 4, message_bytes_max: Some(1000) };
        let answer = destination.check(record.as_ref());
        assert_eq!(answer.is_ok(), expected, "{partition:?} {bytes}: {answer:?}");
    }

    #[test]
    fn only_what_fits_is_taken() {
        check(None, 10, true);
        check(Some(3), 10, true);
        check(Some(4), 10, false);
        check(Some(-1), 10, false);
        check(None, 897, true);
        check(None, 898, false);
    }
}
