//! Changes of a store since the last commit: the last value of every key, and which of these are pending, not yet
//! flushed to the changelog. In the order of keys, or hashed where nobody asks for that order.
//!
//! ```text
//!   write ──▶ pending ──mark_flushed──▶ flushed ──commit──▶ gone
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

/// A value; none is a deletion.
type Value = Option<Vec<u8>>;

pub(super) struct Dirty {
    entries: Entries,
    /// In the order in which they were written.
    pending_changes: Vec<Place>,
}

enum Entries {
    Ordered(BTreeMap<Vec<u8>, Written>),
    /// By index in the order in which they were written first, which is the same each time, as hashes are not.
    Hashed(IndexMap<Vec<u8>, Written, RandomState>),
}

struct Written {
    value: Value,
    is_flushed: bool,
}

/// Where an entry is.
enum Place {
    Key(Vec<u8>),
    Index(usize),
}

/// How to take one write back.
pub(super) struct Undo {
    place: Place,
    /// What was there; none if nothing was.
    before: Option<Written>,
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
        let written = Written { value, is_flushed: false };
        let (place, again, before) = match &mut self.entries {
            Entries::Ordered(entries) => {
                let (place, again) = (Place::Key(key.clone()), Place::Key(key.clone()));
                (place, again, entries.insert(key, written))
            }
            Entries::Hashed(entries) => {
                let (index, before) = entries.insert_full(key, written);
                (Place::Index(index), Place::Index(index), before)
            }
        };
        if is_news(before.as_ref()) {
            self.pending_changes.push(again);
        }
        Undo { place, before }
    }

    /// Takes back the last write that was not rolled back yet. The changelog may not have been told since.
    pub(super) fn roll_back(&mut self, Undo { place, before }: Undo) {
        if is_news(before.as_ref()) {
            self.pending_changes.pop();
        }
        match (&mut self.entries, place, before) {
            (Entries::Ordered(entries), Place::Key(key), Some(written)) => {
                entries.insert(key, written);
            }
            (Entries::Ordered(entries), Place::Key(key), None) => {
                entries.remove(&key);
            }
            (Entries::Hashed(entries), Place::Index(index), Some(written)) => {
                entries[index] = written;
            }
            // Of the entries that are left it came last.
            (Entries::Hashed(entries), Place::Index(index), None) => entries.truncate(index),
            (Entries::Ordered(_), Place::Index(_), _) | (Entries::Hashed(_), Place::Key(_), _) => {
                unreachable!("a write is taken back from where it was made")
            }
        }
    }

    /// What was written between the bounds, in order of keys.
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

    /// How much that is.
    pub(super) fn pending_len(&self) -> usize {
        self.pending_changes.len()
    }

    /// What the changelog has still to be told, in the order in which it was written.
    pub(super) fn pending_changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.pending_changes.iter().map(|place| {
            let (key, written) = match (&self.entries, place) {
                (Entries::Ordered(entries), Place::Key(key)) => entries.get_key_value(key),
                (Entries::Hashed(entries), Place::Index(index)) => entries.get_index(*index),
                (Entries::Ordered(_), Place::Index(_)) | (Entries::Hashed(_), Place::Key(_)) => {
                    None
                }
            }
            .expect("what is to be told is there");
            (key.as_slice(), written.value.as_deref())
        })
    }

    /// That was done.
    pub(super) fn mark_flushed(&mut self) {
        for place in self.pending_changes.drain(..) {
            let written = match (&mut self.entries, &place) {
                (Entries::Ordered(entries), Place::Key(key)) => entries.get_mut(key),
                (Entries::Hashed(entries), Place::Index(index)) => {
                    entries.get_index_mut(*index).map(|(_, written)| written)
                }
                (Entries::Ordered(_), Place::Index(_)) | (Entries::Hashed(_), Place::Key(_)) => {
                    None
                }
            };
            written.expect("what was told is there").is_flushed = true;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.entries {
            Entries::Ordered(entries) => entries.is_empty(),
            Entries::Hashed(entries) => entries.is_empty(),
        }
    }

    /// Empties it, through `write`.
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

/// Whether a write over `before` is something to tell that was not there to tell already.
fn is_news(before: Option<&Written>) -> bool {
    before.is_none_or(|before| before.is_flushed)
}

pub(super) fn is_within(key: &[u8], from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    RangeBounds::<[u8]>::contains::<[u8]>(&(from, to), key)
}
