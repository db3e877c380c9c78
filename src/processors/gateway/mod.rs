//! Records of clients into the stream, and what becomes of them back: what `POST /api/v1/…` does.

//!
//! ```text
//!   JSON ─▶ entry ─▶ record ─▶ writer ─▶ questionnaire-events, outcomes
//!             └─ waits for it ─▶ waits ◀─ replies, dead-letters
//! ```
//! Nothing here blocks a caller: a thread writes and a thread reads for all of them, and they call back.

mod entry;
mod waits;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::Value as Json;

pub use entry::{EntrySettings, EventEntry, OutcomeEntry};
pub use waits::{Answer, Answered, Opened, Wait};
pub use writer::Written;

use crate::{
    events::reply::REQUEST_HEADER,
    processors::gateway::{waits::Waits, writer::Writer},
};
use foretell_streams::{
    record::{OutputRecord, partition_of},
    runtime::broker::{Broker, BrokerError},
    time::Clock,
};

/// Puts events and outcomes on their topics, and hears what becomes of events.
pub struct Gateway {
    settings: GatewaySettings,
    writer: Writer,
    waits: Waits,
    clock: Arc<dyn Clock>,
    made_up: AtomicU64,
}

/// How a gateway works.
pub struct GatewaySettings {
    /// Begins every id that is made up here: no other process has the same.
    pub name: String,
    /// What entries are checked against, and how they are written.
    pub entries: EntrySettings,
    /// Partitions of the topics that are keyed by respondent.
    pub partitions: u32,
    /// Requests that may wait for predictions at one time.
    pub waits_max: usize,
}

/// A thread that a gateway needs.
pub struct GatewayThread {
    /// What it is called.
    pub name: &'static str,
    /// What it does, until the gateway is gone.
    pub work: Box<dyn FnOnce() + Send>,
}

/// Why something was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// It is wrong: the caller's to correct.
    #[error("{0}")]
    Refused(String),
    /// It can be read, and can't be used: in the stream it would be dead-lettered. The caller's to correct, too.
    #[error("{message}")]
    Unusable {
        /// The class that its dead letter would have.
        class: &'static str,
        /// What is wrong.
        message: String,
    },
    /// Too much is under way just now.
    #[error("{0}")]
    Busy(&'static str),
    /// The broker refuses it for good.
    #[error("it cannot be written: {0}")]
    Unsendable(String),
    /// Nobody would hear what becomes of it, so that it was not written.
    #[error("it was not written, for replies cannot be read just now: {0}; try again")]
    NotFollowed(String),
    /// The broker can't be had: it may have been written or not.
    #[error("it is not known whether it was written: {0}; send it again with the same id")]
    Unavailable(String),
}

impl Gateway {
    /// A gateway with a producer of its own, and the threads that it needs.
    ///
    /// # Errors
    /// If no producer can be had.
    pub fn open(
        broker: &Arc<dyn Broker>,
        settings: GatewaySettings,
        clock: &Arc<dyn Clock>,
    ) -> Result<(Self, [GatewayThread; 2]), BrokerError> {
        let (writer, writing) = writer::open(broker.publish()?);
        let (waits, reading) = waits::open(
            Arc::clone(broker),
            &settings.entries.topics,
            settings.waits_max,
            Arc::clone(clock),
        );
        let clock = Arc::clone(clock);
        let gateway = Self { settings, writer, waits, clock, made_up: AtomicU64::new(0) };
        let threads = [
            GatewayThread { name: "http-writer", work: Box::new(move || writing.run()) },
            GatewayThread { name: "http-replies", work: Box::new(move || reading.run()) },
        ];
        Ok((gateway, threads))
    }

    /// An event as it would be written. `key` names it if it does not do so itself: the client's own name for this
    /// request, the same when it is sent again. What the event schema does not take as an id is made one.
    ///
    /// # Errors
    /// [`GatewayError::Refused`] or [`GatewayError::Unusable`], naming the field.
    pub fn event(&self, json: &Json, key: Option<&str>) -> Result<EventEntry, GatewayError> {
        if key.is_some() && !self.settings.entries.names_events {
            return Err(GatewayError::Refused(
                "the event schema has no field for an event's id ([events] event_id), so Idempotency-Key has no place: \
                 give the event's time, by which it is known when it is sent again"
                    .to_owned(),
            ));
        }
        let (schema, now) = (&self.settings.entries.schema, self.clock.now());
        let id = match key {
            Some(key) => schema.event_id_of_name(key),
            None => schema.new_event_id(&self.make_up_id(), now),
        };
        self.settings.entries.event(json, &id, now)
    }

    /// An outcome as it would be written; `key` as for [`Self::event`].
    ///
    /// # Errors
    /// [`GatewayError::Refused`], naming the field.
    pub fn outcome(&self, json: &Json, key: Option<&str>) -> Result<OutcomeEntry, GatewayError> {
        self.settings.entries.outcome(json, key, self.clock.now())
    }

    /// Waits for what becomes of `entry`, which is to be written when `opened` was called, and not before. Does not block.
    ///
    /// # Errors
    /// [`GatewayError::Busy`]; then nothing is called.
    pub fn wait(
        &self,
        entry: &mut EventEntry,
        opened: Opened,
        answered: Answered,
    ) -> Result<Wait, GatewayError> {
        let request_id = self.make_up_id();
        entry.record.headers.push(entry::header(REQUEST_HEADER, &request_id));
        let key = entry.event.respondent_id.as_bytes();
        let partition = partition_of(key, self.settings.partitions);
        self.waits.wait(request_id, partition, opened, answered)
    }

    /// Writes `record`, and says so to `written`. Does not wait.
    ///
    /// # Errors
    /// [`GatewayError::Busy`]; then `written` is not called.
    pub fn write(&self, record: OutputRecord, written: Written) -> Result<(), GatewayError> {
        self.writer.write(record, written)
    }

    fn make_up_id(&self) -> String {
        format!("{}-{}", self.settings.name, self.made_up.fetch_add(1, Ordering::Relaxed))
    }
}
