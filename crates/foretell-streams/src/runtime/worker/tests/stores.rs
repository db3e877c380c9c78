//! Workers whose stores outlive them, or fail them.

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
            COMMIT_INTERVAL, PARTITIONS, SESSION_OVER, World, refusals::Refusing, topic,
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

/// Long enough for every store's checkpoint to have its turn.
fn let_checkpoints_pass(world: &World, worker: &mut Worker, words: &[&str]) {
    for word in words {
        world.clock.advance(Duration::from_secs(1));
        world.say(word);
        World::turn(&mut [&mut *worker]);
    }
}

#[test]
fn who_stopped_in_order_has_nothing_to_read_again() {
    let world = World::new("out");
    let folder = tempfile::tempdir().unwrap();
    let stores = on_disk(folder.path());
    let mut first = world.join_on(&stores, "a");
    world.say("one");
    world.run(&mut [&mut first]);
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    drop(stores);
    let mut second = world.join_on(&on_disk(folder.path()), "a");
    world.say("two");
    world.run(&mut [&mut second]);
    world.expect_out(&["one 1", "two 2"]);
    assert_eq!(world.restored(), 0);
}

#[test]
fn who_crashed_reads_the_tail_of_the_changelog_only() {
    let world = World::new("out");
    let folder = tempfile::tempdir().unwrap();
    let stores = on_disk(folder.path());
    let mut first = world.join_on(&stores, "a");
    world.run(&mut [&mut first]);
    // One store's checkpoint a second, of four.
    let_checkpoints_pass(&world, &mut first, &["1", "2", "3", "4"]);
    // No time passes for another checkpoint.
    world.say("5");
    world.clock.advance(COMMIT_INTERVAL);
    World::turn(&mut [&mut first]);
    world.say("not committed");
    World::turn(&mut [&mut first]);
    drop((first, stores));
    let mut second = world.join_on(&on_disk(folder.path()), "a");
    world.run(&mut [&mut second]);
    world.expect_out(&["1 1", "2 2", "3 3", "4 4", "5 5", "not committed 6"]);
    // Five records a store are in the changelogs; the stores had their turns one after the other.
    assert_eq!(world.restored(), 13, "of 20");
}

#[test]
fn a_lost_folder_is_restored_from_the_beginning() {
    let world = World::new("out");
    let folder = tempfile::tempdir().unwrap();
    let mut first = world.join_on(&on_disk(folder.path()), "a");
    world.say("one");
    world.run(&mut [&mut first]);
    drop(first);
    fs::remove_dir_all(folder.path()).unwrap();
    let mut second = world.join_on(&on_disk(folder.path()), "a");
    world.say("two");
    world.run(&mut [&mut second]);
    world.expect_out(&["one 1", "two 2"]);
    assert_eq!(world.restored(), u64::from(PARTITIONS));
}

/// While the process was away, somebody has deleted the changelog and made it again, and others have written more to it
/// than the old one had: what the store has of that is nothing any more.
#[test]
fn a_changelog_recreated_is_not_mixed_with_the_store_of_the_old_one() {
    for guarantee in [ProcessingGuarantee::ExactlyOnce, ProcessingGuarantee::AtLeastOnce] {
        for others_are_on_disk in [false, true] {
            let mut world = World::new("out");
            world.guarantee = guarantee;
            let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let stop = StopSignal::default();
            stop.stop();
            let live = |stores: Arc<dyn StoreSupplier>, prefix: &str, words: &[&str]| {
                let mut worker = world.join_on(&stores, "a");
                for word in words {
                    world.say_of(prefix, word);
                    world.run(&mut [&mut worker]);
                }
                worker.run(&stop).unwrap();
            };
            let expect = |key: &str, expected: &[&str]| {
                assert_eq!(world.read("out")[key.as_bytes()], expected, "{guarantee:?}");
            };
            live(on_disk(folder.path()), "old-", &["one", "two"]);
            expect("old-0", &["one 1", "two 2"]);
            // The same log: the store goes on.
            live(on_disk(folder.path()), "old-", &["three"]);
            expect("old-0", &["one 1", "two 2", "three 3"]);
            assert_eq!(world.restored(), 0);

            let [changelog] = &world.topology.changelogs()[..] else { panic!("there is one") };
            world.broker.with(|cluster, _| cluster.recreate_topic(changelog));
            let others: Arc<dyn StoreSupplier> = match others_are_on_disk {
                true => on_disk(other.path()),
                false => Arc::new(MemoryStores),
            };
            live(others, "new-", &["a", "b", "c", "d", "e", "f"]);
            live(on_disk(folder.path()), "old-", &["again"]);
            live(on_disk(folder.path()), "new-", &["g"]);
            expect("old-0", &["one 1", "two 2", "three 3", "again 1"]);
            expect("new-0", &["a 1", "b 2", "c 3", "d 4", "e 5", "f 6", "g 7"]);
        }
    }
}

/// What was deleted while a store was away may be in the store still, and in no changelog any more.
#[test]
fn a_store_that_is_older_than_tombstones_is_restored_from_the_beginning() {
    const HOUR: Duration = Duration::from_secs(3600);
    // One record came to each changelog after the store was left; two were there before.
    for (away, restored) in [(11 * HOUR, 1), (13 * HOUR, 3)] {
        let world = World::new("out");
        let folder = tempfile::tempdir().unwrap();
        let stop = StopSignal::default();
        stop.stop();
        let live = |stores: &Arc<dyn StoreSupplier>, words: &[&str]| {
            let mut worker = world.join_on(stores, "a");
            for word in words {
                world.say(word);
                world.run(&mut [&mut worker]);
            }
            worker.run(&stop).unwrap();
        };
        live(&on_disk(folder.path()), &["one", "two"]);
        let elsewhere: Arc<dyn StoreSupplier> = Arc::new(MemoryStores);
        live(&elsewhere, &["three"]);
        let before = world.restored();
        world.clock.advance(away);
        live(&on_disk(folder.path()), &["four"]);
        world.expect_out(&["one 1", "two 2", "three 3", "four 4"]);
        let of_all = world.restored() - before;
        assert_eq!(of_all, u64::from(PARTITIONS) * restored, "after {away:?}");
    }
}

/// Two workers of one process: the first is expelled while it sleeps, and wakes up with a store that is no longer its
/// own.
#[test]
fn a_task_that_moves_within_the_process_takes_its_store_along() {
    let world = World::new("out");
    let folder = tempfile::tempdir().unwrap();
    let stores = on_disk(folder.path());
    let mut first = world.join_on(&stores, "a");
    world.run(&mut [&mut first]);
    world.leave_open(&mut first, "one", "two");
    world.clock.advance(SESSION_OVER);
    let mut second = world.join_on(&stores, "b");
    world.run(&mut [&mut second]);
    world.say("three");
    world.run(&mut [&mut first, &mut second]);
    world.run(&mut [&mut second, &mut first]);
    world.expect_out(&["one 1", "two 2", "three 3"]);
}

/// Another instance has a standby copy on its own disk: when it takes over, there is nothing left to read but what came a
/// moment ago.
#[test]
fn who_takes_over_a_standby_has_little_to_read() {
    let world = World::new("out");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut first = world.join_on(&on_disk(folders[0].path()), "a");
    world.run(&mut [&mut first]);
    let stores = on_disk(folders[1].path());
    let mut standby = Standby::new(StandbyParts {
        broker: Arc::new(world.broker.clone()),
        topology: Arc::clone(&world.topology),
        group: "group".to_owned(),
        stores: Arc::clone(&stores),
        clock: Arc::<ManualClock>::clone(&world.clock) as Arc<dyn Clock>,
        metrics: world.metrics.clone(),
    });
    for word in ["1", "2", "3"] {
        world.say(word);
        world.run(&mut [&mut first]);
        for _ in 0..3 {
            assert!(standby.turn().unwrap(), "it follows");
        }
    }
    world.say("4");
    world.run(&mut [&mut first]);
    drop(first);
    world.clock.advance(SESSION_OVER);
    let mut second = world.join_on(&stores, "b");
    world.run(&mut [&mut second]);
    standby.turn().unwrap();
    world.say("5");
    world.run(&mut [&mut second]);
    world.expect_out(&["1 1", "2 2", "3 3", "4 4", "5 5"]);
    assert_eq!(world.restored(), u64::from(PARTITIONS), "what came after the copy's last turn");
    // It keeps its hands off what a worker has.
    standby.turn().unwrap();
    world.say("6");
    world.run(&mut [&mut second]);
    world.expect_out(&["1 1", "2 2", "3 3", "4 4", "5 5", "6 6"]);
}

/// A store whose next write fails, in one way or another.
pub(super) struct Ailing {
    store: MemoryStore,
    ailment: Arc<Ailment>,
}

#[derive(Default)]
pub(super) struct Ailment {
    is_full: AtomicBool,
    pub(super) is_damaged: AtomicBool,
    /// So many writes find damage.
    pub(super) writes: AtomicI64,
    /// So many stores can't be emptied.
    pub(super) clears: AtomicI64,
    /// How often it was asked for what nobody uses.
    cleanings: AtomicI64,
}

#[derive(Clone)]
pub(super) struct AilingStores(pub(super) Arc<Ailment>);

impl StoreSupplier for AilingStores {
    fn open(
        &self,
        _changelog: &TopicPartition,
        _access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        let ailment = Arc::clone(&self.0);
        Ok(Box::new(Ailing { store: MemoryStore::default(), ailment }))
    }

    fn open_standby(
        &self,
        changelog: &TopicPartition,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        self.open(changelog, Access::ByKey).map(Some)
    }

    fn clean(&self, _now: Duration) -> Result<(), StateError> {
        self.0.cleanings.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

impl StateStore for Ailing {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        if self.ailment.is_damaged.swap(false, Ordering::SeqCst) {
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
        changes: &mut dyn Iterator<Item = Change>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        if self.ailment.is_full.load(Ordering::SeqCst) {
            return Err(StateError::Disk("no space left".to_owned()));
        }
        if self.ailment.writes.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(StateError::DiskCorrupted("a checksum".to_owned()));
        }
        self.store.write(changes, checkpoint)
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.store.checkpoint()
    }

    fn clear(&mut self) -> Result<(), StateError> {
        if self.ailment.clears.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(StateError::DiskCorrupted("a checksum".to_owned()));
        }
        self.store.clear()
    }
}

#[test]
fn a_damaged_store_is_rebuilt_and_the_record_counts_once() {
    let world = World::new("out");
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let mut worker = world.join_on(&stores, "a");
    world.say("one");
    world.run(&mut [&mut worker]);
    ailment.is_damaged.store(true, Ordering::SeqCst);
    world.say("two");
    world.run(&mut [&mut worker]);
    assert!(!ailment.is_damaged.load(Ordering::SeqCst), "it was met");
    world.expect_out(&["one 1", "two 2"]);
    assert_eq!(world.restored(), 1, "one task was rebuilt");
}

/// What was committed is in the changelogs, and in none of these stores.
#[test]
fn stores_that_cannot_follow_a_commit_are_all_rebuilt() {
    let world = World::new("out");
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let mut worker = world.join_on(&stores, "a");
    world.say("one");
    world.run(&mut [&mut worker]);
    ailment.writes.store(3, Ordering::SeqCst);
    for word in ["two", "three"] {
        world.say(word);
        world.run(&mut [&mut worker]);
    }
    world.expect_out(&["one 1", "two 2", "three 3"]);
    assert_eq!(world.restored(), 6, "two records of each of three tasks");
}

#[test]
fn a_store_is_rebuilt_though_the_abort_before_it_fails() {
    let world = World::new("out");
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let broker = Refusing::over(&world.broker);
    let aborts = Arc::clone(&broker.aborts);
    let mut worker = world.join_with(Arc::new(broker), stores, "a");
    world.say("one");
    world.run(&mut [&mut worker]);
    ailment.writes.store(1, Ordering::SeqCst);
    aborts.store(1, Ordering::SeqCst);
    for word in ["two", "three"] {
        world.say(word);
        world.run(&mut [&mut worker]);
    }
    world.expect_out(&["one 1", "two 2", "three 3"]);
}

/// To rebuild the store would bring the same again.
#[test]
fn values_of_another_format_stop_the_worker_and_name_their_changelog() {
    let world = World::new("out");
    let mut publisher = world.broker.publish().unwrap();
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
    let mut worker = world.join("a");
    world.say("one");
    world.clock.advance(COMMIT_INTERVAL);
    let mut turns = (0..8).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("it stops").to_string();
    assert!(error.starts_with("test-counts-changelog holds values in format 2"), "{error}");
    assert!(error.contains("reads format 1: start the release that wrote"), "{error}");
}

#[test]
fn a_full_disk_stops_the_worker_and_loses_nothing() {
    let world = World::new("out");
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let mut worker = world.join_on(&stores, "a");
    world.run(&mut [&mut worker]);
    ailment.is_full.store(true, Ordering::SeqCst);
    world.say("one");
    world.clock.advance(COMMIT_INTERVAL);
    let mut turns = (0..8).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("it stops");
    assert!(error.to_string().contains("no space left"), "{error}");
    drop(worker);
    ailment.is_full.store(false, Ordering::SeqCst);
    let mut next = world.join_on(&stores, "a");
    world.say("two");
    world.run(&mut [&mut next]);
    world.expect_out(&["one 1", "two 2"]);
}

#[test]
fn stores_that_nobody_uses_are_looked_for_every_minute() {
    let world = World::new("out");
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let mut worker = world.join_on(&stores, "a");
    let mut after = |seconds| {
        world.clock.advance(Duration::from_secs(seconds));
        World::turn(&mut [&mut worker]);
        ailment.cleanings.load(Ordering::SeqCst)
    };
    assert_eq!([after(59), after(1), after(59), after(1)], [0, 1, 1, 2]);
}

/// Another mark would take the place of the one that the checkpoint names.
#[test]
fn a_changelog_is_marked_once() {
    let world = World::new("out");
    let folder = tempfile::tempdir().unwrap();
    let mut worker = world.join_on(&on_disk(folder.path()), "a");
    world.run(&mut [&mut worker]);
    let words = ["1", "2", "3", "4", "5", "6"];
    let_checkpoints_pass(&world, &mut worker, &words);
    let written: usize = world.changelog().values().sum();
    assert_eq!(written, PARTITIONS as usize * (1 + words.len()));
    let board = world.board.read();
    assert!(board["a"].tasks.iter().all(|task| task.store_entries_estimated));
}
