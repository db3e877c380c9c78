//! Records as a broker holds them, and their coordinates: topic, partition and offset.

use std::{fmt, sync::Arc};

use crate::time::EventTime;

/// The name of a topic, as the broker knows it (prefix included).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// A topic of this name. It is not checked until a broker is asked.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition's number, counted from 0. A task has the number of its lead's partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record's position in its partition.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    /// The offset after this one, which is committed when this record is processed.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition in it.
    pub partition: Partition,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A record's header: a name and bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Header {
    /// The name; Kafka allows it more than once.
    pub name: String,
    /// The bytes.
    pub value: Vec<u8>,
}

/// A record read from a topic, undecoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRecord {
    /// The partition from which it was read.
    pub source: TopicPartition,
    /// Its offset there.
    pub offset: Offset,
    /// Its timestamp: from its producer, or from the broker if the topic has `LogAppendTime`.
    pub timestamp: EventTime,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
}

/// A record to be written to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// The topic to write to.
    pub topic: Topic,
    /// The partition; with `None`, the key chooses ([`partition_of`]).
    pub partition: Option<Partition>,
    /// Its timestamp.
    pub timestamp: EventTime,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
}

/// A borrowed [`OutputRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputRecordRef<'r> {
    /// See [`OutputRecord::topic`].
    pub topic: &'r Topic,
    /// See [`OutputRecord::partition`].
    pub partition: Option<Partition>,
    /// See [`OutputRecord::timestamp`].
    pub timestamp: EventTime,
    /// See [`OutputRecord::key`].
    pub key: Option<&'r [u8]>,
    /// See [`OutputRecord::value`].
    pub value: Option<&'r [u8]>,
    /// See [`OutputRecord::headers`].
    pub headers: &'r [Header],
}

impl OutputRecord {
    /// A record without headers, whose key chooses its partition.
    ///
    /// ```
    /// use foretell_streams::{record::{OutputRecord, Topic}, time::EventTime};
    ///
    /// let time = EventTime(1_704_067_200_000);
    /// let record = OutputRecord::new(&Topic::new("orders"), Some(b"ann"), Some(b"two books"), time);
    /// assert_eq!(record.partition, None);
    /// ```
    #[must_use]
    pub fn new(
        topic: &Topic,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: EventTime,
    ) -> Self {
        Self {
            topic: topic.clone(),
            partition: None,
            timestamp,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        }
    }

    /// Borrows the record.
    #[must_use]
    pub fn as_ref(&self) -> OutputRecordRef<'_> {
        OutputRecordRef {
            topic: &self.topic,
            partition: self.partition,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }
}

impl OutputRecordRef<'_> {
    /// Copies the record.
    #[must_use]
    pub fn to_owned(self) -> OutputRecord {
        OutputRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            timestamp: self.timestamp,
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: self.headers.to_vec(),
        }
    }
}

/// The partition of `key` among `partitions`, by Kafka's default for keyed records: records of one key meet in one task,
/// whether they come from Java's producer, from librdkafka (with `partitioner=murmur2_random`) or from this crate.
///
/// ```
/// use foretell_streams::record::{Partition, partition_of};
///
/// assert_eq!(partition_of(b"foobar", 3), partition_of(b"foobar", 3));
/// assert_eq!(partition_of(b"anything", 1), Partition(0));
/// ```
///
/// # Panics
/// If `partitions` is 0.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u32) -> Partition {
    assert!(partitions > 0, "a topic has at least one partition");
    let positive = murmur2(key) & 0x7fff_ffff;
    Partition(i32::try_from(positive % partitions).expect("a remainder of 31 bits fits"))
}

/// MurmurHash2 with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).expect("a key is shorter than 4 GiB");
    let mut hash = SEED ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes(chunk.try_into().expect("a chunk has four bytes"));
        word = word.wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key).cast_signed(), expected, "{key:?}");
        }
    }
}
