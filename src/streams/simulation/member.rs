//! A member of a group whose every call may fail. At least once, what it sends goes into a queue first, as a
//! producer's does: it is lost when the process dies, or when the producer gives it up, which is said at the next drain.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::streams::{
    local::LocalMember,
    record::{InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, TopicPartition},
    runtime::broker::{BrokerError, Member, ProcessingGuarantee, Rebalance},
    simulation::{
        faults::{FaultyBroker, OUTSIDE},
        weather::{Bug, Fault},
    },
};

use Fault::{
    Aborted, AnswerLost, CrashAfter, CrashBefore, Fenced, StalledInside, Unavailable, Undelivered,
};

const POLL: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Unavailable, Fenced, StalledInside];
const ANSWER: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Fenced];
const SEND: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Aborted, Fenced, StalledInside];
const COMMIT: &[Fault] = &[
    CrashBefore,
    CrashAfter,
    Unavailable,
    Aborted,
    Fenced,
    AnswerLost,
    AnswerLost,
    StalledInside,
    StalledInside,
];
const ABORT: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Fenced, AnswerLost];

pub(super) struct FaultyMember {
    broker: FaultyBroker,
    member: LocalMember,
    /// None in transactions: there, what is not written is not committed either.
    queue: Option<Queue>,
    /// The next offset of each input; what [`Bug::NoSeekAfterAnAbort`] goes on from.
    positions: BTreeMap<TopicPartition, Offset>,
}

/// What was accepted and is not written yet.
#[derive(Default)]
struct Queue {
    waiting: Vec<OutputRecord>,
    /// Something was given up, and so is all that comes after it, until somebody is told.
    has_failed: bool,
}

impl Queue {
    fn accept(&mut self, record: OutputRecord) {
        if !self.has_failed {
            self.waiting.push(record);
        }
    }

    fn give_up(&mut self) {
        self.waiting.clear();
        self.has_failed = true;
    }

    /// Writes some of it: of each partition the oldest, as many as the dice say.
    fn write_some(&mut self, member: &mut LocalMember, broker: &FaultyBroker) {
        let mut stuck = BTreeSet::new();
        for record in std::mem::take(&mut self.waiting) {
            let to = (record.topic.clone(), record.partition);
            if !broker.weather.is_calm() && (stuck.contains(&to) || broker.weather.one_in(2)) {
                stuck.insert(to);
                self.waiting.push(record);
            } else {
                write(&record, member, broker);
            }
        }
    }

    fn write_all(&mut self, member: &mut LocalMember, broker: &FaultyBroker) {
        for record in std::mem::take(&mut self.waiting) {
            write(&record, member, broker);
        }
    }
}

/// Nothing keeps a producer without transactions from writing what is another's by now.
fn write(record: &OutputRecord, member: &mut LocalMember, broker: &FaultyBroker) {
    if let Some(task) = record.partition
        && record.topic.as_str().ends_with("-changelog")
        && !member.owns(task)
    {
        broker.weather.note(format_args!("a ghost writes to {} {task}", record.topic));
        broker.weather.haunt(task);
    }
    member.send(record.as_ref()).unwrap();
}

impl FaultyMember {
    pub(super) fn new(broker: FaultyBroker, member: LocalMember) -> Self {
        let queue = match broker.guarantee {
            ProcessingGuarantee::ExactlyOnce => None,
            ProcessingGuarantee::AtLeastOnce => Some(Queue::default()),
        };
        Self { broker, member, queue, positions: BTreeMap::new() }
    }

    fn call<T>(
        &mut self,
        name: &str,
        possible: &[Fault],
        operation: impl FnOnce(&mut LocalMember) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let Self { broker, member, .. } = self;
        broker.call(name, possible, || operation(member))
    }

    /// What the producer does by itself, in the background.
    fn send_on(&mut self) {
        let Self { broker, member, queue: Some(queue), .. } = self else { return };
        if broker.process.is_dead() || broker.weather.is_out() {
            return;
        }
        if broker.weather.fault(&[Undelivered], 1).is_some() {
            broker.weather.note(format_args!(
                "{} gives up {} records",
                broker.process.name,
                queue.waiting.len()
            ));
            queue.give_up();
        }
        queue.write_some(member, broker);
    }

    /// Waits until all that was sent is written, or given up.
    fn drain(&mut self) -> Result<(), BrokerError> {
        self.send_on();
        let Self { broker, member, queue: Some(queue), .. } = self else { return Ok(()) };
        broker.call("drain", OUTSIDE, || {
            queue.write_all(member, broker);
            Ok(())
        })?;
        let has_failed = std::mem::take(&mut queue.has_failed);
        if has_failed && !broker.weather.has(Bug::FailedDeliveryForgotten) {
            return Err(BrokerError::Abort("a record was not written".to_owned()));
        }
        Ok(())
    }

    fn commit_offsets(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        let known = self.member.known_offsets();
        let committed = self.call("commit", COMMIT, |member| member.commit(offsets));
        if committed.is_err() && self.queue.is_some() {
            // Perhaps it was. But who has not heard of it goes back to what it knows.
            self.member.know_only(known);
        }
        committed
    }
}

impl Member for FaultyMember {
    fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError> {
        self.send_on();
        if self.broker.weather.is_out() && !self.broker.process.is_dead() {
            return Ok(None); // Nobody answers, nor hears that we are alive.
        }
        let before = records.len();
        let rebalance = self.call("poll", POLL, |member| member.poll(wait, records))?;
        if self.broker.weather.has(Bug::NoSeekAfterAnAbort) {
            let mut polled = records.split_off(before);
            polled.retain(|record| {
                let next = self.positions.entry(record.source.clone()).or_insert(Offset(0));
                let is_new = record.offset >= *next;
                *next = (*next).max(Offset(record.offset.0 + 1));
                is_new
            });
            records.append(&mut polled);
        }
        Ok(rebalance)
    }

    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.positions.retain(|source, _| !tasks.contains(&source.partition));
        self.call("assign", ANSWER, |member| member.assign(tasks))
    }

    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.call("unassign", ANSWER, |member| member.unassign(tasks))
    }

    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.call("pause", ANSWER, |member| member.pause(inputs))
    }

    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.call("resume", ANSWER, |member| member.resume(inputs))
    }

    fn position(&self, input: &TopicPartition) -> Offset {
        self.member.position(input)
    }

    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        let Self { broker, member, queue, .. } = self;
        broker.call("send", SEND, || match queue {
            None => member.send(record),
            Some(queue) => {
                queue.accept(record.to_owned());
                Ok(())
            }
        })
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        match self.broker.weather.has(Bug::ChangelogsBeforeTheOutputs) {
            true => Ok(()),
            false => self.drain(),
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        if self.broker.weather.has(Bug::OffsetsOutsideTheTransaction) {
            self.call("commit", COMMIT, |member| member.commit(&[]))?;
        }
        if self.broker.weather.has(Bug::OffsetsBeforeTheOutputs) {
            self.commit_offsets(offsets)?;
            return self.drain();
        }
        self.drain()?;
        self.commit_offsets(offsets)
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        let Self { broker, member, queue, .. } = self;
        broker.call("abort", ABORT, || {
            if let Some(queue) = queue {
                queue.write_all(member, broker);
                queue.has_failed = false;
            }
            member.abort()
        })
    }

    fn leave(self: Box<Self>) -> Result<(), BrokerError> {
        let Self { broker, mut member, queue, .. } = *self;
        broker.call("leave", OUTSIDE, || {
            if let Some(mut queue) = queue {
                queue.write_all(&mut member, &broker);
            }
            Box::new(member).leave()
        })
    }
}
