//! Contract tests of the broker port, as functions over `dyn Broker`, for every implementation: `src/local/port_contract.rs`
//! runs them on the LocalBroker with a manual clock, `tests/broker/broker_port.rs` of the workspace on Kafka.

pub(crate) mod groups;
pub(crate) mod records;
pub(crate) mod transactions;

use std::{collections::BTreeSet, time::Duration};

use foretell_streams::{
    record::{InputRecord, Offset, OutputRecord, Partition, Topic, TopicPartition},
    runtime::broker::{
        Broker, BrokerError, Cleanup, Member, Membership, ProcessingGuarantee, ReadFrom, ReadTo,
        Reader, Rebalance, TopicSpec,
    },
    time::EventTime,
};

/// Maximum number of polls to wait for an event: a minute, if an idle poll takes 20 ms.
const POLLS_MAX: usize = 3000;

/// A broker under test.
pub(crate) struct Cluster<'a> {
    pub(crate) broker: &'a dyn Broker,
    /// Prefix of every topic and group, unique for each run.
    pub(crate) name: String,
    /// `max.poll.interval.ms`: a member that does not poll for longer loses its tasks.
    pub(crate) poll_interval_max: Duration,
    /// Timeout of one poll, in real time: 20 ms, or zero on a broker with a manual clock.
    pub(crate) poll_timeout: Duration,
    /// Advances the clock of the broker by 20 ms after a poll, if it is a manual clock.
    pub(crate) advance_clock: &'a dyn Fn(),
}

impl Cluster<'_> {
    /// Creates a topic.
    fn topic(&self, suffix: &str, partitions: u32) -> Topic {
        let name = Topic::new(&format!("{}-{suffix}", self.name));
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
            commit_interval: Membership::COMMIT_INTERVAL,
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

    /// Reads all committed records of one partition.
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
        self.read_all(reader.as_mut())
    }

    /// Reads to the end of a reader's partition.
    fn read_all(&self, reader: &mut dyn Reader) -> Result<Vec<InputRecord>, BrokerError> {
        let mut records = Vec::new();
        for _ in 0..POLLS_MAX {
            if reader.read(self.poll_timeout, &mut records)? == ReadTo::End {
                return Ok(records);
            }
            (self.advance_clock)();
        }
        panic!("did not reach the end of a partition")
    }

    /// Every committed value of `topic`, by partition.
    fn values(&self, topic: &Topic, partitions: i32) -> Vec<Vec<String>> {
        (0..partitions).map(|partition| texts(&self.read(topic, partition))).collect()
    }
}

/// A member with the tasks that are assigned to it; it answers each rebalance at once.
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

    /// Polls once, answers a rebalance, and returns the records of the tasks that it still owns.
    fn poll_once(&mut self) -> Vec<InputRecord> {
        let mut records = Vec::new();
        let rebalance = self.member.poll(self.cluster.poll_timeout, &mut records).unwrap();
        for record in &records {
            let is_assigned = self.tasks.contains(&record.source.partition);
            assert!(is_assigned, "{} is not assigned to this member", record.source);
        }
        match rebalance {
            None => (),
            Some(Rebalance::Assigned(tasks)) => {
                self.member.assign(&tasks).unwrap();
                self.member.resume(&self.inputs_of(&tasks)).unwrap();
                self.tasks.extend(tasks);
            }
            Some(Rebalance::Revoked { tasks, lost }) => {
                // Records of this poll are not processed yet, so those of revoked tasks are left to the next owner.
                if lost {
                    self.member.abort().unwrap();
                }
                self.member.unassign(&tasks).unwrap();
                self.tasks.retain(|task| !tasks.contains(task));
                records.retain(|record| self.tasks.contains(&record.source.partition));
            }
        }
        (self.cluster.advance_clock)();
        records
    }

    /// Polls until `count` records have come.
    fn take(&mut self, count: usize) -> Vec<InputRecord> {
        let mut records = Vec::new();
        until(&format!("{count} records"), || {
            records.extend(self.poll_once());
            records.len() >= count
        });
        records
    }

    /// Polls until `count` tasks are assigned.
    fn until_assigned(&mut self, count: usize) {
        until(&format!("{count} tasks"), || {
            let records = self.poll_once();
            assert!(records.is_empty(), "there must be no input yet");
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

    /// Polls once, copies the records to `to` and commits. After an abort the records are polled again.
    fn work(&mut self, to: &Topic) {
        let records = self.poll_once();
        let result = self.copy(&records, to).and_then(|()| self.member.commit(&after(&records)));
        match result {
            Ok(()) => (),
            Err(BrokerError::Abort(_)) => self.member.abort().unwrap(),
            Err(other) => panic!("{}: {other}", self.membership.member),
        }
    }
}

/// Repeats `step` until it returns true; `what` names what is waited for.
fn until(what: &str, mut step: impl FnMut() -> bool) {
    for _ in 0..POLLS_MAX {
        if step() {
            return;
        }
    }
    panic!("timed out waiting for {what}");
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
