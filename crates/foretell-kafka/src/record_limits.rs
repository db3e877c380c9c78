//! The limits of a topic for single records, by which a record that can never be written is refused before it fails a
//! transaction.

use foretell_streams::{
    record::{OutputRecordRef, Partition, Topic},
    runtime::broker::BrokerError,
};

/// Bytes around a record: its lengths and times, and the header of its batch (61 bytes, KIP-98).
const OVERHEAD_BYTES: usize = 100;

/// Bytes around each header of a record: two lengths.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// The limits of a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordLimits {
    pub(crate) partitions: u32,
    /// The topic's `max.message.bytes`; `None` if it is not known.
    pub(crate) message_bytes_max: Option<usize>,
}

impl RecordLimits {
    /// Checks whether `record`, which is for this topic, can be written.
    pub(crate) fn check(self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
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

/// Upper bound of the uncompressed size of `record` on the wire.
fn size(record: OutputRecordRef<'_>) -> usize {
    let headers = record.headers.iter();
    let headers: usize =
        headers.map(|header| header.name.len() + header.value.len() + HEADER_OVERHEAD_BYTES).sum();
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    length(record.key) + length(record.value) + headers + OVERHEAD_BYTES
}

/// The error for a record that can never be written.
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
        let limits = RecordLimits { partitions: 4, message_bytes_max: Some(1000) };
        let answer = limits.check(record.as_ref());
        assert_eq!(answer.is_ok(), expected, "{partition:?} {bytes}: {answer:?}");
    }

    #[test]
    fn records_beyond_the_limits_are_refused() {
        check(None, 10, true);
        check(Some(3), 10, true);
        check(Some(4), 10, false);
        check(Some(-1), 10, false);
        check(None, 897, true);
        check(None, 898, false);
    }
}
