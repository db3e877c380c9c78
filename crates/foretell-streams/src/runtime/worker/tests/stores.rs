//! Workers with stores on disk, and with stores that fail.

use std::{
    borrow::Cow,
    fs,
    ops::Bound,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::{
    record::{OutputRecord, Partition, TopicPartition},
    runtime::{
        Standby, StandbyParts, StopSignal, Worker,
        broker::{Broker, ProcessingGuarantee},
        worker::tests::{
            COMMIT_INTERVAL, Harness, PARTITIONS, SESSION_OVER, rejections::RejectingBroker, topic,
        },
    },
    state::{
        Access, Change, Checkpoint, DiskStores, Entry, MemoryStore, MemoryStores, StateError,
        StateStore, StoreSupplier,
    },
    time::{Clock, EventTime, ManualClock},
};

fn on_disk(folder: &Path) -> Arc<dyn StoreSupplier> {
    Arc::new(DiskStores::open(folder).unwrap())
}

/// Writes a word a second: one checkpoint advances in each.
fn advance_checkpoints(harness: &Harness, worker: &mut Worker, words: &[&str]) {
    for word in words {
        harness.clock.advance(Duration::from_secs(1));
        harness.put(word);
        Harness::turn(&mut [&mut *worker]);
    }
}

#[test]
fn a_worker_that_was_stopped_has_nothing_to_restore() {
    let harness = Harness::new("out");
    let folder = tempfile::tempdir().unwrap();
    let stores = on_disk(folder.path());
    let mut first = harness.join_on(&stores, "a");
    harness.put("one");
    harness.run(&mut [&mut first]);
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    drop(stores);
    let mut second = harness.join_on(&on_disk(folder.path()), "a");
    harness.put("two");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["one 1", "two 2"]);
    assert_eq!(harness.restored(), 0);
}

#[test]
fn a_worker_that_crashed_restores_only_the_tail_of_the_changelog() {
    let harness = Harness::new("out");
    let folder = tempfile::tempdir().unwrap();
    let stores = on_disk(folder.path());
    let mut first = harness.join_on(&stores, "a");
    harness.run(&mut [&mut first]);
    // The checkpoint of one of the four stores advances per second.
    advance_checkpoints(&harness, &mut first, &["1", "2", "3", "4"]);
    // Too little time passes for another checkpoint.
    harness.put("5");
    harness.clock.advance(COMMIT_INTERVAL);
    Harness::turn(&mut [&mut first]);
    harness.put("not committed");
    Harness::turn(&mut [&mut first]);
    drop((first, stores));
    let mut second = harness.join_on(&on_disk(folder.path()), "a");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["1 1", "2 2", "3 3", "4 4", "5 5", "not committed 6"]);
    // Each changelog has five records; the checkpoints of the stores advanced one after the other.
    assert_eq!(harness.restored(), 13, "of 20");
}

#[test]
fn lost_stores_are_restored_from_the_beginning() {
    let harness = Harness::new("out");
    let folder = tempfile::tempdir().unwrap();
    let mut first = harness.join_on(&on_disk(folder.path()), "a");
    harness.put("one");
    harness.run(&mut [&mut first]);
    drop(first);
    fs::remove_dir_all(folder.path()).unwrap();
    let mut second = harness.join_on(&on_disk(folder.path()), "a");
    harness.put("two");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["one 1", "two 2"]);
    assert_eq!(harness.restored(), u64::from(PARTITIONS));
}

/// While the process is stopped, the changelog is recreated, and another worker writes more to it than the old one had: the
/// checkpoint of the store is then an offset of another log.
#[test]
fn a_store_of_a_deleted_changelog_is_not_mixed_with_the_recreated_one() {
    for guarantee in [ProcessingGuarantee::ExactlyOnce, ProcessingGuarantee::AtLeastOnce] {
        for other_is_on_disk in [false, true] {
            let mut harness = Harness::new("out");
            harness.guarantee = guarantee;
            let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let stop = StopSignal::default();
            stop.stop();
            let run = |stores: Arc<dyn StoreSupplier>, prefix: &str, words: &[&str]| {
                let mut worker = harness.join_on(&stores, "a");
                for word in words {
                    harness.put_with_prefix(prefix, word);
                    harness.run(&mut [&mut worker]);
                }
                worker.run(&stop).unwrap();
            };
            let expect = |key: &str, expected: &[&str]| {
                assert_eq!(harness.read("out")[key.as_bytes()], expected, "{guarantee:?}");
            };
            run(on_disk(folder.path()), "old-", &["one", "two"]);
            expect("old-0", &["one 1", "two 2"]);
            // The same log: the store continues.
            run(on_disk(folder.path()), "old-", &["three"]);
            expect("old-0", &["one 1", "two 2", "three 3"]);
            assert_eq!(harness.restored(), 0);

            let [changelog] = &harness.topology.changelogs()[..] else { panic!("there is one") };
            harness.broker.with(|cluster, _| cluster.recreate_topic(changelog));
            let other_stores: Arc<dyn StoreSupplier> = match other_is_on_disk {
                true => on_disk(other.path()),
                false => Arc::new(MemoryStores),
            };
            run(other_stores, "new-", &["a", "b", "c", "d", "e", "f"]);
            run(on_disk(folder.path()), "old-", &["again"]);
            run(on_disk(folder.path()), "new-", &["g"]);
            expect("old-0", &["one 1", "two 2", "three 3", "again 1"]);
            expect("new-0", &["a 1", "b 2", "c 3", "d 4", "e 5", "f 6", "g 7"]);
        }
    }
}

/// Entries that were deleted while the process was stopped may still be in the store, and their tombstones no longer in the
/// changelog.
#[test]
fn a_store_that_is_older_than_tombstones_is_restored_from_the_beginning() {
    const HOUR: Duration = Duration::from_secs(3600);
    // Each changelog gets one record while the process is stopped; two were there before.
    for (stopped_for, restored) in [(11 * HOUR, 1), (13 * HOUR, 3)] {
        let harness = Harness::new("out");
        let folder = tempfile::tempdir().unwrap();
        let stop = StopSignal::default();
        stop.stop();
        let run = |stores: &Arc<dyn StoreSupplier>, words: &[&str]| {
            let mut worker = harness.join_on(stores, "a");
            for word in words {
                harness.put(word);
                harness.run(&mut [&mut worker]);
            }
            worker.run(&stop).unwrap();
        };
        run(&on_disk(folder.path()), &["one", "two"]);
        let elsewhere: Arc<dyn StoreSupplier> = Arc::new(MemoryStores);
        run(&elsewhere, &["three"]);
        let before = harness.restored();
        harness.clock.advance(stopped_for);
        run(&on_disk(folder.path()), &["four"]);
        harness.expect_out(&["one 1", "two 2", "three 3", "four 4"]);
        let of_all = harness.restored() - before;
        assert_eq!(of_all, u64::from(PARTITIONS) * restored, "after {stopped_for:?}");
    }
}

/// Two workers of one process: the first is removed from the group while it stalls, and continues with a store that another
/// task has taken over.
#[test]
fn a_store_moves_with_its_task_within_the_process() {
    let harness = Harness::new("out");
    let folder = tempfile::tempdir().unwrap();
    let stores = on_disk(folder.path());
    let mut first = harness.join_on(&stores, "a");
    harness.run(&mut [&mut first]);
    harness.leave_open(&mut first, "one", "two");
    harness.clock.advance(SESSION_OVER);
    let mut second = harness.join_on(&stores, "b");
    harness.run(&mut [&mut second]);
    harness.put("three");
    harness.run(&mut [&mut first, &mut second]);
    harness.run(&mut [&mut second, &mut first]);
    harness.expect_out(&["one 1", "two 2", "three 3"]);
}

/// Another instance keeps a standby on its own disk: when it takes over, it restores only the records after the last turn
/// of the standby.
#[test]
fn the_successor_with_a_standby_restores_only_the_last_records() {
    let harness = Harness::new("out");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut first = harness.join_on(&on_disk(folders[0].path()), "a");
    harness.run(&mut [&mut first]);
    let stores = on_disk(folders[1].path());
    let mut standby = Standby::new(StandbyParts {
        broker: Arc::new(harness.broker.clone()),
        topology: Arc::clone(&harness.topology),
        group: "group".to_owned(),
        stores: Arc::clone(&stores),
        clock: Arc::<ManualClock>::clone(&harness.clock) as Arc<dyn Clock>,
        metrics: harness.metrics.clone(),
    });
    for word in ["1", "2", "3"] {
        harness.put(word);
        harness.run(&mut [&mut first]);
        for _ in 0..3 {
            assert!(standby.turn().unwrap(), "it follows");
        }
    }
    harness.put("4");
    harness.run(&mut [&mut first]);
    drop(first);
    harness.clock.advance(SESSION_OVER);
    let mut second = harness.join_on(&stores, "b");
    harness.run(&mut [&mut second]);
    standby.turn().unwrap();
    harness.put("5");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["1 1", "2 2", "3 3", "4 4", "5 5"]);
    assert_eq!(
        harness.restored(),
        u64::from(PARTITIONS),
        "the records after the last turn of the standby"
    );
    // The standby does not open stores that a worker has open.
    standby.turn().unwrap();
    harness.put("6");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["1 1", "2 2", "3 3", "4 4", "5 5", "6 6"]);
}

/// A store in memory whose calls fail.
pub(super) struct FailingStore {
    store: MemoryStore,
    failures: Arc<StoreFailures>,
}

#[derive(Default)]
pub(super) struct StoreFailures {
    /// Whether writes fail because the disk is full.
    is_full: AtomicBool,
    /// Whether the next read fails.
    pub(super) is_damaged: AtomicBool,
    /// The number of writes still to find a corrupted store.
    pub(super) writes: AtomicI64,
    /// The number of stores that still cannot be emptied.
    pub(super) clears: AtomicI64,
    /// The number of calls to remove unused stores.
    cleanings: AtomicI64,
}

#[derive(Clone)]
pub(super) struct FailingStores(pub(super) Arc<StoreFailures>);

impl StoreSupplier for FailingStores {
    fn open(
        &self,
        _changelog: &TopicPartition,
        _access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        let failures = Arc::clone(&self.0);
        Ok(Box::new(FailingStore { store: MemoryStore::default(), failures }))
    }

    fn open_standby(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        self.open(changelog, access).map(Some)
    }

    fn clean(&self, _now: Duration) -> Result<(), StateError> {
        self.0.cleanings.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

impl StateStore for FailingStore {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        if self.failures.is_damaged.swap(false, Ordering::SeqCst) {
            return Err(StateError::DiskCorrupted("a checksum".to_owned()));
        }
        self.store.get(key)
    }

    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's> {
        self.store.range(from, to)
    }

    fn len(&self) -> usize {
        self.store.len()
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change<'_>>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        if self.failures.is_full.load(Ordering::SeqCst) {
            return Err(StateError::Disk("no space left".to_owned()));
        }
        if self.failures.writes.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(StateError::DiskCorrupted("a checksum".to_owned()));
        }
        self.store.write(changes, checkpoint)
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.store.checkpoint()
    }

    fn clear(&mut self) -> Result<(), StateError> {
        if self.failures.clears.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(StateError::DiskCorrupted("a checksum".to_owned()));
        }
        self.store.clear()
    }
}

#[test]
fn a_corrupted_store_is_rebuilt_and_the_record_counts_once() {
    let harness = Harness::new("out");
    let failures = Arc::new(StoreFailures::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(FailingStores(Arc::clone(&failures)));
    let mut worker = harness.join_on(&stores, "a");
    harness.put("one");
    harness.run(&mut [&mut worker]);
    failures.is_damaged.store(true, Ordering::SeqCst);
    harness.put("two");
    harness.run(&mut [&mut worker]);
    assert!(!failures.is_damaged.load(Ordering::SeqCst), "the worker has read it");
    harness.expect_out(&["one 1", "two 2"]);
    assert_eq!(harness.restored(), 1, "one task was rebuilt");
}

/// Three stores fail to apply a commit, whose changes are in their changelogs.
#[test]
fn all_stores_that_cannot_apply_a_commit_are_rebuilt() {
    let harness = Harness::new("out");
    let failures = Arc::new(StoreFailures::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(FailingStores(Arc::clone(&failures)));
    let mut worker = harness.join_on(&stores, "a");
    harness.put("one");
    harness.run(&mut [&mut worker]);
    failures.writes.store(3, Ordering::SeqCst);
    for word in ["two", "three"] {
        harness.put(word);
        harness.run(&mut [&mut worker]);
    }
    harness.expect_out(&["one 1", "two 2", "three 3"]);
    assert_eq!(harness.restored(), 6, "two records for each of three tasks");
}

#[test]
fn a_store_is_rebuilt_although_the_abort_before_it_fails() {
    let harness = Harness::new("out");
    let failures = Arc::new(StoreFailures::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(FailingStores(Arc::clone(&failures)));
    let broker = RejectingBroker::over(&harness.broker);
    let aborts = Arc::clone(&broker.aborts);
    let mut worker = harness.join_with(Arc::new(broker), stores, "a");
    harness.put("one");
    harness.run(&mut [&mut worker]);
    failures.writes.store(1, Ordering::SeqCst);
    aborts.store(1, Ordering::SeqCst);
    for word in ["two", "three"] {
        harness.put(word);
        harness.run(&mut [&mut worker]);
    }
    harness.expect_out(&["one 1", "two 2", "three 3"]);
}

/// A rebuild would bring the same values.
#[test]
fn values_in_another_format_end_the_worker_and_name_their_changelog() {
    let harness = Harness::new("out");
    let mut publisher = harness.broker.publish().unwrap();
    let left = OutputRecord {
        topic: topic("test-counts-changelog"),
        partition: Some(Partition(0)),
        timestamp: EventTime(0),
        key: Some(b"0".to_vec()),
        value: Some(vec![2, 1]),
        headers: Vec::new(),
    };
    publisher.send(left).unwrap();
    publisher.flush().unwrap();
    let mut worker = harness.join("a");
    harness.put("one");
    harness.clock.advance(COMMIT_INTERVAL);
    let mut turns = (0..8).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("the worker ends").to_string();
    assert!(error.starts_with("test-counts-changelog holds values in format 2"), "{error}");
    assert!(error.contains("reads format 1: start the release that wrote"), "{error}");
}

#[test]
fn a_full_disk_ends_the_worker_and_loses_nothing() {
    let harness = Harness::new("out");
    let failures = Arc::new(StoreFailures::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(FailingStores(Arc::clone(&failures)));
    let mut worker = harness.join_on(&stores, "a");
    harness.run(&mut [&mut worker]);
    failures.is_full.store(true, Ordering::SeqCst);
    harness.put("one");
    harness.clock.advance(COMMIT_INTERVAL);
    let mut turns = (0..8).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("the worker ends");
    assert!(error.to_string().contains("no space left"), "{error}");
    drop(worker);
    failures.is_full.store(false, Ordering::SeqCst);
    let mut next = harness.join_on(&stores, "a");
    harness.put("two");
    harness.run(&mut [&mut next]);
    harness.expect_out(&["one 1", "two 2"]);
}

#[test]
fn unused_stores_are_removed_every_minute() {
    let harness = Harness::new("out");
    let failures = Arc::new(StoreFailures::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(FailingStores(Arc::clone(&failures)));
    let mut worker = harness.join_on(&stores, "a");
    let mut after = |seconds| {
        harness.clock.advance(Duration::from_secs(seconds));
        Harness::turn(&mut [&mut worker]);
        failures.cleanings.load(Ordering::SeqCst)
    };
    assert_eq!([after(59), after(1), after(59), after(1)], [0, 1, 1, 2]);
}

/// A second mark would replace the one that the checkpoint names.
#[test]
fn a_changelog_is_marked_once() {
    let harness = Harness::new("out");
    let folder = tempfile::tempdir().unwrap();
    let mut worker = harness.join_on(&on_disk(folder.path()), "a");
    harness.run(&mut [&mut worker]);
    let words = ["1", "2", "3", "4", "5", "6"];
    advance_checkpoints(&harness, &mut worker, &words);
    let written: usize = harness.changelog().values().sum();
    assert_eq!(written, PARTITIONS as usize * (1 + words.len()));
    let board = harness.board.read();
    assert!(board["a"].tasks.iter().all(|task| task.store_entries_estimated));
}
