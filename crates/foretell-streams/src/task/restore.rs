//! The stores of a task: their changelogs, checkpoints and restore.

use std::collections::BTreeMap;

use crate::{
    record::{InputRecord, Offset, TopicPartition},
    state::{self, Checkpoint, StateError, Store, StoreId},
    task::Task,
    time::{EventTime, WallTime},
};

/// The room for entries that are expected by a restore, as a multiple of the entries so far: a small table, 20 bytes for each.
const RESERVED_MAX: usize = 7;

impl Task {
    /// The number of committed entries of each store.
    #[must_use]
    pub fn store_entries(&self) -> BTreeMap<String, usize> {
        let stores = self.topology.stores.iter().zip(&self.scope.stores);
        stores.map(|(spec, store)| (spec.name.clone(), store.committed_len())).collect()
    }

    /// Whether [`Self::store_entries`] are exact; otherwise they are estimates.
    #[must_use]
    pub fn entries_are_counted(&self) -> bool {
        self.scope.stores.iter().all(Store::is_counted)
    }

    /// The changelog partition of every store.
    pub fn changelogs(&self) -> impl Iterator<Item = (StoreId, TopicPartition)> + '_ {
        let partition = self.scope.partition;
        self.topology.stores.iter().enumerate().map(move |(index, store)| {
            (StoreId(index), TopicPartition { topic: store.changelog.clone(), partition })
        })
    }

    /// The stores whose contents are ahead of the offset in their checkpoint, with their changelogs.
    pub fn outdated_checkpoints(&self) -> impl Iterator<Item = (StoreId, TopicPartition)> + '_ {
        self.changelogs().filter(|(store, _)| self.outdated_checkpoints.contains(store))
    }

    /// The checkpoint of a store, or `None` if the store is new.
    #[must_use]
    pub fn checkpoint(&self, store: StoreId) -> Option<Checkpoint> {
        self.scope.stores[store.0].checkpoint()
    }

    /// Applies changelog records to a store, in order. `complete_at` is the time at which the store was last known to be
    /// complete, or at which the restore of a new store began.
    ///
    /// # Errors
    /// [`StateError`] if the store cannot be written.
    pub fn restore(
        &mut self,
        store: StoreId,
        records: &[InputRecord],
        complete_at: WallTime,
    ) -> Result<(), StateError> {
        let Some(last) = records.last() else { return Ok(()) };
        // The timestamp of a changelog record is the stream time of its flush, which is at most that of its commit.
        let flushed = records.iter().map(|record| record.timestamp).max();
        self.set_store_time(
            store,
            self.store_times[store.0].max(flushed.unwrap_or(EventTime::MIN)),
        );
        self.read_marks(store, records);
        let checkpoint = Checkpoint {
            offset: last.offset.next(),
            stream_time: self.store_times[store.0],
            complete_at,
            incarnation: self.marks.current(store),
        };
        let changes = records.iter().filter(|record| !state::is_mark(record));
        let changes =
            changes.filter_map(|record| Some((record.key.as_deref()?, record.value.as_deref())));
        self.scope.stores[store.0].apply(changes, checkpoint)
    }

    /// Makes room in a store for the entries that are expected from the next `remaining` records of its changelog, if as many
    /// of them are entries as of the `restored` ones before. A changelog that is not compacted has far more records than
    /// entries, so the room is at most `RESERVED_MAX` times the entries so far; [`Self::finish_restore`] releases the rest.
    pub fn expect_entries(&mut self, store: StoreId, restored: usize, remaining: usize) {
        let store = &mut self.scope.stores[store.0];
        store.reserve(expected_entries(store.committed_len(), restored, remaining));
    }

    /// Ends the restore of a store, which is complete up to `offset` of its changelog at the time `now`.
    ///
    /// # Errors
    /// [`StateError`] if the checkpoint cannot be written.
    pub fn finish_restore(
        &mut self,
        store: StoreId,
        offset: Offset,
        now: WallTime,
    ) -> Result<(), StateError> {
        let stream_time = self.store_times[store.0];
        let incarnation = self.marks.current(store);
        let checkpoint = Checkpoint { offset, stream_time, complete_at: now, incarnation };
        self.scope.stores[store.0].shrink();
        self.scope.stores[store.0].apply(std::iter::empty(), checkpoint)
    }

    /// Whether no other task of this process has opened its stores since.
    #[must_use]
    pub fn holds_its_stores(&self) -> bool {
        self.scope.stores.iter().all(Store::is_held)
    }

    /// Sets the stream time of a store. The stream time of the task is the latest one. Each store has its own, because
    /// one of them may turn out to belong to a deleted changelog.
    fn set_store_time(&mut self, store: StoreId, time: EventTime) {
        self.store_times[store.0] = time;
        self.scope.stream_time = self.store_times.iter().copied().max().unwrap_or(EventTime::MIN);
        self.save_committed_times();
    }

    /// Empties a store and resets its stream time, to restore it from the beginning of its changelog.
    ///
    /// # Errors
    /// [`StateError`] if the store cannot be emptied.
    pub fn clear(&mut self, store: StoreId) -> Result<(), StateError> {
        self.marks.set(store, None);
        self.set_store_time(store, EventTime::MIN);
        self.scope.stores[store.0].clear()
    }
}

/// The entries that are expected from `remaining` records, if `restored` records have made `entries`.
fn expected_entries(entries: usize, restored: usize, remaining: usize) -> usize {
    let expected = entries.saturating_mul(remaining).checked_div(restored).unwrap_or(0);
    expected.min(entries.saturating_mul(RESERVED_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_entries_follow_from_those_so_far_and_are_bounded() {
        assert_eq!(expected_entries(4_000, 4_000, 10_000), 10_000, "every record is an entry");
        assert_eq!(expected_entries(1_000, 4_000, 10_000), 2_500, "a key has four records");
        assert_eq!(expected_entries(4_000, 4_000, 1_000_000), 28_000, "later ones may be rare");
        assert_eq!(expected_entries(0, 4_000, 1_000_000), 0);
        assert_eq!(expected_entries(0, 0, 1_000_000), 0);
    }
}
