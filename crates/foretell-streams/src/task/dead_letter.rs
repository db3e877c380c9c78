//! Dead letters (KIP-1034): the key, value and headers of a record that cannot be processed, and headers with the reason.
//!
//! ```text
//!   headers of the record, in order │ foretell.topic … foretell.error.message, foretell.headers = number of the former
//! ```
//! Kafka allows a header name more than once, so the record may have headers of these names as well, for example a dead
//! letter that was sent to its topic again. The headers added here are the last of their names. `foretell.headers` says
//! how many headers precede them.

use std::str::FromStr;

use crate::{
    record::{Header, InputRecord, OutputRecord, OutputRecordRef, Partition, Topic},
    task::Task,
    time::EventTime,
    topology::{DeadLetter, Origin, Original},
};

/// Prefix of the names of the headers added here.
const PREFIX: &str = "foretell.";
/// Number of headers of the original record.
const HEADERS: &str = "foretell.headers";
/// Length of a value that is left out, in bytes.
const VALUE_BYTES: &str = "foretell.value.bytes";

/// The record for the dead-letter topic `topic` about an input record that a client without a topology cannot process. `class` and
/// `message` say why, `schema_id` is that of the record's writer schema, if it has one.
///
/// ```
/// use foretell_streams::{
///     record::{InputRecord, Offset, Partition, Topic, TopicPartition}, task::dead_letter, time::EventTime,
/// };
///
/// let source = TopicPartition { topic: Topic::new("orders"), partition: Partition(0) };
/// let (offset, timestamp) = (Offset(7), EventTime(0));
/// let record =
///     InputRecord { source, offset, timestamp, key: None, value: Some(vec![1]), headers: vec![] };
/// let letter = dead_letter::of_input(
///     &Topic::new("dead-letters"), &record, ("refused", None), "status 400".to_owned(), EventTime(1),
/// );
/// assert_eq!(letter.value, record.value);
/// assert_eq!(letter.headers[2].name, "foretell.offset");
/// assert_eq!(letter.headers[2].value, b"7");
/// ```
#[must_use]
pub fn of_input(
    topic: &Topic,
    record: &InputRecord,
    (class, schema_id): (&'static str, Option<u32>),
    message: String,
    written_at: EventTime,
) -> OutputRecord {
    self::record(topic, of(record, class, schema_id, message), written_at)
}

/// A dead letter that is too large for its topic, without its value and the headers of the original record.
#[must_use]
pub fn without_value(letter: OutputRecord) -> OutputRecord {
    shortened(letter)
}

/// What the headers of a dead letter say about its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The topic of the record.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset; -1 for an output that could not be written.
    pub offset: i64,
    /// Its timestamp, in milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// The class of the error.
    pub class: String,
    /// What was wrong.
    pub message: String,
    /// The id of its writer schema.
    pub schema_id: Option<u32>,
    /// How many of the letter's headers are the record's own: the first.
    pub headers: usize,
    /// The length of its value in bytes, if that was left out.
    pub left_out: Option<u64>,
}

/// Reads the headers of a dead letter; `None` if they are not those of one.
///
/// ```
/// # use foretell_streams::{
/// #     record::{InputRecord, Offset, Partition, Topic, TopicPartition}, task::dead_letter, time::EventTime,
/// # };
/// let source = TopicPartition { topic: Topic::new("orders"), partition: Partition(0) };
/// let (offset, timestamp) = (Offset(7), EventTime(0));
/// let record =
///     InputRecord { source, offset, timestamp, key: None, value: None, headers: vec![] };
/// let letter = dead_letter::of_input(
///     &Topic::new("dead-letters"), &record, ("refused", None), "status 400".to_owned(), EventTime(1),
/// );
/// let described = dead_letter::describe(&letter.headers).unwrap();
/// assert_eq!((described.topic.as_str(), described.offset), ("orders", 7));
/// assert_eq!((described.class.as_str(), described.headers), ("refused", 0));
/// ```
#[must_use]
pub fn describe(headers: &[Header]) -> Option<Described> {
    let last = headers.last()?;
    let left_out = if last.name == VALUE_BYTES { Some(number(last)?) } else { None };
    // A letter without its value has lost the headers of the record, too.
    let own = match left_out {
        Some(_) => 0,
        None => number(find(headers, HEADERS)?)?,
    };
    let added = headers.get(own..)?;
    let text = |name: &str| Some(std::str::from_utf8(&find(added, name)?.value).ok()?.to_owned());
    Some(Described {
        topic: text("foretell.topic")?,
        partition: number(find(added, "foretell.partition")?)?,
        offset: number(find(added, "foretell.offset")?)?,
        timestamp: number(find(added, "foretell.timestamp")?)?,
        class: text("foretell.error.class")?,
        message: text("foretell.error.message")?,
        schema_id: find(added, "foretell.schema.id").and_then(number),
        headers: own,
        left_out,
    })
}

/// The last header of a name: if there are several, it is the one that was added here.
fn find<'h>(headers: &'h [Header], name: &str) -> Option<&'h Header> {
    headers.iter().rfind(|header| header.name == name)
}

fn number<T: FromStr>(header: &Header) -> Option<T> {
    std::str::from_utf8(&header.value).ok()?.parse().ok()
}

pub(super) fn of(
    record: &InputRecord,
    class: &'static str,
    schema_id: Option<u32>,
    message: String,
) -> DeadLetter {
    DeadLetter { original: Original::from(record), class, schema_id, message }
}

/// The dead letter of an output that is too large, or whose topic does not exist. Its value is left out, since it would
/// not fit into the dead-letter topic either.
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

/// The record for the dead-letter topic, with the timestamp `written_at`, from which its retention counts. The timestamp
/// of the original, which may be old, is in a header.
pub(super) fn record(topic: &Topic, letter: DeadLetter, written_at: EventTime) -> OutputRecord {
    let original = letter.original;
    let mut headers = original.headers;
    let original_headers = headers.len().to_string();
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
    headers.push(header(HEADERS, original_headers));
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
    /// Whether an output that the broker will never accept can be dead-lettered. A changelog record cannot, and a dead
    /// letter can only while it has a value or headers to leave out.
    #[must_use]
    pub fn can_dead_letter(&self, record: OutputRecordRef<'_>) -> bool {
        if *record.topic == self.topology.dead_letters {
            return record.value.is_some() || record.headers.iter().any(|header| !is_added(header));
        }
        !self.topology.must_accept(record.topic)
    }

    /// Dead-letters an output that the broker will never accept. The error message names the input record that the output
    /// was sent for, if there is one. A dead letter that is too large for its topic keeps only its key and the headers
    /// added here.
    pub fn dead_letter_output(
        &mut self,
        record: OutputRecord,
        origin: Option<Origin>,
        reason: String,
    ) {
        if record.topic == self.topology.dead_letters {
            tracing::warn!(topic = %record.topic, reason, "dead letter is too large: sending it without value and original headers");
            self.scope.outbox.push(shortened(record));
            return;
        }
        let reason = match origin {
            Some((source, offset)) => {
                format!(
                    "{reason}; it was the output for the record {}@{offset}",
                    self.inputs[source]
                )
            }
            None => reason,
        };
        let letter = unsendable(record, self.scope.partition, reason);
        self.scope.dead_letters.push(letter);
        self.write_dead_letters();
    }
}

fn shortened(mut record: OutputRecord) -> OutputRecord {
    record.headers.retain(is_added);
    if let Some(value) = record.value.take() {
        record.headers.push(header(VALUE_BYTES, value.len().to_string()));
    }
    record
}

/// Whether a header was added here, by its name.
fn is_added(header: &Header) -> bool {
    header.name.starts_with(PREFIX)
}

fn header(name: &str, value: String) -> Header {
    Header { name: name.to_owned(), value: value.into_bytes() }
}
