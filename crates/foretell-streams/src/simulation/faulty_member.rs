//! A member of a group whose calls may fail. At least once, records are queued before they are written, as in a
//! producer. They are lost when the process crashes, or when their delivery fails, which the next drain reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    local::{LocalBroker, LocalMember},
    record::{InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, TopicPartition},
    runtime::broker::{
        Broker as _, BrokerError, Isolation, Member, ProcessingGuarantee, Rebalance,
    },
    simulation::{
        fault_injector::{Bug, Fault, FaultInjector},
        faulty_calls::{FaultyCalls, OUTSIDE_GROUP},
    },
};

use Fault::{
    Aborted, CrashAfter, CrashBefore, DeliveryFailed, ErrorRepeated, Fenced, PartialSuccess,
    RecordsWithError, ResponseLost, StalledAfter, StalledInside, Unavailable,
};

const POLL: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Unavailable, Fenced, StalledInside];
const REBALANCE: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Fenced, PartialSuccess];
const SEND: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Aborted, Fenced, StalledInside];
const COMMIT: &[Fault] = &[
    CrashBefore,
    CrashAfter,
    Unavailable,
    Aborted,
    Fenced,
    ResponseLost,
    ResponseLost,
    StalledInside,
    StalledInside,
    StalledAfter,
    StalledAfter,
];
const ABORT: &[Fault] =
    &[CrashBefore, CrashAfter, Unavailable, Fenced, ResponseLost, PartialSuccess];

pub(super) struct FaultyMember {
    calls: FaultyCalls,
    broker: LocalBroker,
    member: LocalMember,
    /// The queued records at least once. Exactly once there is no queue: a transaction that is not written completely is
    /// not committed either.
    queue: Option<Queue>,
    /// The next offset of each input, at which reading continues under [`Bug::NoSeekAfterAnAbort`].
    positions: BTreeMap<TopicPartition, Offset>,
    /// An error that a later call reports again.
    repeated_error: Option<Fault>,
    planted_bugs: PlantedBugs,
}

/// The state of [`Bug::SkipsAfterAPause`] and [`Bug::RepeatsAfterARebalance`].
#[derive(Default)]
struct PlantedBugs {
    /// Inputs whose next record is skipped.
    skips: BTreeSet<TopicPartition>,
    /// The last record of each input.
    last: BTreeMap<TopicPartition, InputRecord>,
    /// Records to return once more.
    repeats: Vec<InputRecord>,
}

impl PlantedBugs {
    /// Schedules the last record of each input that the member keeps for repetition.
    fn after_rebalance(&mut self, lost: &[Partition]) {
        self.last.retain(|source, _| !lost.contains(&source.partition));
        self.repeats = self.last.values().cloned().collect();
    }

    /// Skips and repeats records of a poll, if such a bug is planted. `from` is the index of its first record.
    fn after_poll(&mut self, faults: &FaultInjector, records: &mut Vec<InputRecord>, from: usize) {
        if faults.has(Bug::SkipsAfterAPause) {
            let mut polled = records.split_off(from);
            polled.retain(|record| !self.skips.remove(&record.source));
            records.append(&mut polled);
        }
        if faults.has(Bug::RepeatsAfterARebalance) {
            let repeats = std::mem::take(&mut self.repeats);
            for record in &records[from..] {
                self.last.insert(record.source.clone(), record.clone());
            }
            records.splice(from..from, repeats);
        }
    }
}

/// The records that a producer has accepted and not written yet.
#[derive(Default)]
struct Queue {
    waiting: Vec<OutputRecord>,
    /// Whether a delivery failed. Later records are dropped as well until the failure is reported.
    has_failed: bool,
}

impl Queue {
    fn accept(&mut self, record: OutputRecord) {
        if !self.has_failed {
            self.waiting.push(record);
        }
    }

    fn fail_delivery(&mut self) {
        self.waiting.clear();
        self.has_failed = true;
    }

    /// Writes a random number of the oldest records of each partition.
    fn write_some(&mut self, member: &mut LocalMember, calls: &FaultyCalls) {
        let mut stuck = BTreeSet::new();
        for record in std::mem::take(&mut self.waiting) {
            let to = (record.topic.clone(), record.partition);
            if !calls.faults.are_faults_stopped() && (stuck.contains(&to) || calls.faults.one_in(2))
            {
                stuck.insert(to);
                self.waiting.push(record);
            } else {
                write(&record, member, calls);
            }
        }
    }

    fn write_all(&mut self, member: &mut LocalMember, calls: &FaultyCalls) {
        for record in std::mem::take(&mut self.waiting) {
            write(&record, member, calls);
        }
    }
}

/// Writes a record. A producer without transactions is not fenced: it may write to the changelog of a task that another
/// member owns by now.
fn write(record: &OutputRecord, member: &mut LocalMember, calls: &FaultyCalls) {
    if let Some(task) = record.partition
        && record.topic.as_str().ends_with("-changelog")
        && !member.owns(task)
    {
        calls.faults.log_event(format_args!("a zombie writes to {} {task}", record.topic));
        calls.faults.add_zombie_writes(task);
    }
    member.send(record.as_ref()).unwrap();
}

impl FaultyMember {
    pub(super) fn new(calls: FaultyCalls, broker: LocalBroker, member: LocalMember) -> Self {
        let queue = match calls.guarantee {
            ProcessingGuarantee::ExactlyOnce => None,
            ProcessingGuarantee::AtLeastOnce => Some(Queue::default()),
        };
        Self {
            calls,
            broker,
            member,
            queue,
            positions: BTreeMap::new(),
            repeated_error: None,
            planted_bugs: PlantedBugs::default(),
        }
    }

    fn call<T>(
        &mut self,
        name: &str,
        possible: &[Fault],
        operation: impl FnOnce(&mut LocalMember) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let Self { calls, member, repeated_error, .. } = self;
        let may_repeat =
            calls.reach_broker() && repeated_error.is_some_and(|fault| possible.contains(&fault));
        if may_repeat && let Some(fault) = repeated_error.take() {
            calls.faults.log_event(format_args!("{} {name}: {fault:?} again", calls.process.name));
            let reason = format!("{fault:?} again");
            return Err(match fault == Aborted {
                true => BrokerError::Abort(reason),
                false => BrokerError::Retry(reason),
            });
        }
        let result = calls.call(name, possible, || operation(member));
        let fault = match &result {
            Err(BrokerError::Abort(_)) => Aborted,
            Err(BrokerError::Retry(_)) => Unavailable,
            _ => return result,
        };
        if calls.reach_broker() && calls.faults.injects(ErrorRepeated, 4) {
            *repeated_error = Some(fault);
        }
        result
    }

    /// Makes a call that may succeed for some of its inputs only.
    fn call_for_inputs(
        &mut self,
        name: &str,
        inputs: &[TopicPartition],
        operation: fn(&mut LocalMember, &[TopicPartition]) -> Result<(), BrokerError>,
    ) -> Result<(), BrokerError> {
        let may_be_partial = inputs.len() > 1 && self.calls.reach_broker();
        if may_be_partial && self.calls.faults.injects(PartialSuccess, 20) {
            let done = self.calls.faults.roll(inputs.len() as u64);
            operation(&mut self.member, &inputs[..usize::try_from(done).unwrap()])?;
            return Err(BrokerError::Retry("the call succeeded for some inputs only".to_owned()));
        }
        self.call(name, REBALANCE, |member| operation(member, inputs))
    }

    /// Writes some queued records, as a producer does in the background.
    fn write_in_background(&mut self) {
        let Self { calls, member, queue: Some(queue), .. } = self else { return };
        if !calls.reach_broker() {
            return;
        }
        if calls.faults.fault(&[DeliveryFailed], 1).is_some() {
            calls.faults.log_event(format_args!(
                "{} drops {} queued records",
                calls.process.name,
                queue.waiting.len()
            ));
            queue.fail_delivery();
        }
        queue.write_some(member, calls);
    }

    /// Waits until all queued records are written, or their delivery has failed.
    fn drain(&mut self) -> Result<(), BrokerError> {
        self.write_in_background();
        let Self { calls, member, queue: Some(queue), .. } = self else { return Ok(()) };
        calls.call("drain", OUTSIDE_GROUP, || {
            queue.write_all(member, calls);
            Ok(())
        })?;
        let has_failed = std::mem::take(&mut queue.has_failed);
        if has_failed && !calls.faults.has(Bug::FailedDeliveryIgnored) {
            return Err(BrokerError::Abort("a record was not written".to_owned()));
        }
        Ok(())
    }

    fn commit_offsets(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        let before = self.member.rewind_offsets();
        let is_unchecked = self.calls.faults.has(Bug::StaleGroupMetadata);
        let committed = self.call("commit", COMMIT, |member| match is_unchecked {
            true => member.commit_without_ownership_check(offsets),
            false => member.commit(offsets),
        });
        if committed.is_ok() {
            self.calls.process.record_commit(offsets.iter().map(|(source, _)| source.partition));
        }
        if committed.is_err() && self.queue.is_some() {
            // The commit may have succeeded. A member that did not get its result rewinds to the offsets before it.
            self.member.set_rewind_offsets(before);
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
        self.write_in_background();
        if self.calls.faults.is_outage() && !self.calls.process.has_crashed() {
            return Ok(None); // The poll does not reach the broker, so it does not extend the session either.
        }
        let before = records.len();
        let rebalance = self.call("poll", POLL, |member| member.poll(wait, records))?;
        if self.calls.faults.has(Bug::NoSeekAfterAnAbort) {
            let mut polled = records.split_off(before);
            polled.retain(|record| {
                let next = self.positions.entry(record.source.clone()).or_insert(Offset(0));
                let is_new = record.offset >= *next;
                *next = (*next).max(Offset(record.offset.0 + 1));
                is_new
            });
            records.append(&mut polled);
        }
        self.planted_bugs.after_poll(&self.calls.faults, records, before);
        if records.len() > before && self.calls.faults.injects(RecordsWithError, 40) {
            // A rebalance is announced again by the next poll.
            let reason = "an error after records".to_owned();
            return Err(match self.calls.faults.one_in(2) {
                true => BrokerError::Abort(reason),
                false => BrokerError::Retry(reason),
            });
        }
        Ok(rebalance)
    }

    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.planted_bugs.after_rebalance(&[]);
        self.positions.retain(|source, _| !tasks.contains(&source.partition));
        self.call("assign", REBALANCE, |member| member.assign(tasks))
    }

    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.planted_bugs.after_rebalance(tasks);
        self.call("unassign", REBALANCE, |member| member.unassign(tasks))
    }

    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.call_for_inputs("pause", inputs, LocalMember::pause)
    }

    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        if self.calls.faults.has(Bug::SkipsAfterAPause) {
            let is_at_end = |input: &&TopicPartition| {
                let end = self.broker.end(input, Isolation::ReadCommitted).unwrap();
                end > Offset(0) && self.member.position(input) == end
            };
            self.planted_bugs.skips.extend(inputs.iter().filter(is_at_end).cloned());
        }
        self.call_for_inputs("resume", inputs, LocalMember::resume)
    }

    fn position(&self, input: &TopicPartition) -> Offset {
        self.member.position(input)
    }

    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        let Self { calls, member, queue, .. } = self;
        calls.call("send", SEND, || match queue {
            None => member.send(record),
            Some(queue) => {
                queue.accept(record.to_owned());
                Ok(())
            }
        })
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        match self.calls.faults.has(Bug::ChangelogsBeforeTheOutputs) {
            true => Ok(()),
            false => self.drain(),
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        if self.calls.faults.has(Bug::OffsetsOutsideTheTransaction) {
            self.call("commit", COMMIT, |member| member.commit(&[]))?;
        }
        if self.calls.faults.has(Bug::OffsetsBeforeTheOutputs) {
            self.commit_offsets(offsets)?;
            return self.drain();
        }
        self.drain()?;
        self.commit_offsets(offsets)
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.planted_bugs = PlantedBugs::default();
        let Self { calls, member, queue, .. } = self;
        calls.call("abort", ABORT, || {
            if let Some(queue) = queue {
                queue.write_all(member, calls);
                queue.has_failed = false;
            }
            member.abort()
        })
    }

    fn leave(self: Box<Self>) -> Result<(), BrokerError> {
        let Self { calls, mut member, queue, .. } = *self;
        calls.call("leave", OUTSIDE_GROUP, || {
            if let Some(mut queue) = queue {
                queue.write_all(&mut member, &calls);
            }
            Box::new(member).leave()
        })
    }
}
