//! Reads a topic of one partition from its beginning to its end, committed records only.

use std::{sync::Arc, time::Duration};

use crate::processors::metrics::ApplicationMetrics;
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{InputRecord, TopicPartition},
    runtime::broker::{Broker, BrokerError, ReadFrom, ReadTo},
};

/// A topic of one partition.
pub struct TopicReader<T> {
    /// The cluster.
    pub broker: Arc<dyn Broker>,
    /// The partition.
    pub source: TopicPartition,
    /// The codec of its values.
    pub codec: Arc<dyn Codec<T>>,
    /// Counts the records that cannot be decoded.
    pub metrics: ApplicationMetrics,
}

impl<T> Clone for TopicReader<T> {
    fn clone(&self) -> Self {
        Self {
            broker: Arc::clone(&self.broker),
            source: self.source.clone(),
            codec: Arc::clone(&self.codec),
            metrics: self.metrics.clone(),
        }
    }
}

/// The time that one read waits for records.
const WAIT: Duration = Duration::from_millis(200);

impl<T> TopicReader<T> {
    /// Calls `visit` with each value, in order, up to the end that the topic has now. Records that cannot be decoded are
    /// skipped, logged and counted under `name`, the topic without its prefix.
    ///
    /// # Errors
    /// [`BrokerError`], also if the schema registry does not answer.
    pub fn visit(&self, name: &str, mut visit: impl FnMut(T)) -> Result<(), BrokerError> {
        let mut reader = self.broker.read(&self.source, ReadFrom::Beginning)?;
        let mut records: Vec<InputRecord> = Vec::new();
        loop {
            records.clear();
            let read = reader.read(WAIT, &mut records)?;
            for record in &records {
                let Some(bytes) = &record.value else { continue };
                match self.codec.decode(bytes) {
                    Ok(value) => visit(value),
                    Err(CodecError::Unavailable { message }) => {
                        return Err(BrokerError::Retry(message));
                    }
                    Err(error) => {
                        self.metrics.unreadable(name);
                        tracing::error!(source = %self.source, offset = %record.offset, %error,
                            "skipping a record that cannot be decoded");
                    }
                }
            }
            if read == ReadTo::End {
                return Ok(());
            }
        }
    }
}
