//! A follower of a changing set of partitions, outside of groups, with one consumer for all of them.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Offset as Position, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    config::KafkaConfig, error::broker_error, logging::LogOnly, partition_list::partition_list,
    partition_queues::PartitionQueues, rebalance, token, watermarks::watermarks,
};
use foretell_streams::{
    record::{InputRecord, Offset, TopicPartition},
    runtime::broker::{BrokerError, Follower, ReadFrom},
    time::Clock,
};

/// A follower, which implements [`Follower`].
pub(crate) struct KafkaFollower {
    /// `None` while being dropped.
    partition_queues: Option<PartitionQueues<LogOnly>>,
    clock: Arc<dyn Clock>,
}

impl KafkaFollower {
    pub(crate) fn new(config: &KafkaConfig, clock: &Arc<dyn Clock>) -> Result<Self, BrokerError> {
        let config = config.reader();
        let consumer: BaseConsumer<LogOnly> = config
            .create_with_context(LogOnly::default())
            .map_err(|error| broker_error("make a consumer", &error))?;
        token::install(consumer.client(), &config)
            .map_err(|error| broker_error("make a consumer", &error))?;
        Ok(Self {
            partition_queues: Some(PartitionQueues::new(consumer)),
            clock: Arc::clone(clock),
        })
    }

    fn partition_queues(&mut self) -> &mut PartitionQueues<LogOnly> {
        self.partition_queues.as_mut().expect("only `drop` takes it")
    }
}

impl Follower for KafkaFollower {
    fn open(&mut self, source: &TopicPartition, from: ReadFrom) -> Result<Offset, BrokerError> {
        let clock = Arc::clone(&self.clock);
        let partition_queues = self.partition_queues();
        let failed = |error: KafkaError| broker_error(&format!("follow {source}"), &error);
        // Looked up now, as in a reader: `End` must not miss records that are written until the assignment.
        let (first, end) = watermarks(partition_queues, source, &clock).map_err(failed)?;
        let offset = match from {
            ReadFrom::Beginning => first,
            ReadFrom::Offset(Offset(offset)) if (first..=end).contains(&offset) => offset,
            ReadFrom::Offset(_) => return Err(BrokerError::OutOfRange(source.clone())),
            ReadFrom::End => end,
        };
        let assign = |partition_queues: &mut PartitionQueues<LogOnly>| -> KafkaResult<()> {
            partition_queues.open(source)?;
            let mut added = TopicPartitionList::new();
            added.add_partition_offset(
                source.topic.as_str(),
                source.partition.0,
                Position::Offset(offset),
            )?;
            partition_queues.incremental_assign(&added)
        };
        assign(partition_queues).map_err(failed)?;
        Ok(Offset(offset))
    }

    fn close(&mut self, source: &TopicPartition) -> Result<(), BrokerError> {
        let partition_queues = self.partition_queues();
        partition_queues.close(source);
        let removed = partition_queues.incremental_unassign(&partition_list([source]));
        removed.map_err(|error| broker_error(&format!("stop following {source}"), &error))
    }

    fn read(&mut self, wait: Duration, records: &mut Vec<InputRecord>) -> Result<(), BrokerError> {
        let partition_queues = self.partition_queues();
        let mut failed = partition_queues.serve();
        let mut take = |partition_queues: &PartitionQueues<LogOnly>| {
            let before = records.len();
            partition_queues.take(|source, message| match message.error() {
                None => records.push(message.to_record(source.clone(), message.headers())),
                Some(Code::PartitionEOF) => {}
                // librdkafka moves its position past the error, so records may be missing after it.
                Some(code) => failed = Err(KafkaError::MessageConsumption(code)),
            });
            records.len() > before
        };
        if !take(partition_queues) {
            partition_queues.wait(wait);
            take(partition_queues);
        }
        failed.map_err(|error| broker_error("follow partitions", &error))
    }
}

impl Drop for KafkaFollower {
    fn drop(&mut self) {
        if let Some(partition_queues) = self.partition_queues.take()
            && let Err(error) = rebalance::close(partition_queues.into_consumer(), &self.clock)
        {
            tracing::warn!(%error, "cannot close a follower");
        }
    }
}
