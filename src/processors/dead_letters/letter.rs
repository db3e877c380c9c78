//! A record of the topic `dead-letters`: a letter with the reason in its headers, or the mark that a letter was replayed.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::events::codecs;
use foretell_streams::{
    record::{Header, InputRecord, Offset, OutputRecord, Partition, Topic},
    task::dead_letter::{self, Described},
    time::EventTime,
};

/// The header of a mark: the offset of the letter in the mark's own partition.
pub const REPLAYED: &str = "foretell.replayed";

/// The place of a letter in its topic, written `partition:offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The partition of the letter.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its place.
    pub id: LetterId,
    /// When it was written.
    pub written_at: EventTime,
    /// Where its record was, and why it could not be processed.
    pub described: Described,
    /// The key of its record.
    pub key: Option<Vec<u8>>,
    /// The value of its record; `None` also if it was left out.
    pub value: Option<Vec<u8>>,
    /// The headers of its record, in order.
    pub headers: Vec<Header>,
}

/// A letter in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LetterSummary {
    /// Its place.
    pub id: LetterId,
    /// When it was written, in milliseconds since the Unix epoch.
    pub written_at: EventTime,
    /// The class of the error.
    pub class: String,
    /// What was wrong.
    pub message: String,
    /// The topic of its record.
    pub topic: String,
    /// The partition of its record.
    pub partition: i32,
    /// The offset of its record; −1 if it was an output.
    pub offset: i64,
    /// The id of the writer schema of its value, if it is known.
    pub schema_id: Option<u32>,
    /// The key of its record, at most [`KEY_CHARS_MAX`] characters of it.
    pub key: Option<String>,
    /// The length of the value of its record in bytes.
    pub value_bytes: Option<u64>,
    /// The beginning of the value, at most 300 characters, with a point for each that cannot be printed.
    pub value: Option<String>,
    /// Whether it was replayed.
    pub replayed: bool,
}

/// Maximum number of characters of a key in a list.
pub const KEY_CHARS_MAX: usize = 100;
/// Maximum number of characters of a message in a list.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// Maximum number of characters of a value in a list.
const VALUE_CHARS_MAX: usize = 300;

/// What a record of the topic is.
pub(super) enum Entry {
    Letter(Box<Letter>),
    /// The letter at this place was replayed.
    Mark(LetterId),
    /// Another client has written it.
    Foreign,
}

/// Why a letter cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unreplayable {
    /// Its value was left out, because the letter would have been too large.
    WithoutValue,
    /// It is an output that could not be written, which is not kept.
    Output,
    /// Its topic does not exist any more.
    TopicGone,
    /// Its topic refuses it, for example because it is too large.
    Refused,
}

impl Unreplayable {
    /// The reason in words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::WithoutValue => "the value was too large to be kept",
            Self::Output => "an output of Foretell, whose value is not kept",
            Self::TopicGone => "the topic does not exist",
            Self::Refused => "the topic refuses the record",
        }
    }
}

impl Entry {
    pub(super) fn of(record: InputRecord) -> Self {
        let id = LetterId { partition: record.source.partition, offset: record.offset };
        let written_at = record.timestamp;
        let mark = record.headers.last().filter(|header| header.name == REPLAYED);
        if let Some(mark) = mark {
            let offset = std::str::from_utf8(&mark.value).ok().and_then(|text| text.parse().ok());
            let mark = |offset| Self::Mark(LetterId { offset: Offset(offset), ..id });
            return offset.map_or(Self::Foreign, mark);
        }
        let mut headers = record.headers;
        let Some(described) = dead_letter::describe(&headers) else { return Self::Foreign };
        headers.truncate(described.headers);
        let (key, value) = (record.key, record.value);
        Self::Letter(Box::new(Letter { id, written_at, described, key, value, headers }))
    }
}

impl Letter {
    pub(super) fn summary(&self) -> LetterSummary {
        let Described { topic, partition, offset, class, message, .. } = self.described.clone();
        let printable = |bytes: &[u8], max: usize| -> String {
            let text = String::from_utf8_lossy(bytes);
            let is_shown = |c: char| !c.is_control() && c != char::REPLACEMENT_CHARACTER;
            text.chars().take(max).map(|c| if is_shown(c) { c } else { '·' }).collect()
        };
        let length = |value: &Vec<u8>| u64::try_from(value.len()).unwrap_or(u64::MAX);
        LetterSummary {
            id: self.id,
            written_at: self.written_at,
            class,
            message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
            topic,
            partition,
            offset,
            schema_id: self.schema_id(),
            key: self.key.as_deref().map(|key| printable(key, KEY_CHARS_MAX)),
            value_bytes: self.value.as_ref().map(length).or(self.described.left_out),
            value: self.value.as_deref().map(|value| printable(value, VALUE_CHARS_MAX)),
            replayed: false,
        }
    }

    /// The id of the writer schema of the value: that of the headers, which they have if it was the problem, or else that of the
    /// value itself.
    pub(super) fn schema_id(&self) -> Option<u32> {
        let of_value = || self.value.as_deref().and_then(codecs::writer_schema);
        self.described.schema_id.or_else(of_value)
    }

    /// Why the letter cannot be replayed, as far as it says itself.
    pub(super) fn obstacle(&self) -> Option<Unreplayable> {
        if self.described.left_out.is_some() {
            Some(Unreplayable::WithoutValue)
        } else if self.described.offset < 0 {
            Some(Unreplayable::Output)
        } else {
            None
        }
    }

    /// The record of the letter as it was, for a topic of `partitions`: in its partition, if there still is one of that number.
    pub(super) fn record(&self, partitions: u32, now: EventTime) -> OutputRecord {
        let number = u32::try_from(self.described.partition).ok();
        let is_there = number.is_some_and(|number| number < partitions);
        OutputRecord {
            topic: Topic::new(&self.described.topic),
            partition: is_there.then_some(Partition(self.described.partition)),
            timestamp: now,
            key: self.key.clone(),
            value: self.value.clone(),
            headers: self.headers.clone(),
        }
    }
}

/// The mark that says that a letter of `topic` was replayed: in the partition of the letter, without a value.
pub(super) fn mark(topic: &Topic, id: LetterId, now: EventTime) -> OutputRecord {
    let replayed = Header { name: REPLAYED.to_owned(), value: id.offset.to_string().into_bytes() };
    OutputRecord {
        topic: topic.clone(),
        partition: Some(id.partition),
        timestamp: now,
        key: None,
        value: None,
        headers: vec![replayed],
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// A text that is not `partition:offset`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a dead letter: it must be partition:offset, such as 3:1042")]
pub struct NotAnId(String);

impl FromStr for LetterId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let numbers = text
            .split_once(':')
            .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
        match numbers {
            Some((partition @ 0.., offset @ 0..)) => {
                Ok(Self { partition: Partition(partition), offset: Offset(offset) })
            }
            _ => Err(NotAnId(text.to_owned())),
        }
    }
}

impl Serialize for LetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
