//! A task with two inputs processes them in the order of their times, also when one comes late.

use std::{sync::Arc, time::Duration};

use crate::streams::{
    codec::Utf8,
    local::LocalSettings,
    record::{OutputRecord, Partition},
    runtime::{
        Worker,
        broker::Broker,
        worker::tests::{COMMIT_INTERVAL, World, topic},
    },
    time::{Clock, EventTime},
    topology::TopologyBuilder,
};

/// Two inputs go through to one output.
fn world() -> World {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let inputs = ["in", "side"].map(|name| topology.source(name, topic(name), Arc::new(Utf8)));
    topology.sink("out", &inputs, topic("out"), Arc::new(Utf8));
    let world = World::of(topology.build(), LocalSettings::default());
    world.clock.advance(Duration::from_secs(100));
    world
}

fn record(input: &str, time: i64) -> OutputRecord {
    OutputRecord {
        topic: topic(input),
        partition: Some(Partition(0)),
        timestamp: EventTime(time),
        key: Some(Vec::new()),
        value: Some(time.to_string().into_bytes()),
        headers: Vec::new(),
    }
}

/// What has come out when `span` has passed.
fn out(world: &World, worker: &mut Worker, span: Duration) -> Vec<i64> {
    let end = world.clock.elapsed() + span;
    while world.clock.elapsed() < end {
        world.clock.advance(COMMIT_INTERVAL);
        World::turn(&mut [&mut *worker]);
    }
    let values = world.read("out").remove(&Vec::new()).unwrap_or_default();
    values.iter().map(|value| value.parse().unwrap()).collect()
}

/// A batch holds less than one of the inputs has: what is later than its rest has to wait for that.
#[test]
fn a_backlog_is_processed_in_the_order_of_time() {
    let world = world();
    let mut publisher = world.broker.publish().unwrap();
    for time in 0..3_000 {
        publisher.send(record("side", time)).unwrap();
    }
    for time in 5_000..5_010 {
        publisher.send(record("in", time)).unwrap();
    }
    let mut worker = world.join("a");
    let expected: Vec<i64> = (0..3_000).chain(5_000..5_010).collect();
    assert_eq!(out(&world, &mut worker, Duration::from_secs(1)), expected);
}

/// The other input has nothing to give, though its end is further on: its offsets are those of a transaction that was
/// aborted.
#[test]
fn an_input_that_says_nothing_is_waited_for_so_long_and_no_longer() {
    let world = world();
    let mut ghost = world.broker.join(&world.membership("ghosts", "ghost")).unwrap();
    ghost.send(record("side", 1).as_ref()).unwrap();
    ghost.abort().unwrap();
    world.broker.publish().unwrap().send(record("in", 2)).unwrap();
    let mut worker = world.join("a");
    assert!(out(&world, &mut worker, Duration::from_millis(900)).is_empty());
    assert_eq!(out(&world, &mut worker, Duration::from_millis(500)), [2]);
    // From then on it waits for nobody.
    world.broker.publish().unwrap().send(record("in", 3)).unwrap();
    assert_eq!(out(&world, &mut worker, COMMIT_INTERVAL * 2), [2, 3]);
}
