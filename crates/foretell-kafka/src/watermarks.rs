//! Looks up the first and last offset of a partition, also during the election of a new leader.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaResult,
};

use crate::{
    deadline::{Deadline, pause_for},
    error::{Recovery, recovery},
};
use foretell_streams::{record::TopicPartition, time::Clock};

/// Time limit of one attempt; a worker cannot poll its group meanwhile.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Pause between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Time limit of all attempts. A new leader is elected within seconds; a caller that can wait longer calls again.
const WITHIN: Duration = Duration::from_secs(4);

/// Like [`watermarks`], with a consumer that was just created. It knows no leader yet, so librdkafka asks for it, and waits
/// until the first connection is up; a metadata request before that returns only 50 ms later.
pub(crate) fn first_watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    source: &TopicPartition,
    clock: &Arc<dyn Clock>,
) -> KafkaResult<(i64, i64)> {
    let found = consumer.fetch_watermarks(source.topic.as_str(), source.partition.0, ATTEMPT);
    found.or_else(|_| watermarks(consumer, source, clock))
}

/// The first offset of `source` and the one after its last, by the consumer's isolation level.
pub(crate) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    source: &TopicPartition,
    clock: &Arc<dyn Clock>,
) -> KafkaResult<(i64, i64)> {
    let (topic, partition) = (source.topic.as_str(), source.partition.0);
    let deadline = Deadline::within(WITHIN, clock);
    loop {
        // The metadata request is needed because librdkafka would ask the last known leader, which may be down.
        let found = consumer
            .fetch_metadata(Some(topic), ATTEMPT)
            .and_then(|_| consumer.fetch_watermarks(topic, partition, ATTEMPT));
        let Err(error) = &found else { return found };
        let code = error.rdkafka_error_code();
        if deadline.passed() || code.is_none_or(|code| recovery(code) != Recovery::Retry) {
            return found;
        }
        pause_for(RETRY_INTERVAL);
    }
}
