//! What becomes of what a worker sends, when it is refused.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::streams::{
    local::LocalBroker,
    record::{InputRecord, Offset, OutputRecordRef, Partition, Topic, TopicPartition},
    runtime::{
        WorkerError,
        broker::{
            Broker, BrokerError, From, Isolation, Member, Membership, Publisher, Reader, Rebalance,
            TopicSpec,
        },
        worker::tests::{COMMIT_INTERVAL, PARTITIONS, World, topic},
    },
};

#[test]
fn a_send_that_is_refused_for_now_loses_nothing() {
    // Each of the records in turn, and the changelog records after them.
    for sends in 1..=8 {
        let world = World::new("out");
        let until_refusal = Arc::new(AtomicI64::new(i64::MAX));
        let broker =
            Refusing { broker: world.broker.clone(), until_refusal: Arc::clone(&until_refusal) };
        let mut worker = world.join_through(Arc::new(broker), "a");
        world.run(&mut [&mut worker]);
        until_refusal.store(sends, Ordering::SeqCst);
        world.say("one");
        world.run(&mut [&mut worker]);
        assert!(until_refusal.load(Ordering::SeqCst) <= 0, "{sends}: a send was refused");
        world.expect_out(&["one 1"]);
    }
}

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

/// A [`LocalBroker`] one of whose sends is refused for now, as Kafka's may be while nobody can say where a
/// topic's partitions are.
struct Refusing {
    broker: LocalBroker,
    /// The send that brings it to 0 is refused.
    until_refusal: Arc<AtomicI64>,
}

struct RefusingMember {
    member: Box<dyn Member>,
    until_refusal: Arc<AtomicI64>,
}

impl Broker for Refusing {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        let member = self.broker.join(membership)?;
        Ok(Box::new(RefusingMember { member, until_refusal: Arc::clone(&self.until_refusal) }))
    }

    fn read(&self, source: &TopicPartition, from: From) -> Result<Box<dyn Reader>, BrokerError> {
        self.broker.read(source, from)
    }

    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        self.broker.publish()
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        self.broker.create_topics(topics)
    }

    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError> {
        self.broker.end(source, isolation)
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.broker.partitions(topic)
    }
}

impl Member for RefusingMember {
    fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError> {
        self.member.poll(wait, records)
    }

    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.member.assign(tasks)
    }

    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.member.unassign(tasks)
    }

    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.member.pause(inputs)
    }

    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.member.resume(inputs)
    }

    fn position(&self, input: &TopicPartition) -> Offset {
        self.member.position(input)
    }

    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        if self.until_refusal.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(BrokerError::Retry("not just now".to_owned()));
        }
        self.member.send(record)
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        self.member.commit(offsets)
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.member.abort()
    }

    fn leave(self: Box<Self>) -> Result<(), BrokerError> {
        self.member.leave()
    }
}
