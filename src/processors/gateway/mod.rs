//! Writes the events, outcomes and commands of HTTP clients to their topics, and returns the results: the work of
//! `POST /api/v1/…`.
//!
//! ```text
//!   JSON ─▶ entry, command ─▶ record ─▶ writer ─▶ questionnaire-events, outcomes, commands
//!             └─ request waits ─▶ waits ◀─ replies, dead-letters
//! ```
//! Calls do not block: one thread writes and one thread reads for all callers, and they report by callbacks.

mod command;
mod entry;
mod waits;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::Value as Json;

pub use command::{CommandRequest, record_of as command_record};
pub use entry::{EntrySettings, EventEntry, OutcomeEntry};
pub use waits::{Answer, Answered, Opened, Wait};
pub use writer::Written;

use crate::{
    events::{
        command::Command,
        questionnaire::QuestionnaireSchema,
        reply::{REQUEST_HEADER, ReplyCodec},
    },
    processors::gateway::{waits::Waits, writer::Writer},
};
use foretell_streams::{
    record::{OutputRecord, partition_of},
    runtime::broker::{Broker, BrokerError},
    time::Clock,
};

/// Writes events and outcomes to their topics, and waits for the results of events.
pub struct Gateway {
    settings: GatewaySettings,
    writer: Writer,
    waits: Waits,
    clock: Arc<dyn Clock>,
    generated_ids: AtomicU64,
}

/// The settings of a gateway.
pub struct GatewaySettings {
    /// The prefix of generated ids; unique to this process.
    pub name: String,
    /// The settings of the entries.
    pub entries: EntrySettings,
    /// Partitions of the topics that are keyed by respondent.
    pub partitions: u32,
    /// Maximum number of requests that wait for a prediction.
    pub waits_max: usize,
}

/// A thread that a gateway needs.
pub struct GatewayThread {
    /// The name of the thread.
    pub name: &'static str,
    /// The work, which ends when the gateway is dropped.
    pub work: Box<dyn FnOnce() + Send>,
}

/// An entry that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// The request is invalid; the caller must correct it.
    #[error("{0}")]
    Refused(String),
    /// The entry would be dead-lettered in the stream; the caller must correct it.
    #[error("{message}")]
    Unusable {
        /// The class of the dead letter.
        class: &'static str,
        /// The problem.
        message: String,
    },
    /// Too many requests are open.
    #[error("{0}")]
    Busy(&'static str),
    /// The broker rejects the record permanently.
    #[error("it cannot be written: {0}")]
    Unsendable(String),
    /// The reply could not be read, so the event was not written.
    #[error("it was not written, because replies cannot be read now: {0}; try again")]
    NotFollowed(String),
    /// The broker is not available. The record may have been written or not.
    #[error("it is not known whether it was written: {0}; send it again with the same id")]
    Unavailable(String),
}

impl Gateway {
    /// Opens a gateway with a producer, and returns it with the threads to run.
    ///
    /// # Errors
    /// If the producer cannot be created.
    pub fn open(
        broker: &Arc<dyn Broker>,
        settings: GatewaySettings,
        clock: &Arc<dyn Clock>,
    ) -> Result<(Self, [GatewayThread; 2]), BrokerError> {
        let (writer, writing) = writer::open(broker.publish()?);
        let (waits, reading) = waits::open(
            Arc::clone(broker),
            &settings.entries.topics,
            ReplyCodec(Arc::clone(&settings.entries.codecs.prediction)),
            settings.waits_max,
            Arc::clone(clock),
        );
        let clock = Arc::clone(clock);
        let gateway = Self { settings, writer, waits, clock, generated_ids: AtomicU64::new(0) };
        let threads = [
            GatewayThread { name: "http-writer", work: Box::new(move || writing.run()) },
            GatewayThread { name: "http-replies", work: Box::new(move || reading.run()) },
        ];
        Ok((gateway, threads))
    }

    /// The event schema, with the questions of all sources.
    #[must_use]
    pub fn event_schema(&self) -> &QuestionnaireSchema {
        self.settings.entries.schemas.lead()
    }

    /// The labels of outcomes.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.settings.entries.labels
    }

    /// Checks an event and encodes its record. `key` is its id if it has none: the idempotency key of the request, which is the
    /// same when the request is sent again. A key that is not valid as an id in the event schema is converted. `source` is the
    /// companion that the event is of, by its topic; none for the lead.
    ///
    /// # Errors
    /// [`GatewayError::Refused`] or [`GatewayError::Unusable`], naming the field.
    pub fn event(
        &self,
        json: &Json,
        key: Option<&str>,
        source: Option<&str>,
    ) -> Result<EventEntry, GatewayError> {
        let (source, now) = (self.settings.entries.source(source)?, self.clock.now());
        let schema = source.schema;
        if key.is_some() && !schema.names_events() {
            return Err(GatewayError::Refused(
                "the event schema has no field for an event's id ([events] event_id), so Idempotency-Key cannot be used: \
                 send the event's time, by which a repeat is recognised"
                    .to_owned(),
            ));
        }
        let id = match key {
            Some(key) => schema.event_id_of_name(key),
            None => schema.new_event_id(&self.generate_id(), now),
        };
        self.settings.entries.event(&source, json, &id, now)
    }

    /// Checks an outcome and encodes its record; `key` as for [`Self::event`].
    ///
    /// # Errors
    /// [`GatewayError::Refused`], naming the field.
    pub fn outcome(&self, json: &Json, key: Option<&str>) -> Result<OutcomeEntry, GatewayError> {
        self.settings.entries.outcome(json, key, self.clock.now())
    }

    /// Checks a command and encodes its record. A request of the same action with the same `key` is the same command.
    ///
    /// # Errors
    /// [`GatewayError::Refused`], naming the field.
    pub fn command(
        &self,
        request: CommandRequest,
        key: Option<&str>,
    ) -> Result<(Command, OutputRecord), GatewayError> {
        let now = self.clock.now();
        let id = match key {
            // The same key for another action, or about another model, is another command.
            Some(key) => Command::id_of_key(&format!(
                "{}/{}/{key}",
                request.kind.name(),
                request.model_version.as_deref().unwrap_or_default()
            )),
            None => Command::new_id(now, &self.generate_id()),
        };
        let command = request.into_command(id, now)?;
        let entries = &self.settings.entries;
        let codec = entries.codecs.command.as_ref();
        let record = command::record_of(&command, &entries.topics.commands, codec)?;
        Ok((command, record))
    }

    /// Checks the id of a respondent and encodes a question about it. Returns the id in its canonical form, too.
    ///
    /// # Errors
    /// [`GatewayError::Refused`] if it is no id of the event schema.
    pub fn query(&self, respondent_id: &str) -> Result<(String, OutputRecord), GatewayError> {
        self.settings.entries.query(respondent_id, self.clock.now())
    }

    /// Waits for the reply to `record`, an event or a question. The caller must write it after `opened` was called, not before.
    /// Does not block.
    ///
    /// # Errors
    /// [`GatewayError::Busy`]; then no callback is called.
    pub fn wait(
        &self,
        record: &mut OutputRecord,
        opened: Opened,
        answered: Answered,
    ) -> Result<Wait, GatewayError> {
        let request_id = self.generate_id();
        record.headers.push(entry::header(REQUEST_HEADER, &request_id));
        let key = record.key.as_deref().unwrap_or_default();
        let partition = partition_of(key, self.settings.partitions);
        self.waits.wait(request_id, partition, opened, answered)
    }

    /// Writes `record`, and calls `written` with the result. Does not block.
    ///
    /// # Errors
    /// [`GatewayError::Busy`]; then `written` is not called.
    pub fn write(&self, record: OutputRecord, written: Written) -> Result<(), GatewayError> {
        self.writer.write(record, written)
    }

    fn generate_id(&self) -> String {
        format!("{}-{}", self.settings.name, self.generated_ids.fetch_add(1, Ordering::Relaxed))
    }
}
