//! An open store on disk: one tree of the database, with the entries and index rows that were read last.

use std::{
    borrow::Cow,
    cell::RefCell,
    iter,
    ops::{Bound, ControlFlow},
};

use fjall::{Keyspace, UserKey, UserValue};

use crate::{
    codec::{Codec, Stored},
    record::TopicPartition,
    state::{
        Access, Change, Checkpoint, Entry, Position, StateError, StateStore,
        disk::{
            Holder, Shared, State, engine::Engine, guard::Guarded, last_fetch::LastFetch,
            read_ahead::ReadAhead,
        },
        window_key::{BY_TIME_END, BY_TIME_START, WindowKey},
    },
};

pub(super) const CHECKPOINT: &[u8] = &[0];
const ENTRY: u8 = 1;
/// The format of checkpoints, keys and values. A store with another format is rebuilt.
pub(super) const CHECKPOINT_FORMAT: u8 = 2;

/// A tree, opened by the holder of one lease.
pub(super) struct DiskStore {
    pub(super) shared: Shared,
    pub(super) engine: Engine,
    pub(super) tree: Guarded<Keyspace>,
    pub(super) changelog: TopicPartition,
    pub(super) access: Access,
    pub(super) name: String,
    pub(super) lease: u64,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) last_fetch: RefCell<LastFetch>,
    pub(super) read_ahead: RefCell<ReadAhead>,
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        if let Some(lease) = self.shared.lock().leases.get_mut(&self.name)
            && lease.number == self.lease
        {
            lease.holder = Holder::None;
        }
    }
}

impl DiskStore {
    pub(super) fn read_checkpoint(&self) -> Result<Option<Checkpoint>, StateError> {
        let Some(bytes) = self.engine.call(|| self.tree.get(CHECKPOINT))? else { return Ok(None) };
        let checkpoint = Stored::version(CHECKPOINT_FORMAT).decode(&bytes);
        checkpoint.map(Some).map_err(StateError::Corrupted)
    }

    fn is_held_in(&self, state: &State) -> bool {
        state.leases.get(&self.name).is_some_and(|lease| lease.number == self.lease)
    }

    /// Runs `write` if the lease is still valid. The lock keeps it valid until `write` has returned.
    fn as_holder(
        &self,
        write: impl FnOnce() -> Result<(), fjall::Error>,
    ) -> Result<(), StateError> {
        let state = self.shared.lock();
        if !self.is_held_in(&state) {
            return Err(StateError::TakenOver(self.changelog.clone()));
        }
        self.engine.call(write)
    }

    /// Reads the next rows of the index by time.
    fn read_ahead_from(&self, from: Vec<u8>, ahead: &mut ReadAhead) -> Result<(), StateError> {
        ahead.begin(from.clone());
        let mut has_room = true;
        self.scan((from, Bound::Excluded(entry_key(BY_TIME_END))), |key, _| {
            has_room = ahead.add(key);
            if has_room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if has_room {
            ahead.finish();
        }
        Ok(())
    }

    /// Passes the rows with keys in `from..to` to `visit` until it breaks.
    fn scan(
        &self,
        (from, to): (Vec<u8>, Bound<Vec<u8>>),
        mut visit: impl FnMut(&UserKey, &UserValue) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let range = (Bound::Included(from), to);
        let mut rows = Guarded::new(self.engine.call(|| Ok(self.tree.range(range)))?);
        loop {
            let next = || rows.next().map(fjall::Guard::into_inner).transpose();
            let Some((key, value)) = self.engine.call(next)? else { return Ok(()) };
            if visit(&key, &value).is_break() {
                return Ok(());
            }
        }
    }
}

impl StateStore for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        if self.access == Access::Windowed
            && let Some(WindowKey { name, position }) = WindowKey::parse(key)
            && let Some(rows) = self.last_fetch.borrow().get(name, position, position)
        {
            return Ok(rows.first().map(|(_, value)| Cow::Owned(value.to_vec())));
        }
        let value = self.engine.call(|| self.tree.get(entry_key(key)))?;
        Ok(value.map(|value| Cow::Owned(value.to_vec())))
    }

    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's> {
        let from = match from {
            Bound::Unbounded => Bound::Included(vec![ENTRY]),
            Bound::Included(_) | Bound::Excluded(_) => from.map(entry_key),
        };
        let to = to.map(entry_key);
        let mut entries = match self.engine.call(|| Ok(self.tree.range((from, to)))) {
            Ok(entries) => Some(Guarded::new(entries)),
            Err(error) => return Box::new(iter::once(Err(error))),
        };
        Box::new(iter::from_fn(move || {
            let left = entries.as_mut()?;
            match self.engine.call(|| left.next().map(fjall::Guard::into_inner).transpose()) {
                Ok(entry) => {
                    let (key, value) = entry?;
                    Some(Ok((Cow::Owned(key[1..].to_vec()), Cow::Owned(value.to_vec()))))
                }
                Err(error) => {
                    // The engine may repeat the error without end.
                    entries = None;
                    Some(Err(error))
                }
            }
        }))
    }

    fn fetch(
        &self,
        key: &[u8],
        from: Position,
        to: Position,
        visit: &mut dyn FnMut(Position, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        // Taken out, because `visit` may call this store.
        let mut last = self.last_fetch.take();
        if let Some(rows) = last.get(key, from, to) {
            for (position, value) in rows {
                if visit(*position, value).is_break() {
                    break;
                }
            }
        } else if from <= to {
            last.begin(key);
            let bound = |position| window_entry_key(WindowKey { name: key, position });
            let mut flow = ControlFlow::Continue(());
            self.scan((bound(from), Bound::Included(bound(to))), |key, value| {
                let Some(WindowKey { position, .. }) = WindowKey::parse(&key[1..]) else {
                    return ControlFlow::Continue(());
                };
                last.add(from, position, value);
                flow = visit(position, value);
                flow
            })?;
            if flow.is_continue() {
                last.finish(from, to);
            }
        }
        self.last_fetch.replace(last);
        Ok(())
    }

    fn oldest(
        &self,
        from: Option<(&[u8], Position)>,
        visit: &mut dyn FnMut(&[u8], Position) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let mut start = vec![ENTRY];
        match from {
            Some((name, position)) => WindowKey { name, position }.append_by_time_to(&mut start),
            None => start.extend_from_slice(BY_TIME_START),
        }
        // Taken out, because `visit` may call this store.
        let mut ahead = self.read_ahead.take();
        let mut next = Some(start);
        while let Some(from) = next {
            if ahead.rows_from(&from).is_none() {
                self.read_ahead_from(from.clone(), &mut ahead)?;
            }
            let rows = ahead.rows_from(&from).unwrap_or_default().iter();
            let mut keys = rows.filter_map(|row| WindowKey::parse_by_time(&row[1..]));
            next = match keys.any(|key| visit(key.name, key.position).is_break()) {
                true => None,
                false => ahead.next_from(),
            };
        }
        self.read_ahead.replace(ahead);
        Ok(())
    }

    fn len(&self) -> usize {
        // The checkpoint does not count as an entry.
        let rows = self.engine.call(|| Ok(self.tree.approximate_len()));
        let rows = rows.map_or(0, |rows| rows.saturating_sub(1));
        match self.access {
            Access::ByKey => rows,
            // Each entry has a row in the index by time as well.
            Access::Windowed => rows / 2,
        }
    }

    fn is_counted(&self) -> bool {
        false
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change<'_>>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        self.last_fetch.get_mut().clear();
        let mut batch = self.engine.database.batch();
        let mut row = vec![ENTRY];
        for (key, value) in changes {
            row.truncate(1);
            row.extend_from_slice(key);
            if self.access == Access::Windowed {
                self.read_ahead.get_mut().change(&row, value.is_some());
            }
            let key = UserKey::from(row.as_slice());
            match value {
                Some(value) => batch.insert(&self.tree, key, value),
                None => batch.remove(&self.tree, key),
            }
        }
        let mut bytes = Vec::new();
        let format = Stored::version(CHECKPOINT_FORMAT);
        format.encode(&checkpoint, &mut bytes).map_err(StateError::Unstorable)?;
        batch.insert(&self.tree, CHECKPOINT, bytes);
        let written = self.as_holder(|| batch.commit());
        if written.is_err() {
            self.read_ahead.get_mut().clear();
        }
        written?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn clear(&mut self) -> Result<(), StateError> {
        self.checkpoint = None;
        self.last_fetch.get_mut().clear();
        self.read_ahead.get_mut().clear();
        let reason = match self.as_holder(|| self.tree.clear()) {
            Err(StateError::DiskCorrupted(reason)) => reason,
            result => return result,
        };
        // The tree cannot even be emptied. The holder stays the same in the new database.
        let mut state = self.shared.lock();
        let holder = state.leases.get(&self.name).map_or(Holder::Task, |lease| lease.holder);
        state.begin_new_database(&reason)?;
        if let Some((tree, lease)) = state.open(&self.name, holder)? {
            (self.tree, self.lease) = (tree, lease);
            self.engine = state.engine.clone();
        }
        Ok(())
    }

    fn is_held(&self) -> bool {
        self.is_held_in(&self.shared.lock())
    }
}

fn window_entry_key(key: WindowKey<'_>) -> Vec<u8> {
    let mut bytes = vec![ENTRY];
    key.append_to(&mut bytes);
    bytes
}

fn entry_key(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(ENTRY);
    bytes.extend_from_slice(key);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        record::{Partition, Topic},
        state::{DiskStores, MemoryStore, StoreSupplier},
        time::{EventTime, WallTime},
    };

    /// An operation on a window store with the names 0 to 2 and the times 0 to 5.
    #[derive(Clone, Debug)]
    enum WindowOperation {
        /// Sets or deletes an entry.
        Write(u8, i64, Option<u8>),
        /// Fetches the entries of a name with times in a range, at most as many.
        Fetch(u8, i64, i64, usize),
        Get(u8, i64),
        Clear,
    }

    fn window_operation() -> impl Strategy<Value = WindowOperation> {
        use WindowOperation::{Clear, Fetch, Get, Write};
        let (name, time) = (0..3_u8, 0..6_i64);
        prop_oneof![
            4 => (name.clone(), time.clone(), any::<Option<u8>>()).prop_map(|(a, b, c)| Write(a, b, c)),
            6 => (name.clone(), time.clone(), time.clone(), 1..5_usize)
                .prop_map(|(a, b, c, d)| Fetch(a, b, c, d)),
            3 => (name, time).prop_map(|(a, b)| Get(a, b)),
            1 => Just(Clear),
        ]
    }

    fn write(store: &mut dyn StateStore, (key, value): &(Vec<u8>, Option<Vec<u8>>)) {
        let mut change = [(key.as_slice(), value.as_deref())].into_iter();
        store.write(&mut change, Checkpoint::start(WallTime(0))).unwrap();
    }

    fn window_key(name: &[u8], time: i64) -> Vec<u8> {
        WindowKey { name, position: Position::first_at(EventTime(time)) }.to_bytes()
    }

    fn fetched(
        store: &dyn StateStore,
        name: u8,
        (from, to): (i64, i64),
        rows_max: usize,
    ) -> Vec<(Position, Vec<u8>)> {
        let (from, to) = (Position::first_at(EventTime(from)), Position::last_at(EventTime(to)));
        let mut rows = Vec::new();
        let mut visit = |position, value: &[u8]| {
            rows.push((position, value.to_vec()));
            if rows.len() == rows_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.fetch(&[name], from, to, &mut visit).unwrap();
        rows
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Each operation reads what earlier ones have written, whatever was fetched before.
        #[test]
        fn a_window_store_on_disk_fetches_like_one_in_memory(
            operations in proptest::collection::vec(window_operation(), 1..60),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let changelog =
                TopicPartition { topic: Topic::new("changelog"), partition: Partition(0) };
            let stores = DiskStores::open(folder.path()).unwrap();
            let mut disk = stores.open(&changelog, Access::Windowed).unwrap();
            let mut memory = MemoryStore::new(Access::Windowed);
            for operation in operations {
                match operation {
                    WindowOperation::Write(name, time, value) => {
                        let change = (window_key(&[name], time), value.map(|value| vec![value]));
                        write(disk.as_mut(), &change);
                        write(&mut memory, &change);
                    }
                    WindowOperation::Fetch(name, from, to, rows_max) => {
                        let found = fetched(disk.as_ref(), name, (from, to), rows_max);
                        prop_assert_eq!(found, fetched(&memory, name, (from, to), rows_max));
                    }
                    WindowOperation::Get(name, time) => {
                        let key = window_key(&[name], time);
                        prop_assert_eq!(disk.get(&key).unwrap(), memory.get(&key).unwrap());
                    }
                    WindowOperation::Clear => {
                        disk.clear().unwrap();
                        memory.clear().unwrap();
                    }
                }
            }
        }
    }
}
