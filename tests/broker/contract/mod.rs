//! What every implementation of the broker port promises, as functions over `dyn Broker`: run on a
//! real broker here, and on the one in this process by its own tests.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

pub(crate) mod groups;
pub(crate) mod records;
pub(crate) mod transactions;

use std::{collections::BTreeSet, time::Duration};

use foretell_streams::{
    record::{InputRecord, Offset, OutputRecord, Partition, Topic, TopicPartition},
    runtime::broker::{
        Broker, BrokerError, Cleanup, Member, Membership, ProcessingGuarantee, ReadFrom, ReadTo,
        Rebalance, TopicSpec,
    },
    time::EventTime,
};

/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(20);

/// How many idle polls it may take until something happens: a minute.
const ROUNDS_MAX: usize = 3000;

/// A broker under test.
pub(crate) struct Cluster<'a> {
    pub(crate) broker: &'a dyn Broker,
    /// In front of every topic and group, so that runs do not meet.
    pub(crate) name: String,
    /// A member that does not poll for longer loses its tasks.
    pub(crate) silence_max: Duration,
    /// Lets so much of the broker's time pass, if it does not by itself.
    pub(crate) pass: &'a dyn Fn(Duration),
}

impl Cluster<'_> {
    /// Creates a topic.
    fn topic(&self, what: &str, partitions: u32) -> Topic {
        let name = Topic::new(&format!("{}-{what}", self.name));
        let spec = TopicSpec {
            name: name.clone(),
            partitions,
            cleanup: Cleanup::Delete { retention: None },
            message_bytes_max: None,
        };
        assert_eq!(self.broker.create_topics(&[spec]).unwrap(), std::slice::from_ref(&name));
        name
    }

    fn membership(&self, member: &str, lead: &Topic, co_partitioned: &[&Topic]) -> Membership {
        Membership {
            group: format!("{}-group", self.name),
            member: member.to_owned(),
            lead: lead.clone(),
            co_partitioned: co_partitioned.iter().map(|topic| (*topic).clone()).collect(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
        }
    }

    /// Writes the numbers of `range` to one partition.
    fn publish(&self, topic: &Topic, partition: i32, range: std::ops::Range<usize>) {
        let mut publisher = self.broker.publish().unwrap();
        for number in range {
            publisher.send(output(topic, partition, &number.to_string())).unwrap();
        }
        publisher.flush().unwrap();
    }

    /// Everything committed in one partition.
    fn read(&self, topic: &Topic, partition: i32) -> Vec<InputRecord> {
        let source = at(topic, partition);
        self.read_from(&source, ReadFrom::Beginning).unwrap()
    }

    fn read_from(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Vec<InputRecord>, BrokerError> {
        let mut reader = self.broker.read(source, from)?;
        let mut records = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if reader.read(WAIT, &mut records)? == ReadTo::End {
                return Ok(records);
            }
            (self.pass)(WAIT);
        }
        panic!("never came to the end of {source}")
    }

    /// Every committed value of `topic`, by partition.
    fn values(&self, topic: &Topic, partitions: i32) -> Vec<Vec<String>> {
        (0..partitions).map(|partition| texts(&self.read(topic, partition))).collect()
    }
}

/// A member that answers its rebalances at once.
struct Worker<'a> {
    cluster: &'a Cluster<'a>,
    member: Box<dyn Member>,
    membership: Membership,
    tasks: BTreeSet<Partition>,
}

impl<'a> Worker<'a> {
    fn join(cluster: &'a Cluster<'a>, membership: Membership) -> Self {
        let member = cluster.broker.join(&membership).unwrap();
        Self { cluster, member, membership, tasks: BTreeSet::new() }
    }

    fn inputs_of(&self, tasks: &[Partition]) -> Vec<TopicPartition> {
        tasks.iter().flat_map(|task| self.membership.inputs_of(*task)).collect()
    }

    /// One poll; a rebalance is answered with nothing open.
    fn step(&mut self) -> Vec<InputRecord> {
        let mut records = Vec::new();
        let rebalance = self.member.poll(WAIT, &mut records).unwrap();
        for record in &records {
            let known = self.tasks.contains(&record.source.partition);
            assert!(known, "{} of a task that is not ours", record.source);
        }
        match rebalance {
            None => (),
            Some(Rebalance::Assigned(tasks)) => {
                self.member.assign(&tasks).unwrap();
                self.member.resume(&self.inputs_of(&tasks)).unwrap();
                self.tasks.extend(tasks);
            }
            Some(Rebalance::Revoked { tasks, lost }) => {
                // What this very poll brought is not done yet: it goes to the next owner.
                if lost {
                    self.member.abort().unwrap();
                }
                self.member.unassign(&tasks).unwrap();
                self.tasks.retain(|task| !tasks.contains(task));
                records.retain(|record| self.tasks.contains(&record.source.partition));
            }
        }
        (self.cluster.pass)(WAIT);
        records
    }

    /// Polls until `count` records have come.
    fn take(&mut self, count: usize) -> Vec<InputRecord> {
        let mut records = Vec::new();
        until(&format!("{count} records"), || {
            records.extend(self.step());
            records.len() >= count
        });
        records
    }

    /// Polls until it holds `count` tasks.
    fn hold(&mut self, count: usize) {
        until(&format!("{count} tasks"), || {
            let records = self.step();
            assert!(records.is_empty(), "records came before the test was ready for them");
            self.tasks.len() == count
        });
    }

    /// Sends one output for every record, to the same partition.
    fn copy(&mut self, records: &[InputRecord], to: &Topic) -> Result<(), BrokerError> {
        for record in records {
            self.member.send(output(to, record.source.partition.0, &text(record)).as_ref())?;
        }
        Ok(())
    }

    /// Copies what comes, and commits. After an abort it comes again.
    fn work(&mut self, to: &Topic) {
        let records = self.step();
        let done = self.copy(&records, to).and_then(|()| self.member.commit(&after(&records)));
        match done {
            Ok(()) => (),
            Err(BrokerError::Abort(_)) => self.member.abort().unwrap(),
            Err(other) => panic!("{}: {other}", self.membership.member),
        }
    }
}

/// Repeats `step` until it is true.
fn until(what: &str, mut step: impl FnMut() -> bool) {
    for _ in 0..ROUNDS_MAX {
        if step() {
            return;
        }
    }
    panic!("waited in vain for {what}");
}

/// The offsets to commit after `records`.
fn after(records: &[InputRecord]) -> Vec<(TopicPartition, Offset)> {
    let next: std::collections::BTreeMap<TopicPartition, Offset> =
        records.iter().map(|record| (record.source.clone(), record.offset.next())).collect();
    next.into_iter().collect()
}

fn at(topic: &Topic, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: Partition(partition) }
}

fn output(topic: &Topic, partition: i32, value: &str) -> OutputRecord {
    OutputRecord {
        topic: topic.clone(),
        partition: Some(Partition(partition)),
        timestamp: EventTime(1_700_000_000_000),
        key: Some(b"key".to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: Vec::new(),
    }
}

fn text(record: &InputRecord) -> String {
    String::from_utf8(record.value.clone().unwrap()).unwrap()
}

fn texts(records: &[InputRecord]) -> Vec<String> {
    records.iter().map(text).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
