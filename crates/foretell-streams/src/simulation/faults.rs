//! A broker that fails as a seed says, at every call: before it took effect, after it, or without an answer.
//! What a member of a group asks of it is in `member`.

use std::{sync::Arc, time::Duration};

use crate::{
    local::LocalBroker,
    record::{InputRecord, Offset, Topic, TopicPartition},
    runtime::broker::{
        Broker, BrokerError, Follower, Isolation, Member, Membership, ProcessingGuarantee,
        Publisher, ReadFrom, ReadTo, Reader, TopicSpec,
    },
    simulation::{
        fault_injector::{Bug, Fault, FaultInjector},
        member::FaultyMember,
        process::Process,
    },
};

/// One process' way to the broker.
#[derive(Clone)]
pub(super) struct FaultyBroker {
    pub(super) inner: LocalBroker,
    pub(super) faults: Arc<FaultInjector>,
    pub(super) process: Process,
    pub(super) guarantee: ProcessingGuarantee,
}

/// What may come of a call outside any group.
pub(super) const OUTSIDE: &[Fault] = &[
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::Unavailable,
    Fault::StalledInside,
    Fault::StalledAfter,
];

impl FaultyBroker {
    pub(super) fn call<T>(
        &self,
        name: &str,
        possible: &[Fault],
        operation: impl FnOnce() -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        if self.process.is_dead() {
            return Err(self.process.die());
        }
        self.process.calls_the_broker();
        if self.faults.is_out() {
            return Err(BrokerError::Retry("nobody answers".to_owned()));
        }
        // Of all the calls there are, these are few.
        let weight = if matches!(name, "commit" | "drain") { 4 } else { 1 };
        let Some(fault) = self.faults.fault(possible, weight) else { return operation() };
        self.faults.note(format_args!("{} {name}: {fault:?}", self.process.name));
        let reason = format!("{fault:?}");
        match fault {
            Fault::CrashBefore => Err(self.process.die()),
            Fault::CrashAfter => {
                // The process crashed after the call took effect, so its result is dropped.
                let _unheard = operation();
                Err(self.process.die())
            }
            Fault::Unavailable => Err(BrokerError::Retry(reason)),
            Fault::Aborted => Err(BrokerError::Abort(reason)),
            Fault::Fenced => Err(BrokerError::Fenced(reason)),
            Fault::AnswerLost => {
                operation()?;
                Err(self.lost_answer(reason))
            }
            Fault::StalledInside => {
                self.faults.stall_inside();
                operation()
            }
            Fault::StalledAfter => {
                let result = operation();
                self.faults.stall_inside();
                result
            }
            Fault::DoneInPart => {
                operation()?;
                Err(BrokerError::Retry(reason))
            }
            Fault::Undelivered
            | Fault::RecordsWithAnError
            | Fault::EndToldAgain
            | Fault::ErrorToldAgain
            | Fault::MadeAnew
            | Fault::LeftOpen
            | Fault::Damaged
            | Fault::Killed
            | Fault::Stalled
            | Fault::Outage
            | Fault::PowerCut
            | Fault::DiskLost => unreachable!("{fault:?} is no answer of a broker"),
        }
    }

    /// Whether a call comes as far as the broker.
    pub(super) fn is_reached(&self) -> bool {
        !self.process.is_dead() && !self.faults.is_out()
    }

    /// librdkafka does not go on with a transaction that may have been committed; a commit of offsets it has just asked
    /// for in vain.
    fn lost_answer(&self, reason: String) -> BrokerError {
        match self.guarantee {
            _ if self.faults.has(Bug::LostAnswerTakenForAnAbort) => BrokerError::Abort(reason),
            ProcessingGuarantee::ExactlyOnce => BrokerError::Fenced(reason),
            ProcessingGuarantee::AtLeastOnce => BrokerError::Retry(reason),
        }
    }
}

impl Broker for FaultyBroker {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        let member = self.call("join", OUTSIDE, || self.inner.enter(membership))?;
        self.process.has_joined();
        Ok(Box::new(FaultyMember::new(self.clone(), member)))
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        let reader = self.call("open", OUTSIDE, || self.inner.read(source, from))?;
        Ok(Box::new(FaultyReader { broker: self.clone(), reader, has_told_end: false }))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, BrokerError> {
        self.inner.follow()
    }

    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        self.inner.publish()
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        self.inner.create_topics(topics)
    }

    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError> {
        let Offset(end) = self.call("end", OUTSIDE, || self.inner.end(source, isolation))?;
        let ahead = self.faults.has(Bug::CheckpointAhead);
        Ok(Offset(if ahead && isolation == Isolation::ReadCommitted { end + 3 } else { end }))
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.inner.partitions(topic)
    }
}

struct FaultyReader {
    broker: FaultyBroker,
    reader: Box<dyn Reader>,
    has_told_end: bool,
}

impl Reader for FaultyReader {
    fn read(
        &mut self,
        _wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError> {
        let Self { broker, reader, has_told_end } = self;
        if broker.faults.one_in(4) {
            return Ok(ReadTo::More); // A slow one.
        }
        if *has_told_end && broker.faults.happens(Fault::EndToldAgain, 2) {
            return Ok(ReadTo::End);
        }
        let before = records.len();
        let read_to = broker.call("read", OUTSIDE, || reader.read(Duration::ZERO, records))?;
        *has_told_end = read_to == ReadTo::End;
        if records.len() > before && broker.faults.happens(Fault::RecordsWithAnError, 10) {
            return Err(BrokerError::Retry("there were records, too".to_owned()));
        }
        Ok(read_to)
    }
}
