//! Records as a broker holds them, and their coordinates: topic, partition and offset.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::time::EventTime;

/// The full name of a topic on the broker, including any prefix.
#[derive(Clone, Debug, Eq, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl PartialEq for Topic {
    /// Compares the names, or only their addresses if these are the same: most topics are clones of one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Hash for Topic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Topic {
    /// A topic with this name. The name is checked only when a broker uses it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name.
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

/// The number of a partition, from 0. A task has the number of its partition of the lead topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a record in its partition. Offsets increase, with gaps.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    /// The offset after this one: the offset to commit when the record at this offset is processed.
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

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The number of the partition.
    pub partition: Partition,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Header {
    /// The name. A record may have several headers with the same name.
    pub name: String,
    /// The value, as bytes.
    pub value: Vec<u8>,
}

/// A record that was read from a topic, with its key and value as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRecord {
    /// The partition from which the record was read.
    pub source: TopicPartition,
    /// The offset in that partition.
    pub offset: Offset,
    /// The timestamp of the producer, or of the broker if the topic has `message.timestamp.type=LogAppendTime`.
    pub timestamp: EventTime,
    /// The key, or `None` for a record without one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<Header>,
}

/// A record to write to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// The topic to write to.
    pub topic: Topic,
    /// The partition, or `None` to choose it by the key ([`partition_of`]).
    pub partition: Option<Partition>,
    /// The timestamp, in milliseconds since the Unix epoch.
    pub timestamp: EventTime,
    /// The key, or `None` for a record without one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
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
    /// A record without headers. Its key chooses the partition.
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
    /// Copies the record into an [`OutputRecord`].
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

/// The partition of `key` in a topic with `partitions` partitions, by the default partitioner of Kafka's Java client.
/// Records with the same key go to the same task, whether they are written by the Java client, by librdkafka (with
/// `partitioner=murmur2_random`) or by this crate.
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
