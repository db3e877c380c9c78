//! A member's consumer: which partitions it holds, and where it reads them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rdkafka::{
    Offset as Position, TopicPartitionList,
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
    reader::passes,
    rebalance::{self, GroupEvents},
    token,
    watermarks::watermarks,
};
use foretell_streams::{
    record::{InputRecord, Offset, Partition, TopicPartition},
    runtime::broker::{BrokerError, Membership, Rebalance},
    time::Clock,
};

/// One try of a question to a broker.
const TRY: Duration = Duration::from_secs(5);

/// Between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How long fetching may take to move.
const SEEK_WITHIN: Duration = Duration::from_secs(5);

/// A consumer in a group.
pub(crate) struct Group {
    membership: Membership,
    /// None once it has left.
    partition_queues: Option<PartitionQueues<GroupEvents>>,
    pub(crate) positions: Positions,
    paused: BTreeSet<TopicPartition>,
    /// librdkafka has lost its place in some partition: it has stopped fetching one whose position is gone, or it has
    /// told of an error as of a record, and takes that for its position (`rd_kafka_consume_batch_queue` moves it past
    /// whatever it hands out).
    is_astray: bool,
    /// How long another member's transaction may keep the group's offsets undecided.
    undecided_max: Duration,
    clock: Arc<dyn Clock>,
}

impl Group {
    /// Joins; does not wait for an assignment.
    pub(crate) fn join(
        membership: &Membership,
        config: &KafkaConfig,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        let settings = config.member_consumer(membership);
        let consumer: BaseConsumer<GroupEvents> = settings
            .create_with_context(GroupEvents::new())
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
            is_astray: false,
            undecided_max: config.transaction_timeout * 2 + TRY,
            clock: Arc::clone(clock),
        })
    }

    pub(crate) fn consumer(&self) -> &BaseConsumer<GroupEvents> {
        self.partition_queues()
    }

    /// The next change of the assignment, if one has been announced.
    pub(crate) fn next_rebalance(&self) -> Option<Rebalance> {
        self.consumer().context().next()
    }

    /// Takes what is there; waits only if that is nothing.
    pub(crate) fn take(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<(), BrokerError> {
        if self.is_astray && !self.is_rebalancing() {
            return self.read_again();
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
        let Self { partition_queues: Some(partition_queues), positions, is_astray, .. } = self
        else {
            return Ok(());
        };
        // The first that matters.
        let mut failed = partition_queues.serve().or_else(unless_it_passes);
        partition_queues.take(|source, message| match message.error() {
            None => {
                if positions.hand_out(source, message.offset()) {
                    records.push(message.to_record(source.clone()));
                }
            }
            Some(code) => {
                *is_astray = true; // The next call's.
                if failed.is_ok() && code != Code::AutoOffsetReset {
                    failed = unless_it_passes(KafkaError::MessageConsumption(code));
                }
            }
        });
        failed.map_err(|error| broker_error("poll", &error))
    }

    /// Reads every input of `tasks` from its committed offset on.
    pub(crate) fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        let sources: Vec<TopicPartition> =
            tasks.iter().flat_map(|task| self.membership.inputs_of(*task)).collect();
        let mut starts = Vec::new();
        if !sources.is_empty() {
            self.find_co_partitioned();
            starts = self.begin_where_logs_do(&sources, self.committed(&sources)?);
        }
        let Some(partition_queues) = &mut self.partition_queues else { return Ok(()) };
        for source in &sources {
            partition_queues.open(source).map_err(|error| broker_error("assign", &error))?;
        }
        let assignment = partition_list_at(sources.iter().zip(starts.iter().copied()));
        // They rest until they are resumed.
        self.paused.extend(sources.iter().cloned());
        // One call, also for nothing: the group waits for it.
        let assigned = self.consumer().incremental_assign(&assignment);
        assigned.map_err(|error| broker_error("assign", &error))?;
        self.consumer().context().answered();
        for (source, start) in sources.iter().zip(starts) {
            self.positions.hold(source, start);
        }
        // librdkafka 2.12 wakes nothing by it, but does not promise that.
        self.pause_again()
    }

    /// Stops reading every input of `tasks`.
    pub(crate) fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        // librdkafka remembers that a partition is paused, even for when it comes back to us.
        let held = self.positions.held_of(tasks);
        if let Some(partition_queues) = &mut self.partition_queues {
            held.iter().for_each(|source| partition_queues.close(source));
        }
        self.resume(&held)?;
        let Some(partition_queues) = &self.partition_queues else { return Ok(()) };
        // One call for leads and co-partitioned inputs, and only for what is held: one partition that is not held fails the whole call.
        let unassigned = partition_queues.incremental_unassign(&partition_list(&held));
        unassigned.map_err(|error| broker_error("unassign", &error))?;
        self.consumer().context().answered();
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

    /// How far `source` has been read: behind the last record that was handed out, and behind the markers of
    /// transactions that follow it. 0 if reading starts at the beginning, and nothing has come.
    pub(crate) fn position(&self, source: &TopicPartition) -> Offset {
        let handed_out = self.positions.position(source);
        // An error is behind its own place, and not what should be there.
        let passed = self.partition_queues.as_ref().filter(|_| !self.is_astray);
        let passed = passed.and_then(|partition_queues| partition_queues.position(source));
        passed.map_or(handed_out, |passed| passed.max(handed_out))
    }

    /// Goes back to what is committed. Call it again if it could not be done at once.
    pub(crate) fn rewind(&mut self) -> Result<(), BrokerError> {
        self.seek(self.positions.moved())?;
        self.positions.rewind();
        Ok(())
    }

    /// Leaves, if it has not yet. Bounded in time.
    pub(crate) fn leave(&mut self) -> Result<(), BrokerError> {
        match self.partition_queues.take() {
            Some(partition_queues) => {
                rebalance::leave(partition_queues.into_consumer(), &self.clock)
            }
            None => Ok(()),
        }
    }

    /// A position is gone: retention was quicker than we, or the topic was recreated. All are looked at, and
    /// the first that is gone is read from its beginning on.
    fn read_again(&mut self) -> Result<(), BrokerError> {
        let next: Vec<(TopicPartition, Start)> = self.positions.next().collect();
        for (source, start) in &next {
            let Start::At(Offset(offset)) = *start else { continue };
            let (first, end) = watermarks(self.consumer(), source, &self.clock)
                .map_err(|error| broker_error(&format!("look at {source}"), &error))?;
            if offset < first || offset > end {
                let start = Start::At(Offset(first));
                self.assign_again(&[(source.clone(), start)])?;
                self.positions.hold(source, start);
                // There may be more: the flag stays up until all are there.
                return Err(BrokerError::OutOfRange(source.clone()));
            }
        }
        self.assign_again(&next)?;
        self.is_astray = false;
        Ok(())
    }

    /// Starts fetching at `starts`, also where librdkafka has stopped: it seeks only what it fetches.
    /// Not while a rebalance waits for its answer, for it would take this for one.
    fn assign_again(&mut self, starts: &[(TopicPartition, Start)]) -> Result<(), BrokerError> {
        if starts.is_empty() {
            return Ok(());
        }
        let sources = partition_list(starts.iter().map(|(source, _)| source));
        let assignment = partition_list_at(starts.iter().map(|(source, start)| (source, *start)));
        let Some(partition_queues) = &mut self.partition_queues else { return Ok(()) };
        let mut again = || {
            starts.iter().for_each(|(source, _)| partition_queues.close(source));
            let unassigned = partition_queues.incremental_unassign(&sources);
            // Opened again: librdkafka may have let go of the queue, if it has not heard of the topic just now.
            starts.iter().try_for_each(|(source, _)| partition_queues.open(source))?;
            unassigned.and_then(|()| partition_queues.incremental_assign(&assignment))
        };
        again().map_err(|error| broker_error("assign again", &error))?;
        self.pause_again()
    }

    fn pause_again(&mut self) -> Result<(), BrokerError> {
        let paused: Vec<TopicPartition> = self.paused.iter().cloned().collect();
        self.pause(&paused)
    }

    fn partition_queues(&self) -> &PartitionQueues<GroupEvents> {
        self.partition_queues.as_ref().expect("only `leave` takes it, and nothing comes after that")
    }

    fn is_rebalancing(&self) -> bool {
        self.consumer().context().is_unanswered()
    }

    /// What the group has committed for `sources`. librdkafka must never look this up itself: while an offset
    /// is undecided, it may forget the partition.
    fn committed(&self, sources: &[TopicPartition]) -> Result<Vec<Start>, BrokerError> {
        let deadline = Deadline::within(self.undecided_max, &self.clock);
        loop {
            let answer = self.consumer().committed_offsets(partition_list(sources), TRY);
            let starts = answer
                .and_then(|found| sources.iter().map(|source| start_of(&found, source)).collect());
            let error = match starts {
                Ok(starts) => return Ok(starts),
                Err(error) => broker_error("look up the committed offsets", &error),
            };
            if deadline.passed() || !matches!(error, BrokerError::Retry(_)) {
                return Err(error);
            }
            pause_for(TRY_AGAIN_AFTER);
        }
    }

    /// A log that has lost its head has its beginning at another offset than 0, and may have nothing more: its position would
    /// never be its end. Where nobody says at once where a log begins, it is left to librdkafka.
    fn begin_where_logs_do(&self, sources: &[TopicPartition], starts: Vec<Start>) -> Vec<Start> {
        let mut is_told = true;
        let start = |(source, start): (&TopicPartition, Start)| {
            if start != Start::Beginning || !is_told {
                return start;
            }
            let found = watermarks(self.consumer(), source, &self.clock);
            is_told = found.is_ok();
            found.map_or(start, |(first, _)| Start::At(Offset(first)))
        };
        sources.iter().zip(starts).map(start).collect()
    }

    /// Nobody subscribes to the co-partitioned inputs, so librdkafka has not looked for their leaders, and
    /// would wait for a second before it does.
    fn find_co_partitioned(&self) {
        for co_partitioned_input in &self.membership.co_partitioned {
            if let Err(error) =
                self.consumer().fetch_metadata(Some(co_partitioned_input.as_str()), TRY)
            {
                tracing::debug!(%error, %co_partitioned_input, "its leaders are yet to be found");
            }
        }
    }

    /// Moves fetching; what was fetched before does not come out any more.
    fn seek(&mut self, starts: Vec<(TopicPartition, Start)>) -> Result<(), BrokerError> {
        let deadline = Deadline::within(SEEK_WITHIN, &self.clock);
        let mut left = starts;
        while !left.is_empty() {
            let wanted = partition_list_at(left.iter().map(|(source, start)| (source, *start)));
            if let Ok(answer) = self.consumer().seek_partitions(wanted, SEEK_WITHIN) {
                left.retain(|(source, _)| !is_done(&answer, source));
            }
            if left.is_empty() {
                break;
            }
            if deadline.passed() && self.is_rebalancing() {
                let text = format!("{} partitions are not being fetched", left.len());
                return Err(BrokerError::Retry(text));
            }
            if deadline.passed() {
                return self.assign_again(&left);
            }
            pause_for(TRY_AGAIN_AFTER); // Fetching starts a moment after an assignment.
            // A rebalance that waits to be announced would take another assignment for its answer.
            let served = self.partition_queues().serve().or_else(unless_it_passes);
            served.map_err(|error| broker_error("seek", &error))?;
        }
        Ok(())
    }
}

fn is_done(answer: &TopicPartitionList, source: &TopicPartition) -> bool {
    let element = answer.find_partition(source.topic.as_str(), source.partition.0);
    element.is_some_and(|element| element.error().is_ok())
}

fn start_of(found: &TopicPartitionList, source: &TopicPartition) -> Result<Start, KafkaError> {
    let element = found
        .find_partition(source.topic.as_str(), source.partition.0)
        .ok_or(KafkaError::OffsetFetch(Code::UnknownPartition))?;
    start(element.error(), element.offset())
}

/// A partition's own error is no word about its offset, in an answer that has none as a whole.
fn start(error: KafkaResult<()>, offset: Position) -> Result<Start, KafkaError> {
    error?;
    let Position::Offset(offset) = offset else { return Ok(Start::Beginning) };
    Ok(Start::At(Offset(offset)))
}

/// What is wrong, if librdkafka does not deal with it itself.
fn unless_it_passes(error: KafkaError) -> KafkaResult<()> {
    if passes(&error) || is_reported_by_a_rebalance(&error) { Ok(()) } else { Err(error) }
}

/// We were silent for too long (`max.poll.interval.ms`): the revocation follows.
fn is_reported_by_a_rebalance(error: &KafkaError) -> bool {
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

    /// librdkafka may drop what a broker answers: it is to fail again every second.
    const STEPS_TO_FAILURE: usize = 20;

    /// A member that has the only partition.
    struct World {
        group: Group,
        mock: Mock,
    }

    impl World {
        fn new() -> Self {
            let mut world = Self::joining();
            until("the member has its partition", |_| {
                world.group.take(STEP, &mut Vec::new()).unwrap();
                if let Some(Rebalance::Assigned(tasks)) = world.group.next_rebalance() {
                    world.group.assign(&tasks).unwrap();
                }
                (world.group.positions.next().count() == 1).then_some(())
            });
            world.group.resume(&[Mock::source()]).unwrap();
            world
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

        /// Fetching fails until the member is told of it as of a record.
        fn fail(&mut self) {
            until("an error comes", |step| {
                if step % STEPS_TO_FAILURE == 0 {
                    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN;
                    self.mock.fail(RDKafkaApiKey::Fetch, &[error]);
                }
                self.group.take(STEP, &mut Vec::new()).unwrap();
                self.group.is_astray.then_some(())
            });
            self.mock.mend(RDKafkaApiKey::Fetch);
        }

        fn pause_and_resume(&mut self) {
            self.group.pause(&[Mock::source()]).unwrap();
            self.group.resume(&[Mock::source()]).unwrap();
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            self.group.leave().unwrap();
        }
    }

    #[test]
    fn an_error_in_the_place_of_a_record_skips_none() {
        let mut world = World::new();
        world.mock.write(0..5);
        assert_eq!(world.read(5), [0, 1, 2, 3, 4]);
        world.fail();
        assert_eq!(world.group.position(&Mock::source()), Offset(5), "an error is no record");
        // Nothing is gone, though there is nothing after this position.
        world.group.take(STEP, &mut Vec::new()).unwrap();
        assert!(!world.group.is_astray);
        world.pause_and_resume();
        world.mock.write(5..10);
        assert_eq!(world.read(5), [5, 6, 7, 8, 9]);
    }

    #[test]
    fn an_end_in_the_place_of_a_record_skips_none() {
        let mut world = World::new();
        for first in 0..5 {
            world.mock.write(first..first + 1);
            assert_eq!(world.read(1), [first]);
            // Five times nothing: librdkafka would tell of the end, if it were asked to.
            (0..5).for_each(|_| world.group.take(STEP, &mut Vec::new()).unwrap());
            world.pause_and_resume();
        }
    }

    #[test]
    fn all_comes_once_whatever_rests_and_again_after_a_rewind() {
        let mut world = World::new();
        world.mock.write(0..100);
        let mut read = world.read(1);
        while read.len() < 100 {
            world.pause_and_resume();
            read.extend(world.read(1));
        }
        let all: Vec<u8> = (0..100).collect();
        assert_eq!(read, all);
        world.group.rewind().unwrap();
        assert_eq!(world.read(100), all);
    }

    #[test]
    fn a_seek_that_fails_leaves_the_member_where_it_was() {
        let mut world = World::new();
        world.mock.write(0..3);
        assert_eq!(world.read(3), [0, 1, 2]);
        // Of what is not assigned, nothing can be sought or assigned again.
        let source = partition_list([&Mock::source()]);
        world.group.consumer().incremental_unassign(&source).unwrap();
        assert!(world.group.rewind().is_err());
        let moved = world.group.positions.moved();
        assert_eq!(moved, [(Mock::source(), Start::At(Offset(0)))], "it is still to be sought");
        world.group.consumer().incremental_assign(&source).unwrap();
        world.group.rewind().unwrap();
        assert_eq!(world.read(3), [0, 1, 2]);
    }

    /// The committed offset, as the group knows it.
    fn commit(world: &World, offset: i64) {
        let offsets = partition_list_at([(&Mock::source(), Start::At(Offset(offset)))]);
        world.group.consumer().commit(&offsets, CommitMode::Sync).unwrap();
    }

    fn is_gone(told: &BrokerError) -> bool {
        matches!(told, BrokerError::OutOfRange(source) if *source == Mock::source())
    }

    fn nothing_comes(world: &mut World) {
        let mut records = Vec::new();
        (0..5).for_each(|_| world.group.take(STEP, &mut records).unwrap());
        assert!(records.is_empty(), "{records:?}");
    }

    #[test]
    fn what_is_given_up_rests_and_goes_on_where_the_group_has_committed() {
        let mut world = World::new();
        world.mock.write(0..5);
        assert_eq!(world.read(5), [0, 1, 2, 3, 4]);
        commit(&world, 2);
        world.group.pause(&[Mock::source()]).unwrap();
        world.mock.write(5..6);
        nothing_comes(&mut world);
        world.group.unassign(&[Partition(0)]).unwrap();
        assert_eq!(world.group.consumer().assignment().unwrap().count(), 0);
        assert_eq!(world.group.positions.next().count(), 0);
        // It comes back. Until it is resumed, it rests.
        world.group.assign(&[Partition(0)]).unwrap();
        nothing_comes(&mut world);
        world.group.resume(&[Mock::source()]).unwrap();
        assert_eq!(world.read(4), [2, 3, 4, 5]);
    }

    #[test]
    fn a_position_that_is_gone_is_reported_once_and_what_is_left_is_read() {
        let mut world = World::new();
        world.mock.write(0..1);
        assert_eq!(world.read(1), [0]);
        world.group.pause(&[Mock::source()]).unwrap();
        world.mock.overflow(1..21);
        world.group.resume(&[Mock::source()]).unwrap();
        let told = until("it is told", |_| world.group.take(STEP, &mut Vec::new()).err());
        assert!(is_gone(&told), "{told}");
        let (mut records, last) = (Vec::new(), Some(&20));
        let left = until("all that is left comes", |_| {
            world.group.take(STEP, &mut records).unwrap();
            let values = values(&records);
            (values.last() == last).then_some(values)
        });
        assert!(left[0] > 1, "{left:?}");
        assert_eq!(left, (left[0]..21).collect::<Vec<u8>>());
        // The topic was recreated, and ends before the position.
        world.group.positions.hold(&Mock::source(), Start::At(Offset(1_000)));
        world.group.is_astray = true;
        let told = world.group.take(STEP, &mut Vec::new()).unwrap_err();
        assert!(is_gone(&told), "{told}");
        assert_eq!(world.read(left.len()), left);
    }

    #[test]
    fn nothing_is_assigned_again_while_a_rebalance_waits_for_its_answer() {
        let mut world = World::joining();
        let tasks = until("the partition is announced", |_| {
            world.group.take(STEP, &mut Vec::new()).unwrap();
            let Some(Rebalance::Assigned(tasks)) = world.group.next_rebalance() else {
                return None;
            };
            Some(tasks).filter(|tasks| !tasks.is_empty())
        });
        world.group.is_astray = true;
        world.group.take(Duration::ZERO, &mut Vec::new()).unwrap();
        assert!(world.group.is_astray, "it is seen to after the answer");
        world.group.assign(&tasks).unwrap();
        world.group.take(Duration::ZERO, &mut Vec::new()).unwrap();
        assert!(!world.group.is_astray);
    }

    #[test]
    fn who_may_not_see_the_committed_offsets_is_reported_so_at_once() {
        let world = World::new();
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
        world.mock.fail(RDKafkaApiKey::OffsetFetch, &[refused]);
        let told = world.group.committed(&[Mock::source()]).unwrap_err();
        assert!(matches!(told, BrokerError::Fatal(_)), "{told}");
        assert_eq!(world.group.committed(&[Mock::source()]).unwrap(), [Start::Beginning]);
    }

    #[test]
    fn what_is_there_is_taken_without_waiting_for_more() {
        const LONG: Duration = Duration::from_secs(60);
        let mut world = World::new();
        for value in 0..3 {
            world.mock.write(value..value + 1);
            let mut records = Vec::new();
            let began = world.mock.clock.elapsed();
            while records.is_empty() {
                // Until something has come, which is not taken yet.
                world.group.partition_queues().wait(LONG);
                world.group.take(LONG, &mut records).unwrap();
            }
            assert!(world.mock.clock.elapsed() - began < LONG, "it has waited for more");
            assert_eq!(values(&records), [value]);
        }
    }

    #[test]
    fn that_we_were_silent_is_reported_by_the_rebalance_that_follows() {
        let told = |code| unless_it_passes(KafkaError::MessageConsumption(code));
        assert_eq!(told(Code::PollExceeded), Ok(()));
        let refused = Code::GroupAuthorizationFailed;
        assert_eq!(told(refused), Err(KafkaError::MessageConsumption(refused)));
    }

    #[test]
    fn what_a_group_has_committed_is_an_offset_or_nothing_or_an_error() {
        let unstable = KafkaError::OffsetFetch(Code::UnstableOffsetCommit);
        assert_eq!(start(Ok(()), Position::Offset(7)), Ok(Start::At(Offset(7))));
        assert_eq!(start(Ok(()), Position::Invalid), Ok(Start::Beginning));
        assert_eq!(start(Err(unstable.clone()), Position::Invalid), Err(unstable));
        let unknown = Err(KafkaError::OffsetFetch(Code::UnknownPartition));
        assert_eq!(start_of(&TopicPartitionList::new(), &Mock::source()), unknown);
    }
}
