//! Checks that records are keyed by the respondent id, and in the partition of Kafka's default partitioner. A record elsewhere
//! is processed by a task without the stores of its respondent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use foretell_streams::{
    metrics::Counter,
    record::{InputRecord, Partition, Topic, partition_of},
    topology::Context,
};

/// The reason that a record is misplaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Misplaced {
    /// It has no key.
    #[error("it has no key")]
    NoKey,
    /// It has a key that is not the respondent id.
    #[error("its key is not the respondent id")]
    OtherKey,
    /// It has the key, and is in another partition than the key's.
    #[error("it is in partition {is_in}, and its key belongs in {belongs_in}")]
    OtherPartition {
        /// The partition of the record.
        is_in: Partition,
        /// The partition of its key.
        belongs_in: Partition,
    },
}

/// The advice for misplaced records.
pub const FIX: &str = "key each record by its respondent id, as UTF-8, and use Kafka's default partitioner (in librdkafka and clients \
     over it: partitioner=murmur2_random), so that an event and its outcome are in one task";

impl Misplaced {
    /// Checks a record of `respondent_id` with `key` in partition `is_in` of `partitions`; none if it is placed correctly.
    #[must_use]
    pub fn of(
        respondent_id: &str,
        key: Option<&[u8]>,
        is_in: Partition,
        partitions: u32,
    ) -> Option<Self> {
        let Some(key) = key else { return Some(Self::NoKey) };
        if key != respondent_id.as_bytes() {
            return Some(Self::OtherKey);
        }
        let belongs_in = partition_of(key, partitions);
        (belongs_in != is_in).then_some(Self::OtherPartition { is_in, belongs_in })
    }
}

/// Counts the misplaced records of one input, and logs the first.
#[derive(Clone)]
pub struct Placement {
    topic: Topic,
    partitions: u32,
    misplaced: Counter,
    is_logged: Arc<AtomicBool>,
}

impl Placement {
    /// A check of the records of `topic`, which has `partitions` partitions.
    #[must_use]
    pub fn new(topic: Topic, partitions: u32, misplaced: Counter) -> Self {
        Self { topic, partitions, misplaced, is_logged: Arc::default() }
    }

    /// The topic of the records.
    pub(super) fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Checks the record that is being processed.
    pub fn check<Out: 'static>(&self, respondent_id: &str, ctx: &mut Context<'_, Out>) {
        let Some(InputRecord { source, offset, key, .. }) = ctx.input() else { return };
        let misplaced =
            Misplaced::of(respondent_id, key.as_deref(), source.partition, self.partitions);
        let Some(misplaced) = misplaced else { return };
        if !self.is_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                topic = %self.topic, partition = %source.partition, %offset, %misplaced,
                "first misplaced record of this topic: {FIX}"
            );
        }
        ctx.count(&self.misplaced, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_with_another_key_or_partition_are_misplaced() {
        let check = |key: Option<&str>, is_in: i32, expected: Option<Misplaced>| {
            let key = key.map(str::as_bytes);
            assert_eq!(Misplaced::of("ann", key, Partition(is_in), 4), expected, "{key:?} {is_in}");
        };
        let belongs_in = partition_of(b"ann", 4);
        let other = (0..4).map(Partition).find(|partition| *partition != belongs_in).unwrap();
        check(Some("ann"), belongs_in.0, None);
        check(None, belongs_in.0, Some(Misplaced::NoKey));
        check(Some("visit-1"), belongs_in.0, Some(Misplaced::OtherKey));
        check(Some(""), 0, Some(Misplaced::OtherKey));
        check(Some("ann"), other.0, Some(Misplaced::OtherPartition { is_in: other, belongs_in }));
    }
}
