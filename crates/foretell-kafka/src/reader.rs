//! A reader of one partition, outside of groups.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Offset as Position, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};

use crate::{
    admin::Admin,
    config::KafkaConfig,
    error::{Recovery, broker_error, recovery},
    logging::LogOnly,
    partition_queues::PartitionQueues,
    rebalance, token,
    watermarks::first_watermarks,
};
use foretell_streams::{
    record::{InputRecord, Offset, TopicPartition},
    runtime::broker::{BrokerError, ReadFrom, ReadTo, Reader},
    time::Clock,
};

/// A reader with its own consumer, which implements [`Reader`].
pub(crate) struct KafkaReader {
    /// `None` while being dropped.
    partition_queues: Option<PartitionQueues<LogOnly>>,
    source: TopicPartition,
    /// Whether headers are copied too.
    with_headers: bool,
    at_end: bool,
    clock: Arc<dyn Clock>,
}

impl KafkaReader {
    /// The same reader without the headers of the records. librdkafka allocates a buffer to find out that a record has none,
    /// which takes a third of the time of consuming it.
    pub(crate) fn without_headers(mut self) -> Self {
        self.with_headers = false;
        self
    }

    pub(crate) fn open(
        source: &TopicPartition,
        from: ReadFrom,
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
        let consumer: BaseConsumer<LogOnly> = config
            .create_with_context(LogOnly::default())
            .map_err(|error| broker_error(&doing, &error))?;
        token::install(consumer.client(), &config).map_err(|error| broker_error(&doing, &error))?;
        // Looked up now, because librdkafka would do so later, and `End` would miss records written until then. This also
        // finds the leader; an assignment without a known leader waits for half a second.
        let (topic, partition) = (source.topic.as_str(), source.partition.0);
        let (first, end) = first_watermarks(&consumer, source, clock)
            .map_err(|error| broker_error(&doing, &error))?;
        let offset = match from {
            ReadFrom::Beginning => first,
            ReadFrom::Offset(Offset(offset)) => offset,
            ReadFrom::End => end,
        };
        let mut assignment = TopicPartitionList::new();
        let mut partition_queues = PartitionQueues::new(consumer);
        partition_queues
            .open(source)
            .and_then(|()| {
                assignment.add_partition_offset(topic, partition, Position::Offset(offset))
            })
            .and_then(|()| partition_queues.assign(&assignment))
            .map_err(|error| broker_error(&doing, &error))?;
        let clock = Arc::clone(clock);
        Ok(Self {
            partition_queues: Some(partition_queues),
            source: source.clone(),
            with_headers: true,
            at_end: false,
            clock,
        })
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
        let Self { partition_queues: Some(partition_queues), with_headers, at_end, .. } = self
        else {
            return Ok(ReadTo::End);
        };
        // The first error from which librdkafka does not recover by itself.
        let unless_transient = |error| if is_transient(&error) { Ok(()) } else { Err(error) };
        let mut failed = partition_queues.serve().or_else(unless_transient);
        let mut take = || {
            let mut is_empty = true;
            partition_queues.take(|source, message| {
                is_empty = false;
                match message.error() {
                    None => {
                        *at_end = false;
                        let headers = if *with_headers { message.headers() } else { Vec::new() };
                        records.push(message.to_record(source.clone(), headers));
                    }
                    // Reported once each time the end is reached.
                    Some(Code::PartitionEOF) => *at_end = true,
                    Some(code) => {
                        let error = KafkaError::MessageConsumption(code);
                        failed =
                            std::mem::replace(&mut failed, Ok(())).and(unless_transient(error));
                    }
                }
            });
            is_empty
        };
        // Available messages are taken without waiting for more.
        if take() {
            partition_queues.wait(wait);
        }
        take();
        let read_to = if *at_end { ReadTo::End } else { ReadTo::More };
        failed.map(|()| read_to).map_err(|error| self.error(&error))
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        if let Some(partition_queues) = self.partition_queues.take()
            && let Err(error) = rebalance::close(partition_queues.into_consumer(), &self.clock)
        {
            tracing::warn!(%error, source = %self.source, "cannot close a reader");
        }
    }
}

/// Whether librdkafka recovers from `error` by itself.
pub(crate) fn is_transient(error: &KafkaError) -> bool {
    let KafkaError::MessageConsumption(code) = error else { return false };
    recovery(*code) == Recovery::Retry
}
