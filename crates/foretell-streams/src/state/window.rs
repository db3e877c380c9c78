//! Window stores: values by key and event time, which can be found and removed by time alone, oldest first.

use std::{fmt, ops::ControlFlow, sync::Arc};

use crate::{
    codec::{self, Codec, CodecError},
    record::Topic,
    state::{
        StateError, Store, StoreId,
        window_key::{Position, WindowKey},
    },
    time::EventTime,
};

/// A reference to a window store, made by
/// [`TopologyBuilder::window_store`](crate::topology::TopologyBuilder::window_store) and opened with
/// [`Context::window`](crate::topology::Context::window). Clones refer to the same store.
///
/// A window store has no retention of its own: a processor removes old values with [`WindowStore::expire`].
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use foretell_streams::{
///     codec::{Stored, Utf8}, local::TopologyDriver, metrics::StreamsMetrics, record::Topic,
///     state::WindowHandle, time::{EventTime, WallTime},
///     topology::{Context, ProcessError, Processor, Record, TopologyBuilder},
/// };
///
/// /// Forwards the third call of a key within a minute.
/// struct Often { calls: WindowHandle<()> }
///
/// impl Processor for Often {
///     type In = String;
///     type Out = String;
///
///     fn process(&mut self, record: &Record<String>, ctx: &mut Context<'_, String>) -> Result<(), ProcessError> {
///         let minute_ago = record.time - Duration::from_secs(60);
///         let oldest = ctx.stream_time() - Duration::from_secs(60);
///         let mut calls = ctx.window(&self.calls);
///         calls.expire(oldest, 100)?;
///         calls.add(record.text_key()?, record.time, &())?;
///         if calls.fetch(record.text_key()?, minute_ago, record.time)?.len() == 3 {
///             ctx.forward(record)?;
///         }
///         Ok(())
///     }
/// }
///
/// let mut builder = TopologyBuilder::new("often", Topic::new("dead-letters"));
/// let source = builder.source("calls", Topic::new("calls"), Arc::new(Utf8));
/// let calls = builder.window_store("recent-calls", Arc::new(Stored::version(1)));
/// let often = builder.process("often", &[source], &[calls.id()], move || Often { calls: calls.clone() });
/// builder.sink("out", &[often], Topic::new("often"), Arc::new(Utf8));
///
/// let now = WallTime(1_704_070_000_000);
/// let mut driver = TopologyDriver::new(builder.build(), now, &StreamsMetrics::unregistered());
/// for second in [0, 50, 70, 90] {
///     let time = EventTime(1_704_067_200_000 + 1000 * second);
///     driver.pipe(&Topic::new("calls"), Some(b"ann"), Some(b"hello"), time)?;
/// }
/// driver.commit();
/// assert_eq!(driver.read(&Topic::new("often")).len(), 1, "at 50, 70 and 90 seconds");
/// # Ok::<(), foretell_streams::state::StateError>(())
/// ```
pub struct WindowHandle<V> {
    pub(crate) id: StoreId,
    pub(crate) changelog: Topic,
    pub(crate) values: Arc<dyn Codec<V>>,
}

impl<V> WindowHandle<V> {
    /// The store's identity, for [`TopologyBuilder::process`](crate::topology::TopologyBuilder::process).
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// The error of a processor that decodes the bytes of an entry itself and cannot.
    #[must_use]
    pub fn unreadable(&self, error: CodecError) -> StateError {
        StateError::unreadable(&self.changelog)(error)
    }
}

impl<V> fmt::Debug for WindowHandle<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowHandle")
            .field("id", &self.id)
            .field("changelog", &self.changelog)
            .finish_non_exhaustive()
    }
}

impl<V> Clone for WindowHandle<V> {
    fn clone(&self) -> Self {
        Self { id: self.id, changelog: self.changelog.clone(), values: Arc::clone(&self.values) }
    }
}

/// An entry of a window store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windowed<V> {
    /// The key.
    pub key: String,
    /// The event time.
    pub time: EventTime,
    /// The number of the entry among those with the same key and time, from 0.
    pub sequence: u32,
    /// The value.
    pub value: V,
}

impl<V> Windowed<V> {
    /// The position of the entry among those with its key.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { time: self.time, sequence: self.sequence }
    }
}

/// An open window store. Its changes are rolled back if the processing of the record fails, and are permanent once the
/// record is committed.
pub struct WindowStore<'s, V> {
    pub(crate) store: &'s mut Store,
    pub(crate) changelog: &'s Topic,
    pub(crate) values: &'s dyn Codec<V>,
}

impl<V> fmt::Debug for WindowStore<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowStore").field("changelog", &self.changelog).finish_non_exhaustive()
    }
}

impl<V> WindowStore<'_, V> {
    /// The values of `key` with times in `from..=to`, oldest first.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read or decoded.
    pub fn fetch(
        &self,
        key: &str,
        from: EventTime,
        to: EventTime,
    ) -> Result<Vec<Windowed<V>>, StateError> {
        let mut found = Ok(Vec::new());
        self.fetch_bytes(key, from, to, |Position { time, sequence }, bytes| {
            match (&mut found, self.decode(bytes)) {
                (Ok(entries), Ok(value)) => {
                    entries.push(Windowed { key: key.to_owned(), time, sequence, value });
                    ControlFlow::Continue(())
                }
                (found, Err(error)) => {
                    *found = Err(error);
                    ControlFlow::Break(())
                }
                (Err(_), Ok(_)) => ControlFlow::Break(()),
            }
        })?;
        found
    }

    /// All values of `key`, oldest first.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read or decoded.
    pub fn fetch_all(&self, key: &str) -> Result<Vec<Windowed<V>>, StateError> {
        self.fetch(key, EventTime::MIN, EventTime::MAX)
    }

    /// Passes the encoded values of `key` with times in `from..=to` to `visit`, oldest first, until it breaks. The bytes are
    /// those of the store: nothing is copied or allocated if the store is in memory. [`Self::decode`] decodes them.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read.
    pub fn fetch_bytes(
        &self,
        key: &str,
        from: EventTime,
        to: EventTime,
        visit: impl FnMut(Position, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let (from, to) = (Position::first_at(from), Position::last_at(to));
        self.store.fetch(key.as_bytes(), from, to, visit)
    }

    /// Decodes a value of this store.
    ///
    /// # Errors
    /// [`StateError`] if it cannot be decoded.
    pub fn decode(&self, bytes: &[u8]) -> Result<V, StateError> {
        self.values.decode(bytes).map_err(StateError::unreadable(self.changelog))
    }

    /// Adds a value. Earlier values with the same key and time stay.
    ///
    /// # Errors
    /// [`StateError::Unstorable`] if the codec cannot encode the value, or another [`StateError`] if the entries with the
    /// same key and time cannot be read.
    pub fn add(&mut self, key: &str, time: EventTime, value: &V) -> Result<(), StateError> {
        let values = self.values;
        self.add_encoded(key, time, |bytes| {
            values.encode(value, bytes).map_err(StateError::Unstorable)
        })?;
        Ok(())
    }

    /// Adds an encoded value and returns its position. Earlier values with the same key and time stay.
    ///
    /// # Errors
    /// [`StateError`] if the entries with the same key and time cannot be read.
    pub fn add_bytes(
        &mut self,
        key: &str,
        time: EventTime,
        value: &[u8],
    ) -> Result<Position, StateError> {
        self.add_encoded(key, time, |bytes| {
            bytes.extend_from_slice(value);
            Ok(())
        })
    }

    fn add_encoded(
        &mut self,
        key: &str,
        time: EventTime,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), StateError>,
    ) -> Result<Position, StateError> {
        let sequence = self.store.next_sequence(key.as_bytes(), time)?;
        let position = Position { time, sequence };
        self.store.put_entry(WindowKey { name: key.as_bytes(), position }, true, encode)?;
        Ok(position)
    }

    /// Overwrites the entry with the same key, time and sequence.
    ///
    /// # Errors
    /// [`StateError::Unstorable`] if the codec cannot encode the value, or another [`StateError`] if the entry cannot be
    /// read.
    pub fn replace(&mut self, entry: &Windowed<V>) -> Result<(), StateError> {
        let values = self.values;
        self.replace_encoded(&entry.key, entry.position(), |bytes| {
            values.encode(&entry.value, bytes).map_err(StateError::Unstorable)
        })
    }

    /// Overwrites the value of the entry at `position` with an encoded value.
    ///
    /// # Errors
    /// [`StateError`] if the entry cannot be read.
    pub fn replace_bytes(
        &mut self,
        key: &str,
        position: Position,
        value: &[u8],
    ) -> Result<(), StateError> {
        self.replace_encoded(key, position, |bytes| {
            bytes.extend_from_slice(value);
            Ok(())
        })
    }

    fn replace_encoded(
        &mut self,
        key: &str,
        position: Position,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let key = WindowKey { name: key.as_bytes(), position };
        let is_new = self.store.is_unindexed(key)?;
        self.store.put_entry(key, is_new, encode)
    }

    /// Removes the entry with the same key, time and sequence.
    pub fn remove(&mut self, entry: &Windowed<V>) {
        self.remove_at(&entry.key, entry.position());
    }

    /// Removes the entry at `position`, if it exists.
    pub fn remove_at(&mut self, key: &str, position: Position) {
        self.store.delete_entry(WindowKey { name: key.as_bytes(), position });
    }

    /// Removes at most `limit` entries of all keys with times before `before`, and returns them, oldest first.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read or decoded.
    pub fn expire(
        &mut self,
        before: EventTime,
        limit: usize,
    ) -> Result<Vec<Windowed<V>>, StateError> {
        let (values, changelog) = (self.values, self.changelog);
        let mut expired = Vec::new();
        self.expire_bytes(before, limit, |key, Position { time, sequence }, bytes| {
            let value = values.decode(bytes).map_err(StateError::unreadable(changelog))?;
            expired.push(Windowed { key: key.to_owned(), time, sequence, value });
            Ok(())
        })?;
        Ok(expired)
    }

    /// Passes the keys and encoded values of at most `limit` entries of all keys with times before `before` to `visit`, oldest
    /// first: those that [`Self::expire_bytes`] would remove.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read, or the error of `visit`.
    pub fn visit_expired(
        &mut self,
        before: EventTime,
        limit: usize,
        mut visit: impl FnMut(&str, Position, &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let mut found = std::mem::take(&mut self.store.expired);
        found.clear();
        self.store.find_oldest(before, limit, &mut found)?;
        let mut rest = found.as_slice();
        while let Some((WindowKey { name, position }, after)) = WindowKey::parse_prefix(rest) {
            let (key, _) = rest.split_at(rest.len() - after.len());
            rest = after;
            let name = codec::utf8(name).map_err(StateError::Corrupted)?;
            if let Some(bytes) = self.store.get(key)? {
                visit(name, position, &bytes)?;
            }
        }
        self.store.expired = found;
        Ok(())
    }

    /// Removes at most `limit` entries of all keys with times before `before`, and passes their keys and encoded values to
    /// `visit`, oldest first.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read, or the error of `visit`. The record must then be rolled back.
    pub fn expire_bytes(
        &mut self,
        before: EventTime,
        limit: usize,
        mut visit: impl FnMut(&str, Position, &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let mut found = std::mem::take(&mut self.store.expired);
        found.clear();
        self.store.find_expired(before, limit, &mut found)?;
        let mut rest = found.as_slice();
        while let Some((WindowKey { name, position }, after)) = WindowKey::parse_prefix(rest) {
            let (key, _) = rest.split_at(rest.len() - after.len());
            rest = after;
            let name = codec::utf8(name).map_err(StateError::Corrupted)?;
            let Some(bytes) = self.store.get(key)? else { continue };
            visit(name, position, &bytes)?;
            drop(bytes);
            self.store.delete(key);
        }
        self.store.expired = found;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeMap};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        codec::Stored,
        record::{Partition, TopicPartition},
        state::{Access, Checkpoint, DiskStores, MemoryStores, StoreSupplier},
        time::WallTime,
    };

    #[derive(Clone, Debug)]
    enum Operation {
        Add(&'static str, i64, u8),
        /// Replaces the first value of a key around a time.
        Replace(&'static str, i64, u8),
        /// Removes the first value of a key around a time.
        Remove(&'static str, i64),
        Expire(i64, usize),
        /// Starts a record, to which [`Self::RollBack`] returns.
        BeginRecord,
        RollBack,
        Flush,
        Commit,
        Discard,
        /// Restores a new store from the changelog of all commits.
        Restore,
    }

    /// Values by key, time and sequence.
    type Model = BTreeMap<(String, i64, u32), u8>;

    /// Operations on keys that are prefixes of each other, and on negative and positive times.
    fn operation() -> impl Strategy<Value = Operation> {
        let key = || prop::sample::select(vec!["", "a", "ab", "b"]);
        let time = || -3..4_i64;
        prop_oneof![
            6 => (key(), time(), any::<u8>()).prop_map(|(key, time, value)| Operation::Add(key, time, value)),
            1 => (key(), time(), any::<u8>())
                .prop_map(|(key, time, value)| Operation::Replace(key, time, value)),
            1 => (key(), time()).prop_map(|(key, time)| Operation::Remove(key, time)),
            2 => (time(), 0..4_usize).prop_map(|(time, limit)| Operation::Expire(time, limit)),
            1 => Just(Operation::BeginRecord),
            1 => Just(Operation::RollBack),
            1 => Just(Operation::Flush),
            1 => Just(Operation::Commit),
            1 => Just(Operation::Discard),
            1 => Just(Operation::Restore),
        ]
    }

    /// A changelog by key: its last values.
    type Changelog = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

    /// A store and its model.
    struct StoreAndModel<'e> {
        /// Opens an empty store in an engine.
        open: &'e dyn Fn() -> Store,
        store: Store,
        changelog: Topic,
        /// Changes that were flushed, and those that were committed.
        flushed: Changelog,
        log: Changelog,
        committed: Model,
        present: Model,
        before_record: Model,
    }

    impl<'e> StoreAndModel<'e> {
        fn new(open: &'e dyn Fn() -> Store) -> Self {
            Self {
                open,
                store: open(),
                changelog: Topic::new("changelog"),
                flushed: Changelog::new(),
                log: Changelog::new(),
                committed: Model::new(),
                present: Model::new(),
                before_record: Model::new(),
            }
        }

        fn windows<'s>(&'s mut self, values: &'s Stored<u8>) -> WindowStore<'s, u8> {
            WindowStore { store: &mut self.store, changelog: &self.changelog, values }
        }

        fn first(&self, key: &str, time: i64) -> Option<Windowed<u8>> {
            fetch(&self.present, key, time - 1, time + 1).into_iter().next()
        }

        fn begin_record(&mut self) {
            self.store.begin_record();
            self.before_record.clone_from(&self.present);
        }

        fn flush(&mut self) {
            let changes = self.store.pending_changes();
            let changes = changes.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
            self.flushed.extend(changes);
            self.store.mark_flushed();
            assert_eq!(self.store.pending_len(), 0);
            self.begin_record();
        }

        fn expire(&mut self, before: i64, limit: usize, values: &Stored<u8>) {
            let mut visited = Vec::new();
            let visit = |key: &str, position: Position, _: &[u8]| {
                visited.push((key.to_owned(), position));
                Ok(())
            };
            let mut store = self.windows(values);
            store.visit_expired(EventTime(before), limit, visit).unwrap();
            let expired = store.expire(EventTime(before), limit).unwrap();
            let keys = expired.iter().map(|entry| (entry.key.clone(), entry.position()));
            assert_eq!(visited, keys.collect::<Vec<_>>());
            let mut old: Vec<_> =
                self.present.iter().filter(|((_, time, _), _)| *time < before).collect();
            old.sort_by_key(|((key, time, sequence), _)| (*time, *sequence, key.clone()));
            let old: Vec<_> = old.into_iter().take(limit).map(windowed).collect();
            assert_eq!(expired, old);
            for entry in old {
                self.present.remove(&(entry.key, entry.time.0, entry.sequence));
            }
        }

        fn perform(&mut self, operation: Operation) {
            let values = Stored::version(1);
            match operation {
                Operation::Add(key, time, value) => {
                    self.windows(&values).add(key, EventTime(time), &value).unwrap();
                    let newest = fetch(&self.present, key, time, time).pop();
                    let sequence = newest.map_or(0, |newest| newest.sequence + 1);
                    self.present.insert((key.to_owned(), time, sequence), value);
                }
                Operation::Replace(key, time, value) => {
                    if let Some(found) = self.first(key, time) {
                        let entry = Windowed { value, ..found };
                        self.windows(&values).replace(&entry).unwrap();
                        self.present.insert((entry.key, entry.time.0, entry.sequence), value);
                    }
                }
                Operation::Remove(key, time) => {
                    if let Some(entry) = self.first(key, time) {
                        self.windows(&values).remove(&entry);
                        self.present.remove(&(entry.key, entry.time.0, entry.sequence));
                    }
                }
                Operation::Expire(before, limit) => self.expire(before, limit, &values),
                Operation::BeginRecord => self.begin_record(),
                Operation::RollBack => {
                    self.store.roll_back();
                    self.present.clone_from(&self.before_record);
                }
                Operation::Flush => self.flush(),
                Operation::Commit => {
                    self.flush();
                    self.log.append(&mut self.flushed);
                    self.store.commit(Checkpoint::start(WallTime(0))).unwrap();
                    self.committed.clone_from(&self.present);
                    self.check_log();
                }
                Operation::Discard => {
                    self.store.discard();
                    self.flushed.clear();
                    self.present.clone_from(&self.committed);
                    self.before_record.clone_from(&self.present);
                }
                Operation::Restore => {
                    self.store = (self.open)();
                    let changes =
                        self.log.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
                    let foreign = [(&b"of another layout"[..], Some(&b"ignored"[..]))];
                    let changes = foreign.into_iter().chain(changes);
                    self.store.apply(changes, Checkpoint::start(WallTime(0))).unwrap();
                    self.flushed.clear();
                    self.present.clone_from(&self.committed);
                    self.before_record.clone_from(&self.present);
                }
            }
        }

        /// The changelog has the committed entries, and tombstones of removed ones.
        fn check_log(&self) {
            let entries = self.log.iter().filter_map(|(key, value)| {
                let WindowKey { name, position } = WindowKey::parse(key).unwrap();
                let value = Stored::version(1).decode(value.as_ref()?).unwrap();
                let name = String::from_utf8(name.to_vec()).unwrap();
                Some(((name, position.time.0, position.sequence), value))
            });
            assert_eq!(entries.collect::<Model>(), self.committed);
            if self.store.is_counted() {
                assert_eq!(self.store.committed_len(), self.committed.len());
            }
        }

        fn check_fetch(&mut self, from: i64, to: i64) {
            for key in ["", "a", "ab", "b"] {
                let expected = fetch(&self.present, key, from, to);
                let values = Stored::version(1);
                let store = self.windows(&values);
                let (from, to) = (EventTime(from), EventTime(to));
                assert_eq!(store.fetch(key, from, to).unwrap(), expected);
                let mut first = None;
                let visit = |position, bytes: &[u8]| {
                    first = Some((position, store.decode(bytes).unwrap()));
                    ControlFlow::Break(())
                };
                store.fetch_bytes(key, from, to, visit).unwrap();
                assert_eq!(first, expected.first().map(|entry| (entry.position(), entry.value)));
            }
        }
    }

    fn windowed(((key, time, sequence), value): (&(String, i64, u32), &u8)) -> Windowed<u8> {
        let (key, time) = (key.clone(), EventTime(*time));
        Windowed { key, time, sequence: *sequence, value: *value }
    }

    fn fetch(model: &Model, key: &str, from: i64, to: i64) -> Vec<Windowed<u8>> {
        let of_key =
            model.iter().filter(|((name, time, _), _)| name == key && (from..=to).contains(time));
        of_key.map(windowed).collect()
    }

    fn in_memory() -> Store {
        let changelog = TopicPartition { topic: Topic::new("changelog"), partition: Partition(0) };
        let store = MemoryStores.open(&changelog, Access::Windowed).unwrap();
        Store::over(store, Access::Windowed)
    }

    proptest! {
        #[test]
        fn behaves_like_a_plain_map(
            operations in proptest::collection::vec(operation(), 0..50),
            from in -4..4_i64,
            span in 0..5_i64,
        ) {
            let mut pair = StoreAndModel::new(&in_memory);
            for operation in operations {
                pair.perform(operation);
                pair.check_fetch(from, from + span);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn behaves_like_a_plain_map_on_disk(
            operations in proptest::collection::vec(operation(), 0..50),
            from in -4..4_i64,
            span in 0..5_i64,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let stores = DiskStores::open(folder.path()).unwrap();
            let number = Cell::new(0);
            let open = || {
                number.set(number.get() + 1);
                let partition = Partition(number.get());
                let changelog = TopicPartition { topic: Topic::new("changelog"), partition };
                Store::over(stores.open(&changelog, Access::Windowed).unwrap(), Access::Windowed)
            };
            let mut pair = StoreAndModel::new(&open);
            for operation in operations {
                pair.perform(operation);
                pair.check_fetch(from, from + span);
            }
        }
    }

    /// More entries than a chunk of the order of times has, added and removed in another order than that of times.
    #[test]
    fn entries_expire_in_order_of_time() {
        let mut pair = StoreAndModel::new(&in_memory);
        for number in 0..3_000_i64 {
            let key = ["a", "b", "ab"][usize::try_from(number % 3).unwrap()];
            pair.perform(Operation::Add(key, number * 7_919 % 1_009, 0));
            if number % 4 == 0 {
                pair.perform(Operation::Remove(key, number * 31 % 1_009));
            }
            if number % 500 == 0 {
                pair.perform(Operation::Commit);
            }
        }
        for before in (0..1_100).step_by(50) {
            pair.perform(Operation::Expire(before, 70));
            pair.perform(Operation::Expire(before, usize::MAX));
            pair.check_fetch(0, 2_000);
        }
        assert!(pair.present.is_empty());
    }

    #[test]
    fn bytes_are_added_replaced_and_expired_without_the_codec() {
        let mut store = in_memory();
        let changelog = Topic::new("changelog");
        let values = Stored::<u8>::version(1);
        let mut windows = WindowStore { store: &mut store, changelog: &changelog, values: &values };
        let first = windows.add_bytes("a", EventTime(5), b"one").unwrap();
        let second = windows.add_bytes("a", EventTime(5), b"two").unwrap();
        assert_eq!((first.sequence, second.sequence), (0, 1));
        windows.replace_bytes("a", first, b"changed").unwrap();
        windows.remove_at("a", second);
        let mut expired = Vec::new();
        windows
            .expire_bytes(EventTime(6), 9, |key, position, bytes| {
                expired.push((key.to_owned(), position, bytes.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(expired, [("a".to_owned(), first, b"changed".to_vec())]);
        assert!(windows.fetch_all("a").unwrap().is_empty());
    }
}
