//! Outputs that a topic rejects.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    codec::Utf8,
    local::LocalSettings,
    runtime::{
        WorkerError,
        broker::BrokerError,
        worker::tests::{COMMIT_INTERVAL, Harness, PARTITIONS, topic},
    },
    topology::TopologyBuilder,
};

#[test]
fn an_output_that_its_topic_rejects_is_dead_lettered_and_processing_continues() {
    let harness = Harness::new("narrow");
    harness.create("narrow", Some(62));
    let mut worker = harness.join("a");
    harness.put("one");
    harness.run(&mut [&mut worker]);
    harness.put("two");
    harness.run(&mut [&mut worker]);
    assert_eq!(harness.read("dead").values().map(Vec::len).sum::<usize>(), 8);
    assert_eq!(harness.metrics.dead_letters("unsendable").get(), 8);
}

#[test]
fn an_output_whose_topic_does_not_exist_ends_the_worker_and_is_sent_after_a_restart() {
    let harness = Harness::new("gone");
    let mut worker = harness.join("a");
    harness.put("one");
    harness.clock.advance(COMMIT_INTERVAL);
    let mut turns = (0..8).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("the worker ends");
    let is_gone =
        matches!(&error, WorkerError::Broker(BrokerError::Gone(gone)) if *gone == topic("gone"));
    assert!(is_gone, "{error}");
    drop(worker);
    assert_eq!(harness.read("dead"), BTreeMap::new());
    harness.create("gone", None);
    let mut worker = harness.join("a");
    harness.run(&mut [&mut worker]);
    assert_eq!(harness.read("gone").len(), PARTITIONS as usize);
}

/// The topic rejects even a dead letter without value and headers.
#[test]
fn a_dead_letter_that_its_topic_rejects_ends_the_worker() {
    let mut topology = TopologyBuilder::new("test", topic("tiny"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    topology.sink("out", &[words], topic("narrow"), Arc::new(Utf8));
    let harness = Harness::of(topology.build(), LocalSettings::default());
    ["narrow", "tiny"].iter().for_each(|name| harness.create(name, Some(1)));
    let mut worker = harness.join("a");
    harness.put("one");
    let mut turns = (0..8).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("the worker ends").to_string();
    assert!(error.contains("cannot write to tiny"), "{error}");
}
