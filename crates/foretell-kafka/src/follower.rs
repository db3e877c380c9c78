//! Follows partitions that come and go, outside any group: one consumer for all of them.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Offset as Position, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    config::KafkaConfig, error::broker_error, inlet::Inlet, list::list, logging::LogOnly,
    rebalance, token, watermarks::watermarks,
};
use foretell_streams::{
    record::{InputRecord, Offset, TopicPartition},
    runtime::broker::{BrokerError, Follower, From},
    time::Clock,
};

/// See [`Follower`].
pub(crate) struct KafkaFollower {
    /// None while being dropped.
    inlet: Option<Inlet<LogOnly>>,
    clock: Arc<dyn Clock>,
}

impl KafkaFollower {
    pub(crate) fn new(config: &KafkaConfig, clock: &Arc<dyn Clock>) -> Result<Self, BrokerError> {
        let config = config.reader();
        let consumer: BaseConsumer<LogOnly> = config
            .create_with_context(LogOnly)
            .map_err(|error| broker_error("make a consumer", &error))?;
        token::install(consumer.client(), &config)
            .map_err(|error| broker_error("make a consumer", &error))?;
        Ok(Self { inlet: Some(Inlet::new(consumer)), clock: Arc::clone(clock) })
    }

    fn inlet(&mut self) -> &mut Inlet<LogOnly> {
        self.inlet.as_mut().expect("only `drop` takes it")
    }
}

impl Follower for KafkaFollower {
    fn open(&mut self, source: &TopicPartition, from: From) -> Result<Offset, BrokerError> {
        let clock = Arc::clone(&self.clock);
        let inlet = self.inlet();
        let failed = |error: KafkaError| broker_error(&format!("follow {source}"), &error);
        // Asked for now, as a reader does: an `End` must not miss what is written until then.
        let (first, end) = watermarks(inlet, source, &clock).map_err(failed)?;
        let offset = match from {
            From::Beginning => first,
            From::Offset(Offset(offset)) if (first..=end).contains(&offset) => offset,
            From::Offset(_) => return Err(BrokerError::OutOfRange(source.clone())),
            From::End => end,
        };
        let assign = |inlet: &mut Inlet<LogOnly>| -> KafkaResult<()> {
            inlet.open(source)?;
            let mut added = TopicPartitionList::new();
            added.add_partition_offset(
                source.topic.as_str(),
                source.partition.0,
                Position::Offset(offset),
            )?;
            inlet.incremental_assign(&added)
        };
        assign(inlet).map_err(failed)?;
        Ok(Offset(offset))
    }

    fn close(&mut self, source: &TopicPartition) -> Result<(), BrokerError> {
        let inlet = self.inlet();
        inlet.close(source);
        let removed = inlet.incremental_unassign(&list([source]));
        removed.map_err(|error| broker_error(&format!("follow {source} no longer"), &error))
    }

    fn read(&mut self, wait: Duration, records: &mut Vec<InputRecord>) -> Result<(), BrokerError> {
        let inlet = self.inlet();
        let mut failed = inlet.serve();
        let mut take = |inlet: &Inlet<LogOnly>| {
            let before = records.len();
            inlet.take(|source, message| match message.error() {
                None => records.push(message.to_record(source.clone())),
                Some(Code::PartitionEOF) => {}
                // librdkafka takes the place of the error for its position, so that records may be left out after it.
                Some(code) => failed = Err(KafkaError::MessageConsumption(code)),
            });
            records.len() > before
        };
        if !take(inlet) {
            inlet.wait(wait);
            take(inlet);
        }
        failed.map_err(|error| broker_error("follow partitions", &error))
    }
}

impl Drop for KafkaFollower {
    fn drop(&mut self) {
        if let Some(inlet) = self.inlet.take()
            && let Err(error) = rebalance::close(inlet.into_consumer(), &self.clock)
        {
            tracing::warn!(%error, "a follower was not closed");
        }
    }
}
