//! A task's stores and the changelogs behind them: how far each goes, and how it is brought up to date.

use std::collections::BTreeMap;

use crate::{
    record::{InputRecord, Offset, TopicPartition},
    state::{self, Checkpoint, StateError, Store, StoreId},
    task::Task,
    time::{EventTime, WallTime},
    topology::StoreKind,
};

impl Task {
    /// The number of committed entries of each store.
    #[must_use]
    pub fn store_entries(&self) -> BTreeMap<String, usize> {
        let stores = self.topology.stores.iter().zip(&self.scope.stores);
        let counts = stores.map(|(spec, store)| {
            let entries = match spec.kind {
                // Each has an entry in the index as well.
                StoreKind::Window => store.committed_len() / 2,
                StoreKind::KeyValue => store.committed_len(),
            };
            (spec.name.clone(), entries)
        });
        counts.collect()
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

    /// The stores that are further than their checkpoints say, with their changelogs.
    pub fn behind(&self) -> impl Iterator<Item = (StoreId, TopicPartition)> + '_ {
        self.changelogs().filter(|(store, _)| self.behind.contains(store))
    }

    /// The checkpoint of a store, or `None` if the store is new.
    #[must_use]
    pub fn checkpoint(&self, store: StoreId) -> Option<Checkpoint> {
        self.scope.stores[store.0].checkpoint()
    }

    /// Takes records of a store's changelog, in order. `complete_at` is when the store was known to hold
    /// everything, or when the restore of a new one began.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn restore(
        &mut self,
        store: StoreId,
        records: Vec<InputRecord>,
        complete_at: WallTime,
    ) -> Result<(), StateError> {
        let Some(last) = records.last() else { return Ok(()) };
        // Changelog records bear the stream time of when they were told: at most that of their commit.
        let flushed = records.iter().map(|record| record.timestamp).max();
        self.know_time(store, self.store_times[store.0].max(flushed.unwrap_or(EventTime::MIN)));
        self.read_marks(store, &records);
        let checkpoint = Checkpoint {
            offset: last.offset.next(),
            stream_time: self.store_times[store.0],
            complete_at,
            incarnation: self.marks.known(store),
        };
        let is_window = self.topology.stores[store.0].kind == StoreKind::Window;
        let changes = records.into_iter().filter(|record| !state::is_mark(record));
        let changes = changes.filter_map(|record| Some((record.key?, record.value)));
        let mut changes = changes.flat_map(|change| {
            let index = if is_window { state::index_of(&change) } else { None };
            index.into_iter().chain([change])
        });
        self.scope.stores[store.0].apply(&mut changes, checkpoint)
    }

    /// A store has been restored: it holds all that its changelog has before `offset`, and all of it as of `now`.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn restored(
        &mut self,
        store: StoreId,
        offset: Offset,
        now: WallTime,
    ) -> Result<(), StateError> {
        let stream_time = self.store_times[store.0];
        let incarnation = self.marks.known(store);
        let checkpoint = Checkpoint { offset, stream_time, complete_at: now, incarnation };
        self.scope.stores[store.0].apply(&mut std::iter::empty(), checkpoint)
    }

    /// Whether nobody has taken its stores over.
    #[must_use]
    pub fn holds_its_stores(&self) -> bool {
        self.scope.stores.iter().all(Store::is_held)
    }

    /// Stream time is the latest that a store knows of. Each for itself: one of them may turn out to be of another log.
    fn know_time(&mut self, store: StoreId, time: EventTime) {
        self.store_times[store.0] = time;
        self.scope.stream_time = self.store_times.iter().copied().max().unwrap_or(EventTime::MIN);
        self.keep_times();
    }

    /// Forgets all that a store holds, and the stream time that it knew: its changelog is to be read from the beginning.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn clear(&mut self, store: StoreId) -> Result<(), StateError> {
        self.marks.know(store, None);
        self.know_time(store, EventTime::MIN);
        self.scope.stores[store.0].clear()
    }
}
