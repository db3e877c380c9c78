//! An index of window entries by name: one hash look-up finds the entries of a name, which are in order of time and
//! sequence. Entries are stored elsewhere and have numbers, which take 4 bytes here.

use std::{collections::VecDeque, hash::BuildHasher};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};

use crate::state::{
    packed::is_oversized,
    window_key::{Position, WindowKey},
};

/// The entries that an index refers to.
pub(super) trait Entries {
    /// The key of an entry.
    fn key(&self, id: u32) -> WindowKey<'_>;
}

/// The number of an entry, or with this bit the number of a list: most names have one entry, which needs no list.
const LIST: u32 = 1 << 31;

#[derive(Clone, Debug, Default)]
pub(super) struct NameIndex {
    hasher: RandomState,
    /// One item for each name.
    names: HashTable<u32>,
    /// The entries of names with several, in order of their positions.
    lists: Vec<VecDeque<u32>>,
    /// The numbers of unused lists.
    free: Vec<u32>,
}

impl NameIndex {
    /// The entry with this key.
    pub(super) fn find(&self, entries: &impl Entries, key: WindowKey<'_>) -> Option<u32> {
        self.range(entries, key.name, key.position, key.position).next()
    }

    /// The entries of `name` with positions in `from..=to`, in order.
    pub(super) fn range(
        &self,
        entries: &impl Entries,
        name: &[u8],
        from: Position,
        to: Position,
    ) -> impl DoubleEndedIterator<Item = u32> {
        let hash = self.hasher.hash_one(name);
        let is_same = |item: &u32| entries.key(first(&self.lists, *item)).name == name;
        let found = self.names.find(hash, is_same).copied();
        let position = |id: u32| entries.key(id).position;
        let (one, list) = match found {
            Some(item) if item & LIST == 0 => {
                ((from..=to).contains(&position(item)).then_some(item), None)
            }
            Some(item) => {
                let list = &self.lists[number(item)];
                let start = list.partition_point(|id| position(*id) < from);
                let end = list.partition_point(|id| position(*id) <= to);
                (None, Some(list.range(start..end.max(start))))
            }
            None => (None, None),
        };
        one.into_iter().chain(list.into_iter().flatten().copied())
    }

    /// Adds an entry. The index has none with the same key.
    pub(super) fn insert(&mut self, entries: &impl Entries, id: u32) {
        assert!(id < LIST, "a store has fewer than 2³¹ entries");
        let Self { hasher, names, lists, free } = self;
        let WindowKey { name, position } = entries.key(id);
        let name_of = |item: &u32| entries.key(first(lists, *item)).name;
        let hash_of = |item: &u32| hasher.hash_one(name_of(item));
        match names.entry(hasher.hash_one(name), |item| name_of(item) == name, hash_of) {
            Entry::Vacant(vacant) => {
                vacant.insert(id);
            }
            Entry::Occupied(mut item) => {
                let item = item.get_mut();
                if *item & LIST == 0 {
                    let list = free.pop().unwrap_or_else(|| {
                        lists.push(VecDeque::new());
                        u32::try_from(lists.len() - 1).expect("there are fewer lists than entries")
                    });
                    lists[number(list)].push_back(*item);
                    *item = list | LIST;
                }
                let list = &mut lists[number(*item)];
                let index = list.partition_point(|other| entries.key(*other).position < position);
                list.insert(index, id);
            }
        }
    }

    /// Removes an entry, which must still have its key.
    pub(super) fn remove(&mut self, entries: &impl Entries, id: u32) {
        let Self { hasher, names, lists, free } = self;
        let WindowKey { name, position } = entries.key(id);
        let is_same = |item: &u32| entries.key(first(lists, *item)).name == name;
        let mut item =
            names.find_entry(hasher.hash_one(name), is_same).expect("the name has an entry");
        if *item.get() & LIST == 0 {
            item.remove();
            return;
        }
        let number_of_list = *item.get() & !LIST;
        let list = &mut lists[number(number_of_list)];
        list.remove(list.partition_point(|other| entries.key(*other).position < position));
        if let [last] = *list.make_contiguous() {
            *list = VecDeque::new();
            free.push(number_of_list);
            *item.get_mut() = last;
        }
    }

    /// Makes room for `additional` names.
    pub(super) fn reserve(&mut self, entries: &impl Entries, additional: usize) {
        let Self { hasher, names, lists, .. } = self;
        let name_of = |item: &u32| entries.key(first(lists, *item)).name;
        names.reserve(additional, |item| hasher.hash_one(name_of(item)));
    }

    /// Releases room that was made in vain.
    pub(super) fn shrink(&mut self, entries: &impl Entries) {
        let Self { hasher, names, lists, .. } = self;
        let name_of = |item: &u32| entries.key(first(lists, *item)).name;
        if is_oversized(names.capacity(), names.len()) {
            names.shrink_to(names.len(), |item| hasher.hash_one(name_of(item)));
        }
    }

    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.lists.clear();
        self.free.clear();
    }
}

fn number(item: u32) -> usize {
    usize::try_from(item & !LIST).expect("a u32 fits")
}

fn first(lists: &[VecDeque<u32>], item: u32) -> u32 {
    if item & LIST == 0 { item } else { lists[number(item)][0] }
}
