//! How a value becomes bytes and back: what Kafka Streams calls a Serde.

use std::marker::PhantomData;

use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};

/// Turns values of one type into bytes and back.
pub trait Codec<T>: Send + Sync {
    /// Appends `value` to `bytes`.
    ///
    /// # Errors
    /// [`CodecError`] if the value has no form in this codec; then `bytes` may have more at their end than before.
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads one value that fills `bytes` from end to end.
    ///
    /// # Errors
    /// [`CodecError`] says whether to set the record aside or to ask again.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// Why bytes and a value could not be exchanged, by what is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// These bytes will never be readable: the record goes to the dead letters.
    #[error("{class}: {message}")]
    Unreadable {
        /// One word for counters and headers, such as `malformed` or `unknown_schema`.
        class: &'static str,
        /// The writer's schema, where the bytes name one.
        schema_id: Option<u32>,
        /// What is wrong with them.
        message: String,
    },
    /// They are a value of ours, written by another release.
    #[error("it is in format {found}, and this release reads format {known}")]
    OtherFormat {
        /// Theirs.
        found: u8,
        /// Ours.
        known: u8,
    },
    /// What is needed to read them can't be had just now: try again.
    #[error("cannot decode just now: {message}")]
    Unavailable {
        /// What could not be had.
        message: String,
    },
}

/// Text as UTF-8: record keys.
#[derive(Clone, Copy, Debug)]
pub struct Utf8;

impl Codec<String> for Utf8 {
    fn encode(&self, value: &String, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        bytes.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(CodecError::Unreadable {
                class: "malformed",
                schema_id: None,
                message: format!("not UTF-8: {error}"),
            }),
        }
    }
}

/// Our own stores' values: a version byte, then postcard (<https://postcard.jamesmunns.com/wire-format>), which says
/// nothing of fields and types: whatever changes about `T` takes a new version. Golden files hold it to that.
#[derive(Debug)]
pub struct Stored<T> {
    version: u8,
    value: PhantomData<fn() -> T>,
}

impl<T> Stored<T> {
    /// Values of `T` as their format stands at `version`.
    #[must_use]
    pub fn version(version: u8) -> Self {
        Self { version, value: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Stored<T> {
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = bytes.len();
        bytes.push(self.version);
        let written = postcard::serialize_with_flavor(value, Appended(bytes));
        written.map_err(|error| {
            bytes.truncate(start);
            unreadable(&error)
        })
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let Some((version, body)) = bytes.split_first() else {
            return Err(unreadable(&"no bytes"));
        };
        if *version != self.version {
            return Err(CodecError::OtherFormat { found: *version, known: self.version });
        }
        match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(unreadable(&format!("{} bytes too many", rest.len()))),
            Err(error) => Err(unreadable(&error)),
        }
    }
}

/// Values of `T` in their present format, and those that an earlier release wrote as `Old`: what is written is always the
/// present format.
#[derive(Debug)]
pub struct StoredSince<T, Old> {
    present: Stored<T>,
    old: Stored<Old>,
}

impl<T, Old> StoredSince<T, Old> {
    /// Reads both formats, and writes `present`.
    #[must_use]
    pub fn new(present: Stored<T>, old: Stored<Old>) -> Self {
        Self { present, old }
    }
}

impl<T, Old> Codec<T> for StoredSince<T, Old>
where
    T: Serialize + DeserializeOwned + From<Old>,
    Old: Serialize + DeserializeOwned,
{
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.present.encode(value, bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        if bytes.first() == Some(&self.old.version) {
            return self.old.decode(bytes).map(T::from);
        }
        self.present.decode(bytes)
    }
}

/// Writes at the end of bytes that stay where they are if it fails, as postcard's own `to_extend` does not leave them.
struct Appended<'b>(&'b mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn unreadable(reason: &dyn std::fmt::Display) -> CodecError {
    CodecError::Unreadable { class: "malformed", schema_id: None, message: reason.to_string() }
}
