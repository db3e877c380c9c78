//! Stores in memory: the fastest, and gone with their task.

use std::{borrow::Cow, collections::BTreeMap, ops::Bound, time::Duration};

use crate::streams::{
    record::TopicPartition,
    state::{Change, Checkpoint, Entry, StateError, StateStore, StoreSupplier},
};

/// Makes a [`MemoryStore`] for every task.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStores;

impl StoreSupplier for MemoryStores {
    fn open(&self, _changelog: &TopicPartition) -> Result<Box<dyn StateStore>, StateError> {
        Ok(Box::new(MemoryStore::default()))
    }

    fn open_standby(
        &self,
        _changelog: &TopicPartition,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        Ok(None)
    }

    fn clean(&self, _now: Duration) -> Result<(), StateError> {
        Ok(())
    }

    fn is_lasting(&self) -> bool {
        false
    }
}

/// An ordered map.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    checkpoint: Option<Checkpoint>,
}

impl StateStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        Ok(self.entries.get(key).map(|value| Cow::Borrowed(value.as_slice())))
    }

    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's> {
        let entries = self.entries.range::<[u8], _>((from, to));
        Box::new(entries.map(|(key, value)| {
            Ok((Cow::Borrowed(key.as_slice()), Cow::Borrowed(value.as_slice())))
        }))
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        for (key, value) in changes {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn clear(&mut self) -> Result<(), StateError> {
        *self = Self::default();
        Ok(())
    }
}
