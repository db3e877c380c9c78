//! What becomes of what a worker sends, when it is refused.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    codec::Utf8,
    local::LocalSettings,
    runtime::{
        WorkerError,
        broker::BrokerError,
        worker::tests::{COMMIT_INTERVAL, PARTITIONS, World, topic},
    },
    topology::TopologyBuilder,
};

#[test]
fn an_output_that_its_topic_never_takes_is_dead_lettered_and_the_stream_goes_on() {
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

/// Not even what is left of it without its value and headers.
#[test]
fn a_dead_letter_that_its_topic_never_takes_stops_the_worker() {
    let mut topology = TopologyBuilder::new("test", topic("tiny"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    topology.sink("out", &[words], topic("narrow"), Arc::new(Utf8));
    let world = World::of(topology.build(), LocalSettings::default());
    ["narrow", "tiny"].iter().for_each(|name| world.create(name, Some(1)));
    let mut worker = world.join("a");
    world.say("one");
    let mut turns = (0..8).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("it stops").to_string();
    assert!(error.contains("cannot write to tiny"), "{error}");
}
