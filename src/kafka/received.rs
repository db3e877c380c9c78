//! A message of librdkafka's as a record of ours, and lists of partitions the other way.

use rdkafka::{
    Message, Offset as Position, Timestamp, TopicPartitionList,
    message::{BorrowedMessage, Headers},
};

use crate::{
    kafka::places::Start,
    streams::{
        record::{Header, InputRecord, Offset, TopicPartition},
        time::EventTime,
    },
};

/// Copies `message`, which was read from `source`, out of librdkafka's buffer.
pub(crate) fn record(message: &BorrowedMessage<'_>, source: TopicPartition) -> InputRecord {
    InputRecord {
        source,
        offset: Offset(message.offset()),
        timestamp: EventTime(timestamp(message.timestamp())),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers(message),
    }
}

fn timestamp(timestamp: Timestamp) -> i64 {
    match timestamp {
        Timestamp::CreateTime(millis) | Timestamp::LogAppendTime(millis) => millis,
        Timestamp::NotAvailable => -1, // As Kafka's own clients say it.
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let Some(headers) = message.headers() else { return Vec::new() };
    let own = |header: rdkafka::message::Header<'_, &[u8]>| Header {
        name: header.key.to_owned(),
        value: header.value.unwrap_or_default().to_vec(),
    };
    headers.iter().map(own).collect()
}

/// `sources` as librdkafka wants them.
pub(crate) fn list<'a>(
    sources: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for source in sources {
        list.add_partition(source.topic.as_str(), source.partition.0);
    }
    list
}

/// `starts` as librdkafka wants them.
pub(crate) fn list_at<'a>(
    starts: impl IntoIterator<Item = (&'a TopicPartition, Start)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (source, start) in starts {
        let mut element = list.add_partition(source.topic.as_str(), source.partition.0);
        element.set_offset(position(start)).expect("offsets of ours can be represented");
    }
    list
}

/// `start` as librdkafka wants it.
fn position(start: Start) -> Position {
    match start {
        Start::Beginning => Position::Beginning,
        Start::At(Offset(offset)) => Position::Offset(offset),
    }
}
