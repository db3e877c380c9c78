//! The committed entries of a window store in memory. An entry is one allocation of its key and value; the two indexes have
//! its number and need 15 to 35 bytes.

use crate::state::{
    name_index::{Entries, NameIndex},
    packed::is_oversized,
    time_order::TimeOrder,
    window_key::{Position, WindowKey},
};

#[derive(Clone, Debug, Default)]
pub(super) struct WindowTable {
    slots: Slots,
    names: NameIndex,
    times: TimeOrder,
}

#[derive(Clone, Debug, Default)]
struct Slots {
    /// The key and value of each entry; empty if the slot is free.
    entries: Vec<Box<[u8]>>,
    free: Vec<u32>,
}

impl Slots {
    fn split(&self, id: u32) -> (WindowKey<'_>, &[u8]) {
        let entry = &self.entries[index(id)];
        WindowKey::parse_prefix(entry).expect("an entry begins with its key")
    }

    fn add(&mut self, entry: Box<[u8]>) -> u32 {
        if let Some(id) = self.free.pop() {
            self.entries[index(id)] = entry;
            return id;
        }
        self.entries.push(entry);
        u32::try_from(self.entries.len() - 1).expect("a store has fewer than 2³¹ entries")
    }
}

impl Entries for Slots {
    fn key(&self, id: u32) -> WindowKey<'_> {
        self.split(id).0
    }
}

impl WindowTable {
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let id = self.names.find(&self.slots, WindowKey::parse(key)?)?;
        Some(self.slots.split(id).1)
    }

    /// Sets the value of a key. A key with another layout than that of window stores is ignored.
    pub(super) fn insert(&mut self, key: &[u8], value: &[u8]) {
        let Some(parsed) = WindowKey::parse(key) else { return };
        let Some(id) = self.names.find(&self.slots, parsed) else {
            let id = self.slots.add(join(key, value));
            self.names.insert(&self.slots, id);
            self.times.insert(&self.slots, id);
            return;
        };
        let entry = &mut self.slots.entries[index(id)];
        match entry.get_mut(key.len()..) {
            Some(before) if before.len() == value.len() => before.copy_from_slice(value),
            Some(_) | None => *entry = join(key, value),
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        let Some(key) = WindowKey::parse(key) else { return };
        let Some(id) = self.names.find(&self.slots, key) else { return };
        self.names.remove(&self.slots, id);
        self.times.remove(&self.slots, id);
        self.slots.entries[index(id)] = Box::default();
        self.slots.free.push(id);
    }

    /// Makes room for `additional` entries.
    pub(super) fn reserve(&mut self, additional: usize) {
        self.slots.entries.reserve(additional);
        self.names.reserve(&self.slots, additional);
    }

    /// Releases room that was made in vain.
    pub(super) fn shrink(&mut self) {
        let entries = &mut self.slots.entries;
        if is_oversized(entries.capacity(), entries.len()) {
            entries.shrink_to_fit();
        }
        self.names.shrink(&self.slots);
    }

    /// The entries of `name` with positions in `from..=to`, in order.
    pub(super) fn of_name(
        &self,
        name: &[u8],
        from: Position,
        to: Position,
    ) -> impl Iterator<Item = (Position, &[u8])> {
        self.names.range(&self.slots, name, from, to).map(|id| {
            let (key, value) = self.slots.split(id);
            (key.position, value)
        })
    }

    /// The keys from `from` on, in the order of expiry.
    pub(super) fn by_time(
        &self,
        from: Option<WindowKey<'_>>,
    ) -> impl Iterator<Item = WindowKey<'_>> {
        self.times.iter_from(&self.slots, from).map(|id| self.slots.key(id))
    }

    /// All entries, in arbitrary order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.slots.entries.iter().filter(|entry| !entry.is_empty()).map(|entry| {
            let (_, value) = WindowKey::parse_prefix(entry).expect("an entry begins with its key");
            entry.split_at(entry.len() - value.len())
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.entries.len() - self.slots.free.len()
    }
}

fn index(id: u32) -> usize {
    usize::try_from(id).expect("a u32 fits")
}

fn join(key: &[u8], value: &[u8]) -> Box<[u8]> {
    let mut entry = Vec::with_capacity(key.len() + value.len());
    entry.extend_from_slice(key);
    entry.extend_from_slice(value);
    entry.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::EventTime;

    #[test]
    fn room_that_was_made_in_vain_is_released() {
        let mut table = WindowTable::default();
        table.reserve(10_000);
        assert!(table.slots.entries.capacity() >= 10_000);
        let key = |number: i64| {
            let position = Position::first_at(EventTime(number));
            WindowKey { name: &number.to_be_bytes()[6..], position }.to_bytes()
        };
        (0..100).for_each(|number| table.insert(&key(number), b"value"));
        table.shrink();
        assert!(!is_oversized(table.slots.entries.capacity(), table.len()));
        assert!((0..100).all(|number| table.get(&key(number)) == Some(b"value")));
        assert_eq!(table.by_time(None).count(), 100);
    }
}
