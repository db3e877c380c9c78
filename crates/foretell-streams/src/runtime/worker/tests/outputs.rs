//! What becomes of what a worker sends, when it is refused.

use std::{collections::BTreeMap, time::Duration};

use crate::runtime::{
    WorkerError,
    broker::BrokerError,
    worker::tests::{COMMIT_INTERVAL, PARTITIONS, World, topic},
};

#[test]
fn an_output_that_its_topic_never_takes_is_set_aside_and_the_stream_goes_on() {
    let world = World::new("narrow");
    world.create("narrow", Some(62));
    let mut worker = world.join("a");
    world.say("one");
    world.run(&mut [&mut worker]);
    world.say("two");
    world.run(&mut [&mut worker]);
    assert_eq!(world.read("dead").values().map(Vec::len).sum::<usize>(), 8);
    assert_eq!(world.metrics.dead_letters("unsendable").get(), 8);
}

#[test]
fn an_output_whose_topic_is_gone_stops_the_worker_and_is_made_again() {
    let world = World::new("gone");
    let mut worker = world.join("a");
    world.say("one");
    world.clock.advance(COMMIT_INTERVAL);
    let mut turns = (0..8).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("it stops");
    let is_told =
        matches!(&error, WorkerError::Broker(BrokerError::Gone(gone)) if *gone == topic("gone"));
    assert!(is_told, "{error}");
    drop(worker);
    assert_eq!(world.read("dead"), BTreeMap::new());
    world.create("gone", None);
    let mut worker = world.join("a");
    world.run(&mut [&mut worker]);
    assert_eq!(world.read("gone").len(), PARTITIONS as usize);
}
