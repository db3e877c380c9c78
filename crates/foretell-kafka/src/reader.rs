//! Reads one partition to its end, outside any group.

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
    inlet::Inlet,
    logging::LogOnly,
    rebalance, token,
    watermarks::watermarks,
};
use foretell_streams::{
    record::{InputRecord, Offset, TopicPartition},
    runtime::broker::{BrokerError, From, ReadTo, Reader},
    time::Clock,
};

/// A consumer of its own: `PARTITION_EOF` does not say of which topic it is.
pub(crate) struct KafkaReader {
    /// None while being dropped.
    inlet: Option<Inlet<LogOnly>>,
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
        let mut inlet = Inlet::new(consumer);
        inlet
            .open(source)
            .and_then(|()| {
                assignment.add_partition_offset(topic, partition, Position::Offset(offset))
            })
            .and_then(|()| inlet.assign(&assignment))
            .map_err(|error| broker_error(&doing, &error))?;
        let clock = Arc::clone(clock);
        Ok(Self { inlet: Some(inlet), source: source.clone(), at_end: false, clock })
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
        let Self { inlet: Some(inlet), at_end, .. } = self else { return Ok(ReadTo::End) };
        // The first that matters: what passes, librdkafka deals with itself.
        let unless_it_passes = |error| if passes(&error) { Ok(()) } else { Err(error) };
        let mut failed = inlet.serve().or_else(unless_it_passes);
        let mut take = || {
            let mut is_empty = true;
            inlet.take(|source, message| {
                is_empty = false;
                match message.error() {
                    None => {
                        *at_end = false;
                        records.push(message.to_record(source.clone()));
                    }
                    // It is told once each time it is reached.
                    Some(Code::PartitionEOF) => *at_end = true,
                    Some(code) => {
                        let error = KafkaError::MessageConsumption(code);
                        failed =
                            std::mem::replace(&mut failed, Ok(())).and(unless_it_passes(error));
                    }
                }
            });
            is_empty
        };
        // What is there already is taken without waiting for more.
        if take() {
            inlet.wait(wait);
            take();
        }
        let read_to = if *at_end { ReadTo::End } else { ReadTo::More };
        failed.map(|()| read_to).map_err(|error| self.error(&error))
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        if let Some(inlet) = self.inlet.take()
            && let Err(error) = rebalance::close(inlet.into_consumer(), &self.clock)
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
