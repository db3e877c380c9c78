//! A transactional map of bytes: uncommitted changes hide the committed entries, and the changes of a single
//! record can be rolled back.

use std::borrow::Cow;

use crate::state::{
    Access, Change, Checkpoint, StateError, StateStore, backend::shorten, dirty::Dirty,
    expiry::ExpiryStart, time_index::IndexEntries, window_key::WindowKey,
};

/// The bytes behind a typed store: committed entries, and uncommitted changes over them.
pub(crate) struct Store {
    pub(super) committed: Box<dyn StateStore>,
    /// The changes since the last commit.
    pub(super) dirty: Dirty,
    /// The first committed entry of a window store that may have to expire.
    pub(super) expiry_start: ExpiryStart,
    /// Buffers for keys.
    pub(super) key: Vec<u8>,
    pub(super) expired: Vec<u8>,
    access: Access,
}

impl Store {
    /// A store over committed entries.
    pub(crate) fn over(committed: Box<dyn StateStore>, access: Access) -> Self {
        Self {
            committed,
            dirty: Dirty::new(access),
            expiry_start: ExpiryStart::default(),
            key: Vec::new(),
            expired: Vec::new(),
            access,
        }
    }

    /// The value of `key`, including uncommitted changes.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        match self.dirty.get(key) {
            Some(written) => Ok(written.map(Cow::Borrowed)),
            None => self.committed.get(key),
        }
    }

    /// Sets `key` to the bytes that `encode` appends. If that fails, nothing changes.
    pub(crate) fn put<E>(
        &mut self,
        key: &[u8],
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.dirty.put(key, true, encode)
    }

    /// Removes `key`, if it exists.
    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.dirty.delete(key);
    }

    /// The number of committed entries, which may be an estimate.
    pub(crate) fn committed_len(&self) -> usize {
        self.committed.len()
    }

    /// Whether [`Self::committed_len`] is exact.
    pub(crate) fn is_counted(&self) -> bool {
        self.committed.is_counted()
    }

    /// Sets the point to which [`Self::roll_back`] returns.
    pub(crate) fn begin_record(&mut self) {
        self.dirty.begin_record();
    }

    /// Rolls back every change since [`Self::begin_record`].
    pub(crate) fn roll_back(&mut self) {
        self.dirty.roll_back();
        self.expiry_start = ExpiryStart::Unknown;
    }

    /// The changes that are not yet flushed to the changelog: the last value of every key written since
    /// [`Self::mark_flushed`] or the last commit.
    pub(crate) fn pending_changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.dirty.pending_changes()
    }

    /// The number of pending changes.
    pub(crate) fn pending_len(&self) -> usize {
        self.dirty.pending_len()
    }

    /// Marks the pending changes as flushed.
    pub(crate) fn mark_flushed(&mut self) {
        self.dirty.mark_flushed();
    }

    /// Whether there are uncommitted changes.
    pub(crate) fn has_changes(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Writes the uncommitted changes to the committed entries, after a successful commit. After an error, the store differs
    /// from its changelog.
    pub(crate) fn commit(&mut self, checkpoint: Checkpoint) -> Result<(), StateError> {
        let written = if self.needs_time_index() {
            let index = IndexEntries::of(self.dirty.index_changes());
            self.committed.write(&mut index.iter().chain(self.dirty.iter()), checkpoint)
        } else {
            self.committed.write(&mut self.dirty.iter(), checkpoint)
        };
        if self.access == Access::Windowed
            && let Some(first) = self.dirty.by_time().next()
        {
            self.expiry_start.include(first);
        }
        self.dirty.clear();
        written
    }

    /// Drops the uncommitted changes, after a failed commit.
    pub(crate) fn discard(&mut self) {
        self.dirty.clear();
        self.expiry_start = ExpiryStart::Unknown;
    }

    /// Writes changes from the changelog to the committed entries. Only for a store that is being restored. Changes of a
    /// window store whose keys have another layout are left out.
    pub(crate) fn apply<'c>(
        &mut self,
        changes: impl Iterator<Item = Change<'c>> + Clone,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        self.expiry_start = ExpiryStart::Unknown;
        let is_key = |key: &[u8]| self.access == Access::ByKey || WindowKey::parse(key).is_some();
        let mut changes = changes.filter(|(key, _)| is_key(key));
        if !self.needs_time_index() {
            return self.committed.write(&mut changes, checkpoint);
        }
        let keys = changes
            .clone()
            .filter_map(|(key, value)| Some((WindowKey::parse(key)?, value.is_some())));
        let index = IndexEntries::of(keys);
        self.committed.write(&mut index.iter().chain(changes.map(shorten)), checkpoint)
    }

    /// Makes room for about `additional` entries, which a restore is about to write.
    pub(crate) fn reserve(&mut self, additional: usize) {
        self.committed.reserve(additional);
    }

    /// Releases room that was made in vain, at the end of a restore.
    pub(crate) fn shrink(&mut self) {
        self.committed.shrink();
    }

    /// Whether entries of the index by time are among the changes that are written.
    pub(super) fn needs_time_index(&self) -> bool {
        self.access == Access::Windowed && !self.committed.has_time_order()
    }

    /// The checkpoint, or `None` if the store is new.
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        self.committed.checkpoint()
    }

    /// Whether no other task of this process has opened the store since.
    pub(crate) fn is_held(&self) -> bool {
        self.committed.is_held()
    }

    /// Drops all entries, changes and the checkpoint.
    pub(crate) fn clear(&mut self) -> Result<(), StateError> {
        self.discard();
        self.committed.clear()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        state::{MemoryStore, Position},
        time::{EventTime, WallTime},
    };

    #[derive(Clone, Debug)]
    enum Operation {
        Put(u8, u8),
        Delete(u8),
        RollBack,
        Commit,
        Discard,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => (0..8_u8, any::<u8>()).prop_map(|(key, value)| Operation::Put(key, value)),
            2 => (0..8_u8).prop_map(Operation::Delete),
            1 => Just(Operation::RollBack),
            1 => Just(Operation::Commit),
            1 => Just(Operation::Discard),
        ]
    }

    /// The store, with its keys as numbers: a window store has keys of another layout.
    struct Numbers {
        store: Store,
        access: Access,
    }

    impl Numbers {
        fn new(access: Access) -> Self {
            Self { store: Store::over(Box::new(MemoryStore::new(access)), access), access }
        }

        /// Two keys share a name, and two a time.
        fn key(&self, key: u8) -> Vec<u8> {
            let position = Position { time: EventTime(i64::from(key % 4)), sequence: 0 };
            match self.access {
                Access::ByKey => vec![key],
                Access::Windowed => WindowKey { name: &[key / 2], position }.to_bytes(),
            }
        }

        fn put(&mut self, key: u8, value: u8) {
            let append = |bytes: &mut Vec<u8>| -> Result<(), ()> {
                bytes.push(value);
                Ok(())
            };
            self.store.put(&self.key(key), append).unwrap();
        }

        fn delete(&mut self, key: u8) {
            self.store.delete(&self.key(key));
        }

        fn value(&self, key: u8) -> Option<u8> {
            self.store.get(&self.key(key)).unwrap().map(|value| value[0])
        }

        fn contents(&self) -> BTreeMap<u8, u8> {
            (0..8).filter_map(|key| Some((key, self.value(key)?))).collect()
        }

        fn flush(&mut self) -> Vec<(u8, Option<u8>)> {
            let pending_changes = self.store.pending_changes();
            let number = |bytes: &[u8]| {
                (0..8).find(|key| self.key(*key) == bytes).expect("the test writes these keys")
            };
            let flushed = pending_changes
                .map(|(key, value)| (number(key), value.map(|value| value[0])))
                .collect();
            self.store.mark_flushed();
            flushed
        }
    }

    fn stores() -> [Numbers; 2] {
        [Access::ByKey, Access::Windowed].map(Numbers::new)
    }

    #[test]
    fn all_changes_of_a_record_are_rolled_back() {
        for mut store in stores() {
            store.put(1, 10);
            store.store.begin_record();
            for value in 11..14 {
                store.put(1, value);
                store.put(2, value);
            }
            store.delete(1);
            store.store.roll_back();
            assert_eq!((store.value(1), store.value(2)), (Some(10), None));
            assert_eq!(store.store.pending_len(), 1);
            store.store.begin_record();
            store.store.roll_back();
            assert_eq!(store.value(1), Some(10), "a change of an earlier record stays");
        }
    }

    #[test]
    fn a_key_that_is_written_after_a_flush_is_pending_again() {
        for mut store in stores() {
            store.put(1, 10);
            store.put(2, 20);
            store.put(1, 11);
            assert_eq!(store.flush(), [(1, Some(11)), (2, Some(20))]);
            assert!(store.flush().is_empty());
            store.delete(1);
            assert_eq!(store.flush(), [(1, None)]);
            // A change that is rolled back does not become pending.
            store.store.begin_record();
            store.put(2, 21);
            store.store.roll_back();
            assert!(store.flush().is_empty());
            assert!(store.store.has_changes(), "nothing is committed yet");
        }
    }

    #[test]
    fn a_value_that_cannot_be_encoded_changes_nothing() {
        for mut store in stores() {
            store.put(1, 10);
            let key = store.key(1);
            let half = |bytes: &mut Vec<u8>| {
                bytes.push(9);
                Err(())
            };
            assert_eq!(store.store.put(&key, half), Err(()));
            assert_eq!((store.value(1), store.store.pending_len()), (Some(10), 1));
        }
    }

    /// Overwritten values do not fill the buffer of uncommitted changes, and do not replace the last ones.
    #[test]
    fn overwriting_a_key_takes_bounded_memory() {
        for mut store in stores() {
            store.put(1, 10);
            for round in 0..1_000_u32 {
                store.store.begin_record();
                let key = store.key(2);
                let long = |bytes: &mut Vec<u8>| -> Result<(), ()> {
                    bytes.extend_from_slice(&round.to_be_bytes().repeat(1_000));
                    Ok(())
                };
                store.store.put(&key, long).unwrap();
                let value = store.store.get(&key).unwrap().unwrap();
                assert_eq!(*value, round.to_be_bytes().repeat(1_000));
            }
            assert!(store.store.dirty.buffered_bytes() < 100_000);
            assert_eq!(store.value(1), Some(10));
            store.store.roll_back();
            let value = store.store.get(&store.key(2)).unwrap().unwrap();
            assert_eq!(*value, 998_u32.to_be_bytes().repeat(1_000));
        }
    }

    proptest! {
        /// Each operation is a record of its own. The model keeps three maps: committed, present, and before the record.
        #[test]
        fn behaves_like_three_maps(
            operations in proptest::collection::vec(operation(), 0..60),
            access in prop_oneof![Just(Access::ByKey), Just(Access::Windowed)],
        ) {
            let mut store = Numbers::new(access);
            let (mut committed, mut present, mut before) =
                (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for operation in operations {
                match operation {
                    Operation::Put(key, value) => {
                        before.clone_from(&present);
                        store.store.begin_record();
                        store.put(key, value);
                        present.insert(key, value);
                    }
                    Operation::Delete(key) => {
                        before.clone_from(&present);
                        store.store.begin_record();
                        store.delete(key);
                        present.remove(&key);
                    }
                    Operation::RollBack => {
                        store.store.roll_back();
                        present.clone_from(&before);
                    }
                    Operation::Commit => {
                        store.store.commit(Checkpoint::start(WallTime(0))).unwrap();
                        committed.clone_from(&present);
                        before.clone_from(&present);
                        prop_assert_eq!(store.store.committed_len(), committed.len());
                    }
                    Operation::Discard => {
                        store.store.discard();
                        present.clone_from(&committed);
                        before.clone_from(&present);
                    }
                }
                prop_assert_eq!(&store.contents(), &present);
            }
        }
    }
}
