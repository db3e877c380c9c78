//! Workers whose broker refuses something for now, or has given what was theirs to another.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::{
    local::LocalBroker,
    record::{InputRecord, Offset, OutputRecordRef, Partition, Topic, TopicPartition},
    runtime::{
        StopSignal,
        broker::{
            Broker, BrokerError, Follower, Isolation, Member, Membership, ProcessingGuarantee,
            Publisher, ReadFrom, Reader, Rebalance, TopicSpec,
        },
        worker::tests::{COMMIT_INTERVAL, SESSION_OVER, TRANSACTION_OVER, World},
    },
};

/// A [`LocalBroker`] one of whose sends is refused for now, as Kafka's may be while nobody can say where a
/// topic's partitions are; and aborts, as long as a rebalance keeps them from seeking.
pub(super) struct Refusing {
    broker: LocalBroker,
    /// The send that brings it to 0 is refused.
    until_refusal: Arc<AtomicI64>,
    /// So many aborts are refused.
    pub(super) aborts: Arc<AtomicI64>,
    /// So many joins are refused.
    joins: Arc<AtomicI64>,
    /// How many commits there were.
    pub(super) commits: Arc<AtomicI64>,
    /// So many polls that bring records end with an error, too.
    polls: Arc<AtomicI64>,
    /// What was sent to which topic, and when all of it was waited for.
    calls: Arc<Mutex<Vec<String>>>,
}

struct RefusingMember {
    member: Box<dyn Member>,
    until_refusal: Arc<AtomicI64>,
    aborts: Arc<AtomicI64>,
    commits: Arc<AtomicI64>,
    polls: Arc<AtomicI64>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Refusing {
    /// One that refuses nothing yet.
    pub(super) fn over(broker: &LocalBroker) -> Self {
        let until_refusal = Arc::new(AtomicI64::new(i64::MAX));
        Self {
            broker: broker.clone(),
            until_refusal,
            aborts: Arc::default(),
            joins: Arc::default(),
            commits: Arc::default(),
            polls: Arc::default(),
            calls: Arc::default(),
        }
    }
}

impl Broker for Refusing {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        if self.joins.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(BrokerError::Retry("nobody answers".to_owned()));
        }
        let member = self.broker.join(membership)?;
        Ok(Box::new(RefusingMember {
            member,
            until_refusal: Arc::clone(&self.until_refusal),
            aborts: Arc::clone(&self.aborts),
            commits: Arc::clone(&self.commits),
            polls: Arc::clone(&self.polls),
            calls: Arc::clone(&self.calls),
        }))
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        self.broker.read(source, from)
    }

    fn follow(&self) -> Result<Box<dyn Follower>, BrokerError> {
        self.broker.follow()
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
        let before = records.len();
        let rebalance = self.member.poll(wait, records)?;
        if records.len() > before && self.polls.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(BrokerError::Retry("there were records, too".to_owned()));
        }
        Ok(rebalance)
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
        self.calls.lock().unwrap().push(record.topic.to_string());
        self.member.send(record)
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        self.calls.lock().unwrap().push("flush".to_owned());
        self.member.flush()
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.member.commit(offsets)
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        if self.aborts.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(BrokerError::Retry("a rebalance is under way".to_owned()));
        }
        self.member.abort()
    }

    fn leave(self: Box<Self>) -> Result<(), BrokerError> {
        self.member.leave()
    }
}

#[test]
fn a_send_that_is_refused_for_now_loses_nothing() {
    // Each of the records in turn, and the changelog records after them.
    for sends in 1..=8 {
        let world = World::new("out");
        let broker = Refusing::over(&world.broker);
        let until_refusal = Arc::clone(&broker.until_refusal);
        let mut worker = world.join_through(Arc::new(broker), "a");
        world.run(&mut [&mut worker]);
        until_refusal.store(sends, Ordering::SeqCst);
        world.say("one");
        world.run(&mut [&mut worker]);
        assert!(until_refusal.load(Ordering::SeqCst) <= 0, "{sends}: a send was refused");
        world.expect_out(&["one 1"]);
    }
}

/// A changelog must not say of a record that it was dealt with while what was sent for it may still be lost.
#[test]
fn at_least_once_outputs_are_written_before_changelogs() {
    let guarantee = ProcessingGuarantee::AtLeastOnce;
    let world = World { guarantee, ..World::new("out") };
    let broker = Refusing::over(&world.broker);
    let calls = Arc::clone(&broker.calls);
    let mut worker = world.join_through(Arc::new(broker), "a");
    world.run(&mut [&mut worker]);
    calls.lock().unwrap().clear();
    world.say("one");
    world.run(&mut [&mut worker]);
    world.expect_out(&["one 1"]);
    let mut calls = calls.lock().unwrap().clone();
    calls.dedup();
    assert_eq!(calls, ["out", "flush", "test-counts-changelog"]);
}

#[test]
fn records_that_come_with_an_error_count_once() {
    let world = World::new("out");
    let broker = Refusing::over(&world.broker);
    let polls = Arc::clone(&broker.polls);
    let mut worker = world.join_through(Arc::new(broker), "a");
    world.run(&mut [&mut worker]);
    polls.store(3, Ordering::SeqCst);
    for word in ["one", "two", "three", "four"] {
        world.say(word);
        world.run(&mut [&mut worker]);
    }
    assert!(polls.load(Ordering::SeqCst) <= 0, "all errors came");
    world.expect_out(&["one 1", "two 2", "three 3", "four 4"]);
}

/// A member that can't even abort is given up, and the broker is away for longer than a start would wait.
#[test]
fn who_must_join_again_waits_for_the_broker_as_long_as_it_takes() {
    let world = World::new("out");
    let broker = Refusing::over(&world.broker);
    let (aborts, joins) = (Arc::clone(&broker.aborts), Arc::clone(&broker.joins));
    let mut worker = world.join_through(Arc::new(broker), "a");
    world.run(&mut [&mut worker]);
    world.leave_open(&mut worker, "one", "two");
    aborts.store(2, Ordering::SeqCst);
    joins.store(20, Ordering::SeqCst);
    world.clock.advance(TRANSACTION_OVER);
    world.run(&mut [&mut worker]);
    assert!(joins.load(Ordering::SeqCst) < 0, "it has joined again");
    world.expect_out(&["one 1", "two 2"]);
}

#[test]
fn who_stops_while_it_must_join_again_commits_nothing() {
    let world = World::new("out");
    let broker = Refusing::over(&world.broker);
    let (aborts, joins) = (Arc::clone(&broker.aborts), Arc::clone(&broker.joins));
    let mut worker = world.join_through(Arc::new(broker), "a");
    world.run(&mut [&mut worker]);
    world.leave_open(&mut worker, "one", "two");
    aborts.store(2, Ordering::SeqCst);
    joins.store(i64::MAX, Ordering::SeqCst);
    world.clock.advance(TRANSACTION_OVER);
    World::turn(&mut [&mut worker]);
    let stop = StopSignal::default();
    stop.stop();
    worker.run(&stop).unwrap();
    world.expect_out(&["one 1"]);
    let mut next = world.join("a");
    world.run(&mut [&mut next]);
    world.expect_out(&["one 1", "two 2"]);
}

/// At least once, nothing else would keep it from writing over what its successor has written.
#[test]
fn who_hears_that_its_tasks_are_lost_writes_nothing_more() {
    let guarantee = ProcessingGuarantee::AtLeastOnce;
    let world = World { guarantee, ..World::new("out") };
    let mut first = world.join("a");
    world.run(&mut [&mut first]);
    world.clock.advance(COMMIT_INTERVAL);
    world.say("one");
    World::turn(&mut [&mut first]);
    world.say("two");
    World::turn(&mut [&mut first]);
    world.clock.advance(SESSION_OVER);
    let mut second = world.join("b");
    world.run(&mut [&mut second]);
    let (out, changelog) = (world.read("out"), world.changelog());
    for _ in 0..4 {
        first.turn(Duration::ZERO).unwrap();
        world.clock.advance(COMMIT_INTERVAL);
    }
    assert_eq!((world.read("out"), world.changelog()), (out, changelog));
}
