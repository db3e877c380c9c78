//! Entries of the index by time, for engines without an order of their own: one for each window entry that is new or
//! removed.

use std::ops::Range;

use crate::state::{Change, window_key::WindowKey};

#[derive(Default)]
pub(super) struct IndexEntries {
    /// All keys.
    bytes: Vec<u8>,
    /// Each key, and whether it is set.
    entries: Vec<(Range<usize>, bool)>,
}

impl IndexEntries {
    pub(super) fn of<'k>(keys: impl Iterator<Item = (WindowKey<'k>, bool)>) -> Self {
        let mut index = Self::default();
        for (key, is_set) in keys {
            let start = index.bytes.len();
            key.append_by_time_to(&mut index.bytes);
            index.entries.push((start..index.bytes.len(), is_set));
        }
        index
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        self.entries
            .iter()
            .map(|(range, is_set)| (&self.bytes[range.clone()], is_set.then_some(&[][..])))
    }
}
