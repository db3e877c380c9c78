//! What becomes of a record that can't be used: its bytes and headers as they came, and headers that say why.
//!
//! ```text
//!   headers of the record, in order │ foretell.topic … foretell.error.message, foretell.headers = how many those are
//! ```
//! Kafka lets a name come more than once, so that a record may have headers with our names (a dead letter that somebody
//! has sent again has): ours are the last of their name, and come after the first `foretell.headers`.

use crate::{
    record::{Header, InputRecord, OutputRecord, OutputRecordRef, Partition, Topic},
    task::Task,
    time::EventTime,
    topology::{DeadLetter, Origin, Original},
};

/// Ours begin with it.
const PREFIX: &str = "foretell.";
const HEADERS: &str = "foretell.headers";
/// How long the value was that is left out.
const VALUE_BYTES: &str = "foretell.value.bytes";

pub(super) fn of(
    record: &InputRecord,
    class: &'static str,
    schema_id: Option<u32>,
    message: String,
) -> DeadLetter {
    DeadLetter { original: Original::from(record), class, schema_id, message }
}

/// An output too large, or for a topic that is not there. Its value is left out: it would not fit
/// here either.
fn unsendable(record: OutputRecord, task: Partition, reason: String) -> DeadLetter {
    let original = Original {
        topic: record.topic.as_str().to_owned(),
        partition: record.partition.unwrap_or(task).0,
        offset: -1,
        timestamp: record.timestamp,
        key: record.key,
        value: None,
        headers: record.headers,
    };
    DeadLetter { original, class: "unsendable", schema_id: None, message: reason }
}

/// The record for the dead-letter topic. It is kept there from `written_at` on: the original's timestamp, which may be
/// of long ago, goes into a header.
pub(super) fn record(topic: &Topic, letter: DeadLetter, written_at: EventTime) -> OutputRecord {
    let original = letter.original;
    let mut headers = original.headers;
    let came_with = headers.len().to_string();
    headers.extend([
        header("foretell.topic", original.topic),
        header("foretell.partition", original.partition.to_string()),
        header("foretell.offset", original.offset.to_string()),
        header("foretell.timestamp", original.timestamp.0.to_string()),
        header("foretell.error.class", letter.class.to_owned()),
        header("foretell.error.message", letter.message),
    ]);
    if let Some(id) = letter.schema_id {
        headers.push(header("foretell.schema.id", id.to_string()));
    }
    headers.push(header(HEADERS, came_with));
    OutputRecord {
        topic: topic.clone(),
        partition: None,
        timestamp: written_at,
        key: original.key,
        value: original.value,
        headers,
    }
}

impl Task {
    /// Whether an output that the broker will never take can be dead-lettered: a changelog's can't, nor a dead letter's of
    /// which there is nothing left to leave out.
    #[must_use]
    pub fn can_dead_letter(&self, record: OutputRecordRef<'_>) -> bool {
        if *record.topic == self.topology.dead_letters {
            return record.value.is_some() || record.headers.iter().any(|header| !is_ours(header));
        }
        !self.topology.must_take(record.topic)
    }

    /// Sets aside an output that the broker will never take: its reason goes in its place, and what it was sent for. Of a
    /// dead letter too large for its topic the headers remain that say what it was.
    pub fn dead_letter_output(
        &mut self,
        record: OutputRecord,
        origin: Option<Origin>,
        reason: String,
    ) {
        if record.topic == self.topology.dead_letters {
            tracing::warn!(topic = %record.topic, reason, "a dead letter is kept without its value and headers");
            self.scope.outbox.push(shortened(record));
            return;
        }
        let reason = match origin {
            Some((source, offset)) => {
                format!("{reason}; it was made of the record {}@{offset}", self.inputs[source])
            }
            None => reason,
        };
        let letter = unsendable(record, self.scope.partition, reason);
        self.scope.dead_letters.push(letter);
        self.write_dead_letters();
    }
}

fn shortened(mut record: OutputRecord) -> OutputRecord {
    record.headers.retain(is_ours);
    if let Some(value) = record.value.take() {
        record.headers.push(header(VALUE_BYTES, value.len().to_string()));
    }
    record
}

fn is_ours(header: &Header) -> bool {
    header.name.starts_with(PREFIX)
}

fn header(name: &str, value: String) -> Header {
    Header { name: name.to_owned(), value: value.into_bytes() }
}
