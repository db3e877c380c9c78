//! One partition's log: append, read what is committed, compact, trim. It knows nothing of topics,
//! of groups, or of who writes.
//!
//! ```text
//!   start          stable end        end        kept    what readers may see, by offset
//!     ▼                ▼              ▼         ·       a hole: compacted, aborted, or a marker
//!     k · k k · · k k  o k o k        ┆         k o     a record; one of an open transaction
//!     └── readers see ─┘└─ not yet ───┘
//! ```
//!
//! Records of an open transaction are in the log at once, and hold back the stable end (Kafka's last
//! stable offset), so that a reader sees offsets in order and a slow transaction delays the ones behind
//! it, as in Kafka. The end of a transaction takes an offset, too (Kafka's control record): offsets have
//! holes, and a test that counts records by subtracting offsets fails. Aborted records are removed
//! on the spot, since nobody can have seen them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    local::{cluster::Now, transaction::TransactionId},
    record::{Header, InputRecord, Offset, OutputRecord, TopicPartition},
    runtime::broker::{Cleanup, Timestamps},
    time::EventTime,
};

/// What a log keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRules {
    pub(crate) cleanup: Cleanup,
    /// No compaction before so many bytes were appended since the last one.
    pub(crate) compaction_bytes_min: u64,
    /// How long a tombstone outlives the compaction that first saw it (`delete.retention.ms`).
    pub(crate) tombstone_retention: Duration,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Committed,
    Aborted,
}

/// What still fits into one batch of a reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) records: usize,
    pub(crate) bytes: u64,
}

/// The log of one partition.
#[derive(Debug)]
pub(crate) struct Log {
    rules: LogRules,
    /// By offset, with holes.
    entries: VecDeque<Entry>,
    /// Everything before it was trimmed. Compaction does not move it, as in Kafka.
    start: Offset,
    end: Offset,
    /// The first offset of every open transaction that wrote here.
    open: BTreeMap<TransactionId, Offset>,
    highest: EventTime,
    bytes: u64,
    /// Appended since the last compaction.
    dirty_bytes: u64,
    /// Tombstones that a compaction has seen, and when one may remove them ([`Now::elapsed`]).
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

    /// The oldest offset that can be asked for.
    pub(crate) fn start(&self) -> Offset {
        self.start
    }

    /// After the newest record: the high watermark.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// Readers see what is before it: the first record of the oldest open transaction, or the end.
    pub(crate) fn stable_end(&self) -> Offset {
        self.open.values().min().copied().unwrap_or(self.end)
    }

    /// The memory it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a position can be read from: neither trimmed nor never written.
    pub(crate) fn reaches(&self, position: Offset) -> bool {
        self.start <= position && position <= self.end
    }

    /// Whether it gives up its oldest records when memory runs short.
    pub(crate) fn yields_to_pressure(&self) -> bool {
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

    /// Ends a transaction that wrote here: its records become visible, or go away. The marker takes
    /// an offset.
    pub(crate) fn finish(&mut self, transaction: TransactionId, ending: Ending) {
        let first = self.open.remove(&transaction).expect("a transaction ends where it wrote");
        match ending {
            Ending::Committed => {}
            Ending::Aborted => self.remove_records_of(transaction, first),
        }
        self.end = self.end.next();
    }

    /// Appends to `records` what is visible from `position` on, as far as there is room, and returns
    /// the position after it.
    pub(crate) fn read(
        &self,
        source: &TopicPartition,
        position: Offset,
        room: &mut Room,
        records: &mut Vec<InputRecord>,
    ) -> Offset {
        let stable_end = self.stable_end();
        if position >= stable_end {
            return position;
        }
        let mut position = position;
        for entry in self.entries.range(self.index_of(position)..) {
            if entry.offset >= stable_end {
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
        stable_end
    }

    /// Compacts and trims, if it is time to. To be called after every change; amortised, it costs
    /// O(log n) an appended record.
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

    /// Drops the oldest records, `bytes` of them or a little more, but none that is not yet stable.
    /// Returns how many bytes became free.
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

    /// Drops records from the front that are older than `retention`. Kafka compares with the time of
    /// day; here the highest timestamp counts, but not beyond the time of day, so that one record from the year 3000
    /// does not empty the log.
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
        let oldest = self.entries.pop_front().expect("the caller has seen a front");
        self.start = oldest.offset.next();
        self.tombstones.remove(&oldest.offset);
        self.bytes -= oldest.bytes();
        self.dirty_bytes = self.dirty_bytes.min(self.bytes);
        oldest.bytes()
    }

    /// Kafka's rule (`min.cleanable.dirty.ratio` 0.5): when more than half of the log is new.
    fn compact_if_dirty(&mut self, now: Now) {
        let clean_bytes = self.bytes - self.dirty_bytes;
        if self.dirty_bytes > clean_bytes.max(self.rules.compaction_bytes_min) {
            self.compact(now);
        }
    }

    /// Keeps the last stable record of every key. A tombstone stays for a while after it was first
    /// seen here, so that a reader that has read the value before gets to know.
    fn compact(&mut self, now: Now) {
        let stable = self.index_of(self.stable_end());
        let mut keys_seen: BTreeSet<&[u8]> = BTreeSet::new();
        let mut removed: BTreeSet<Offset> = BTreeSet::new();
        for entry in self.entries.range(..stable).rev() {
            let key =
                entry.key.as_deref().expect("a compacted topic takes no record without a key");
            let is_last = keys_seen.insert(key);
            let is_over = entry.value.is_none() && {
                let removable_at = now.elapsed + self.rules.tombstone_retention;
                *self.tombstones.entry(entry.offset).or_insert(removable_at) <= now.elapsed
            };
            if !is_last || is_over {
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

    /// Where the first entry at `offset` or after it is.
    fn index_of(&self, offset: Offset) -> usize {
        self.entries.partition_point(|entry| entry.offset < offset)
    }
}

impl Entry {
    /// What it takes in memory.
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

    /// What readers see, as `key=value@offset`.
    fn seen(log: &Log) -> String {
        let source = TopicPartition { topic: Topic::new("t"), partition: Partition(0) };
        let mut records = Vec::new();
        let mut room = Room { records: usize::MAX, bytes: u64::MAX };
        let after = log.read(&source, log.start(), &mut room, &mut records);
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
    fn the_oldest_open_transaction_holds_back_what_is_behind_it() {
        let (first, second) = two_transactions();
        let mut log = log(FOREVER);
        log.append(record("a", Some("0"), 0), None, now(0));
        log.append(record("a", Some("1"), 0), Some(first), now(0));
        log.append(record("a", Some("2"), 0), Some(second), now(0));
        log.append(record("a", Some("3"), 0), None, now(0));
        assert_eq!(seen(&log), "a=0@0");
        log.finish(second, Ending::Committed); // The marker is 4.
        assert_eq!(seen(&log), "a=0@0");
        log.append(record("a", Some("5"), 0), None, now(0));
        log.finish(first, Ending::Aborted); // The marker is 6.
        assert_eq!(seen(&log), "a=0@0 a=2@2 a=3@3 a=5@5");
        assert_eq!(log.stable_end(), Offset(7));
    }

    #[test]
    fn an_abort_gives_the_memory_back_and_keeps_the_offsets() {
        let (transaction, _) = two_transactions();
        let mut log = log(FOREVER);
        log.append(record("a", Some("0"), 0), Some(transaction), now(0));
        log.append(record("b", Some("1"), 0), Some(transaction), now(0));
        assert!(log.bytes() > 0);
        log.finish(transaction, Ending::Aborted);
        assert_eq!((log.bytes(), log.stable_end()), (0, Offset(3)));
        log.append(record("c", Some("3"), 0), None, now(0));
        assert_eq!(seen(&log), "c=3@3");
    }

    #[test]
    fn a_batch_ends_where_the_room_does_and_the_next_goes_on() {
        let mut log = log(FOREVER);
        for _ in 0..5 {
            log.append(record("a", Some("x"), 0), None, now(0));
        }
        let source = TopicPartition { topic: Topic::new("t"), partition: Partition(0) };
        for (records_max, bytes_max, expected) in [(2, u64::MAX, 2), (9, 1, 1), (9, u64::MAX, 5)] {
            let mut records = Vec::new();
            let mut room = Room { records: records_max, bytes: bytes_max };
            let after = log.read(&source, Offset(0), &mut room, &mut records);
            assert_eq!(
                (records.len(), after),
                (expected, Offset(i64::try_from(expected).unwrap()))
            );
        }
    }

    #[test]
    fn compaction_keeps_the_last_of_each_key_at_its_offset() {
        let mut log = log(Cleanup::Compact);
        for (key, value) in [("a", "0"), ("b", "1"), ("a", "2"), ("a", "3"), ("c", "4")] {
            log.append(record(key, Some(value), 0), None, now(0));
        }
        log.clean(now(0));
        assert_eq!(seen(&log), "b=1@1 a=3@3 c=4@4");
        assert!(log.reaches(Offset(0)), "a hole is no reason to start over");
    }

    #[test]
    fn a_tombstone_stays_for_its_time_and_never_uncovers_an_older_value() {
        let mut log = log(Cleanup::Compact);
        log.append(record("a", Some("0"), 0), None, now(0));
        log.append(record("a", None, 0), None, now(0));
        log.clean(now(0));
        assert_eq!(seen(&log), "a=-@1");
        for (seconds, expected) in [(59, "a=-@1 b=x@4"), (60, "b=x@7")] {
            for _ in 0..3 {
                log.append(record("b", Some("x"), 0), None, now(0));
            }
            log.clean(now(seconds));
            assert_eq!(seen(&log), expected);
        }
    }

    #[test]
    fn compaction_leaves_alone_what_is_not_decided() {
        let (transaction, _) = two_transactions();
        let mut log = log(Cleanup::Compact);
        log.append(record("a", Some("0"), 0), None, now(0));
        log.append(record("a", None, 0), Some(transaction), now(0));
        log.append(record("a", Some("2"), 0), None, now(0));
        log.clean(now(0));
        assert_eq!(seen(&log), "a=0@0");
        log.finish(transaction, Ending::Aborted);
        assert_eq!(seen(&log), "a=0@0 a=2@2");
    }

    /// Whatever a writer says about when it happened.
    #[test]
    fn retention_counts_from_when_a_record_was_appended() {
        let mut log = log(Cleanup::Delete { retention: Some(TEN_MS) });
        for (wall, timestamp) in [(100, 0), (105, i64::MAX), (111, -5)] {
            let now = Now { wall: WallTime(wall), ..now(0) };
            log.append(record("a", Some("x"), timestamp), None, now);
            log.clean(now);
        }
        assert_eq!(seen(&log), "a=x@1 a=x@2");
        assert!(!log.reaches(Offset(0)) && log.reaches(Offset(1)));
    }

    #[test]
    fn a_timestamp_of_the_far_future_does_not_empty_a_log() {
        let mut log = log(Cleanup::CompactDelete { retention: TEN_MS });
        log.append(record("a", Some("x"), 100), None, now(0));
        log.append(record("b", Some("x"), i64::MAX), None, now(0));
        log.clean(Now { wall: WallTime(110), ..now(0) });
        assert_eq!(seen(&log), "a=x@0 b=x@1");
    }

    #[test]
    fn a_window_of_state_is_compacted_and_trimmed() {
        let mut log = log(Cleanup::CompactDelete { retention: TEN_MS });
        for (key, timestamp) in [("a", 0), ("b", 5), ("b", 6), ("c", 15)] {
            log.append(record(key, Some("x"), timestamp), None, now(0));
        }
        log.clean(now(0));
        assert_eq!(seen(&log), "b=x@2 c=x@3");
    }

    #[test]
    fn pressure_takes_the_oldest_but_nothing_undecided() {
        let (transaction, _) = two_transactions();
        let mut log = log(Cleanup::Delete { retention: Some(TEN_MS) });
        log.append(record("a", Some("0"), 0), None, now(0));
        log.append(record("a", Some("1"), 0), None, now(0));
        log.append(record("a", Some("2"), 0), Some(transaction), now(0));
        let each = log.bytes() / 3;
        assert_eq!(log.drop_oldest(1), each);
        assert_eq!((seen(&log).as_str(), log.start()), ("a=1@1", Offset(1)));
        assert_eq!(log.drop_oldest(u64::MAX), each);
        assert_eq!((log.drop_oldest(u64::MAX), log.bytes()), (0, each));
    }

    proptest::proptest! {
        /// Whatever happens, a reader of the whole compacted log learns the same as one that read it
        /// uncompacted, and nothing undecided or aborted.
        #[test]
        fn compaction_tells_the_same_story(
            steps in proptest::collection::vec((0_u8..8, 0_u8..4, 0_u8..4), 1..120)
        ) {
            let (transaction, _) = two_transactions();
            let mut log = log(Cleanup::Compact);
            let mut told = BTreeMap::new();
            let mut undecided: Option<Vec<(String, Option<String>, bool)>> = None;
            let mut tell = |writes: Vec<(String, Option<String>, bool)>, ending: Ending| {
                for (key, value, transactional) in writes {
                    match value {
                        _ if transactional && ending == Ending::Aborted => {}
                        Some(value) => drop(told.insert(key, value)),
                        None => drop(told.remove(&key)),
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
                        tell(undecided.take().unwrap(), ending);
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
                        tell(vec![(key, value, false)], Ending::Committed);
                    }
                }
                log.clean(now(index as u64));
            }
            if let Some(writes) = undecided.take() {
                log.finish(transaction, Ending::Aborted);
                tell(writes, Ending::Aborted);
            }
            log.compact(now(1000));
            log.compact(now(2000));
            let expected: BTreeMap<String, String> = told;
            let mut found = BTreeMap::new();
            for entry in seen(&log).split_whitespace() {
                let (key, rest) = entry.split_once('=').unwrap();
                let value = rest.split('@').next().unwrap();
                proptest::prop_assert!(value != "-", "tombstones go in the end");
                found.insert(key.to_owned(), value.to_owned());
            }
            proptest::prop_assert_eq!(found, expected);
            proptest::prop_assert_eq!(log.bytes, log.entries.iter().map(Entry::bytes).sum::<u64>());
        }
    }
}
