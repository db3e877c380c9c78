//! What a task takes over from its stores, and what it sends where.

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
        Step, Task,
        tests::{topic, topology},
    },
    time::{EventTime, WallTime},
    topology::TopologyBuilder,
};

/// Stores of which one is of a log that is not there any more.
struct Kept;

impl StoreSupplier for Kept {
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
fn the_time_that_a_store_knew_goes_with_its_contents() {
    let topology = Arc::new(topology(&Counter::unread()));
    let mut task =
        Task::open(&topology, Partition(0), &StreamsMetrics::unregistered(), &Kept).unwrap();
    assert_eq!(task.stream_time(), EventTime(7_000));
    task.start(WallTime(500));
    assert_eq!(task.stream_time(), EventTime(7_000), "no further ahead than is allowed");
    task.start(WallTime(-5_000));
    assert_eq!(task.stream_time(), EventTime(5_000), "what was kept may be a fast clock's");
    let mut task =
        Task::open(&topology, Partition(0), &StreamsMetrics::unregistered(), &Kept).unwrap();
    let stores: Vec<_> = task.changelogs().collect();
    let (last, source) = stores[0].clone();
    task.clear(last).unwrap();
    assert_eq!(task.stream_time(), EventTime(300));
    assert_eq!(task.marks.known(last), None, "nor is it of the log that it was of");
    let record = InputRecord {
        source,
        offset: Offset(0),
        timestamp: EventTime(400),
        key: Some(b"k".to_vec()),
        value: None,
        headers: Vec::new(),
    };
    let (other, _) = stores[1].clone();
    task.restore(last, vec![record], WallTime(0)).unwrap();
    assert_eq!(task.stream_time(), EventTime(400));
    assert_eq!(task.checkpoint(other).unwrap().stream_time, EventTime(300));
    assert_eq!(task.checkpoint(last).unwrap().stream_time, EventTime(400));
}

#[test]
fn what_a_punctuation_sends_is_sent_for_no_record() {
    let topology = Arc::new(topology(&Counter::unread()));
    let metrics = StreamsMetrics::unregistered();
    let mut task = Task::open(&topology, Partition(0), &metrics, &MemoryStores).unwrap();
    task.start(WallTime(0));
    task.punctuate_wall_clock(WallTime(0)).unwrap();
    let source = TopicPartition { topic: topic("words"), partition: Partition(0) };
    let value = Some(b"a".to_vec());
    let (timestamp, headers) = (EventTime(5), Vec::new());
    task.add(InputRecord { source, offset: Offset(7), timestamp, key: None, value, headers });
    assert_eq!(task.process_next(WallTime(10)).unwrap(), Step::Processed);
    task.punctuate_wall_clock(WallTime(60_000)).unwrap();
    let outbox = task.take_outbox();
    let origins: Vec<_> = (0..outbox.len()).map(|place| outbox.origin(place)).collect();
    assert_eq!(origins, [Some((0, Offset(7))), None]);
}

#[test]
fn what_cannot_be_dead_lettered_must_be_taken() {
    let topology = topology(&Counter::unread());
    for (name, must) in [("dead", true), ("test-all-changelog", true), ("out", false)] {
        assert_eq!(topology.must_take(&topic(name)), must, "{name}");
    }
}

#[test]
fn a_record_goes_along_every_edge() {
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
