//! The changes of a store since the last commit: the last value of every key, and which of them are pending, that is, not
//! yet flushed to the changelog. Changes have numbers, so flush and commit compare no keys; keys and values are in one buffer,
//! so a write allocates nothing once the buffer has grown.
//!
//! ```text
//!   write ──▶ pending ──mark_flushed──▶ flushed ──commit──▶ removed
//!               ▲                         │
//!               └───────write again───────┘
//! ```

use std::{hash::BuildHasher, ops::Range};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::state::{
    Access, Change,
    name_index::{Entries, NameIndex},
    time_order::TimeOrder,
    window_key::{Position, WindowKey},
};

/// Overwritten values are removed from the buffer when they take more than this, and more than the rest.
const OVERWRITTEN_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Dirty {
    changes: Changes,
    index: Index,
    /// The numbers of changes, in the order of writing.
    pending: Vec<u32>,
    /// The rollback of the writes of the present record, oldest first.
    undo: Vec<Undo>,
    /// The size of all keys and of their last values.
    used_bytes: usize,
}

#[derive(Default)]
struct Changes {
    /// One for each key, in the order of its first write.
    changes: Vec<UncommittedChange>,
    /// Keys and values.
    bytes: Vec<u8>,
}

#[derive(Clone)]
struct UncommittedChange {
    key: Range<usize>,
    /// `None` is a deletion.
    value: Option<Range<usize>>,
    is_flushed: bool,
    /// Whether an engine without its own index by time must write an index entry.
    is_new: bool,
}

enum Index {
    ByKey {
        hasher: RandomState,
        keys: HashTable<u32>,
    },
    /// `times` has the changes that are no deletions.
    Windowed {
        names: NameIndex,
        times: TimeOrder,
    },
}

/// The information to roll back one write.
struct Undo {
    id: u32,
    /// The change of the same key before the write, if there was one.
    before: Option<UncommittedChange>,
    /// The size of the buffer before the write.
    bytes: usize,
    used_bytes: usize,
}

impl Changes {
    fn bytes_of_key(&self, id: u32) -> &[u8] {
        &self.bytes[self.changes[index(id)].key.clone()]
    }

    fn value(&self, change: &UncommittedChange) -> Option<&[u8]> {
        change.value.clone().map(|range| &self.bytes[range])
    }

    fn get(&self, id: u32) -> (&[u8], Option<&[u8]>) {
        let change = &self.changes[index(id)];
        (&self.bytes[change.key.clone()], self.value(change))
    }
}

impl Entries for Changes {
    fn key(&self, id: u32) -> WindowKey<'_> {
        WindowKey::parse(self.bytes_of_key(id)).expect("a window store writes keys of its layout")
    }
}

impl Dirty {
    pub(super) fn new(access: Access) -> Self {
        let index = match access {
            Access::Windowed => {
                Index::Windowed { names: NameIndex::default(), times: TimeOrder::default() }
            }
            Access::ByKey => {
                Index::ByKey { hasher: RandomState::default(), keys: HashTable::new() }
            }
        };
        let (changes, pending) = (Changes::default(), Vec::new());
        Self { changes, index, pending, undo: Vec::new(), used_bytes: 0 }
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        match &self.index {
            _ if self.changes.changes.is_empty() => None,
            Index::ByKey { hasher, keys } => {
                let is_same = |id: &u32| self.changes.bytes_of_key(*id) == key;
                keys.find(hasher.hash_one(key), is_same).copied()
            }
            Index::Windowed { names, .. } => names.find(&self.changes, WindowKey::parse(key)?),
        }
    }

    /// The uncommitted value of `key`: `None` if it is not changed, `Some(None)` if it is deleted.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.find(key).map(|id| self.changes.get(id).1)
    }

    /// Sets `key` to the bytes that `encode` appends. If that fails, nothing changes.
    pub(super) fn put<E>(
        &mut self,
        key: &[u8],
        is_new: bool,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Changes { bytes, .. } = &mut self.changes;
        let start = bytes.len();
        if let Err(error) = encode(bytes) {
            bytes.truncate(start);
            return Err(error);
        }
        let value = start..bytes.len();
        self.write(key, Some(value), is_new, start);
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.write(key, None, false, self.changes.bytes.len());
    }

    /// `bytes` is the size of the buffer before the write.
    fn write(&mut self, key: &[u8], value: Option<Range<usize>>, is_new: bool, bytes: usize) {
        let used_bytes = self.used_bytes;
        self.used_bytes += value.as_ref().map_or(0, ExactSizeIterator::len);
        let found = self.find(key);
        let before = found.map(|id| self.changes.changes[index(id)].clone());
        let id = match (found, &before) {
            (Some(id), Some(before)) => {
                self.used_bytes -= before.value.as_ref().map_or(0, ExactSizeIterator::len);
                self.unlink_time(id);
                let change = &mut self.changes.changes[index(id)];
                change.is_new |= is_new;
                (change.value, change.is_flushed) = (value, false);
                id
            }
            _ => self.add(key, value, is_new),
        };
        self.link_time(id);
        if is_newly_pending(before.as_ref()) {
            self.pending.push(id);
        }
        self.undo.push(Undo { id, before, bytes, used_bytes });
    }

    fn add(&mut self, key: &[u8], value: Option<Range<usize>>, is_new: bool) -> u32 {
        self.used_bytes += key.len();
        let Changes { changes, bytes } = &mut self.changes;
        let start = bytes.len();
        bytes.extend_from_slice(key);
        let id = u32::try_from(changes.len()).expect("a commit has fewer than 2³¹ changes");
        let key_range = start..bytes.len();
        changes.push(UncommittedChange { key: key_range, value, is_flushed: false, is_new });
        let changes = &self.changes;
        match &mut self.index {
            Index::ByKey { hasher, keys } => {
                let hash_of = |id: &u32| hasher.hash_one(changes.bytes_of_key(*id));
                keys.insert_unique(hasher.hash_one(key), id, hash_of);
            }
            Index::Windowed { names, .. } => names.insert(changes, id),
        }
        id
    }

    /// Adds a change to the order of times, unless it is a deletion.
    fn link_time(&mut self, id: u32) {
        if let Index::Windowed { times, .. } = &mut self.index
            && self.changes.changes[index(id)].value.is_some()
        {
            times.insert(&self.changes, id);
        }
    }

    fn unlink_time(&mut self, id: u32) {
        if let Index::Windowed { times, .. } = &mut self.index
            && self.changes.changes[index(id)].value.is_some()
        {
            times.remove(&self.changes, id);
        }
    }

    /// Sets the point to which [`Self::roll_back`] returns.
    pub(super) fn begin_record(&mut self) {
        self.undo.clear();
        let overwritten = self.changes.bytes.len() - self.used_bytes;
        if overwritten > OVERWRITTEN_BYTES_MAX.max(self.used_bytes) {
            self.changes.compact(self.used_bytes);
        }
    }

    /// Rolls back every write since [`Self::begin_record`]. No flush may have happened since.
    pub(super) fn roll_back(&mut self) {
        while let Some(Undo { id, before, bytes, used_bytes }) = self.undo.pop() {
            if is_newly_pending(before.as_ref()) {
                self.pending.pop();
            }
            self.unlink_time(id);
            match before {
                Some(before) => {
                    self.changes.changes[index(id)] = before;
                    self.link_time(id);
                }
                None => self.remove_last(id),
            }
            self.changes.bytes.truncate(bytes);
            self.used_bytes = used_bytes;
        }
    }

    fn remove_last(&mut self, id: u32) {
        match &mut self.index {
            Index::ByKey { hasher, keys } => {
                let hash = hasher.hash_one(self.changes.bytes_of_key(id));
                if let Ok(entry) = keys.find_entry(hash, |other| *other == id) {
                    entry.remove();
                }
            }
            Index::Windowed { names, .. } => names.remove(&self.changes, id),
        }
        self.changes.changes.pop();
    }

    /// The changes of a name in a window store with positions in `from..=to`, in order.
    pub(super) fn of_name(
        &self,
        name: &[u8],
        from: Position,
        to: Position,
    ) -> impl Iterator<Item = (Position, Option<&[u8]>)> {
        let names = match &self.index {
            Index::Windowed { names, .. } if !self.is_empty() => Some(names),
            Index::Windowed { .. } | Index::ByKey { .. } => None,
        };
        let found = names.map(|names| names.range(&self.changes, name, from, to));
        found
            .into_iter()
            .flatten()
            .map(|id| (self.changes.key(id).position, self.changes.get(id).1))
    }

    /// Whether the entry with this key in a window store is changed or deleted.
    pub(super) fn contains(&self, key: WindowKey<'_>) -> bool {
        match &self.index {
            Index::Windowed { names, .. } => names.find(&self.changes, key).is_some(),
            Index::ByKey { .. } => false,
        }
    }

    /// The keys in a window store that are set, not deleted, in the order of expiry.
    pub(super) fn by_time(&self) -> impl Iterator<Item = WindowKey<'_>> {
        let times = match &self.index {
            Index::Windowed { times, .. } => Some(times),
            Index::ByKey { .. } => None,
        };
        let found = times.map(|times| times.iter_from(&self.changes, None));
        found.into_iter().flatten().map(|id| self.changes.key(id))
    }

    /// The number of pending changes.
    pub(super) fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// The changes that are not yet flushed to the changelog, in the order of writing.
    pub(super) fn pending_changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.pending.iter().map(|id| self.changes.get(*id))
    }

    pub(super) fn mark_flushed(&mut self) {
        for id in self.pending.drain(..) {
            self.changes.changes[index(id)].is_flushed = true;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.changes.is_empty()
    }

    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
        self.changes.bytes.len()
    }

    /// All changes, in the order in which their keys were first written.
    pub(super) fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let Changes { changes, bytes } = &self.changes;
        changes.iter().map(|change| (&bytes[change.key.clone()], self.changes.value(change)))
    }

    /// The keys whose entries are new or deleted, and whether they are set.
    pub(super) fn index_changes(&self) -> impl Iterator<Item = (WindowKey<'_>, bool)> {
        let changes = self.changes.changes.iter().zip(0..);
        let changes = changes.filter(|(change, _)| change.is_new || change.value.is_none());
        changes.map(|(change, id)| (self.changes.key(id), change.value.is_some()))
    }

    pub(super) fn clear(&mut self) {
        self.changes.changes.clear();
        self.changes.bytes.clear();
        self.pending.clear();
        self.undo.clear();
        self.used_bytes = 0;
        match &mut self.index {
            Index::ByKey { keys, .. } => keys.clear(),
            Index::Windowed { names, times } => {
                names.clear();
                times.clear();
            }
        }
    }
}

impl Changes {
    /// Removes overwritten values from the buffer.
    fn compact(&mut self, used_bytes: usize) {
        let mut bytes = Vec::with_capacity(used_bytes);
        for UncommittedChange { key, value, .. } in &mut self.changes {
            for range in [Some(key), value.as_mut()].into_iter().flatten() {
                let start = bytes.len();
                bytes.extend_from_slice(&self.bytes[range.clone()]);
                *range = start..bytes.len();
            }
        }
        self.bytes = bytes;
    }
}

/// Whether a write over `before` adds a pending change: it does unless one of the same key is pending already.
fn is_newly_pending(before: Option<&UncommittedChange>) -> bool {
    before.is_none_or(|before| before.is_flushed)
}

fn index(id: u32) -> usize {
    usize::try_from(id).expect("a u32 fits")
}
