//! The publisher, which writes outside of transactions.

use std::{sync::Arc, time::Duration};

use crate::{admin::Admin, config::KafkaConfig, producer::RecordProducer};
use foretell_streams::{
    record::OutputRecord,
    runtime::broker::{BrokerError, Publisher},
    time::Clock,
};

/// Time limit of a flush. It is longer than librdkafka retries a record (`message.timeout.ms`), so after it every record is
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
            // Without a transaction there is nothing to abort; the records may be sent again.
            Err(BrokerError::Abort(text)) => Err(BrokerError::Retry(text)),
            other => other,
        }
    }
}
