//! Looks up the offsets at which a member starts to read newly assigned partitions.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Offset as Position, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    deadline::{Deadline, pause_for},
    error::broker_error,
    partition_list::partition_list,
    positions::Start,
    rebalance::GroupContext,
    watermarks::watermarks,
};
use foretell_streams::{
    record::{Offset, Topic, TopicPartition},
    runtime::broker::BrokerError,
    time::Clock,
};

/// Time limit of one attempt of a request.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Pause between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Look-up of start offsets.
pub(crate) struct StartOffsets {
    /// Time for which the open transaction of another member may keep the group's offsets undecided.
    undecided_max: Duration,
    clock: Arc<dyn Clock>,
}

impl StartOffsets {
    pub(crate) fn new(transaction_timeout: Duration, clock: &Arc<dyn Clock>) -> Self {
        Self { undecided_max: transaction_timeout * 2 + ATTEMPT, clock: Arc::clone(clock) }
    }

    /// The offsets at which `sources` are read: the committed ones, or else those of the first records. Also finds the
    /// leaders of the `co_partitioned` topics.
    pub(crate) fn look_up(
        &self,
        consumer: &BaseConsumer<GroupContext>,
        sources: &[TopicPartition],
        co_partitioned: &[Topic],
    ) -> Result<Vec<Start>, BrokerError> {
        find_leaders(consumer, co_partitioned);
        let committed = self.committed(consumer, sources)?;
        Ok(self.replace_beginnings(consumer, sources, committed))
    }

    /// The group's committed offsets of `sources`. librdkafka must not look them up itself: while an offset is undecided, it
    /// may drop the partition.
    pub(crate) fn committed(
        &self,
        consumer: &BaseConsumer<GroupContext>,
        sources: &[TopicPartition],
    ) -> Result<Vec<Start>, BrokerError> {
        let deadline = Deadline::within(self.undecided_max, &self.clock);
        loop {
            let answer = consumer.committed_offsets(partition_list(sources), ATTEMPT);
            let starts = answer
                .and_then(|found| sources.iter().map(|source| start_of(&found, source)).collect());
            let error = match starts {
                Ok(starts) => return Ok(starts),
                Err(error) => broker_error("look up the committed offsets", &error),
            };
            if deadline.passed() || !matches!(error, BrokerError::Retry(_)) {
                return Err(error);
            }
            pause_for(RETRY_INTERVAL);
        }
    }

    /// Replaces [`Start::Beginning`] by the offset of the first record. A log whose first records were deleted begins at
    /// another offset than 0, and if it is empty, a position that starts at 0 would never reach its end. After the first
    /// failed look-up, the others are left to librdkafka.
    fn replace_beginnings(
        &self,
        consumer: &BaseConsumer<GroupContext>,
        sources: &[TopicPartition],
        starts: Vec<Start>,
    ) -> Vec<Start> {
        let mut is_available = true;
        let mut replaced = Vec::with_capacity(starts.len());
        for (source, start) in sources.iter().zip(starts) {
            if start != Start::Beginning || !is_available {
                replaced.push(start);
                continue;
            }
            let found = watermarks(consumer, source, &self.clock);
            is_available = found.is_ok();
            replaced.push(found.map_or(start, |(first, _)| Start::At(Offset(first))));
        }
        replaced
    }
}

/// Makes librdkafka find the leaders of topics that the group does not subscribe to. Otherwise it would wait for a second
/// before it does.
fn find_leaders(consumer: &BaseConsumer<GroupContext>, topics: &[Topic]) {
    for topic in topics {
        if let Err(error) = consumer.fetch_metadata(Some(topic.as_str()), ATTEMPT) {
            tracing::debug!(%error, %topic, "cannot find the leaders of a co-partitioned input yet");
        }
    }
}

fn start_of(found: &TopicPartitionList, source: &TopicPartition) -> Result<Start, KafkaError> {
    let element = found
        .find_partition(source.topic.as_str(), source.partition.0)
        .ok_or(KafkaError::OffsetFetch(Code::UnknownPartition))?;
    start(element.error(), element.offset())
}

/// The start for a partition's committed offset. An error of the partition must be checked first: a response that succeeds
/// as a whole may have one, and its offset is then meaningless.
fn start(error: KafkaResult<()>, offset: Position) -> Result<Start, KafkaError> {
    error?;
    let Position::Offset(offset) = offset else { return Ok(Start::Beginning) };
    Ok(Start::At(Offset(offset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::Mock;

    #[test]
    fn a_committed_offset_is_an_offset_or_none_or_an_error() {
        let unstable = KafkaError::OffsetFetch(Code::UnstableOffsetCommit);
        assert_eq!(start(Ok(()), Position::Offset(7)), Ok(Start::At(Offset(7))));
        assert_eq!(start(Ok(()), Position::Invalid), Ok(Start::Beginning));
        assert_eq!(start(Err(unstable.clone()), Position::Invalid), Err(unstable));
        let unknown = Err(KafkaError::OffsetFetch(Code::UnknownPartition));
        assert_eq!(start_of(&TopicPartitionList::new(), &Mock::source()), unknown);
    }
}
