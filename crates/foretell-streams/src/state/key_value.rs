//! Key-value stores: one value per key.

use std::{fmt, sync::Arc};

use crate::{
    codec::{Codec, CodecError},
    record::Topic,
    state::{StateError, Store, StoreId},
};

/// A reference to a key-value store, made by
/// [`TopologyBuilder::key_value_store`](crate::topology::TopologyBuilder::key_value_store) and opened with
/// [`Context::key_value`](crate::topology::Context::key_value). Clones refer to the same store.
///
/// ```
/// use std::sync::Arc;
/// use foretell_streams::{
///     codec::{Stored, Utf8}, local::TopologyDriver, metrics::StreamsMetrics, record::Topic,
///     state::KeyValueHandle, time::{EventTime, WallTime},
///     topology::{Context, ProcessError, Processor, Record, TopologyBuilder},
/// };
///
/// /// Forwards a value only if it differs from the last one of its key.
/// struct Changes { last: KeyValueHandle<String> }
///
/// impl Processor for Changes {
///     type In = String;
///     type Out = String;
///
///     fn process(&mut self, record: &Record<String>, ctx: &mut Context<'_, String>) -> Result<(), ProcessError> {
///         let key = record.text_key()?;
///         let mut last = ctx.key_value(&self.last);
///         if last.get(key)?.as_ref() == Some(&record.value) {
///             return Ok(());
///         }
///         last.put(key, &record.value)?;
///         ctx.forward(record)
///     }
/// }
///
/// let mut builder = TopologyBuilder::new("changes", Topic::new("dead-letters"));
/// let values = builder.source("values", Topic::new("values"), Arc::new(Utf8));
/// let last = builder.key_value_store("last", Arc::new(Stored::version(1)));
/// let changes = builder.process("changes", &[values], &[last.id()], move || Changes { last: last.clone() });
/// builder.sink("out", &[changes], Topic::new("changes"), Arc::new(Utf8));
///
/// let mut driver = TopologyDriver::new(builder.build(), WallTime(0), &StreamsMetrics::unregistered());
/// for value in ["on", "on", "off"] {
///     driver.pipe(&Topic::new("values"), Some(b"lamp"), Some(value.as_bytes()), EventTime(0))?;
/// }
/// driver.commit();
/// assert_eq!(driver.read(&Topic::new("changes")).len(), 2);
/// # Ok::<(), foretell_streams::state::StateError>(())
/// ```
pub struct KeyValueHandle<V> {
    pub(crate) id: StoreId,
    pub(crate) changelog: Topic,
    pub(crate) values: Arc<dyn Codec<V>>,
}

impl<V> KeyValueHandle<V> {
    /// The store's identity, for [`TopologyBuilder::process`](crate::topology::TopologyBuilder::process).
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.id
    }
}

impl<V> fmt::Debug for KeyValueHandle<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueHandle")
            .field("id", &self.id)
            .field("changelog", &self.changelog)
            .finish_non_exhaustive()
    }
}

impl<V> Clone for KeyValueHandle<V> {
    fn clone(&self) -> Self {
        Self { id: self.id, changelog: self.changelog.clone(), values: Arc::clone(&self.values) }
    }
}

/// An open key-value store. Its changes are rolled back if the processing of the record fails, and are permanent once the
/// record is committed.
pub struct KeyValueStore<'s, V> {
    pub(crate) store: &'s mut Store,
    pub(crate) changelog: &'s Topic,
    pub(crate) values: &'s dyn Codec<V>,
}

impl<V> fmt::Debug for KeyValueStore<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueStore").field("changelog", &self.changelog).finish_non_exhaustive()
    }
}

impl<V> KeyValueStore<'_, V> {
    /// The value of `key`, uncommitted changes included.
    ///
    /// # Errors
    /// [`StateError`] if it cannot be read or decoded.
    pub fn get(&self, key: &str) -> Result<Option<V>, StateError> {
        let Some(bytes) = self.store.get(key.as_bytes())? else { return Ok(None) };
        self.values.decode(&bytes).map(Some).map_err(StateError::unreadable(self.changelog))
    }

    /// Passes the encoded value of `key` to `read`, uncommitted changes included: the bytes are those of the store, and nothing
    /// is copied if it is in memory.
    ///
    /// # Errors
    /// [`StateError`] if it cannot be read, or for the error of `read`.
    pub fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&[u8]) -> Result<T, CodecError>,
    ) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.store.get(key.as_bytes())? else { return Ok(None) };
        read(&bytes).map(Some).map_err(StateError::unreadable(self.changelog))
    }

    /// Sets `key` to the encoded value that `write` appends.
    ///
    /// # Errors
    /// [`StateError::Unstorable`] for the error of `write`.
    pub fn write(
        &mut self,
        key: &str,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<(), StateError> {
        self.store.put(key.as_bytes(), write).map_err(StateError::Unstorable)
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// [`StateError::Unstorable`] if the codec cannot encode `value`.
    pub fn put(&mut self, key: &str, value: &V) -> Result<(), StateError> {
        let values = self.values;
        let encoded = self.store.put(key.as_bytes(), |bytes| values.encode(value, bytes));
        encoded.map_err(StateError::Unstorable)
    }

    /// Removes `key`, if it exists.
    pub fn delete(&mut self, key: &str) {
        self.store.delete(key.as_bytes());
    }
}
