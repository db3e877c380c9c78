//! Window stores: values by key and event time, with an index by time alone to find and remove expired values, oldest
//! first.
//!
//! ```text
//!   1 ‖ length(key) ‖ key ‖ time ‖ sequence  →  value       in the changelog
//!   0 ‖ time ‖ sequence ‖ key                →  empty       the index: not in the changelog, rebuilt on restore
//! ```
//! Times are big-endian with the sign bit inverted, so that the order of bytes is the order of times.

use std::{fmt, ops::Bound, sync::Arc};

use crate::{
    codec::Codec,
    record::Topic,
    state::{Change, StateError, Store, StoreId},
    time::EventTime,
};

const BY_TIME: u8 = 0;
const BY_KEY: u8 = 1;

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
        let first = by_key(key, from, 0);
        let last = by_key(key, to, u32::MAX);
        let mut found = Vec::new();
        for entry in self.store.scan(Bound::Included(&first), Bound::Included(&last)) {
            let (at, bytes) = entry?;
            let value = self.values.decode(&bytes);
            let value = value.map_err(StateError::unreadable(self.changelog))?;
            let (time, sequence) = parse_position(&at[at.len() - POSITION_BYTES..]);
            found.push(Windowed { key: key.to_owned(), time, sequence, value });
        }
        Ok(found)
    }

    /// All values of `key`, oldest first.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read or decoded.
    pub fn fetch_all(&self, key: &str) -> Result<Vec<Windowed<V>>, StateError> {
        self.fetch(key, EventTime::MIN, EventTime::MAX)
    }

    /// Adds a value. Earlier values with the same key and time stay.
    ///
    /// # Errors
    /// [`StateError::Unstorable`] if the codec cannot encode the value, or another [`StateError`] if the entries with the
    /// same key and time cannot be read.
    pub fn add(&mut self, key: &str, time: EventTime, value: &V) -> Result<(), StateError> {
        let first = by_key(key, time, 0);
        let last = by_key(key, time, u32::MAX);
        let mut sequence = 0;
        for entry in self.store.scan(Bound::Included(&first), Bound::Included(&last)) {
            let (at, _) = entry?;
            sequence = parse_position(&at[at.len() - POSITION_BYTES..]).1 + 1;
        }
        self.write(key, time, sequence, value)
    }

    /// Overwrites the entry with the same key, time and sequence.
    ///
    /// # Errors
    /// [`StateError::Unstorable`] if the codec cannot encode the value.
    pub fn replace(&mut self, entry: &Windowed<V>) -> Result<(), StateError> {
        self.write(&entry.key, entry.time, entry.sequence, &entry.value)
    }

    /// Removes the entry with the same key, time and sequence.
    pub fn remove(&mut self, entry: &Windowed<V>) {
        self.store.delete(by_key(&entry.key, entry.time, entry.sequence));
        self.store.delete(by_time(&entry.key, entry.time, entry.sequence));
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
        let mut end = vec![BY_TIME];
        end.extend_from_slice(&sortable(before));
        let mut expired = Vec::new();
        let old = self.store.scan(Bound::Included(&[BY_TIME]), Bound::Excluded(&end));
        for entry in old.take(limit) {
            let (at, _) = entry?;
            let (time, sequence) = parse_position(&at[1..=POSITION_BYTES]);
            let key = text(&at[1 + POSITION_BYTES..])?;
            expired.push((key, time, sequence));
        }
        let mut entries = Vec::with_capacity(expired.len());
        for (key, time, sequence) in expired {
            let Some(bytes) = self.store.get(&by_key(&key, time, sequence))? else { continue };
            let value = self.values.decode(&bytes);
            let value = value.map_err(StateError::unreadable(self.changelog))?;
            let entry = Windowed { key, time, sequence, value };
            self.remove(&entry);
            entries.push(entry);
        }
        Ok(entries)
    }

    fn write(
        &mut self,
        key: &str,
        time: EventTime,
        sequence: u32,
        value: &V,
    ) -> Result<(), StateError> {
        let values = self.values;
        let bytes = self.store.encoded(|bytes| values.encode(value, bytes));
        let bytes = bytes.map_err(StateError::Unstorable)?;
        self.store.put(by_key(key, time, sequence), bytes);
        self.store.put(by_time(key, time, sequence), Vec::new());
        Ok(())
    }
}

/// Whether a change is written to the changelog, unlike those of the index.
pub(crate) fn is_logged(key: &[u8]) -> bool {
    key.first() == Some(&BY_KEY)
}

/// The index entry for a change from the changelog, or `None` if the key does not have the layout of a window store.
pub(crate) fn index_of((key, value): &Change) -> Option<Change> {
    let rest = key.strip_prefix(&[BY_KEY])?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if rest.len() != length.checked_add(POSITION_BYTES)? {
        return None;
    }
    let (name, position) = rest.split_at(length);
    let mut index = vec![BY_TIME];
    index.extend_from_slice(position);
    index.extend_from_slice(name);
    Some((index, value.as_ref().map(|_| Vec::new())))
}

/// The size of time and sequence in a key.
const POSITION_BYTES: usize = 8 + 4;

fn by_key(key: &str, time: EventTime, sequence: u32) -> Vec<u8> {
    let length = u32::try_from(key.len()).expect("a key is shorter than 4 GiB");
    let mut bytes = Vec::with_capacity(1 + 4 + key.len() + POSITION_BYTES);
    bytes.push(BY_KEY);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(&sortable(time));
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes
}

fn by_time(key: &str, time: EventTime, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + POSITION_BYTES + key.len());
    bytes.push(BY_TIME);
    bytes.extend_from_slice(&sortable(time));
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

fn sortable(time: EventTime) -> [u8; 8] {
    (time.0.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

fn parse_position(bytes: &[u8]) -> (EventTime, u32) {
    let (time, sequence) = bytes.split_first_chunk::<8>().expect("a position begins with a time");
    let time = (u64::from_be_bytes(*time) ^ (1 << 63)).cast_signed();
    let sequence = sequence.try_into().expect("a position ends with a sequence");
    (EventTime(time), u32::from_be_bytes(sequence))
}

fn text(bytes: &[u8]) -> Result<String, StateError> {
    crate::codec::Utf8.decode(bytes).map_err(StateError::Corrupted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{codec::Stored, state::Checkpoint, time::WallTime};

    #[derive(Clone, Debug)]
    enum Operation {
        Add(&'static str, i64, u8),
        /// Replaces the first value of a key around a time.
        Replace(&'static str, i64, u8),
        /// Removes the first value of a key around a time.
        Remove(&'static str, i64),
        Expire(i64, usize),
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
            1 => (time(), 0..4_usize).prop_map(|(time, limit)| Operation::Expire(time, limit)),
            1 => Just(Operation::Commit),
            1 => Just(Operation::Discard),
            1 => Just(Operation::Restore),
        ]
    }

    /// A store and its model.
    struct StoreAndModel {
        store: Store,
        changelog: Topic,
        log: Vec<Change>,
        committed: Model,
        present: Model,
    }

    impl StoreAndModel {
        fn windows<'s>(&'s mut self, values: &'s Stored<u8>) -> WindowStore<'s, u8> {
            WindowStore { store: &mut self.store, changelog: &self.changelog, values }
        }

        fn first(&self, key: &str, time: i64) -> Option<Windowed<u8>> {
            fetch(&self.present, key, time - 1, time + 1).into_iter().next()
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
                Operation::Expire(before, limit) => {
                    let expired = self.windows(&values).expire(EventTime(before), limit).unwrap();
                    let mut old: Vec<_> =
                        self.present.iter().filter(|((_, time, _), _)| *time < before).collect();
                    old.sort_by_key(|((key, time, sequence), _)| (*time, *sequence, key.clone()));
                    let old: Vec<_> = old.into_iter().take(limit).map(windowed).collect();
                    assert_eq!(expired, old);
                    for entry in old {
                        self.present.remove(&(entry.key, entry.time.0, entry.sequence));
                    }
                }
                Operation::Commit => {
                    let changes = self.store.pending_changes().filter(|(key, _)| is_logged(key));
                    let changes =
                        changes.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
                    self.log.extend(changes);
                    self.store.commit(Checkpoint::start(WallTime(0))).unwrap();
                    self.committed.clone_from(&self.present);
                }
                Operation::Discard => {
                    self.store.discard();
                    self.present.clone_from(&self.committed);
                }
                Operation::Restore => {
                    self.store = Store::default();
                    let mut changes = self.log.iter().flat_map(|change| {
                        [index_of(change).expect("the changelog holds values only"), change.clone()]
                    });
                    self.store.apply(&mut changes, Checkpoint::start(WallTime(0))).unwrap();
                    self.present.clone_from(&self.committed);
                }
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

    proptest! {
        #[test]
        fn behaves_like_a_plain_map(
            operations in proptest::collection::vec(operation(), 0..50),
            from in -4..4_i64,
            span in 0..5_i64,
        ) {
            let mut pair = StoreAndModel {
                store: Store::default(),
                changelog: Topic::new("changelog"),
                log: Vec::new(),
                committed: Model::new(),
                present: Model::new(),
            };
            for operation in operations {
                pair.perform(operation);
                for key in ["", "a", "ab", "b"] {
                    let (first, last) = (EventTime(from), EventTime(from + span));
                    let found = pair.windows(&Stored::version(1)).fetch(key, first, last).unwrap();
                    prop_assert_eq!(found, fetch(&pair.present, key, from, from + span));
                }
            }
        }
    }

    #[test]
    fn the_order_of_bytes_is_the_order_of_times() {
        let times = [i64::MIN, -1_000, -1, 0, 1, 255, 256, i64::MAX].map(EventTime);
        for pair in times.windows(2) {
            assert!(sortable(pair[0]) < sortable(pair[1]), "{pair:?}");
        }
        for time in times {
            let position = by_time("", time, 7);
            assert_eq!(parse_position(&position[1..]), (time, 7));
        }
    }

    /// Existing changelogs have this layout. Another layout must begin with another byte than [`BY_KEY`].
    #[test]
    fn the_layout_of_keys_does_not_change() {
        let key = by_key("ann", EventTime(1_800_000_000_000), 2);
        let length: &[u8] = &[0, 0, 0, 3];
        let time: &[u8] = &[0x80, 0, 0x01, 0xa3, 0x18, 0x5c, 0x50, 0];
        assert_eq!(key, [&[1], length, b"ann", time, &[0, 0, 0, 2]].concat());
    }

    #[test]
    fn changelog_records_with_another_layout_have_no_index() {
        let good = by_key("key", EventTime(5), 0);
        assert_eq!(index_of(&(good.clone(), None)), Some((by_time("key", EventTime(5), 0), None)));
        for bad in [&[][..], &[BY_TIME, 1], &[BY_KEY, 0, 0], &good[..good.len() - 1]] {
            assert_eq!(index_of(&(bad.to_vec(), Some(Vec::new()))), None, "{bad:?}");
        }
    }
}
