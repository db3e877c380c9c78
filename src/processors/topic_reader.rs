//! Reads a topic of one partition to its end, committed records only.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use crate::processors::metrics::ApplicationMetrics;
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{InputRecord, Offset, TopicPartition},
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
        self.visit_from(name, Offset(0), |_, value| {
            visit(value);
            ControlFlow::Continue(())
        })
    }

    /// As [`Self::visit`], from an offset on. `visit` also gets the offset after the record, and breaks to end the read.
    ///
    /// # Errors
    /// As for [`Self::visit`].
    pub fn visit_from(
        &self,
        name: &str,
        from: Offset,
        mut visit: impl FnMut(Offset, T) -> ControlFlow<()>,
    ) -> Result<(), BrokerError> {
        let from = if from.0 > 0 { ReadFrom::Offset(from) } else { ReadFrom::Beginning };
        let mut reader = self.broker.read(&self.source, from)?;
        let mut records: Vec<InputRecord> = Vec::new();
        loop {
            records.clear();
            let read = reader.read(WAIT, &mut records)?;
            for record in &records {
                let Some(bytes) = &record.value else { continue };
                match self.codec.decode(bytes) {
                    Ok(value) => {
                        if visit(record.offset.next(), value).is_break() {
                            return Ok(());
                        }
                    }
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
