//! The log of one partition: append, read committed records, compact, trim. It is independent of topics, groups and
//! writers.
//!
//! ```text
//!   start          stable end        end
//!     ▼                ▼              ▼         ·       a gap: compacted, aborted, or a marker
//!     k · k k · · k k  o k o k        ┆         k o     a record; a record of an open transaction
//!     └── visible ─────┘└─ not yet ───┘
//! ```
//!
//! Records of an open transaction are appended at once and hold back the stable end (Kafka's last stable offset), so
//! that readers get records in the order of offsets, and a slow transaction delays the records behind it, as in Kafka.
//! The end of a transaction takes an offset as well (Kafka's control record): offsets have gaps, and a test that counts
//! records by subtracting offsets fails. Aborted records are removed at once, because no reader can have read them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    time::Duration,
};

use crate::{
    local::{now::Now, transaction::TransactionId},
    record::{Header, InputRecord, Offset, OutputRecord, TopicPartition},
    runtime::broker::{Cleanup, Timestamps},
    time::EventTime,
};

/// The cleanup policy of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRules {
    pub(crate) cleanup: Cleanup,
    /// Minimum number of bytes appended between two compactions.
    pub(crate) compaction_bytes_min: u64,
    /// Time for which a tombstone is kept after the first compaction that finds it (`delete.retention.ms`).
    pub(crate) tombstone_retention: Duration,
}

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Committed,
    Aborted,
}

/// The remaining room in one batch of a reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) records: usize,
    pub(crate) bytes: u64,
}

/// The log of one partition.
#[derive(Debug)]
pub(crate) struct Log {
    rules: LogRules,
    /// In the order of offsets, with gaps.
    entries: VecDeque<Entry>,
    /// Records before this offset were trimmed. Compaction does not move it, as in Kafka.
    start: Offset,
    end: Offset,
    /// The first offset of every open transaction in this log.
    open: BTreeMap<TransactionId, Offset>,
    highest: EventTime,
    bytes: u64,
    /// Bytes appended since the last compaction.
    dirty_bytes: u64,
    /// Tombstones that a compaction has found, with the time from which they may be removed ([`Now::elapsed`]).
    tombstones: BTreeMap<Offset, Duration>,
}

#[derive(Debug)]
struct Entry {
    offset: Offset,
    transaction: Option<TransactionId>,
    timestamp: EventTime,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<Header>,
}

impl Log {
    pub(crate) fn new(rules: LogRules) -> Self {
        Self {
            rules,
            entries: VecDeque::new(),
            start: Offset(0),
            end: Offset(0),
            open: BTreeMap::new(),
            highest: EventTime::MIN,
            bytes: 0,
            dirty_bytes: 0,
            tombstones: BTreeMap::new(),
        }
    }

    /// The first offset that can be read.
    pub(crate) fn start(&self) -> Offset {
        self.start
    }

    /// The offset after the newest record: the high watermark.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// The last stable offset: the first offset of the oldest open transaction, or the end of the log. Readers get the
    /// records before it.
    pub(crate) fn stable_end(&self) -> Offset {
        self.open.values().min().copied().unwrap_or(self.end)
    }

    /// The memory of the log, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a reader can start at `position`: not before the start of the log, and not after its end.
    pub(crate) fn reaches(&self, position: Offset) -> bool {
        self.start <= position && position <= self.end
    }

    /// Whether the oldest records may be dropped when memory runs short.
    pub(crate) fn may_drop_oldest(&self) -> bool {
        match self.rules.cleanup {
            Cleanup::Delete { retention } => retention.is_some(),
            Cleanup::Compact | Cleanup::CompactDelete { .. } => false,
        }
    }

    /// Adds a record at the end.
    pub(crate) fn append(
        &mut self,
        record: OutputRecord,
        transaction: Option<TransactionId>,
        now: Now,
    ) {
        let OutputRecord { topic: _, partition: _, timestamp, key, value, headers } = record;
        let timestamp = match self.rules.cleanup.timestamps() {
            Some(Timestamps::LogAppendTime) => EventTime(now.wall.0),
            Some(Timestamps::CreateTime) | None => timestamp,
        };
        let entry = Entry { offset: self.end, transaction, timestamp, key, value, headers };
        if let Some(transaction) = transaction {
            self.open.entry(transaction).or_insert(entry.offset);
        }
        self.bytes += entry.bytes();
        self.dirty_bytes += entry.bytes();
        self.highest = self.highest.max(timestamp);
        self.end = self.end.next();
        self.entries.push_back(entry);
    }

    /// Ends a transaction of this log: its records become visible, or are removed. The marker takes an offset.
    pub(crate) fn finish(&mut self, transaction: TransactionId, ending: Ending) {
        let first = self.open.remove(&transaction).expect("a transaction ends where it wrote");
        match ending {
            Ending::Committed => {}
            Ending::Aborted => self.remove_records_of(transaction, first),
        }
        self.end = self.end.next();
    }

    /// Appends to `records` the visible records of `range`, as far as there is room, and returns the position after them.
    pub(crate) fn read(
        &self,
        source: &TopicPartition,
        range: Range<Offset>,
        room: &mut Room,
        records: &mut Vec<InputRecord>,
    ) -> Offset {
        let end = range.end.min(self.stable_end());
        let mut position = range.start;
        if position >= end {
            return position;
        }
        for entry in self.entries.range(self.index_of(position)..) {
            if entry.offset >= end {
                break;
            }
            if room.records == 0 || room.bytes == 0 {
                return position;
            }
            room.records -= 1;
            room.bytes = room.bytes.saturating_sub(entry.bytes());
            records.push(entry.to_input(source));
            position = entry.offset.next();
        }
        end
    }

    /// Compacts and trims the log where its policy says so. Call it after every change; the amortised cost is O(log n)
    /// per appended record.
    pub(crate) fn clean(&mut self, now: Now) {
        match self.rules.cleanup {
            Cleanup::Delete { retention: None } => {}
            Cleanup::Delete { retention: Some(retention) } => self.trim(retention, now),
            Cleanup::Compact => self.compact_if_dirty(now),
            Cleanup::CompactDelete { retention } => {
                self.trim(retention, now);
                self.compact_if_dirty(now);
            }
        }
    }

    /// Drops the oldest stable records until at least `bytes` bytes are free. Returns the number of freed bytes.
    pub(crate) fn drop_oldest(&mut self, bytes: u64) -> u64 {
        let stable_end = self.stable_end();
        let mut freed = 0;
        while freed < bytes {
            match self.entries.front() {
                Some(oldest) if oldest.offset < stable_end => freed += self.drop_front(),
                Some(_) | None => break,
            }
        }
        freed
    }

    /// Drops the stable records before `offset`, and moves the start of the log there.
    pub(crate) fn delete_before(&mut self, offset: Offset) {
        let start = offset.min(self.stable_end());
        while self.entries.front().is_some_and(|oldest| oldest.offset < start) {
            self.drop_front();
        }
        self.start = self.start.max(start);
    }

    /// Drops records older than `retention` from the front. Kafka compares timestamps with the wall clock. Here the
    /// reference is the highest timestamp, bounded by the wall clock, so that one record of the year 3000 does not empty
    /// the log.
    fn trim(&mut self, retention: Duration, now: Now) {
        let oldest_kept = self.highest.min(EventTime(now.wall.0)) - retention;
        let stable_end = self.stable_end();
        while let Some(oldest) = self.entries.front()
            && oldest.timestamp < oldest_kept
            && oldest.offset < stable_end
        {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) -> u64 {
        let oldest =
            self.entries.pop_front().expect("the caller has checked that the log is not empty");
        self.start = oldest.offset.next();
        self.tombstones.remove(&oldest.offset);
        self.bytes -= oldest.bytes();
        self.dirty_bytes = self.dirty_bytes.min(self.bytes);
        oldest.bytes()
    }

    /// Compacts by Kafka's rule (`min.cleanable.dirty.ratio` 0.5): if more than half of the log is new.
    fn compact_if_dirty(&mut self, now: Now) {
        let clean_bytes = self.bytes - self.dirty_bytes;
        if self.dirty_bytes > clean_bytes.max(self.rules.compaction_bytes_min) {
            self.compact(now);
        }
    }

    /// Keeps the last stable record of every key. A tombstone stays for `tombstone_retention` after the first compaction
    /// that finds it, so that a reader that has read the value also reads its deletion.
    fn compact(&mut self, now: Now) {
        let stable = self.index_of(self.stable_end());
        let mut keys_seen: BTreeSet<&[u8]> = BTreeSet::new();
        let mut removed: BTreeSet<Offset> = BTreeSet::new();
        for entry in self.entries.range(..stable).rev() {
            let key =
                entry.key.as_deref().expect("a compacted topic takes no record without a key");
            let is_last = keys_seen.insert(key);
            let is_expired_tombstone = entry.value.is_none() && {
                let removable_at = now.elapsed + self.rules.tombstone_retention;
                *self.tombstones.entry(entry.offset).or_insert(removable_at) <= now.elapsed
            };
            if !is_last || is_expired_tombstone {
                removed.insert(entry.offset);
                self.tombstones.remove(&entry.offset);
            }
        }
        self.entries.retain(|entry| !removed.contains(&entry.offset));
        self.entries.shrink_to(2 * self.entries.len());
        self.bytes = self.entries.iter().map(Entry::bytes).sum();
        self.dirty_bytes = 0;
    }

    fn remove_records_of(&mut self, transaction: TransactionId, first: Offset) {
        let mut rest = self.entries.split_off(self.index_of(first));
        let mut freed = 0;
        rest.retain(|entry| {
            let stays = entry.transaction != Some(transaction);
            if !stays {
                freed += entry.bytes();
            }
            stays
        });
        self.entries.append(&mut rest);
        self.bytes -= freed;
        self.dirty_bytes = self.dirty_bytes.saturating_sub(freed);
    }

    /// The index of the first entry at `offset` or after it.
    fn index_of(&self, offset: Offset) -> usize {
        self.entries.partition_point(|entry| entry.offset < offset)
    }
}

impl Entry {
    /// The memory of the entry, in bytes.
    fn bytes(&self) -> u64 {
        let header_bytes =
            |header: &Header| size_of::<Header>() + header.name.len() + header.value.len();
        let bytes = size_of::<Self>()
            + self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + self.headers.iter().map(header_bytes).sum::<usize>();
        bytes as u64
    }

    fn to_input(&self, source: &TopicPartition) -> InputRecord {
        InputRecord {
            source: source.clone(),
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.clone(),
            value: self.value.clone(),
            headers: self.headers.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{Partition, Topic},
        time::WallTime,
    };

    const FOREVER: Cleanup = Cleanup::Delete { retention: None };
    const TEN_MS: Duration = Duration::from_millis(10);

    fn now(seconds: u64) -> Now {
        Now { elapsed: Duration::from_secs(seconds), wall: WallTime(1_000_000) }
    }

    fn log(cleanup: Cleanup) -> Log {
        let tombstone_retention = Duration::from_secs(60);
        Log::new(LogRules { cleanup, compaction_bytes_min: 1, tombstone_retention })
    }

    fn record(key: &str, value: Option<&str>, timestamp: i64) -> OutputRecord {
        OutputRecord {
            topic: Topic::new("t"),
            partition: None,
            timestamp: EventTime(timestamp),
            key: Some(key.as_bytes().to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: vec![Header { name: "h".to_owned(), value: b"v".to_vec() }],
        }
    }

    /// The records that readers get, as `key=value@offset`.
    fn visible(log: &Log) -> String {
        let source = TopicPartition { topic: Topic::new("t"), partition: Partition(0) };
        let mut records = Vec::new();
        let mut room = Room { records: usize::MAX, bytes: u64::MAX };
        let after = log.read(&source, log.start()..log.end(), &mut room, &mut records);
        assert_eq!(after, log.stable_end());
        let text = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            None => "-".to_owned(),
        };
        let show = |record: &InputRecord| {
            format!("{}={}@{}", text(&record.key), text(&record.value), record.offset)
        };
        records.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    fn two_transactions() -> (TransactionId, TransactionId) {
        let mut producers = crate::local::transaction::Producers::default();
        let mut open = |name: &str| {
            producers.init(name, crate::local::transaction::Epoch(0));
            producers.open(name, Duration::ZERO).unwrap().id
        };
        (open("a"), open("b"))
    }

    #[test]
    fn the_oldest_open_transaction_holds_back_later_records() {
        let (first, second) = two_transactions();
        let mut log = log(FOREVER);
        log.append(record("a", Some("0"), 0), None, now(0));
        log.append(record("a", Some("1"), 0), Some(first), now(0));
        log.append(record("a", Some("2"), 0), Some(second), now(0));
        log.append(record("a", Some("3"), 0), None, now(0));
        assert_eq!(visible(&log), "a=0@0");
        log.finish(second, Ending::Committed); // The marker is 4.
        assert_eq!(visible(&log), "a=0@0");
        log.append(record("a", Some("5"), 0), None, now(0));
        log.finish(first, Ending::Aborted); // The marker is 6.
        assert_eq!(visible(&log), "a=0@0 a=2@2 a=3@3 a=5@5");
        assert_eq!(log.stable_end(), Offset(7));
    }

    #[test]
    fn a_range_bounds_what_is_read() {
        let (transaction, _) = two_transactions();
        let mut log = log(FOREVER);
        log.append(record("a", Some("0"), 0), None, now(0));
        log.append(record("a", Some("1"), 0), Some(transaction), now(0));
        log.finish(transaction, Ending::Aborted); // The marker is 2.
        log.append(record("a", Some("3"), 0), None, now(0));
        let source = TopicPartition { topic: Topic::new("t"), partition: Partition(0) };
        for ((start, end), expected) in
            [((0, 2), (1, 2)), ((2, 3), (0, 3)), ((3, 9), (1, 4)), ((3, 2), (0, 3))]
        {
            let mut records = Vec::new();
            let mut room = Room { records: usize::MAX, bytes: u64::MAX };
            let after = log.read(&source, Offset(start)..Offset(end), &mut room, &mut records);
            assert_eq!((records.len(), after.0), expected);
        }
    }

    #[test]
    fn deleted_records_move_the_start_at_most_to_the_stable_end() {
        let (transaction, _) = two_transactions();
        let mut log = log(FOREVER);
        for value in ["0", "1", "2"] {
            log.append(record("a", Some(value), 0), None, now(0));
        }
        log.append(record("a", Some("3"), 0), Some(transaction), now(0));
        log.delete_before(Offset(2));
        log.delete_before(Offset(1));
        assert_eq!((log.start(), visible(&log)), (Offset(2), "a=2@2".to_owned()));
        log.delete_before(Offset(9));
        assert_eq!((log.start(), visible(&log)), (Offset(3), String::new()));
        log.finish(transaction, Ending::Aborted); // The marker is 4.
        log.delete_before(Offset(9));
        assert_eq!((log.start(), log.bytes()), (Offset(5), 0));
    }

    #[test]
    fn an_abort_frees_memory_and_keeps_offsets() {
        let (transaction, _) = two_transactions();
        let mut log = log(FOREVER);
        log.append(record("a", Some("0"), 0), Some(transaction), now(0));
        log.append(record("b", Some("1"), 0), Some(transaction), now(0));
        assert!(log.bytes() > 0);
        log.finish(transaction, Ending::Aborted);
        assert_eq!((log.bytes(), log.stable_end()), (0, Offset(3)));
        log.append(record("c", Some("3"), 0), None, now(0));
        assert_eq!(visible(&log), "c=3@3");
    }

    #[test]
    fn a_batch_is_bounded_by_records_and_by_bytes() {
        let mut log = log(FOREVER);
        for _ in 0..5 {
            log.append(record("a", Some("x"), 0), None, now(0));
        }
        let source = TopicPartition { topic: Topic::new("t"), partition: Partition(0) };
        for (records_max, bytes_max, expected) in [(2, u64::MAX, 2), (9, 1, 1), (9, u64::MAX, 5)] {
            let mut records = Vec::new();
            let mut room = Room { records: records_max, bytes: bytes_max };
            let after = log.read(&source, Offset(0)..log.end(), &mut room, &mut records);
            assert_eq!(
                (records.len(), after),
                (expected, Offset(i64::try_from(expected).unwrap()))
            );
        }
    }

    #[test]
    fn compaction_keeps_the_last_record_of_each_key_at_its_offset() {
        let mut log = log(Cleanup::Compact);
        for (key, value) in [("a", "0"), ("b", "1"), ("a", "2"), ("a", "3"), ("c", "4")] {
            log.append(record(key, Some(value), 0), None, now(0));
        }
        log.clean(now(0));
        assert_eq!(visible(&log), "b=1@1 a=3@3 c=4@4");
        assert!(log.reaches(Offset(0)), "a gap does not make a position unreadable");
    }

    #[test]
    fn a_tombstone_is_kept_for_its_retention_and_then_removed() {
        let mut log = log(Cleanup::Compact);
        log.append(record("a", Some("0"), 0), None, now(0));
        log.append(record("a", None, 0), None, now(0));
        log.clean(now(0));
        assert_eq!(visible(&log), "a=-@1");
        for (seconds, expected) in [(59, "a=-@1 b=x@4"), (60, "b=x@7")] {
            for _ in 0..3 {
                log.append(record("b", Some("x"), 0), None, now(0));
            }
            log.clean(now(seconds));
            assert_eq!(visible(&log), expected);
        }
    }

    #[test]
    fn compaction_does_not_touch_open_transactions() {
        let (transaction, _) = two_transactions();
        let mut log = log(Cleanup::Compact);
        log.append(record("a", Some("0"), 0), None, now(0));
        log.append(record("a", None, 0), Some(transaction), now(0));
        log.append(record("a", Some("2"), 0), None, now(0));
        log.clean(now(0));
        assert_eq!(visible(&log), "a=0@0");
        log.finish(transaction, Ending::Aborted);
        assert_eq!(visible(&log), "a=0@0 a=2@2");
    }

    /// The timestamps of producers do not matter.
    #[test]
    fn retention_is_measured_from_the_append_time() {
        let mut log = log(Cleanup::Delete { retention: Some(TEN_MS) });
        for (wall, timestamp) in [(100, 0), (105, i64::MAX), (111, -5)] {
            let now = Now { wall: WallTime(wall), ..now(0) };
            log.append(record("a", Some("x"), timestamp), None, now);
            log.clean(now);
        }
        assert_eq!(visible(&log), "a=x@1 a=x@2");
        assert!(!log.reaches(Offset(0)) && log.reaches(Offset(1)));
    }

    #[test]
    fn a_timestamp_far_in_the_future_does_not_empty_a_log() {
        let mut log = log(Cleanup::CompactDelete { retention: TEN_MS });
        log.append(record("a", Some("x"), 100), None, now(0));
        log.append(record("b", Some("x"), i64::MAX), None, now(0));
        log.clean(Now { wall: WallTime(110), ..now(0) });
        assert_eq!(visible(&log), "a=x@0 b=x@1");
    }

    #[test]
    fn a_log_with_both_policies_is_compacted_and_trimmed() {
        let mut log = log(Cleanup::CompactDelete { retention: TEN_MS });
        for (key, timestamp) in [("a", 0), ("b", 5), ("b", 6), ("c", 15)] {
            log.append(record(key, Some("x"), timestamp), None, now(0));
        }
        log.clean(now(0));
        assert_eq!(visible(&log), "b=x@2 c=x@3");
    }

    #[test]
    fn dropping_the_oldest_spares_open_transactions() {
        let (transaction, _) = two_transactions();
        let mut log = log(Cleanup::Delete { retention: Some(TEN_MS) });
        log.append(record("a", Some("0"), 0), None, now(0));
        log.append(record("a", Some("1"), 0), None, now(0));
        log.append(record("a", Some("2"), 0), Some(transaction), now(0));
        let each = log.bytes() / 3;
        assert_eq!(log.drop_oldest(1), each);
        assert_eq!((visible(&log).as_str(), log.start()), ("a=1@1", Offset(1)));
        assert_eq!(log.drop_oldest(u64::MAX), each);
        assert_eq!((log.drop_oldest(u64::MAX), log.bytes()), (0, each));
    }

    proptest::proptest! {
        /// For any history, a reader of the whole compacted log gets the same last values as a reader of the
        /// uncompacted one, and no record of an open or aborted transaction.
        #[test]
        fn compaction_preserves_the_last_committed_values(
            steps in proptest::collection::vec((0_u8..8, 0_u8..4, 0_u8..4), 1..120)
        ) {
            let (transaction, _) = two_transactions();
            let mut log = log(Cleanup::Compact);
            let mut expected: BTreeMap<String, String> = BTreeMap::new();
            let mut undecided: Option<Vec<(String, Option<String>, bool)>> = None;
            let mut apply = |writes: Vec<(String, Option<String>, bool)>, ending: Ending| {
                for (key, value, transactional) in writes {
                    match value {
                        _ if transactional && ending == Ending::Aborted => {}
                        Some(value) => drop(expected.insert(key, value)),
                        None => drop(expected.remove(&key)),
                    }
                }
            };
            for (index, (kind, key, value)) in steps.into_iter().enumerate() {
                let key = format!("k{key}");
                let value = (value > 0).then(|| format!("v{index}"));
                match (kind, &mut undecided) {
                    (0, Some(_)) | (1, Some(_)) => {
                        let ending = [Ending::Committed, Ending::Aborted][usize::from(kind)];
                        log.finish(transaction, ending);
                        apply(undecided.take().unwrap(), ending);
                    }
                    (2 | 3, writes) => {
                        log.append(record(&key, value.as_deref(), 0), Some(transaction), now(0));
                        writes.get_or_insert_default().push((key, value, true));
                    }
                    (_, Some(writes)) => {
                        log.append(record(&key, value.as_deref(), 0), None, now(0));
                        writes.push((key, value, false));
                    }
                    (_, None) => {
                        log.append(record(&key, value.as_deref(), 0), None, now(0));
                        apply(vec![(key, value, false)], Ending::Committed);
                    }
                }
                log.clean(now(index as u64));
            }
            if let Some(writes) = undecided.take() {
                log.finish(transaction, Ending::Aborted);
                apply(writes, Ending::Aborted);
            }
            log.compact(now(1000));
            log.compact(now(2000));
            let mut found = BTreeMap::new();
            for entry in visible(&log).split_whitespace() {
                let (key, rest) = entry.split_once('=').unwrap();
                let value = rest.split('@').next().unwrap();
                proptest::prop_assert!(value != "-", "tombstones are removed in the end");
                found.insert(key.to_owned(), value.to_owned());
            }
            proptest::prop_assert_eq!(found, expected);
            proptest::prop_assert_eq!(log.bytes, log.entries.iter().map(Entry::bytes).sum::<u64>());
        }
    }
}
