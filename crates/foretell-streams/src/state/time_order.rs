//! The order of window entries by time, sequence and name, in which they expire. A sorted sequence in chunks, at 12 bytes an
//! entry: entries arrive almost in order, so that nearly all are appended to the last chunk and removed from the first.

use std::collections::VecDeque;

use crate::{
    state::{name_index::Entries, window_key::WindowKey},
    time::EventTime,
};

/// The number of rows of a full chunk. Moving all of them takes less time than one cache miss.
const CHUNK: usize = 128;

/// An entry and its time, in two halves so that a row has no padding.
#[derive(Clone, Copy, Debug)]
struct Row {
    time: [u32; 2],
    id: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct TimeOrder {
    /// None of them is empty.
    chunks: VecDeque<Vec<Row>>,
}

impl TimeOrder {
    /// Adds an entry, which is not in the order yet.
    pub(super) fn insert(&mut self, entries: &impl Entries, id: u32) {
        let key = entries.key(id);
        let row = Row::new(key.position.time, id);
        let is_last =
            self.chunks.back().is_none_or(|chunk| is_before(chunk[chunk.len() - 1], key, entries));
        if is_last {
            match self.chunks.back_mut() {
                Some(chunk) if chunk.len() < CHUNK => chunk.push(row),
                Some(_) | None => {
                    let mut chunk = Vec::with_capacity(CHUNK);
                    chunk.push(row);
                    self.chunks.push_back(chunk);
                }
            }
            return;
        }
        let (mut chunk, mut index) = self.locate(entries, key);
        if self.chunks[chunk].len() == CHUNK {
            let tail = self.chunks[chunk].split_off(CHUNK / 2);
            self.chunks.insert(chunk + 1, tail);
            if index > CHUNK / 2 {
                (chunk, index) = (chunk + 1, index - CHUNK / 2);
            }
        }
        self.chunks[chunk].insert(index, row);
    }

    /// Removes an entry, which must still have its key.
    pub(super) fn remove(&mut self, entries: &impl Entries, id: u32) {
        let (chunk, index) = self.locate(entries, entries.key(id));
        let row = self.chunks[chunk].remove(index);
        assert_eq!(row.id, id, "the order has the entry");
        // Small neighbours are merged, so that chunks are not mostly empty.
        let next = self.chunks.get(chunk + 1).map_or(CHUNK, Vec::len);
        if self.chunks[chunk].is_empty() {
            self.chunks.remove(chunk);
        } else if self.chunks[chunk].len() + next <= CHUNK / 2
            && let Some(next) = self.chunks.remove(chunk + 1)
        {
            self.chunks[chunk].extend(next);
        }
    }

    /// The entries from `from` on, oldest first.
    pub(super) fn iter_from(
        &self,
        entries: &impl Entries,
        from: Option<WindowKey<'_>>,
    ) -> impl Iterator<Item = u32> {
        let (chunk, index) = from.map_or((0, 0), |from| self.locate(entries, from));
        let chunks = self.chunks.range(chunk.min(self.chunks.len())..);
        chunks.flatten().skip(index).map(|row| row.id)
    }

    pub(super) fn clear(&mut self) {
        self.chunks.clear();
    }

    /// The chunk and index of the first row at or after `key`.
    fn locate(&self, entries: &impl Entries, key: WindowKey<'_>) -> (usize, usize) {
        let is_earlier = |chunk: &Vec<Row>| is_before(chunk[chunk.len() - 1], key, entries);
        let chunk = self.chunks.partition_point(is_earlier);
        let index = self
            .chunks
            .get(chunk)
            .map_or(0, |rows| rows.partition_point(|row| is_before(*row, key, entries)));
        (chunk, index)
    }
}

impl Row {
    fn new(time: EventTime, id: u32) -> Self {
        let bits = time.0.cast_unsigned();
        let halves = [bits >> 32, bits & u64::from(u32::MAX)];
        Self { time: halves.map(|half| u32::try_from(half).expect("half of 64 bits")), id }
    }

    fn time(self) -> EventTime {
        let [high, low] = self.time.map(u64::from);
        EventTime((high << 32 | low).cast_signed())
    }
}

/// Whether the entry of `row` is before `key`. The entry is read only if the times are equal.
fn is_before(row: Row, key: WindowKey<'_>, entries: &impl Entries) -> bool {
    let time = row.time();
    time < key.position.time
        || time == key.position.time && entries.key(row.id).expiry_order() < key.expiry_order()
}
