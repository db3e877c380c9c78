//! Workers whose broker rejects calls for a while, or has assigned their tasks to another worker.

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
        worker::tests::{COMMIT_INTERVAL, Harness, SESSION_OVER, TRANSACTION_OVER},
    },
};

/// A [`LocalBroker`] that rejects calls with [`BrokerError::Retry`]: a send, as Kafka does while the leader of a partition
/// is not known, and aborts, as long as a rebalance prevents the seek.
pub(super) struct RejectingBroker {
    broker: LocalBroker,
    /// The send that counts it down to 0 is rejected.
    until_rejection: Arc<AtomicI64>,
    /// The number of aborts still to be rejected.
    pub(super) aborts: Arc<AtomicI64>,
    /// The number of joins still to be rejected.
    joins: Arc<AtomicI64>,
    /// The number of commits so far.
    pub(super) commits: Arc<AtomicI64>,
    /// The number of polls with records still to return an error as well.
    polls: Arc<AtomicI64>,
    /// The topic of each send, and `flush` for each flush, in order.
    calls: Arc<Mutex<Vec<String>>>,
}

struct RejectingMember {
    member: Box<dyn Member>,
    until_rejection: Arc<AtomicI64>,
    aborts: Arc<AtomicI64>,
    commits: Arc<AtomicI64>,
    polls: Arc<AtomicI64>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl RejectingBroker {
    /// A broker that rejects nothing yet.
    pub(super) fn over(broker: &LocalBroker) -> Self {
        let until_rejection = Arc::new(AtomicI64::new(i64::MAX));
        Self {
            broker: broker.clone(),
            until_rejection,
            aborts: Arc::default(),
            joins: Arc::default(),
            commits: Arc::default(),
            polls: Arc::default(),
            calls: Arc::default(),
        }
    }
}

impl Broker for RejectingBroker {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        if self.joins.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(BrokerError::Retry("no broker answers".to_owned()));
        }
        let member = self.broker.join(membership)?;
        Ok(Box::new(RejectingMember {
            member,
            until_rejection: Arc::clone(&self.until_rejection),
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

impl Member for RejectingMember {
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
        if self.until_rejection.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(BrokerError::Retry("the leader is not known".to_owned()));
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
fn a_send_that_is_rejected_for_a_while_loses_nothing() {
    // Each of the output records in turn, and each of the changelog records after them.
    for sends in 1..=8 {
        let harness = Harness::new("out");
        let broker = RejectingBroker::over(&harness.broker);
        let until_rejection = Arc::clone(&broker.until_rejection);
        let mut worker = harness.join_through(Arc::new(broker), "a");
        harness.run(&mut [&mut worker]);
        until_rejection.store(sends, Ordering::SeqCst);
        harness.put("one");
        harness.run(&mut [&mut worker]);
        assert!(until_rejection.load(Ordering::SeqCst) <= 0, "{sends}: a send was rejected");
        harness.expect_out(&["one 1"]);
    }
}

/// A changelog must not have the changes of a record while its outputs may still be lost.
#[test]
fn at_least_once_outputs_are_written_before_changelogs() {
    let guarantee = ProcessingGuarantee::AtLeastOnce;
    let harness = Harness { guarantee, ..Harness::new("out") };
    let broker = RejectingBroker::over(&harness.broker);
    let calls = Arc::clone(&broker.calls);
    let mut worker = harness.join_through(Arc::new(broker), "a");
    harness.run(&mut [&mut worker]);
    calls.lock().unwrap().clear();
    harness.put("one");
    harness.run(&mut [&mut worker]);
    harness.expect_out(&["one 1"]);
    let mut calls = calls.lock().unwrap().clone();
    calls.dedup();
    assert_eq!(calls, ["out", "flush", "test-counts-changelog"]);
}

#[test]
fn records_that_are_polled_with_an_error_count_once() {
    let harness = Harness::new("out");
    let broker = RejectingBroker::over(&harness.broker);
    let polls = Arc::clone(&broker.polls);
    let mut worker = harness.join_through(Arc::new(broker), "a");
    harness.run(&mut [&mut worker]);
    polls.store(3, Ordering::SeqCst);
    for word in ["one", "two", "three", "four"] {
        harness.put(word);
        harness.run(&mut [&mut worker]);
    }
    assert!(polls.load(Ordering::SeqCst) <= 0, "all errors were returned");
    harness.expect_out(&["one 1", "two 2", "three 3", "four 4"]);
}

/// A member whose abort fails is dropped, and the broker is unavailable for longer than a start would wait.
#[test]
fn a_worker_that_must_rejoin_waits_for_the_broker_without_a_bound() {
    let harness = Harness::new("out");
    let broker = RejectingBroker::over(&harness.broker);
    let (aborts, joins) = (Arc::clone(&broker.aborts), Arc::clone(&broker.joins));
    let mut worker = harness.join_through(Arc::new(broker), "a");
    harness.run(&mut [&mut worker]);
    harness.leave_open(&mut worker, "one", "two");
    aborts.store(2, Ordering::SeqCst);
    joins.store(20, Ordering::SeqCst);
    harness.clock.advance(TRANSACTION_OVER);
    harness.run(&mut [&mut worker]);
    assert!(joins.load(Ordering::SeqCst) < 0, "it has rejoined");
    harness.expect_out(&["one 1", "two 2"]);
}

#[test]
fn a_worker_that_stops_before_it_has_rejoined_commits_nothing() {
    let harness = Harness::new("out");
    let broker = RejectingBroker::over(&harness.broker);
    let (aborts, joins) = (Arc::clone(&broker.aborts), Arc::clone(&broker.joins));
    let mut worker = harness.join_through(Arc::new(broker), "a");
    harness.run(&mut [&mut worker]);
    harness.leave_open(&mut worker, "one", "two");
    aborts.store(2, Ordering::SeqCst);
    joins.store(i64::MAX, Ordering::SeqCst);
    harness.clock.advance(TRANSACTION_OVER);
    Harness::turn(&mut [&mut worker]);
    let stop = StopSignal::default();
    stop.stop();
    worker.run(&stop).unwrap();
    harness.expect_out(&["one 1"]);
    let mut next = harness.join("a");
    harness.run(&mut [&mut next]);
    harness.expect_out(&["one 1", "two 2"]);
}

/// At least once, nothing else would prevent zombie writes over those of the new owner.
#[test]
fn a_worker_whose_tasks_are_lost_writes_nothing_more() {
    let guarantee = ProcessingGuarantee::AtLeastOnce;
    let harness = Harness { guarantee, ..Harness::new("out") };
    let mut first = harness.join("a");
    harness.run(&mut [&mut first]);
    harness.clock.advance(COMMIT_INTERVAL);
    harness.put("one");
    Harness::turn(&mut [&mut first]);
    harness.put("two");
    Harness::turn(&mut [&mut first]);
    harness.clock.advance(SESSION_OVER);
    let mut second = harness.join("b");
    harness.run(&mut [&mut second]);
    let (out, changelog) = (harness.read("out"), harness.changelog());
    for _ in 0..4 {
        first.turn(Duration::ZERO).unwrap();
        harness.clock.advance(COMMIT_INTERVAL);
    }
    assert_eq!((harness.read("out"), harness.changelog()), (out, changelog));
}
