//! Construction of librdkafka's lists of partitions.

use rdkafka::{Offset as Position, TopicPartitionList};

use crate::positions::Start;
use foretell_streams::record::{Offset, TopicPartition};

/// A list of `sources` without offsets.
pub(crate) fn partition_list<'a>(
    sources: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for source in sources {
        list.add_partition(source.topic.as_str(), source.partition.0);
    }
    list
}

/// A list of partitions with the offset at which each is read from.
pub(crate) fn partition_list_at<'a>(
    starts: impl IntoIterator<Item = (&'a TopicPartition, Start)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (source, start) in starts {
        let mut element = list.add_partition(source.topic.as_str(), source.partition.0);
        element.set_offset(position(start)).expect("librdkafka can represent these offsets");
    }
    list
}

fn position(start: Start) -> Position {
    match start {
        Start::Beginning => Position::Beginning,
        Start::At(Offset(offset)) => Position::Offset(offset),
    }
}
