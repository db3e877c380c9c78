//! The changes of a store since the last commit: the last value of every key, and which of them are pending, that is, not
//! yet flushed to the changelog. Ordered by key for stores that are accessed by range, hashed for others.
//!
//! ```text
//!   write ──▶ pending ──mark_flushed──▶ flushed ──commit──▶ removed
//!               ▲                         │
//!               └───────write again───────┘
//! ```

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use crate::state::{Access, Change};

/// A value; `None` is a deletion.
type Value = Option<Vec<u8>>;

pub(super) struct Dirty {
    entries: Entries,
    /// In the order of writing.
    pending_changes: Vec<EntryLocation>,
}

enum Entries {
    Ordered(BTreeMap<Vec<u8>, UncommittedValue>),
    /// Indexed by the order of the first write, which is deterministic, unlike the order of hashes.
    Hashed(IndexMap<Vec<u8>, UncommittedValue, RandomState>),
}

struct UncommittedValue {
    value: Value,
    is_flushed: bool,
}

/// The location of an entry in [`Entries`].
enum EntryLocation {
    Key(Vec<u8>),
    Index(usize),
}

/// The information to roll back one write.
pub(super) struct Undo {
    location: EntryLocation,
    /// The uncommitted value before the write, if there was one.
    before: Option<UncommittedValue>,
}

impl Dirty {
    pub(super) fn new(access: Access) -> Self {
        let entries = match access {
            Access::ByRange => Entries::Ordered(BTreeMap::new()),
            Access::ByKey => Entries::Hashed(IndexMap::default()),
        };
        Self { entries, pending_changes: Vec::new() }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Value> {
        let written = match &self.entries {
            Entries::Ordered(entries) => entries.get(key),
            Entries::Hashed(entries) => entries.get(key),
        };
        written.map(|written| &written.value)
    }

    pub(super) fn write(&mut self, key: Vec<u8>, value: Value) -> Undo {
        let written = UncommittedValue { value, is_flushed: false };
        let (location, again, before) = match &mut self.entries {
            Entries::Ordered(entries) => {
                let (location, again) =
                    (EntryLocation::Key(key.clone()), EntryLocation::Key(key.clone()));
                (location, again, entries.insert(key, written))
            }
            Entries::Hashed(entries) => {
                let (index, before) = entries.insert_full(key, written);
                (EntryLocation::Index(index), EntryLocation::Index(index), before)
            }
        };
        if is_newly_pending(before.as_ref()) {
            self.pending_changes.push(again);
        }
        Undo { location, before }
    }

    /// Rolls back the last write that is not rolled back yet. No flush may have happened since.
    pub(super) fn roll_back(&mut self, Undo { location, before }: Undo) {
        if is_newly_pending(before.as_ref()) {
            self.pending_changes.pop();
        }
        match (&mut self.entries, location, before) {
            (Entries::Ordered(entries), EntryLocation::Key(key), Some(written)) => {
                entries.insert(key, written);
            }
            (Entries::Ordered(entries), EntryLocation::Key(key), None) => {
                entries.remove(&key);
            }
            (Entries::Hashed(entries), EntryLocation::Index(index), Some(written)) => {
                entries[index] = written;
            }
            // It is the last of the remaining entries.
            (Entries::Hashed(entries), EntryLocation::Index(index), None) => {
                entries.truncate(index)
            }
            (Entries::Ordered(_), EntryLocation::Index(_), _)
            | (Entries::Hashed(_), EntryLocation::Key(_), _) => {
                unreachable!("the location has the kind of the entries")
            }
        }
    }

    /// The changes between the bounds, in the order of keys.
    pub(super) fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = (&'s [u8], &'s Value)> + 's> {
        match &self.entries {
            Entries::Ordered(entries) => {
                let found = entries.range::<[u8], _>((from, to));
                Box::new(found.map(|(key, written)| (key.as_slice(), &written.value)))
            }
            Entries::Hashed(entries) => {
                let found = entries.iter().map(|(key, written)| (key.as_slice(), &written.value));
                let mut found: Vec<_> = found.filter(|(key, _)| is_within(key, from, to)).collect();
                found.sort_unstable_by_key(|(key, _)| *key);
                Box::new(found.into_iter())
            }
        }
    }

    /// The number of pending changes.
    pub(super) fn pending_len(&self) -> usize {
        self.pending_changes.len()
    }

    /// The changes that are not yet flushed to the changelog, in the order of writing.
    pub(super) fn pending_changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.pending_changes.iter().map(|location| {
            let (key, written) = match (&self.entries, location) {
                (Entries::Ordered(entries), EntryLocation::Key(key)) => entries.get_key_value(key),
                (Entries::Hashed(entries), EntryLocation::Index(index)) => {
                    entries.get_index(*index)
                }
                (Entries::Ordered(_), EntryLocation::Index(_))
                | (Entries::Hashed(_), EntryLocation::Key(_)) => None,
            }
            .expect("a pending change has an entry");
            (key.as_slice(), written.value.as_deref())
        })
    }

    /// Marks all pending changes as flushed.
    pub(super) fn mark_flushed(&mut self) {
        for location in self.pending_changes.drain(..) {
            let written = match (&mut self.entries, &location) {
                (Entries::Ordered(entries), EntryLocation::Key(key)) => entries.get_mut(key),
                (Entries::Hashed(entries), EntryLocation::Index(index)) => {
                    entries.get_index_mut(*index).map(|(_, written)| written)
                }
                (Entries::Ordered(_), EntryLocation::Index(_))
                | (Entries::Hashed(_), EntryLocation::Key(_)) => None,
            };
            written.expect("a pending change has an entry").is_flushed = true;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.entries {
            Entries::Ordered(entries) => entries.is_empty(),
            Entries::Hashed(entries) => entries.is_empty(),
        }
    }

    /// Passes all changes to `write` and removes them.
    pub(super) fn drain<R>(
        &mut self,
        write: impl FnOnce(&mut dyn Iterator<Item = Change>) -> R,
    ) -> R {
        self.pending_changes.clear();
        match &mut self.entries {
            Entries::Ordered(entries) => {
                let entries = std::mem::take(entries).into_iter();
                write(&mut entries.map(|(key, written)| (key, written.value)))
            }
            Entries::Hashed(entries) => {
                write(&mut entries.drain(..).map(|(key, written)| (key, written.value)))
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.pending_changes.clear();
        match &mut self.entries {
            Entries::Ordered(entries) => entries.clear(),
            Entries::Hashed(entries) => entries.clear(),
        }
    }
}

/// Whether a write over `before` adds a pending change: it does unless one of the same key is pending already.
fn is_newly_pending(before: Option<&UncommittedValue>) -> bool {
    before.is_none_or(|before| before.is_flushed)
}

pub(super) fn is_within(key: &[u8], from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    RangeBounds::<[u8]>::contains::<[u8]>(&(from, to), key)
}
