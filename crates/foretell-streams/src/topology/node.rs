//! Processors, which applications implement, and the nodes of a topology that run them.

use std::{any::Any, marker::PhantomData, sync::Arc};

use crate::{
    codec::{Codec, CodecError},
    record::{InputRecord, Topic},
    state::StateError,
    time::{EventTime, WallTime},
    topology::{Context, Punctuation, Scope},
};

/// A record between two nodes: key, decoded value and event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// The key, as bytes. It determines the partition to which a sink writes.
    pub key: Option<Vec<u8>>,
    /// The value, decoded by the codec of the source or created by a processor.
    pub value: T,
    /// The event time.
    pub time: EventTime,
}

impl<T> Record<T> {
    /// Returns the key as text, as stores need it.
    ///
    /// # Errors
    /// [`ProcessError::Reject`] with the class `malformed` if there is no key, or it is not UTF-8.
    ///
    /// ```
    /// use foretell_streams::{time::EventTime, topology::Record};
    ///
    /// let record = Record { key: Some(b"ann".to_vec()), value: 1, time: EventTime(0) };
    /// assert_eq!(record.text_key()?, "ann");
    /// let keyless = Record { key: None, ..record };
    /// assert_eq!(keyless.text_key().unwrap_err().to_string(), "malformed: the record has no key");
    /// # Ok::<(), foretell_streams::topology::ProcessError>(())
    /// ```
    pub fn text_key(&self) -> Result<&str, ProcessError> {
        let Some(key) = &self.key else {
            return Err(ProcessError::reject("malformed", "the record has no key"));
        };
        std::str::from_utf8(key).map_err(|error| {
            ProcessError::reject("malformed", format!("the key is not UTF-8: {error}"))
        })
    }
}

/// A node that an application implements. State that must outlive a record belongs into a store, because an abort rolls
/// stores back and a task may move to another worker; fields of the processor do neither.
///
/// Each task has its own instance. A record is processed to the end of the topology before the next one starts. If a record
/// fails in any node, everything that it wrote and forwarded is rolled back.
///
/// ```
/// use foretell_streams::topology::{Context, ProcessError, Processor, Record};
///
/// /// Forwards integers; dead-letters all other records.
/// struct Parse;
///
/// impl Processor for Parse {
///     type In = String;
///     type Out = i64;
///
///     fn process(&mut self, record: &Record<String>, ctx: &mut Context<'_, i64>) -> Result<(), ProcessError> {
///         let value = record.value.parse().map_err(|error| {
///             ProcessError::reject("not_a_number", format!("{:?}: {error}", record.value))
///         })?;
///         ctx.forward(&Record { key: record.key.clone(), value, time: record.time })
///     }
/// }
/// ```
pub trait Processor: 'static {
    /// The type of the input values.
    type In: 'static;
    /// The type of the forwarded values.
    type Out: 'static;

    /// Starts the processor: called once, after the stores are restored and before the first record. Schedule punctuations
    /// here.
    fn start(&mut self, _ctx: &mut Context<'_, Self::Out>) {}

    /// Processes one record.
    ///
    /// # Errors
    /// [`ProcessError`], which says what happens to the record.
    fn process(
        &mut self,
        record: &Record<Self::In>,
        ctx: &mut Context<'_, Self::Out>,
    ) -> Result<(), ProcessError>;

    /// Runs a punctuation that was scheduled by [`Context::schedule`] and is due.
    ///
    /// # Errors
    /// [`ProcessError`]. The call is rolled back and counted in `foretell_stream_punctuations_failed_total`; there is no
    /// record to be dead-lettered.
    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        _ctx: &mut Context<'_, Self::Out>,
    ) -> Result<(), ProcessError> {
        Ok(())
    }
}

/// An error of a record that could not be processed. Each variant is named after what happens next.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The record can never be processed: it is dead-lettered.
    #[error("{class}: {message}")]
    Reject {
        /// The error class, one word, for counters and headers.
        class: &'static str,
        /// The id of the writer schema, if the bytes name one.
        schema_id: Option<u32>,
        /// What is wrong with the record.
        message: String,
    },
    /// A dependency is not available: the task is blocked, and retries the same record.
    #[error("not available: {0}")]
    Retry(String),
    /// A store cannot be read or written: the [`StateError`] says whether it is rebuilt or the worker ends.
    #[error(transparent)]
    State(StateError),
}

impl ProcessError {
    /// Creates a [`ProcessError::Reject`] without a schema id.
    #[must_use]
    pub fn reject(class: &'static str, message: impl Into<String>) -> Self {
        Self::Reject { class, schema_id: None, message: message.into() }
    }
}

impl From<StateError> for ProcessError {
    fn from(error: StateError) -> Self {
        match error {
            // The processor has made a value that cannot be encoded: no other store would accept it either.
            StateError::Unstorable(reason) => Self::reject("unstorable", reason.to_string()),
            StateError::Corrupted(_)
            | StateError::OtherFormat { .. }
            | StateError::DiskCorrupted(_)
            | StateError::TakenOver(_)
            | StateError::Disk(_) => Self::State(error),
        }
    }
}

impl From<CodecError> for ProcessError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Unreadable { class, schema_id, message } => {
                Self::Reject { class, schema_id, message }
            }
            CodecError::OtherFormat { .. } => Self::reject("malformed", error.to_string()),
            CodecError::Unavailable { message } => Self::Retry(message),
        }
    }
}

/// A source, processor or sink with its types erased; the edges of the builder guarantee that they match.
pub(crate) trait Node {
    fn start(&mut self, _scope: &mut Scope, _index: usize) {}

    /// Decodes the record that has become the head of the queue of a source, keeps the value for
    /// [`process`](Self::process), and returns the event time.
    fn extract(&mut self, _raw: &InputRecord, _now: WallTime) -> Result<EventTime, ProcessError> {
        unreachable!("only a source has a queue")
    }

    fn process(
        &mut self,
        record: &dyn Any,
        scope: &mut Scope,
        index: usize,
    ) -> Result<(), ProcessError>;

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        _scope: &mut Scope,
        _index: usize,
    ) -> Result<(), ProcessError> {
        Ok(())
    }
}

/// Extracts the event time of a record from its decoded value, the record as read, and the time of day.
pub(crate) type TimestampExtractor<T> =
    dyn Fn(&T, &InputRecord, WallTime) -> Result<EventTime, ProcessError> + Send + Sync;

/// A source. It decodes the head of its queue once, to extract the event time. When the head is processed, the source
/// advances stream time and forwards the decoded value. The records behind the head stay bytes.
pub(crate) struct SourceNode<T> {
    pub(crate) codec: Arc<dyn Codec<T>>,
    pub(crate) time: Arc<TimestampExtractor<T>>,
    pub(crate) head: Option<Record<T>>,
}

impl<T: 'static> Node for SourceNode<T> {
    fn extract(&mut self, raw: &InputRecord, now: WallTime) -> Result<EventTime, ProcessError> {
        let Some(bytes) = &raw.value else {
            return Err(ProcessError::reject("tombstone", "a record without a value"));
        };
        let value = self.codec.decode(bytes)?;
        let time = (self.time)(&value, raw, now)?;
        self.head = Some(Record { key: raw.key.clone(), value, time });
        Ok(time)
    }

    fn process(
        &mut self,
        _record: &dyn Any,
        scope: &mut Scope,
        index: usize,
    ) -> Result<(), ProcessError> {
        let record = self
            .head
            .take()
            .expect("the event time of a record is extracted before it is processed");
        scope.observe_event_time(record.time);
        let result = Context::<T>::new(scope, index).forward(&record);
        if matches!(result, Err(ProcessError::Retry(_))) {
            self.head = Some(record);
        }
        result
    }
}

/// A processor of the application.
pub(crate) struct ProcessorNode<P> {
    pub(crate) processor: P,
}

impl<P: Processor> Node for ProcessorNode<P> {
    fn start(&mut self, scope: &mut Scope, index: usize) {
        self.processor.start(&mut Context::new(scope, index));
    }

    fn process(
        &mut self,
        record: &dyn Any,
        scope: &mut Scope,
        index: usize,
    ) -> Result<(), ProcessError> {
        let record = record.downcast_ref::<Record<P::In>>().expect("an edge connects equal types");
        self.processor.process(record, &mut Context::new(scope, index))
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        scope: &mut Scope,
        index: usize,
    ) -> Result<(), ProcessError> {
        self.processor.punctuate(punctuation, &mut Context::new(scope, index))
    }
}

/// A sink, which encodes records into the outbox.
pub(crate) struct SinkNode<T> {
    pub(crate) topic: Topic,
    pub(crate) codec: Arc<dyn Codec<T>>,
    pub(crate) value: PhantomData<fn(T)>,
}

impl<T: 'static> Node for SinkNode<T> {
    fn process(
        &mut self,
        record: &dyn Any,
        scope: &mut Scope,
        _index: usize,
    ) -> Result<(), ProcessError> {
        let record = record.downcast_ref::<Record<T>>().expect("an edge connects equal types");
        let timestamp = scope.written_at();
        let write = |bytes: &mut Vec<u8>| self.codec.encode(&record.value, bytes);
        scope.outbox.send(&self.topic, timestamp, record.key.as_deref(), write)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_not_text_is_rejected() {
        let record = |key: Option<&[u8]>| {
            let key = key.map(<[u8]>::to_vec);
            Record { key, value: (), time: EventTime(0) }
        };
        assert_eq!(record(Some(b"")).text_key().unwrap(), "");
        assert_eq!(record(Some("Ä".as_bytes())).text_key().unwrap(), "Ä");
        for key in [None, Some(&b"\xff"[..])] {
            let record = record(key);
            let rejected = record.text_key();
            assert!(matches!(rejected, Err(ProcessError::Reject { class: "malformed", .. })));
        }
    }
}
