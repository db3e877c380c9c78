//! A [`Broker`] whose calls may fail, for one process. `faulty_member` has the calls of a member of a group.

use std::time::Duration;

use crate::{
    local::LocalBroker,
    record::{InputRecord, Offset, Topic, TopicPartition},
    runtime::broker::{
        Broker, BrokerError, Follower, Isolation, Member, Membership, Publisher, ReadFrom, ReadTo,
        Reader, TopicSpec,
    },
    simulation::{
        fault_injector::{Bug, Fault},
        faulty_calls::{FaultyCalls, OUTSIDE_GROUP},
        faulty_member::FaultyMember,
    },
};

/// The connection of one process to the broker.
pub(super) struct FaultyBroker {
    pub(super) broker: LocalBroker,
    pub(super) calls: FaultyCalls,
}

impl Broker for FaultyBroker {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        let join = || self.broker.join_as_local_member(membership);
        let member = self.calls.call("join", OUTSIDE_GROUP, join)?;
        self.calls.process.record_join();
        Ok(Box::new(FaultyMember::new(self.calls.clone(), self.broker.clone(), member)))
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        let open = || self.broker.read(source, from);
        let reader = self.calls.call("open", OUTSIDE_GROUP, open)?;
        Ok(Box::new(FaultyReader { calls: self.calls.clone(), reader, has_reported_end: false }))
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
        let end = || self.broker.end(source, isolation);
        let Offset(end) = self.calls.call("end", OUTSIDE_GROUP, end)?;
        let ahead = self.calls.faults.has(Bug::CheckpointAhead);
        Ok(Offset(if ahead && isolation == Isolation::ReadCommitted { end + 3 } else { end }))
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.broker.partitions(topic)
    }
}

struct FaultyReader {
    calls: FaultyCalls,
    reader: Box<dyn Reader>,
    has_reported_end: bool,
}

impl Reader for FaultyReader {
    fn read(
        &mut self,
        _wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError> {
        let Self { calls, reader, has_reported_end } = self;
        if calls.faults.one_in(4) {
            return Ok(ReadTo::More); // A slow reader.
        }
        if *has_reported_end && calls.faults.injects(Fault::EndRepeated, 2) {
            return Ok(ReadTo::End);
        }
        let before = records.len();
        let read_to = calls.call("read", OUTSIDE_GROUP, || reader.read(Duration::ZERO, records))?;
        *has_reported_end = read_to == ReadTo::End;
        if records.len() > before && calls.faults.injects(Fault::RecordsWithError, 10) {
            return Err(BrokerError::Retry("an error after records".to_owned()));
        }
        Ok(read_to)
    }
}
