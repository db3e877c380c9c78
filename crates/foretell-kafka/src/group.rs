//! A member's consumer: its assignment, its positions and its pauses.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};

use crate::{
    config::KafkaConfig,
    deadline::{Deadline, pause_for},
    error::broker_error,
    partition_list::{partition_list, partition_list_at},
    partition_queues::PartitionQueues,
    positions::{Positions, Start},
    reader::is_transient,
    rebalance::{self, GroupContext},
    start_offsets::StartOffsets,
    token,
    watermarks::watermarks,
};
use foretell_streams::{
    record::{InputRecord, Offset, Partition, TopicPartition},
    runtime::broker::{BrokerError, Membership, Rebalance},
    time::Clock,
};

/// Pause between two attempts to seek.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Time limit of a seek, after which the partitions are assigned again.
const SEEK_WITHIN: Duration = Duration::from_secs(5);

/// A consumer in a group.
pub(crate) struct Group {
    membership: Membership,
    /// `None` once it has left.
    partition_queues: Option<PartitionQueues<GroupContext>>,
    pub(crate) positions: Positions,
    paused: BTreeSet<TopicPartition>,
    /// librdkafka's position in some partition is wrong: it has stopped fetching a partition whose position is out of range,
    /// or it has returned an error in place of a record and moved its position past it (`rd_kafka_consume_batch_queue` does
    /// so for everything that it returns).
    must_reposition: bool,
    start_offsets: StartOffsets,
    clock: Arc<dyn Clock>,
}

impl Group {
    /// Joins the group; does not wait for an assignment.
    pub(crate) fn join(
        membership: &Membership,
        config: &KafkaConfig,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        let settings = config.member_consumer(membership);
        let consumer: BaseConsumer<GroupContext> = settings
            .create_with_context(GroupContext::default())
            .map_err(|error| broker_error("make a consumer", &error))?;
        token::install(consumer.client(), &settings)
            .map_err(|error| broker_error("make a consumer", &error))?;
        consumer
            .subscribe(&[membership.lead.as_str()])
            .map_err(|error| broker_error("join the group", &error))?;
        let topics = std::iter::once(&membership.lead).chain(&membership.co_partitioned);
        Ok(Self {
            membership: membership.clone(),
            partition_queues: Some(PartitionQueues::new(consumer)),
            positions: Positions::new(topics.cloned().collect()),
            paused: BTreeSet::new(),
            must_reposition: false,
            start_offsets: StartOffsets::new(config.transaction_timeout, clock),
            clock: Arc::clone(clock),
        })
    }

    pub(crate) fn consumer(&self) -> &BaseConsumer<GroupContext> {
        self.partition_queues()
    }

    /// The next rebalance, if there is one.
    pub(crate) fn next_rebalance(&self) -> Option<Rebalance> {
        self.consumer().context().state.next()
    }

    /// Takes the available records; waits only if there are none.
    pub(crate) fn take(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<(), BrokerError> {
        if self.must_reposition && !self.is_rebalancing() {
            return self.reposition();
        }
        let before = records.len();
        self.take_at_once(records)?;
        if records.len() == before && !wait.is_zero() && !self.is_rebalancing() {
            self.partition_queues().wait(wait);
            self.take_at_once(records)?;
        }
        Ok(())
    }

    fn take_at_once(&mut self, records: &mut Vec<InputRecord>) -> Result<(), BrokerError> {
        let Self { partition_queues: Some(partition_queues), positions, must_reposition, .. } =
            self
        else {
            return Ok(());
        };
        // The first error that is not transient.
        let mut failed = partition_queues.serve().or_else(unless_transient);
        partition_queues.take(|source, message| match message.error() {
            None => {
                if positions.hand_out(source, message.offset()) {
                    records.push(message.to_record(source.clone(), message.headers()));
                }
            }
            Some(code) => {
                *must_reposition = true; // Done by the next call.
                if failed.is_ok() && code != Code::AutoOffsetReset {
                    failed = unless_transient(KafkaError::MessageConsumption(code));
                }
            }
        });
        failed.map_err(|error| broker_error("poll", &error))
    }

    /// Assigns every input of `tasks`, paused, at its committed offset.
    pub(crate) fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        let sources: Vec<TopicPartition> =
            tasks.iter().flat_map(|task| self.membership.inputs_of(*task)).collect();
        let mut starts = Vec::new();
        if !sources.is_empty() {
            starts = self.start_offsets.look_up(
                self.consumer(),
                &sources,
                &self.membership.co_partitioned,
            )?;
        }
        let Some(partition_queues) = &mut self.partition_queues else { return Ok(()) };
        for source in &sources {
            partition_queues.open(source).map_err(|error| broker_error("assign", &error))?;
        }
        let assignment = partition_list_at(sources.iter().zip(starts.iter().copied()));
        // They stay paused until they are resumed.
        self.paused.extend(sources.iter().cloned());
        // One call, also for an empty assignment: the group waits for it.
        let assigned = self.consumer().incremental_assign(&assignment);
        assigned.map_err(|error| broker_error("assign", &error))?;
        self.consumer().context().state.complete();
        for (source, start) in sources.iter().zip(starts) {
            self.positions.hold(source, start);
        }
        // An assignment does not resume other partitions in librdkafka 2.12, but that is not documented.
        self.restore_pauses()
    }

    /// Unassigns every input of `tasks`.
    pub(crate) fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        // Resumed, because librdkafka keeps the pause for when the partition is assigned again.
        let held = self.positions.held_of(tasks);
        if let Some(partition_queues) = &mut self.partition_queues {
            held.iter().for_each(|source| partition_queues.close(source));
        }
        self.resume(&held)?;
        let Some(partition_queues) = &self.partition_queues else { return Ok(()) };
        // One call for all inputs, and only for partitions that are owned: any other one fails the whole call.
        let unassigned = partition_queues.incremental_unassign(&partition_list(&held));
        unassigned.map_err(|error| broker_error("unassign", &error))?;
        self.consumer().context().state.complete();
        for task in tasks {
            self.positions.release(*task);
        }
        Ok(())
    }

    pub(crate) fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.paused.extend(inputs.iter().cloned());
        let paused = self.consumer().pause(&partition_list(inputs));
        paused.map_err(|error| broker_error("pause", &error))
    }

    pub(crate) fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.paused.retain(|input| !inputs.contains(input));
        let resumed = self.consumer().resume(&partition_list(inputs));
        resumed.map_err(|error| broker_error("resume", &error))
    }

    /// The offset after the last record of `source` that was returned and the control records that follow it; 0 if reading
    /// starts at the beginning and no record has come.
    pub(crate) fn position(&self, source: &TopicPartition) -> Offset {
        let returned = self.positions.position(source);
        // After an error, librdkafka's position may be past a record that was not returned.
        let fetched = self.partition_queues.as_ref().filter(|_| !self.must_reposition);
        let fetched = fetched.and_then(|partition_queues| partition_queues.position(source));
        fetched.map_or(returned, |fetched| fetched.max(returned))
    }

    /// Goes back to the committed offsets. After [`BrokerError::Retry`] it must be called again.
    pub(crate) fn rewind(&mut self) -> Result<(), BrokerError> {
        self.seek(self.positions.moved())?;
        self.positions.rewind();
        Ok(())
    }

    /// Leaves the group, unless it has left already. Bounded in time.
    pub(crate) fn leave(&mut self) -> Result<(), BrokerError> {
        match self.partition_queues.take() {
            Some(partition_queues) => {
                rebalance::leave(partition_queues.into_consumer(), &self.clock)
            }
            None => Ok(()),
        }
    }

    /// Repairs librdkafka's positions: checks all of them, and assigns the partitions again. A position can be out of range
    /// because retention has deleted its record, or because the topic was recreated. The first such partition is read from
    /// its beginning, and reported.
    fn reposition(&mut self) -> Result<(), BrokerError> {
        let next: Vec<(TopicPartition, Start)> = self.positions.next().collect();
        for (source, start) in &next {
            let Start::At(Offset(offset)) = *start else { continue };
            let (first, end) =
                watermarks(self.consumer(), source, &self.clock).map_err(|error| {
                    broker_error(&format!("look up the offsets of {source}"), &error)
                })?;
            if offset < first || offset > end {
                let start = Start::At(Offset(first));
                self.reassign(&[(source.clone(), start)])?;
                self.positions.hold(source, start);
                // The flag stays set: the next call looks for further partitions.
                return Err(BrokerError::OutOfRange(source.clone()));
            }
        }
        self.reassign(&next)?;
        self.must_reposition = false;
        Ok(())
    }

    /// Assigns partitions again at `starts`. Unlike a seek, this works for partitions that librdkafka does not fetch. Must not
    /// be called during a rebalance, because librdkafka would take it for its completion.
    fn reassign(&mut self, starts: &[(TopicPartition, Start)]) -> Result<(), BrokerError> {
        if starts.is_empty() {
            return Ok(());
        }
        let sources = partition_list(starts.iter().map(|(source, _)| source));
        let assignment = partition_list_at(starts.iter().map(|(source, start)| (source, *start)));
        let Some(partition_queues) = &mut self.partition_queues else { return Ok(()) };
        let mut again = || {
            starts.iter().for_each(|(source, _)| partition_queues.close(source));
            let unassigned = partition_queues.incremental_unassign(&sources);
            // The queue is opened again, because librdkafka may have dropped it if its metadata lacks the topic.
            starts.iter().try_for_each(|(source, _)| partition_queues.open(source))?;
            unassigned.and_then(|()| partition_queues.incremental_assign(&assignment))
        };
        again().map_err(|error| broker_error("assign again", &error))?;
        self.restore_pauses()
    }

    fn restore_pauses(&mut self) -> Result<(), BrokerError> {
        let paused: Vec<TopicPartition> = self.paused.iter().cloned().collect();
        self.pause(&paused)
    }

    fn partition_queues(&self) -> &PartitionQueues<GroupContext> {
        self.partition_queues.as_ref().expect("only `leave` takes it, and nothing comes after that")
    }

    fn is_rebalancing(&self) -> bool {
        self.consumer().context().state.is_uncompleted()
    }

    /// Seeks to `starts`; librdkafka drops the records that it has fetched before.
    fn seek(&mut self, starts: Vec<(TopicPartition, Start)>) -> Result<(), BrokerError> {
        let deadline = Deadline::within(SEEK_WITHIN, &self.clock);
        let mut remaining = starts;
        while !remaining.is_empty() {
            let list = partition_list_at(remaining.iter().map(|(source, start)| (source, *start)));
            if let Ok(answer) = self.consumer().seek_partitions(list, SEEK_WITHIN) {
                remaining.retain(|(source, _)| !has_succeeded(&answer, source));
            }
            if remaining.is_empty() {
                break;
            }
            if deadline.passed() && self.is_rebalancing() {
                let text = format!("{} partitions are not being fetched", remaining.len());
                return Err(BrokerError::Retry(text));
            }
            if deadline.passed() {
                return self.reassign(&remaining);
            }
            pause_for(RETRY_INTERVAL); // Fetching starts a moment after an assignment.
            // Serves rebalances, of which `is_rebalancing` must know before partitions are assigned again.
            let served = self.partition_queues().serve().or_else(unless_transient);
            served.map_err(|error| broker_error("seek", &error))?;
        }
        Ok(())
    }
}

fn has_succeeded(answer: &TopicPartitionList, source: &TopicPartition) -> bool {
    let element = answer.find_partition(source.topic.as_str(), source.partition.0);
    element.is_some_and(|element| element.error().is_ok())
}

/// The error, unless librdkafka recovers from it by itself.
fn unless_transient(error: KafkaError) -> KafkaResult<()> {
    if is_transient(&error) || is_poll_exceeded(&error) { Ok(()) } else { Err(error) }
}

/// Whether the member has not polled for `max.poll.interval.ms`; a revocation of its partitions follows.
fn is_poll_exceeded(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(Code::PollExceeded)
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        consumer::CommitMode,
        types::{RDKafkaApiKey, RDKafkaRespErr},
    };

    use super::*;
    use crate::mock::{Mock, STEP, until, values};
    use foretell_streams::runtime::broker::ProcessingGuarantee;

    /// Steps between two injected failures, about a second: librdkafka may drop a response with an error.
    const STEPS_TO_FAILURE: usize = 20;

    /// A member that owns the only partition.
    struct Fixture {
        group: Group,
        mock: Mock,
    }

    impl Fixture {
        fn new() -> Self {
            let mut fixture = Self::joining();
            until("the member has its partition", |_| {
                fixture.group.take(STEP, &mut Vec::new()).unwrap();
                if let Some(Rebalance::Assigned(tasks)) = fixture.group.next_rebalance() {
                    fixture.group.assign(&tasks).unwrap();
                }
                (fixture.group.positions.next().count() == 1).then_some(())
            });
            fixture.group.resume(&[Mock::source()]).unwrap();
            fixture
        }

        fn joining() -> Self {
            let mock = Mock::new();
            let membership = Mock::membership(ProcessingGuarantee::AtLeastOnce);
            let group = Group::join(&membership, &mock.config, &mock.clock).unwrap();
            Self { group, mock }
        }

        fn read(&mut self, count: usize) -> Vec<u8> {
            let mut records = Vec::new();
            until("the records come", |_| {
                self.group.take(STEP, &mut records).unwrap();
                (records.len() >= count).then(|| values(&records))
            })
        }

        /// Makes fetching fail until librdkafka returns the error in place of a record.
        fn fail(&mut self) {
            until("an error comes", |step| {
                if step % STEPS_TO_FAILURE == 0 {
                    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN;
                    self.mock.fail(RDKafkaApiKey::Fetch, &[error]);
                }
                self.group.take(STEP, &mut Vec::new()).unwrap();
                self.group.must_reposition.then_some(())
            });
            self.mock.clear_failures(RDKafkaApiKey::Fetch);
        }

        fn pause_and_resume(&mut self) {
            self.group.pause(&[Mock::source()]).unwrap();
            self.group.resume(&[Mock::source()]).unwrap();
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            self.group.leave().unwrap();
        }
    }

    #[test]
    fn an_error_in_place_of_a_record_skips_no_record() {
        let mut fixture = Fixture::new();
        fixture.mock.write(0..5);
        assert_eq!(fixture.read(5), [0, 1, 2, 3, 4]);
        fixture.fail();
        assert_eq!(fixture.group.position(&Mock::source()), Offset(5), "an error is no record");
        // The position is valid, although there is no record after it.
        fixture.group.take(STEP, &mut Vec::new()).unwrap();
        assert!(!fixture.group.must_reposition);
        fixture.pause_and_resume();
        fixture.mock.write(5..10);
        assert_eq!(fixture.read(5), [5, 6, 7, 8, 9]);
    }

    #[test]
    fn the_end_of_a_partition_skips_no_record() {
        let mut fixture = Fixture::new();
        for first in 0..5 {
            fixture.mock.write(first..first + 1);
            assert_eq!(fixture.read(1), [first]);
            // Here librdkafka would report the end, if it were configured to.
            (0..5).for_each(|_| fixture.group.take(STEP, &mut Vec::new()).unwrap());
            fixture.pause_and_resume();
        }
    }

    #[test]
    fn records_are_returned_once_despite_pauses_and_again_after_a_rewind() {
        let mut fixture = Fixture::new();
        fixture.mock.write(0..100);
        let mut read = fixture.read(1);
        while read.len() < 100 {
            fixture.pause_and_resume();
            read.extend(fixture.read(1));
        }
        let all: Vec<u8> = (0..100).collect();
        assert_eq!(read, all);
        fixture.group.rewind().unwrap();
        assert_eq!(fixture.read(100), all);
    }

    #[test]
    fn a_failed_seek_keeps_the_positions() {
        let mut fixture = Fixture::new();
        fixture.mock.write(0..3);
        assert_eq!(fixture.read(3), [0, 1, 2]);
        // A partition that is not assigned can neither be sought nor assigned again.
        let source = partition_list([&Mock::source()]);
        fixture.group.consumer().incremental_unassign(&source).unwrap();
        assert!(fixture.group.rewind().is_err());
        let moved = fixture.group.positions.moved();
        assert_eq!(moved, [(Mock::source(), Start::At(Offset(0)))], "the seek is forgotten");
        fixture.group.consumer().incremental_assign(&source).unwrap();
        fixture.group.rewind().unwrap();
        assert_eq!(fixture.read(3), [0, 1, 2]);
    }

    /// Commits an offset in the group.
    fn commit(fixture: &Fixture, offset: i64) {
        let offsets = partition_list_at([(&Mock::source(), Start::At(Offset(offset)))]);
        fixture.group.consumer().commit(&offsets, CommitMode::Sync).unwrap();
    }

    fn is_out_of_range(error: &BrokerError) -> bool {
        matches!(error, BrokerError::OutOfRange(source) if *source == Mock::source())
    }

    fn expect_no_records(fixture: &mut Fixture) {
        let mut records = Vec::new();
        (0..5).for_each(|_| fixture.group.take(STEP, &mut records).unwrap());
        assert!(records.is_empty(), "{records:?}");
    }

    #[test]
    fn a_partition_that_is_assigned_again_is_paused_at_the_committed_offset() {
        let mut fixture = Fixture::new();
        fixture.mock.write(0..5);
        assert_eq!(fixture.read(5), [0, 1, 2, 3, 4]);
        commit(&fixture, 2);
        fixture.group.pause(&[Mock::source()]).unwrap();
        fixture.mock.write(5..6);
        expect_no_records(&mut fixture);
        fixture.group.unassign(&[Partition(0)]).unwrap();
        assert_eq!(fixture.group.consumer().assignment().unwrap().count(), 0);
        assert_eq!(fixture.group.positions.next().count(), 0);
        fixture.group.assign(&[Partition(0)]).unwrap();
        expect_no_records(&mut fixture);
        fixture.group.resume(&[Mock::source()]).unwrap();
        assert_eq!(fixture.read(4), [2, 3, 4, 5]);
    }

    #[test]
    fn a_position_out_of_range_is_reported_once_and_the_remaining_records_are_read() {
        let mut fixture = Fixture::new();
        fixture.mock.write(0..1);
        assert_eq!(fixture.read(1), [0]);
        fixture.group.pause(&[Mock::source()]).unwrap();
        fixture.mock.overflow(1..21);
        fixture.group.resume(&[Mock::source()]).unwrap();
        let error =
            until("the error is reported", |_| fixture.group.take(STEP, &mut Vec::new()).err());
        assert!(is_out_of_range(&error), "{error}");
        let (mut records, last) = (Vec::new(), Some(&20));
        let remaining = until("the remaining records are read", |_| {
            fixture.group.take(STEP, &mut records).unwrap();
            let values = values(&records);
            (values.last() == last).then_some(values)
        });
        assert!(remaining[0] > 1, "{remaining:?}");
        assert_eq!(remaining, (remaining[0]..21).collect::<Vec<u8>>());
        // As if the topic had been recreated, and ended before the position.
        fixture.group.positions.hold(&Mock::source(), Start::At(Offset(1_000)));
        fixture.group.must_reposition = true;
        let error = fixture.group.take(STEP, &mut Vec::new()).unwrap_err();
        assert!(is_out_of_range(&error), "{error}");
        assert_eq!(fixture.read(remaining.len()), remaining);
    }

    #[test]
    fn partitions_are_not_assigned_again_during_a_rebalance() {
        let mut fixture = Fixture::joining();
        let tasks = until("the partition is announced", |_| {
            fixture.group.take(STEP, &mut Vec::new()).unwrap();
            let Some(Rebalance::Assigned(tasks)) = fixture.group.next_rebalance() else {
                return None;
            };
            Some(tasks).filter(|tasks| !tasks.is_empty())
        });
        fixture.group.must_reposition = true;
        fixture.group.take(Duration::ZERO, &mut Vec::new()).unwrap();
        assert!(fixture.group.must_reposition, "it is done after the rebalance");
        fixture.group.assign(&tasks).unwrap();
        fixture.group.take(Duration::ZERO, &mut Vec::new()).unwrap();
        assert!(!fixture.group.must_reposition);
    }

    #[test]
    fn a_refused_look_up_of_committed_offsets_is_fatal() {
        let fixture = Fixture::new();
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
        fixture.mock.fail(RDKafkaApiKey::OffsetFetch, &[refused]);
        let committed = || {
            let consumer = fixture.group.consumer();
            fixture.group.start_offsets.committed(consumer, &[Mock::source()])
        };
        let error = committed().unwrap_err();
        assert!(matches!(error, BrokerError::Fatal(_)), "{error}");
        assert_eq!(committed().unwrap(), [Start::Beginning]);
    }

    #[test]
    fn available_records_are_taken_without_waiting_for_more() {
        const LONG: Duration = Duration::from_secs(60);
        let mut fixture = Fixture::new();
        for value in 0..3 {
            fixture.mock.write(value..value + 1);
            let mut records = Vec::new();
            let began = fixture.mock.clock.elapsed();
            while records.is_empty() {
                // Returns when a record is available; it does not take it.
                fixture.group.partition_queues().wait(LONG);
                fixture.group.take(LONG, &mut records).unwrap();
            }
            assert!(fixture.mock.clock.elapsed() - began < LONG, "it waited for more");
            assert_eq!(values(&records), [value]);
        }
    }

    #[test]
    fn exceeding_the_poll_interval_is_reported_by_the_rebalance_only() {
        let reported = |code| unless_transient(KafkaError::MessageConsumption(code));
        assert_eq!(reported(Code::PollExceeded), Ok(()));
        let refused = Code::GroupAuthorizationFailed;
        assert_eq!(reported(refused), Err(KafkaError::MessageConsumption(refused)));
    }
}
