//! A store of one value a key.

use std::sync::Arc;

use crate::{
    codec::Codec,
    record::Topic,
    state::{StateError, Store, StoreId},
};

/// How a processor names a key-value store: made by the topology's builder, opened by a context.
pub struct KeyValueHandle<V> {
    pub(crate) id: StoreId,
    pub(crate) changelog: Topic,
    pub(crate) values: Arc<dyn Codec<V>>,
}

impl<V> KeyValueHandle<V> {
    /// Its place in the topology.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.id
    }
}

impl<V> Clone for KeyValueHandle<V> {
    fn clone(&self) -> Self {
        Self { id: self.id, changelog: self.changelog.clone(), values: Arc::clone(&self.values) }
    }
}

/// A key-value store, opened for one record.
pub struct KeyValueStore<'s, V> {
    pub(crate) store: &'s mut Store,
    pub(crate) changelog: &'s Topic,
    pub(crate) values: &'s dyn Codec<V>,
}

impl<V> KeyValueStore<'_, V> {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn get(&self, key: &str) -> Result<Option<V>, StateError> {
        let Some(bytes) = self.store.get(key.as_bytes())? else { return Ok(None) };
        self.values.decode(&bytes).map(Some).map_err(StateError::unreadable(self.changelog))
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// [`StateError::Unstorable`]
    pub fn put(&mut self, key: &str, value: &V) -> Result<(), StateError> {
        let values = self.values;
        let bytes = self.store.encoded(|bytes| values.encode(value, bytes));
        self.store.put(key.as_bytes().to_vec(), bytes.map_err(StateError::Unstorable)?);
        Ok(())
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, key: &str) {
        self.store.delete(key.as_bytes().to_vec());
    }
}
