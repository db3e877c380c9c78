//! Stores in memory: the fastest stores. A task restores them from the whole changelog whenever it starts.

use std::{borrow::Cow, collections::BTreeMap, ops::Bound, time::Duration};

use crate::{
    record::TopicPartition,
    state::{
        Access, Change, Checkpoint, Entry, StateError, StateStore, StoreSupplier, dirty::is_within,
        packed::Packed,
    },
};

/// Opens a new [`MemoryStore`] for each store of each task.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStores;

impl StoreSupplier for MemoryStores {
    fn open(
        &self,
        _changelog: &TopicPartition,
        access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        Ok(Box::new(MemoryStore::new(access)))
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

/// A store in memory: an ordered map for window stores, a hash map for key-value stores.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    entries: Entries,
    checkpoint: Option<Checkpoint>,
}

#[derive(Clone, Debug)]
enum Entries {
    Ordered(BTreeMap<Vec<u8>, Vec<u8>>),
    Hashed(Packed),
}

impl Default for Entries {
    fn default() -> Self {
        Self::Ordered(BTreeMap::new())
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(access: Access) -> Self {
        let entries = match access {
            Access::ByRange => Entries::default(),
            Access::ByKey => Entries::Hashed(Packed::default()),
        };
        Self { entries, checkpoint: None }
    }
}

impl StateStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        let value = match &self.entries {
            Entries::Ordered(entries) => entries.get(key).map(Vec::as_slice),
            Entries::Hashed(entries) => entries.get(key),
        };
        Ok(value.map(Cow::Borrowed))
    }

    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's> {
        match &self.entries {
            Entries::Ordered(entries) => {
                let found = entries.range::<[u8], _>((from, to));
                Box::new(found.map(|(key, value)| entry(key, value)))
            }
            Entries::Hashed(entries) => {
                let found = entries.iter();
                let mut found: Vec<_> = found.filter(|(key, _)| is_within(key, from, to)).collect();
                found.sort_unstable();
                Box::new(found.into_iter().map(|(key, value)| entry(key, value)))
            }
        }
    }

    fn len(&self) -> usize {
        match &self.entries {
            Entries::Ordered(entries) => entries.len(),
            Entries::Hashed(entries) => entries.len(),
        }
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        match &mut self.entries {
            Entries::Ordered(entries) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => entries.insert(key, value),
                        None => entries.remove(&key),
                    };
                }
            }
            Entries::Hashed(entries) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => entries.insert(&key, &value),
                        None => entries.remove(&key),
                    }
                }
            }
        }
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn clear(&mut self) -> Result<(), StateError> {
        match &mut self.entries {
            Entries::Ordered(entries) => entries.clear(),
            Entries::Hashed(entries) => *entries = Packed::default(),
        }
        self.checkpoint = None;
        Ok(())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an iterator over any store's entries yields results")]
fn entry<'s>(key: &'s [u8], value: &'s [u8]) -> Result<Entry<'s>, StateError> {
    Ok((Cow::Borrowed(key), Cow::Borrowed(value)))
}
