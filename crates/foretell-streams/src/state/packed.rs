//! A hash table of entries, with each key and value in one allocation. For stores with millions of entries, the table is
//! half as large, and filling it is faster because it touches less memory.

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};
use std::hash::BuildHasher;

/// The offset of the key in an entry, after its length.
const KEY: usize = size_of::<u32>();

/// A hash map from bytes to bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    entries: HashTable<Box<[u8]>>,
    hasher: RandomState,
}

impl Packed {
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.entries.find(self.hasher.hash_one(key), |entry| split(entry).0 == key);
        found.map(|entry| split(entry).1)
    }

    pub(super) fn insert(&mut self, key: &[u8], value: &[u8]) {
        let Self { entries, hasher } = self;
        let (hash, is_same) = (hasher.hash_one(key), |entry: &[u8]| split(entry).0 == key);
        let hash_of = |entry: &[u8]| hasher.hash_one(split(entry).0);
        match entries.entry(hash, |entry| is_same(entry), |entry| hash_of(entry)) {
            Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                let start = KEY + key.len();
                match entry.get_mut(start..) {
                    Some(before) if before.len() == value.len() => before.copy_from_slice(value),
                    Some(_) | None => *entry = join(key, value),
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(join(key, value));
            }
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.entries.find_entry(hash, |entry| split(entry).0 == key) {
            entry.remove();
        }
    }

    /// Makes room for `additional` entries. A table that grows by itself reads every entry each time.
    pub(super) fn reserve(&mut self, additional: usize) {
        let Self { entries, hasher } = self;
        entries.reserve(additional, |entry| hasher.hash_one(split(entry).0));
    }

    /// Releases room that was made in vain.
    pub(super) fn shrink(&mut self) {
        let Self { entries, hasher } = self;
        if is_oversized(entries.capacity(), entries.len()) {
            entries.shrink_to(entries.len(), |entry| hasher.hash_one(split(entry).0));
        }
    }

    /// The entries in arbitrary order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| split(entry))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Whether a table has more room than it gets by growing.
pub(super) fn is_oversized(capacity: usize, entries: usize) -> bool {
    capacity / 2 > entries
}

fn join(key: &[u8], value: &[u8]) -> Box<[u8]> {
    let length = u32::try_from(key.len()).expect("a key is shorter than 4 GiB");
    let mut entry = Vec::with_capacity(KEY + key.len() + value.len());
    entry.extend_from_slice(&length.to_ne_bytes());
    entry.extend_from_slice(key);
    entry.extend_from_slice(value);
    entry.into_boxed_slice()
}

fn split(entry: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = entry.split_first_chunk().expect("an entry begins with a length");
    rest.split_at(usize::try_from(u32::from_ne_bytes(*length)).expect("a u32 fits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_was_made_in_vain_is_released() {
        let mut table = Packed::default();
        table.reserve(10_000);
        assert!(table.entries.capacity() >= 10_000);
        let keys: Vec<[u8; 4]> = (0..100_u32).map(u32::to_be_bytes).collect();
        keys.iter().for_each(|key| table.insert(key, b"value"));
        table.shrink();
        assert!(!is_oversized(table.entries.capacity(), table.len()));
        assert!(keys.iter().all(|key| table.get(key) == Some(b"value")) && table.len() == 100);
        let capacity = table.entries.capacity();
        table.shrink();
        assert_eq!(table.entries.capacity(), capacity, "it has grown by itself so far");
    }
}
