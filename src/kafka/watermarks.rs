//! Where a partition begins and ends, also when its leader has just died.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Offset as Position, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    kafka::{
        deadline::{Deadline, pause_for},
        error::{Recovery, recovery},
    },
    streams::{record::TopicPartition, time::Clock},
};

/// One try: a worker that asks is not polling its group meanwhile.
const TRY: Duration = Duration::from_secs(1);

/// Between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How long it may take in all. A leader is replaced in seconds; whoever can wait longer asks again.
const WITHIN: Duration = Duration::from_secs(4);

/// The offset of the oldest record of `source`.
pub(crate) fn first_offset<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    source: &TopicPartition,
    clock: &Arc<dyn Clock>,
) -> KafkaResult<i64> {
    patiently(consumer, source, Position::Beginning, clock)
}

/// The offset after the last record of `source`, by the consumer's isolation level.
pub(crate) fn end_offset<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    source: &TopicPartition,
    clock: &Arc<dyn Clock>,
) -> KafkaResult<i64> {
    patiently(consumer, source, Position::End, clock)
}

fn patiently<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    source: &TopicPartition,
    watermark: Position,
    clock: &Arc<dyn Clock>,
) -> KafkaResult<i64> {
    let deadline = Deadline::within(WITHIN, clock);
    loop {
        // By itself, librdkafka asks the leader that it knew last, dead or alive.
        let found = consumer
            .fetch_metadata(Some(source.topic.as_str()), TRY)
            .and_then(|_| ask(consumer, source, watermark));
        let Err(error) = &found else { return found };
        let code = error.rdkafka_error_code();
        if deadline.passed() || code.is_none_or(|code| recovery(code) != Recovery::Retry) {
            return found;
        }
        pause_for(TRY_AGAIN_AFTER);
    }
}

/// Not by `fetch_watermarks`: that takes a time-out for each of its requests, and waits for their answers without any, for
/// ever if they go to a leader that has just died (`rd_kafka_query_watermark_offsets`, librdkafka 2.12).
fn ask<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    source: &TopicPartition,
    watermark: Position,
) -> KafkaResult<i64> {
    let (topic, partition) = (source.topic.as_str(), source.partition.0);
    // ListOffsets takes a watermark's number in the place of a time.
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(topic, partition, watermark)?;
    let answer = consumer.offsets_for_times(asked, TRY)?;
    let element = answer.find_partition(topic, partition);
    let element = element.ok_or(KafkaError::OffsetFetch(Code::UnknownPartition))?;
    element.error()?;
    let Position::Offset(offset) = element.offset() else {
        return Err(KafkaError::OffsetFetch(Code::OffsetNotAvailable));
    };
    Ok(offset)
}
