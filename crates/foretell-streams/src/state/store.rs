//! A transactional ordered map of bytes: uncommitted changes hide the committed entries, and the changes of a single
//! record can be rolled back.

use std::{borrow::Cow, iter::Peekable, ops::Bound};

use crate::state::{
    Access, Change, Checkpoint, Entry, StateError, StateStore,
    dirty::{Dirty, Undo},
};

/// The bytes behind a typed store: committed entries, and uncommitted changes over them.
pub(crate) struct Store {
    committed: Box<dyn StateStore>,
    /// The changes since the last commit.
    dirty: Dirty,
    /// The rollback of the changes of the present record, oldest first.
    undo: Vec<Undo>,
    /// Buffer for encoding values, whose length is not known before.
    scratch: Vec<u8>,
}

impl Store {
    /// A store over committed entries.
    pub(crate) fn over(committed: Box<dyn StateStore>, access: Access) -> Self {
        Self { committed, dirty: Dirty::new(access), undo: Vec::new(), scratch: Vec::new() }
    }

    /// The value of `key`, including uncommitted changes.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        match self.dirty.get(key) {
            Some(written) => Ok(written.as_deref().map(Cow::Borrowed)),
            None => self.committed.get(key),
        }
    }

    /// The bytes that `encode` writes, in an allocation of their size.
    pub(crate) fn encoded<E>(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Vec<u8>, E> {
        self.scratch.clear();
        encode(&mut self.scratch)?;
        Ok(self.scratch.clone())
    }

    /// Sets `key` to `value`.
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.write(key, Some(value));
    }

    /// Removes `key`, if it exists.
    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.write(key, None);
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.undo.push(self.dirty.write(key, value));
    }

    /// The entries whose keys lie between the bounds, in the order of keys.
    pub(crate) fn scan<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = Result<Entry<'s>, StateError>> {
        let dirty = self.dirty.range(from, to);
        Merge { committed: self.committed.range(from, to).peekable(), dirty: dirty.peekable() }
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
        self.undo.clear();
    }

    /// Rolls back every change since [`Self::begin_record`].
    pub(crate) fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            self.dirty.roll_back(undo);
        }
    }

    /// The changes that are not yet flushed to the changelog: the last value of every key written since
    /// [`Self::mark_flushed`] or the last commit.
    pub(crate) fn pending_changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
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
        self.undo.clear();
        let Self { committed, dirty, .. } = self;
        dirty.drain(|changes| committed.write(changes, checkpoint))
    }

    /// Drops the uncommitted changes, after a failed commit.
    pub(crate) fn discard(&mut self) {
        self.undo.clear();
        self.dirty.clear();
    }

    /// Writes changes from the changelog to the committed entries. Only for a store that is being restored.
    pub(crate) fn apply(
        &mut self,
        changes: &mut dyn Iterator<Item = Change>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        self.committed.write(changes, checkpoint)
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

/// Merges two ordered maps. Dirty entries hide committed ones.
struct Merge<C: Iterator, D: Iterator> {
    committed: Peekable<C>,
    dirty: Peekable<D>,
}

impl<'s, C, D> Iterator for Merge<C, D>
where
    C: Iterator<Item = Result<Entry<'s>, StateError>>,
    D: Iterator<Item = (&'s [u8], &'s Option<Vec<u8>>)>,
{
    type Item = Result<Entry<'s>, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((upper, _)) = self.dirty.peek() else { return self.committed.next() };
            let is_before = |lower: &C::Item| match lower {
                Ok((key, _)) => **key < **upper,
                Err(_) => true,
            };
            if let Some(lower) = self.committed.next_if(is_before) {
                return Some(lower);
            }
            self.committed.next_if(|lower| lower.as_ref().is_ok_and(|(key, _)| **key == **upper));
            if let Some((key, Some(value))) = self.dirty.next() {
                return Some(Ok((Cow::Borrowed(key), Cow::Borrowed(value))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{state::MemoryStore, time::WallTime};

    impl Default for Store {
        /// An empty store in memory.
        fn default() -> Self {
            Self::over(Box::<MemoryStore>::default(), Access::default())
        }
    }

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

    fn contents(store: &Store) -> BTreeMap<u8, u8> {
        let all = store.scan(Bound::Unbounded, Bound::Unbounded);
        all.map(Result::unwrap).map(|(key, value)| (key[0], value[0])).collect()
    }

    fn stores() -> [Store; 2] {
        [Access::ByKey, Access::ByRange]
            .map(|access| Store::over(Box::new(MemoryStore::new(access)), access))
    }

    fn value(store: &Store, key: u8) -> Option<u8> {
        store.get(&[key]).unwrap().map(|value| value[0])
    }

    #[test]
    fn all_changes_of_a_record_are_rolled_back() {
        for mut store in stores() {
            store.put(vec![1], vec![10]);
            store.begin_record();
            for value in 11..14 {
                store.put(vec![1], vec![value]);
                store.put(vec![2], vec![value]);
            }
            store.delete(vec![1]);
            store.roll_back();
            assert_eq!((value(&store, 1), value(&store, 2)), (Some(10), None));
            assert_eq!(store.pending_len(), 1);
            store.begin_record();
            store.roll_back();
            assert_eq!(value(&store, 1), Some(10), "a change of an earlier record stays");
        }
    }

    #[test]
    fn a_key_that_is_written_after_a_flush_is_pending_again() {
        for mut store in stores() {
            let flushed = |store: &mut Store| {
                let pending_changes = store.pending_changes();
                let flushed: Vec<_> = pending_changes
                    .map(|(key, value)| (key[0], value.map(|value| value[0])))
                    .collect();
                store.mark_flushed();
                flushed
            };
            store.put(vec![1], vec![10]);
            store.put(vec![2], vec![20]);
            store.put(vec![1], vec![11]);
            assert_eq!(flushed(&mut store), [(1, Some(11)), (2, Some(20))]);
            assert!(flushed(&mut store).is_empty());
            store.delete(vec![1]);
            assert_eq!(flushed(&mut store), [(1, None)]);
            // A change that is rolled back does not become pending.
            store.begin_record();
            store.put(vec![2], vec![21]);
            store.roll_back();
            assert!(flushed(&mut store).is_empty());
            assert!(store.has_changes(), "nothing is committed yet");
        }
    }

    proptest! {
        /// Each operation is a record of its own. The model keeps three maps: committed, present, and before the record.
        #[test]
        fn behaves_like_three_maps(
            operations in proptest::collection::vec(operation(), 0..60),
            access in prop_oneof![Just(Access::ByKey), Just(Access::ByRange)],
        ) {
            let mut store = Store::over(Box::new(MemoryStore::new(access)), access);
            let (mut committed, mut present, mut before) =
                (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for operation in operations {
                match operation {
                    Operation::Put(key, value) => {
                        before.clone_from(&present);
                        store.begin_record();
                        store.put(vec![key], vec![value]);
                        present.insert(key, value);
                    }
                    Operation::Delete(key) => {
                        before.clone_from(&present);
                        store.begin_record();
                        store.delete(vec![key]);
                        present.remove(&key);
                    }
                    Operation::RollBack => {
                        store.roll_back();
                        present.clone_from(&before);
                    }
                    Operation::Commit => {
                        store.commit(Checkpoint::start(WallTime(0))).unwrap();
                        committed.clone_from(&present);
                        before.clone_from(&present);
                    }
                    Operation::Discard => {
                        store.discard();
                        present.clone_from(&committed);
                        before.clone_from(&present);
                    }
                }
                prop_assert_eq!(&contents(&store), &present);
                for key in 0..8 {
                    let got = store.get(&[key]).unwrap().map(|value| value[0]);
                    prop_assert_eq!(got, present.get(&key).copied());
                }
            }
        }
    }
}
