//! The stream time and marks that a task takes over from its stores, the origin of outputs, and the edges of a topology.

use std::{sync::Arc, time::Duration};

use crate::{
    codec::Utf8,
    local::TopologyDriver,
    metrics::{Counter, StreamsMetrics},
    record::{InputRecord, Offset, Partition, TopicPartition},
    state::{
        Access, Checkpoint, Incarnation, MemoryStore, MemoryStores, StateError, StateStore,
        StoreSupplier,
    },
    task::{
        Progress, Task,
        tests::{topic, topology},
    },
    time::{EventTime, WallTime},
    topology::TopologyBuilder,
};

/// Stores with checkpoints, one of which belongs to a deleted changelog.
struct StoresWithCheckpoints;

impl StoreSupplier for StoresWithCheckpoints {
    fn open(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        let time = if changelog.topic == topic("test-last-changelog") { 7_000 } else { 300 };
        let checkpoint = Checkpoint {
            stream_time: EventTime(time),
            incarnation: Some(Incarnation { id: 1, offset: Offset(0) }),
            ..Checkpoint::start(WallTime(0))
        };
        let mut store = MemoryStore::new(access);
        store.write(&mut std::iter::empty(), checkpoint)?;
        Ok(Box::new(store))
    }

    fn open_standby(
        &self,
        _changelog: &TopicPartition,
        _access: Access,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        Ok(None)
    }

    fn clean(&self, _now: Duration) -> Result<(), StateError> {
        Ok(())
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

#[test]
fn clearing_a_store_resets_its_stream_time_and_mark() {
    let topology = Arc::new(topology(&Counter::unread()));
    let metrics = StreamsMetrics::unregistered();
    let open = || Task::open(&topology, Partition(0), &metrics, &StoresWithCheckpoints).unwrap();
    let mut task = open();
    assert_eq!(task.stream_time(), EventTime(7_000));
    task.start(WallTime(500));
    assert_eq!(task.stream_time(), EventTime(7_000), "within the clock tolerance");
    task.start(WallTime(-5_000));
    assert_eq!(task.stream_time(), EventTime(5_000), "the stored time may come from a fast clock");
    let mut task = open();
    let stores: Vec<_> = task.changelogs().collect();
    let (last, source) = stores[0].clone();
    task.clear(last).unwrap();
    assert_eq!(task.stream_time(), EventTime(300));
    assert_eq!(task.marks.current(last), None);
    let record = InputRecord {
        source,
        offset: Offset(0),
        timestamp: EventTime(400),
        key: Some(b"k".to_vec()),
        value: None,
        headers: Vec::new(),
    };
    let (other, _) = stores[1].clone();
    task.restore(last, &[record], WallTime(0)).unwrap();
    assert_eq!(task.stream_time(), EventTime(400));
    assert_eq!(task.checkpoint(other).unwrap().stream_time, EventTime(300));
    assert_eq!(task.checkpoint(last).unwrap().stream_time, EventTime(400));
}

#[test]
fn room_for_expected_entries_changes_no_entry() {
    let topology = Arc::new(topology(&Counter::unread()));
    let metrics = StreamsMetrics::unregistered();
    let mut task = Task::open(&topology, Partition(0), &metrics, &MemoryStores).unwrap();
    let (last, source) = task.changelogs().next().unwrap();
    let record = |number: i64| InputRecord {
        source: source.clone(),
        offset: Offset(number),
        timestamp: EventTime(number),
        key: Some(number.to_string().into_bytes()),
        value: Some(Vec::new()),
        headers: Vec::new(),
    };
    for first in [0, 100] {
        let records: Vec<_> = (first..first + 100).map(record).collect();
        task.restore(last, &records, WallTime(0)).unwrap();
        task.expect_entries(last, 100, 1_000_000);
    }
    task.finish_restore(last, Offset(200), WallTime(0)).unwrap();
    assert_eq!(task.store_entries().values().max(), Some(&200));
}

#[test]
fn outputs_of_a_punctuation_have_no_origin() {
    let topology = Arc::new(topology(&Counter::unread()));
    let metrics = StreamsMetrics::unregistered();
    let mut task = Task::open(&topology, Partition(0), &metrics, &MemoryStores).unwrap();
    task.start(WallTime(0));
    task.punctuate_wall_clock(WallTime(0)).unwrap();
    let source = TopicPartition { topic: topic("words"), partition: Partition(0) };
    let value = Some(b"a".to_vec());
    let (timestamp, headers) = (EventTime(5), Vec::new());
    task.add(InputRecord { source, offset: Offset(7), timestamp, key: None, value, headers });
    assert_eq!(task.process_next(WallTime(10)).unwrap(), Progress::Processed);
    task.punctuate_wall_clock(WallTime(60_000)).unwrap();
    let outbox = task.take_outbox();
    let origins: Vec<_> = (0..outbox.len()).map(|index| outbox.origin(index)).collect();
    assert_eq!(origins, [Some((0, Offset(7))), None]);
}

#[test]
fn punctuations_go_on_when_the_clock_is_set_back() {
    let topology = Arc::new(topology(&Counter::unread()));
    let metrics = StreamsMetrics::unregistered();
    let mut task = Task::open(&topology, Partition(0), &metrics, &MemoryStores).unwrap();
    task.start(WallTime(0));
    let mut ticks = Vec::new();
    for now in [0, 3_600_000, 0, 59_999, 60_000] {
        task.punctuate_wall_clock(WallTime(now)).unwrap();
        ticks.push(task.take_outbox().len());
    }
    assert_eq!(ticks, [0, 1, 1, 0, 1]);
}

#[test]
fn dead_letters_and_changelog_records_must_be_accepted() {
    let topology = topology(&Counter::unread());
    for (name, must) in [("dead", true), ("test-all-changelog", true), ("out", false)] {
        assert_eq!(topology.must_accept(&topic(name)), must, "{name}");
    }
}

#[test]
fn a_record_is_forwarded_to_every_child() {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("words"), Arc::new(Utf8));
    for name in ["one", "two", "three"] {
        topology.sink(name, &[words], topic(name), Arc::new(Utf8));
    }
    let metrics = StreamsMetrics::unregistered();
    let mut driver = TopologyDriver::new(topology.build(), WallTime(0), &metrics);
    driver.pipe(&topic("words"), None, Some(b"a"), EventTime(1)).unwrap();
    driver.commit();
    for name in ["one", "two", "three"] {
        assert_eq!(driver.read(&topic(name)).len(), 1, "{name}");
    }
}
