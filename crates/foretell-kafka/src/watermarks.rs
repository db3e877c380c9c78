//! Where a partition begins and ends, also when its leader has just died.

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

/// One try: a worker that asks is not polling its group meanwhile.
const TRY: Duration = Duration::from_secs(1);

/// Between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How long it may take in all. A leader is replaced in seconds; a caller that can wait longer asks again.
const WITHIN: Duration = Duration::from_secs(4);

/// The first offset of `source`, and the one after its last, by the consumer's isolation level.
pub(crate) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    source: &TopicPartition,
    clock: &Arc<dyn Clock>,
) -> KafkaResult<(i64, i64)> {
    let (topic, partition) = (source.topic.as_str(), source.partition.0);
    let deadline = Deadline::within(WITHIN, clock);
    loop {
        // By itself, librdkafka asks the leader that it knew last, dead or alive.
        let found = consumer
            .fetch_metadata(Some(topic), TRY)
            .and_then(|_| consumer.fetch_watermarks(topic, partition, TRY));
        let Err(error) = &found else { return found };
        let code = error.rdkafka_error_code();
        if deadline.passed() || code.is_none_or(|code| recovery(code) != Recovery::Retry) {
            return found;
        }
        pause_for(TRY_AGAIN_AFTER);
    }
}
