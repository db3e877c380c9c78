//! A transactional ordered map of bytes: uncommitted writes lie over the committed ones, and a
//! single record's writes can be taken back.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

/// One key's new value; none deletes it.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// What lay over a committed value before: nothing, a deletion, or another value.
type Before = Option<Option<Vec<u8>>>;

/// The bytes behind every typed store of a task.
#[derive(Debug, Default)]
pub struct Store {
    committed: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Written since the last commit; none is a deletion.
    dirty: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What `dirty` held for each key before the present record wrote to it, oldest first.
    undo: Vec<(Vec<u8>, Before)>,
}

impl Store {
    /// The value of `key`, the present record's own writes included.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        match self.dirty.get(key) {
            Some(written) => written.as_deref(),
            None => self.committed.get(key).map(Vec::as_slice),
        }
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
        let before = self.dirty.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    /// The entries whose keys lie in `range`, in order of keys.
    pub fn scan<R>(&self, range: R) -> impl Iterator<Item = (&[u8], &[u8])>
    where
        R: RangeBounds<[u8]> + Clone,
    {
        let bounds = (range.start_bound(), range.end_bound());
        Merge {
            committed: self.committed.range::<[u8], _>(bounds).peekable(),
            dirty: self.dirty.range::<[u8], _>(bounds).peekable(),
        }
    }

    /// The entries whose keys begin with `prefix`, in order of keys.
    pub fn scan_prefix<'s>(
        &'s self,
        prefix: &'s [u8],
    ) -> impl Iterator<Item = (&'s [u8], &'s [u8])> {
        self.scan::<(Bound<&[u8]>, Bound<&[u8]>)>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// How many entries there are on disk or in memory, uncommitted ones left out.
    #[must_use]
    pub fn committed_len(&self) -> usize {
        self.committed.len()
    }

    /// From here on, [`Self::take_back`] undoes what is written.
    pub fn begin_record(&mut self) {
        self.undo.clear();
    }

    /// Undoes every write since [`Self::begin_record`].
    pub fn take_back(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(written) => self.dirty.insert(key, written),
                None => self.dirty.remove(&key),
            };
        }
    }

    /// What the next commit will change: the last value of every key written since the last one.
    pub fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.dirty.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// The commit succeeded: what was dirty is committed.
    pub fn commit(&mut self) {
        self.undo.clear();
        for (key, value) in std::mem::take(&mut self.dirty) {
            self.apply((key, value));
        }
    }

    /// The commit failed: what was dirty never happened.
    pub fn discard(&mut self) {
        self.undo.clear();
        self.dirty.clear();
    }

    /// Takes one change from the changelog; only for a store that is being restored.
    pub fn apply(&mut self, (key, value): Change) {
        match value {
            Some(value) => {
                self.committed.insert(key, value);
            }
            None => {
                self.committed.remove(&key);
            }
        }
    }
}

/// Walks two ordered maps as one, the upper hiding the lower.
struct Merge<C: Iterator, D: Iterator> {
    committed: std::iter::Peekable<C>,
    dirty: std::iter::Peekable<D>,
}

impl<'s, C, D> Iterator for Merge<C, D>
where
    C: Iterator<Item = (&'s Vec<u8>, &'s Vec<u8>)>,
    D: Iterator<Item = (&'s Vec<u8>, &'s Option<Vec<u8>>)>,
{
    type Item = (&'s [u8], &'s [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((upper, _)) = self.dirty.peek() else {
                return self
                    .committed
                    .next()
                    .map(|(key, value)| (key.as_slice(), value.as_slice()));
            };
            if let Some((key, value)) = self.committed.next_if(|(lower, _)| lower < upper) {
                return Some((key, value));
            }
            self.committed.next_if(|(lower, _)| lower == upper);
            if let Some((key, Some(value))) = self.dirty.next() {
                return Some((key, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        let all = store.scan::<(Bound<&[u8]>, Bound<&[u8]>)>((Bound::Unbounded, Bound::Unbounded));
        all.map(|(key, value)| (key[0], value[0])).collect()
    }

    proptest! {
        /// Each step is a record of its own; the model keeps three plain copies.
        #[test]
        fn behaves_like_three_maps(steps in proptest::collection::vec(step(), 0..60)) {
            let mut store = Store::default();
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
                        store.take_back();
                        present.clone_from(&before);
                    }
                    Step::Commit => {
                        store.commit();
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
                    let got = store.get(&[key]).map(|value| value[0]);
                    prop_assert_eq!(got, present.get(&key).copied());
                }
            }
        }
    }
}
