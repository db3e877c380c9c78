//! Lists of partitions, as librdkafka wants them.

use rdkafka::{Offset as Position, TopicPartitionList};

use crate::positions::Start;
use foretell_streams::record::{Offset, TopicPartition};

/// `sources`, without offsets.
pub(crate) fn partition_list<'a>(
    sources: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for source in sources {
        list.add_partition(source.topic.as_str(), source.partition.0);
    }
    list
}

/// Where each partition is to be read from.
pub(crate) fn partition_list_at<'a>(
    starts: impl IntoIterator<Item = (&'a TopicPartition, Start)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (source, start) in starts {
        let mut element = list.add_partition(source.topic.as_str(), source.partition.0);
        element.set_offset(position(start)).expect("offsets of ours can be represented");
    }
    list
}

fn position(start: Start) -> Position {
    match start {
        Start::Beginning => Position::Beginning,
        Start::At(Offset(offset)) => Position::Offset(offset),
    }
}
