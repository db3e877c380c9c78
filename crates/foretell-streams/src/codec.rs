//! Codecs, which encode values as bytes and decode them: Kafka Streams' Serdes.

use std::marker::PhantomData;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Encodes and decodes values of one type, for sources, sinks and stores.
///
/// ```
/// use foretell_streams::codec::{Codec, CodecError};
///
/// /// Big-endian numbers, as Kafka's `LongSerializer` writes them.
/// struct Long;
///
/// impl Codec<i64> for Long {
///     fn encode(&self, value: &i64, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
///         bytes.extend_from_slice(&value.to_be_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<i64, CodecError> {
///         let bytes = bytes.try_into().map_err(|_| CodecError::Unreadable {
///             class: "malformed",
///             schema_id: None,
///             message: format!("{} bytes, not 8", bytes.len()),
///         })?;
///         Ok(i64::from_be_bytes(bytes))
///     }
/// }
///
/// let mut bytes = Vec::new();
/// Long.encode(&-2, &mut bytes)?;
/// assert_eq!(Long.decode(&bytes)?, -2);
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec<T>: Send + Sync {
    /// Appends `value` to `bytes`.
    ///
    /// # Errors
    /// [`CodecError`] if the value cannot be encoded. `bytes` may then end with a part of it.
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Decodes one value, which must fill all of `bytes`.
    ///
    /// # Errors
    /// [`CodecError`]. Its variant decides whether the record goes to the dead-letter topic or is tried again.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// A failure to encode or decode a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes can never be decoded: the record goes to the dead-letter topic.
    #[error("{class}: {message}")]
    Unreadable {
        /// A label for metrics and dead-letter headers, such as `malformed` or `unknown_schema`.
        class: &'static str,
        /// The id of the writer schema, if the bytes contain one.
        schema_id: Option<u32>,
        /// The reason, for the log and the dead letter.
        message: String,
    },
    /// The bytes are a stored value of another version (see [`Stored`]).
    #[error("value is in format {found}, and this release reads format {known}")]
    OtherFormat {
        /// The version of the bytes.
        found: u8,
        /// The version that this codec reads.
        known: u8,
    },
    /// A service that is needed to decode the bytes, such as a schema registry, does not respond. The record is tried
    /// again, and blocks its task until then.
    #[error("cannot decode just now: {message}")]
    Unavailable {
        /// The service, and why it is not available.
        message: String,
    },
}

/// A codec for strings as UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Utf8;

impl Codec<String> for Utf8 {
    fn encode(&self, value: &String, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        bytes.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        utf8(bytes).map(str::to_owned)
    }
}

/// The text that `bytes` encode.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(bytes).map_err(|error| CodecError::Unreadable {
        class: "malformed",
        schema_id: None,
        message: format!("not UTF-8: {error}"),
    })
}

/// A codec for the values of a store: a version byte, followed by
/// [postcard](https://postcard.jamesmunns.com/wire-format).
///
/// Postcard writes neither names nor types of fields, so any change of `T` needs a new version. To read values that an
/// earlier release has written, use [`StoredSince`].
///
/// ```
/// use foretell_streams::codec::{Codec, CodecError, Stored};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Visits { count: u32, last: String }
///
/// let codec = Stored::version(1);
/// let mut bytes = Vec::new();
/// codec.encode(&Visits { count: 3, last: "home".to_owned() }, &mut bytes)?;
/// let visits: Visits = codec.decode(&bytes)?;
/// assert_eq!(visits.count, 3);
/// assert!(matches!(
///     Stored::<Visits>::version(2).decode(&bytes),
///     Err(CodecError::OtherFormat { found: 1, known: 2 }),
/// ));
/// # Ok::<(), CodecError>(())
/// ```
#[derive(Debug)]
pub struct Stored<T> {
    version: u8,
    value: PhantomData<fn() -> T>,
}

impl<T> Stored<T> {
    /// A codec for `T` that writes and reads `version`.
    #[must_use]
    pub fn version(version: u8) -> Self {
        Self { version, value: PhantomData }
    }

    /// Decodes a borrowed form of `T`, which must be serialized as `T` is.
    ///
    /// # Errors
    /// [`CodecError`], as [`Codec::decode`].
    pub fn read<'b, B: Deserialize<'b>>(&self, bytes: &'b [u8]) -> Result<B, CodecError> {
        let Some((version, body)) = bytes.split_first() else {
            return Err(unreadable(&"no bytes"));
        };
        if *version != self.version {
            return Err(CodecError::OtherFormat { found: *version, known: self.version });
        }
        match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(unreadable(&format!("{} bytes after the value", rest.len()))),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Appends a borrowed form of `T`, which must be serialized as `T` is.
    ///
    /// # Errors
    /// [`CodecError`], as [`Codec::encode`].
    pub fn write<B: Serialize + ?Sized>(
        &self,
        value: &B,
        bytes: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let start = bytes.len();
        bytes.push(self.version);
        let written = postcard::serialize_with_flavor(value, Appended(bytes));
        written.map_err(|error| {
            bytes.truncate(start);
            unreadable(&error)
        })
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Stored<T> {
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.write(value, bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        self.read(bytes)
    }
}

/// A codec for the values of a store that an earlier release has stored as `Old`. It reads both versions and writes the
/// present one.
///
/// ```
/// use foretell_streams::codec::{Codec, CodecError, Stored, StoredSince};
///
/// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// struct Total { cents: i64, currency: String }
///
/// impl From<i64> for Total {
///     fn from(cents: i64) -> Self {
///         Self { cents, currency: "EUR".to_owned() }
///     }
/// }
///
/// let mut bytes = Vec::new();
/// Stored::<i64>::version(1).encode(&250, &mut bytes)?; // by an earlier release
/// let codec = StoredSince::new(Stored::<Total>::version(2), Stored::<i64>::version(1));
/// assert_eq!(codec.decode(&bytes)?, Total::from(250));
/// # Ok::<(), CodecError>(())
/// ```
#[derive(Debug)]
pub struct StoredSince<T, Old> {
    present: Stored<T>,
    old: Stored<Old>,
}

impl<T, Old> StoredSince<T, Old> {
    /// A codec that reads both versions and writes `present`.
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

/// Appends to a buffer that keeps its contents if serialization fails. Postcard's `to_extend` loses them.
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
