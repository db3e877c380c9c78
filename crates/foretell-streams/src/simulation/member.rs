//! A member of a group whose every call may fail. At least once, what it sends goes into a queue first, as a
//! producer's does: it is lost when the process dies, or when the producer gives it up, which is said at the next drain.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    local::LocalMember,
    record::{InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, TopicPartition},
    runtime::broker::{
        Broker as _, BrokerError, Isolation, Member, ProcessingGuarantee, Rebalance,
    },
    simulation::{
        fault_injector::{Bug, Fault, FaultInjector},
        faults::{FaultyBroker, OUTSIDE},
    },
};

use Fault::{
    Aborted, AnswerLost, CrashAfter, CrashBefore, DoneInPart, ErrorToldAgain, Fenced,
    RecordsWithAnError, StalledAfter, StalledInside, Unavailable, Undelivered,
};

const POLL: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Unavailable, Fenced, StalledInside];
const ANSWER: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Fenced, DoneInPart];
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
    StalledAfter,
    StalledAfter,
];
const ABORT: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Fenced, AnswerLost, DoneInPart];

pub(super) struct FaultyMember {
    broker: FaultyBroker,
    member: LocalMember,
    /// None in transactions: there, what is not written is not committed either.
    queue: Option<Queue>,
    /// The next offset of each input; what [`Bug::NoSeekAfterAnAbort`] goes on from.
    positions: BTreeMap<TopicPartition, Offset>,
    /// An error that is to be told once more.
    told: Option<Fault>,
    plants: Plants,
}

/// What [`Bug::SkipsAfterAPause`] and [`Bug::RepeatsAfterARebalance`] go wrong by.
#[derive(Default)]
struct Plants {
    /// The next record of these is left out.
    skips: BTreeSet<TopicPartition>,
    /// The last record that came of each input.
    last: BTreeMap<TopicPartition, InputRecord>,
    /// What comes once more.
    again: Vec<InputRecord>,
}

impl Plants {
    /// What is held by a member comes again, if that is the bug.
    fn rebalanced(&mut self, gone: &[Partition]) {
        self.last.retain(|source, _| !gone.contains(&source.partition));
        self.again = self.last.values().cloned().collect();
    }

    fn polled(&mut self, faults: &FaultInjector, records: &mut Vec<InputRecord>, from: usize) {
        if faults.has(Bug::SkipsAfterAPause) {
            let mut polled = records.split_off(from);
            polled.retain(|record| !self.skips.remove(&record.source));
            records.append(&mut polled);
        }
        if faults.has(Bug::RepeatsAfterARebalance) {
            let again = std::mem::take(&mut self.again);
            for record in &records[from..] {
                self.last.insert(record.source.clone(), record.clone());
            }
            records.splice(from..from, again);
        }
    }
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
            if !broker.faults.are_faults_stopped()
                && (stuck.contains(&to) || broker.faults.one_in(2))
            {
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
        broker.faults.note(format_args!("a zombie writes to {} {task}", record.topic));
        broker.faults.add_zombie_writes(task);
    }
    member.send(record.as_ref()).unwrap();
}

impl FaultyMember {
    pub(super) fn new(broker: FaultyBroker, member: LocalMember) -> Self {
        let queue = match broker.guarantee {
            ProcessingGuarantee::ExactlyOnce => None,
            ProcessingGuarantee::AtLeastOnce => Some(Queue::default()),
        };
        let (positions, told, plants) = (BTreeMap::new(), None, Plants::default());
        Self { broker, member, queue, positions, told, plants }
    }

    fn call<T>(
        &mut self,
        name: &str,
        possible: &[Fault],
        operation: impl FnOnce(&mut LocalMember) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let Self { broker, member, told, .. } = self;
        let may_be_told =
            broker.is_reached() && told.is_some_and(|fault| possible.contains(&fault));
        if may_be_told && let Some(fault) = told.take() {
            broker.faults.note(format_args!("{} {name}: {fault:?} again", broker.process.name));
            let reason = format!("{fault:?} again");
            return Err(match fault == Aborted {
                true => BrokerError::Abort(reason),
                false => BrokerError::Retry(reason),
            });
        }
        let result = broker.call(name, possible, || operation(member));
        let fault = match &result {
            Err(BrokerError::Abort(_)) => Aborted,
            Err(BrokerError::Retry(_)) => Unavailable,
            _ => return result,
        };
        if broker.is_reached() && broker.faults.happens(ErrorToldAgain, 4) {
            *told = Some(fault);
        }
        result
    }

    /// The answer is of each input by itself.
    fn call_of_each(
        &mut self,
        name: &str,
        inputs: &[TopicPartition],
        operation: fn(&mut LocalMember, &[TopicPartition]) -> Result<(), BrokerError>,
    ) -> Result<(), BrokerError> {
        let in_part = inputs.len() > 1 && self.broker.is_reached();
        if in_part && self.broker.faults.happens(DoneInPart, 20) {
            let done = self.broker.faults.roll(inputs.len() as u64);
            operation(&mut self.member, &inputs[..usize::try_from(done).unwrap()])?;
            return Err(BrokerError::Retry("the others are not done".to_owned()));
        }
        self.call(name, ANSWER, |member| operation(member, inputs))
    }

    /// What the producer does by itself, in the background.
    fn send_on(&mut self) {
        let Self { broker, member, queue: Some(queue), .. } = self else { return };
        if broker.process.is_dead() || broker.faults.is_out() {
            return;
        }
        if broker.faults.fault(&[Undelivered], 1).is_some() {
            broker.faults.note(format_args!(
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
        if has_failed && !broker.faults.has(Bug::FailedDeliveryForgotten) {
            return Err(BrokerError::Abort("a record was not written".to_owned()));
        }
        Ok(())
    }

    fn commit_offsets(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        let known = self.member.known_offsets();
        let committed = self.call("commit", COMMIT, |member| member.commit(offsets));
        if committed.is_ok() {
            self.broker.process.has_committed(offsets.iter().map(|(source, _)| source.partition));
        }
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
        if self.broker.faults.is_out() && !self.broker.process.is_dead() {
            return Ok(None); // Nobody answers, nor hears that we are alive.
        }
        let before = records.len();
        let rebalance = self.call("poll", POLL, |member| member.poll(wait, records))?;
        if self.broker.faults.has(Bug::NoSeekAfterAnAbort) {
            let mut polled = records.split_off(before);
            polled.retain(|record| {
                let next = self.positions.entry(record.source.clone()).or_insert(Offset(0));
                let is_new = record.offset >= *next;
                *next = (*next).max(Offset(record.offset.0 + 1));
                is_new
            });
            records.append(&mut polled);
        }
        self.plants.polled(&self.broker.faults, records, before);
        if records.len() > before && self.broker.faults.happens(RecordsWithAnError, 40) {
            // If there is a rebalance, it is announced again.
            let reason = "there were records, too".to_owned();
            return Err(match self.broker.faults.one_in(2) {
                true => BrokerError::Abort(reason),
                false => BrokerError::Retry(reason),
            });
        }
        Ok(rebalance)
    }

    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.plants.rebalanced(&[]);
        self.positions.retain(|source, _| !tasks.contains(&source.partition));
        self.call("assign", ANSWER, |member| member.assign(tasks))
    }

    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.plants.rebalanced(tasks);
        self.call("unassign", ANSWER, |member| member.unassign(tasks))
    }

    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.call_of_each("pause", inputs, LocalMember::pause)
    }

    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        if self.broker.faults.has(Bug::SkipsAfterAPause) {
            let is_at_end = |input: &&TopicPartition| {
                let end = self.broker.inner.end(input, Isolation::ReadCommitted).unwrap();
                end > Offset(0) && self.member.position(input) == end
            };
            self.plants.skips.extend(inputs.iter().filter(is_at_end).cloned());
        }
        self.call_of_each("resume", inputs, LocalMember::resume)
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
        match self.broker.faults.has(Bug::ChangelogsBeforeTheOutputs) {
            true => Ok(()),
            false => self.drain(),
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        if self.broker.faults.has(Bug::OffsetsOutsideTheTransaction) {
            self.call("commit", COMMIT, |member| member.commit(&[]))?;
        }
        if self.broker.faults.has(Bug::OffsetsBeforeTheOutputs) {
            self.commit_offsets(offsets)?;
            return self.drain();
        }
        self.drain()?;
        self.commit_offsets(offsets)
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.plants = Plants::default();
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
