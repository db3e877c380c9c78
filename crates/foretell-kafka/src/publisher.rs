//! Writes outside any transaction.

use std::{sync::Arc, time::Duration};

use crate::{admin::Admin, config::KafkaConfig, producer::RecordProducer};
use foretell_streams::{
    record::OutputRecord,
    runtime::broker::{BrokerError, Publisher},
    time::Clock,
};

/// Longer than librdkafka tries by itself (`message.timeout.ms`): then everything has been
/// acknowledged or has failed.
pub(crate) const FLUSH_WITHIN: Duration = Duration::from_secs(35);

/// An idempotent producer.
pub(crate) struct KafkaPublisher {
    producer: RecordProducer,
}

impl KafkaPublisher {
    pub(crate) fn new(
        config: &KafkaConfig,
        admin: &Arc<Admin>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        Ok(Self { producer: RecordProducer::new(&config.plain_producer(), admin, clock)? })
    }
}

impl Publisher for KafkaPublisher {
    fn send(&mut self, record: OutputRecord) -> Result<(), BrokerError> {
        self.producer.check(record.as_ref())?;
        self.producer.serve();
        self.producer.send(record.as_ref())
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        match self.producer.drain(FLUSH_WITHIN) {
            // There is no transaction here to abort: what failed may be sent again.
            Err(BrokerError::Abort(text)) => Err(BrokerError::Retry(text)),
            other => other,
        }
    }
}
