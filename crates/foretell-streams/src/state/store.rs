//! A transactional ordered map of bytes: uncommitted writes lie over the committed ones, and a
//! single record's writes can be rolled back.

use std::{borrow::Cow, iter::Peekable, ops::Bound};

use crate::state::{
    Access, Checkpoint, Entry, MemoryStore, StateError, StateStore,
    dirty::{Dirty, Undo},
};

/// A key and its new value; `None` deletes the key.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// The bytes behind a typed store: committed entries, and uncommitted changes over them.
pub struct Store {
    committed: Box<dyn StateStore>,
    /// Written since the last commit.
    dirty: Dirty,
    /// How to roll back what the present record has written, oldest first.
    undo: Vec<Undo>,
    /// Where values are written before their length is known.
    scratch: Vec<u8>,
}

impl Default for Store {
    /// An empty one in memory.
    fn default() -> Self {
        Self::over(Box::<MemoryStore>::default(), Access::default())
    }
}

impl Store {
    /// A store over what is committed.
    #[must_use]
    pub fn over(committed: Box<dyn StateStore>, access: Access) -> Self {
        Self { committed, dirty: Dirty::new(access), undo: Vec::new(), scratch: Vec::new() }
    }

    /// The value of `key`, the present record's own writes included.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        match self.dirty.get(key) {
            Some(written) => Ok(written.as_deref().map(Cow::Borrowed)),
            None => self.committed.get(key),
        }
    }

    /// What `encode` writes, in no more room than it takes.
    ///
    /// # Errors
    /// What `encode` says.
    pub fn encoded<E>(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Vec<u8>, E> {
        self.scratch.clear();
        encode(&mut self.scratch)?;
        Ok(self.scratch.clone())
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.write(key, Some(value));
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.write(key, None);
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.undo.push(self.dirty.write(key, value));
    }

    /// The entries whose keys lie between the bounds, in order of keys.
    pub fn scan<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = Result<Entry<'s>, StateError>> {
        let dirty = self.dirty.range(from, to);
        Merge { committed: self.committed.range(from, to).peekable(), dirty: dirty.peekable() }
    }

    /// How many entries are committed, about.
    #[must_use]
    pub fn committed_len(&self) -> usize {
        self.committed.len()
    }

    /// Whether that is a count; else it is an estimate.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.committed.is_counted()
    }

    /// From here on, [`Self::roll_back`] undoes what is written.
    pub fn begin_record(&mut self) {
        self.undo.clear();
    }

    /// Undoes every write since [`Self::begin_record`].
    pub fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            self.dirty.roll_back(undo);
        }
    }

    /// What the changelog has not been told yet: the last value of every key written since [`Self::mark_flushed`] or the
    /// last commit.
    pub fn pending_changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.dirty.pending_changes()
    }

    /// How much that is.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.dirty.pending_len()
    }

    /// The changelog has been told.
    pub fn mark_flushed(&mut self) {
        self.dirty.mark_flushed();
    }

    /// Whether the next commit will change something.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The commit succeeded: what was dirty is committed.
    ///
    /// # Errors
    /// [`StateError`]; the store is then not what the changelog says.
    pub fn commit(&mut self, checkpoint: Checkpoint) -> Result<(), StateError> {
        self.undo.clear();
        let Self { committed, dirty, .. } = self;
        dirty.drain(|changes| committed.write(changes, checkpoint))
    }

    /// The commit failed: what was dirty never happened.
    pub fn discard(&mut self) {
        self.undo.clear();
        self.dirty.clear();
    }

    /// Takes changes from the changelog; only for a store that is being restored.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn apply(
        &mut self,
        changes: &mut dyn Iterator<Item = Change>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        self.committed.write(changes, checkpoint)
    }

    /// How far into its changelog it goes; none if it is new.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.committed.checkpoint()
    }

    /// Whether nobody has taken over what is committed.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.committed.is_held()
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn clear(&mut self) -> Result<(), StateError> {
        self.discard();
        self.committed.clear()
    }
}

/// Walks two ordered maps as one, the upper hiding the lower.
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
    use crate::time::WallTime;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u8),
        Delete(u8),
        TakeBack,
        Commit,
        Discard,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..8_u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
            2 => (0..8_u8).prop_map(Step::Delete),
            1 => Just(Step::TakeBack),
            1 => Just(Step::Commit),
            1 => Just(Step::Discard),
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
    fn several_writes_of_one_record_are_taken_back_to_the_first() {
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
            assert_eq!(value(&store, 1), Some(10), "that is another record's");
        }
    }

    #[test]
    fn what_is_written_again_is_reported_again() {
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
            // A write that is rolled back leaves told what was told.
            store.begin_record();
            store.put(vec![2], vec![21]);
            store.roll_back();
            assert!(flushed(&mut store).is_empty());
            assert!(store.has_changes(), "the commit is still to come");
        }
    }

    proptest! {
        /// Each step is a record of its own; the model keeps three plain copies.
        #[test]
        fn behaves_like_three_maps(
            steps in proptest::collection::vec(step(), 0..60),
            access in prop_oneof![Just(Access::ByKey), Just(Access::ByRange)],
        ) {
            let mut store = Store::over(Box::new(MemoryStore::new(access)), access);
            let (mut committed, mut present, mut before) =
                (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Put(key, value) => {
                        before.clone_from(&present);
                        store.begin_record();
                        store.put(vec![key], vec![value]);
                        present.insert(key, value);
                    }
                    Step::Delete(key) => {
                        before.clone_from(&present);
                        store.begin_record();
                        store.delete(vec![key]);
                        present.remove(&key);
                    }
                    Step::TakeBack => {
                        store.roll_back();
                        present.clone_from(&before);
                    }
                    Step::Commit => {
                        store.commit(Checkpoint::start(WallTime(0))).unwrap();
                        committed.clone_from(&present);
                        before.clone_from(&present);
                    }
                    Step::Discard => {
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
