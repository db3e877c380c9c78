//! Stores in memory: the fastest stores. A task restores them from the whole changelog whenever it starts.

use std::{
    borrow::Cow,
    ops::{Bound, ControlFlow},
    time::Duration,
};

use crate::{
    record::TopicPartition,
    state::{
        Access, Change, Checkpoint, Entry, Position, StateError, StateStore, StoreSupplier,
        backend::is_within, packed::Packed, window_key::WindowKey, window_table::WindowTable,
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
        _access: Access,
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

/// A store in memory: a hash table of keys, for window stores with the order of times.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    entries: Entries,
    checkpoint: Option<Checkpoint>,
}

#[derive(Clone, Debug)]
enum Entries {
    ByKey(Packed),
    Windowed(WindowTable),
}

impl Default for Entries {
    fn default() -> Self {
        Self::ByKey(Packed::default())
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(access: Access) -> Self {
        let entries = match access {
            Access::ByKey => Entries::default(),
            Access::Windowed => Entries::Windowed(WindowTable::default()),
        };
        Self { entries, checkpoint: None }
    }
}

impl StateStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        let value = match &self.entries {
            Entries::ByKey(entries) => entries.get(key),
            Entries::Windowed(entries) => entries.get(key),
        };
        Ok(value.map(Cow::Borrowed))
    }

    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's> {
        let is_within = |(key, _): &(&[u8], &[u8])| is_within(key, from, to);
        let mut found: Vec<_> = match &self.entries {
            Entries::ByKey(entries) => entries.iter().filter(is_within).collect(),
            Entries::Windowed(entries) => entries.iter().filter(is_within).collect(),
        };
        found.sort_unstable();
        Box::new(found.into_iter().map(|(key, value)| entry(key, value)))
    }

    fn fetch(
        &self,
        key: &[u8],
        from: Position,
        to: Position,
        visit: &mut dyn FnMut(Position, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        if let Entries::Windowed(entries) = &self.entries {
            for (position, value) in entries.of_name(key, from, to) {
                if visit(position, value).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn oldest(
        &self,
        from: Option<(&[u8], Position)>,
        visit: &mut dyn FnMut(&[u8], Position) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        if let Entries::Windowed(entries) = &self.entries {
            let from = from.map(|(name, position)| WindowKey { name, position });
            for key in entries.by_time(from) {
                if visit(key.name, key.position).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn has_time_order(&self) -> bool {
        true
    }

    fn len(&self) -> usize {
        match &self.entries {
            Entries::ByKey(entries) => entries.len(),
            Entries::Windowed(entries) => entries.len(),
        }
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change<'_>>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        for (key, value) in changes {
            match (&mut self.entries, value) {
                (Entries::ByKey(entries), Some(value)) => entries.insert(key, value),
                (Entries::ByKey(entries), None) => entries.remove(key),
                (Entries::Windowed(entries), Some(value)) => entries.insert(key, value),
                (Entries::Windowed(entries), None) => entries.remove(key),
            }
        }
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn reserve(&mut self, additional: usize) {
        match &mut self.entries {
            Entries::ByKey(entries) => entries.reserve(additional),
            Entries::Windowed(entries) => entries.reserve(additional),
        }
    }

    fn shrink(&mut self) {
        match &mut self.entries {
            Entries::ByKey(entries) => entries.shrink(),
            Entries::Windowed(entries) => entries.shrink(),
        }
    }

    fn clear(&mut self) -> Result<(), StateError> {
        match &mut self.entries {
            Entries::ByKey(entries) => *entries = Packed::default(),
            Entries::Windowed(entries) => *entries = WindowTable::default(),
        }
        self.checkpoint = None;
        Ok(())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an iterator over any store's entries yields results")]
fn entry<'s>(key: &'s [u8], value: &'s [u8]) -> Result<Entry<'s>, StateError> {
    Ok((Cow::Borrowed(key), Cow::Borrowed(value)))
}
