//! What becomes of a record that can't be used: its bytes as they came, and headers that say why.

use crate::streams::{
    record::{Header, InputRecord, OutputRecord, Partition, Topic},
    time::EventTime,
    topology::{DeadLetter, Original},
};

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
pub(super) fn unsendable(record: OutputRecord, task: Partition, reason: String) -> DeadLetter {
    let original = Original {
        topic: record.topic.as_str().to_owned(),
        partition: record.partition.unwrap_or(task).0,
        offset: -1,
        timestamp: record.timestamp,
        key: record.key,
        value: None,
    };
    DeadLetter { original, class: "unsendable", schema_id: None, message: reason }
}

/// The record for the dead-letter topic. It is kept there from `written_at` on: the original's timestamp, which may be
/// of long ago, goes into a header.
pub(super) fn record(topic: &Topic, letter: DeadLetter, written_at: EventTime) -> OutputRecord {
    let original = letter.original;
    let mut headers = vec![
        header("foretell.topic", original.topic),
        header("foretell.partition", original.partition.to_string()),
        header("foretell.offset", original.offset.to_string()),
        header("foretell.timestamp", original.timestamp.0.to_string()),
        header("foretell.error.class", letter.class.to_owned()),
        header("foretell.error.message", letter.message),
    ];
    if let Some(id) = letter.schema_id {
        headers.push(header("foretell.schema.id", id.to_string()));
    }
    OutputRecord {
        topic: topic.clone(),
        partition: None,
        timestamp: written_at,
        key: original.key,
        value: original.value,
        headers,
    }
}

fn header(name: &str, value: String) -> Header {
    Header { name: name.to_owned(), value: value.into_bytes() }
}
