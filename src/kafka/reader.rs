//! Reads one partition to its end, outside any group.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Offset as Position, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};

use crate::{
    kafka::{
        admin::Admin,
        config::KafkaConfig,
        error::{Recovery, broker_error, recovery},
        logging::LogOnly,
        rebalance, received, token,
        watermarks::watermarks,
    },
    streams::{
        record::{InputRecord, Offset, TopicPartition},
        runtime::broker::{BrokerError, From, ReadTo, Reader},
        time::Clock,
    },
};

/// How many records one call returns at most.
const BATCH_MAX: usize = 1000;

/// A consumer of its own: `PARTITION_EOF` does not say of which topic it is.
pub(crate) struct KafkaReader {
    /// None while being dropped.
    consumer: Option<BaseConsumer<LogOnly>>,
    source: TopicPartition,
    at_end: bool,
    clock: Arc<dyn Clock>,
}

impl KafkaReader {
    pub(crate) fn open(
        source: &TopicPartition,
        from: From,
        config: &KafkaConfig,
        admin: &Admin,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        let Some(partitions) = admin.partitions(&source.topic)? else {
            return Err(BrokerError::Gone(source.topic.clone()));
        };
        if u32::try_from(source.partition.0).map_or(true, |number| number >= partitions) {
            return Err(BrokerError::Fatal(format!("cannot read {source}: it does not exist")));
        }
        let doing = format!("read {source}");
        let config = config.reader();
        let consumer: BaseConsumer<LogOnly> =
            config.create_with_context(LogOnly).map_err(|error| broker_error(&doing, &error))?;
        token::install(consumer.client(), &config).map_err(|error| broker_error(&doing, &error))?;
        // Asked for now, since librdkafka would ask later: an `End` must not miss what is written until then.
        // It also finds the leader; an assignment without one waits half a second for the next look.
        let (topic, partition) = (source.topic.as_str(), source.partition.0);
        let (first, end) =
            watermarks(&consumer, source, clock).map_err(|error| broker_error(&doing, &error))?;
        let offset = match from {
            From::Beginning => first,
            From::Offset(Offset(offset)) => offset,
            From::End => end,
        };
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, partition, Position::Offset(offset))
            .and_then(|()| consumer.assign(&assignment))
            .map_err(|error| broker_error(&doing, &error))?;
        let clock = Arc::clone(clock);
        Ok(Self { consumer: Some(consumer), source: source.clone(), at_end: false, clock })
    }

    fn error(&self, error: &KafkaError) -> BrokerError {
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                BrokerError::OutOfRange(self.source.clone())
            }
            _ => broker_error(&format!("read {}", self.source), error),
        }
    }
}

impl Reader for KafkaReader {
    fn read(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError> {
        let Some(consumer) = &self.consumer else { return Ok(ReadTo::End) };
        let mut wait = wait;
        for _ in 0..BATCH_MAX {
            match consumer.poll(wait) {
                Some(Ok(message)) => {
                    self.at_end = false;
                    records.push(received::record(&message, self.source.clone()));
                    // What is there already is taken without waiting for more.
                    wait = Duration::ZERO;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end = true;
                    return Ok(ReadTo::End);
                }
                // librdkafka goes on by itself.
                Some(Err(error)) if passes(&error) => return Ok(ReadTo::More),
                Some(Err(error)) => return Err(self.error(&error)),
                // The end is told once each time it is reached.
                None if self.at_end => return Ok(ReadTo::End),
                None => return Ok(ReadTo::More),
            }
        }
        Ok(ReadTo::More)
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take()
            && let Err(error) = rebalance::close(consumer, &self.clock)
        {
            tracing::warn!(%error, source = %self.source, "a reader was not closed");
        }
    }
}

/// Whether librdkafka deals with `error` itself.
pub(crate) fn passes(error: &KafkaError) -> bool {
    let KafkaError::MessageConsumption(code) = error else { return false };
    recovery(*code) == Recovery::Retry
}
