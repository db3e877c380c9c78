//! A group member: the consumer and the producer of a worker, on the worker's thread.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use crate::{
    admin::Admin,
    config::KafkaConfig,
    error::broker_error,
    group::Group,
    partition_list::partition_list_at,
    positions::{Positions, Start},
    producer::RecordProducer,
    publisher::FLUSH_WITHIN,
    rebalance::GroupContext,
    transaction::Transactions,
};
use foretell_streams::{
    record::{InputRecord, Offset, OutputRecordRef, Partition, Topic, TopicPartition},
    runtime::broker::{BrokerError, Member, Membership, ProcessingGuarantee, Rebalance},
    time::Clock,
};

/// Time limit of aborting an open transaction before leaving.
const CLOSING_ABORT_WITHIN: Duration = Duration::from_secs(2);

/// Interval at which all offsets are committed again. The offsets of co-partitioned inputs expire, because no member
/// subscribes to them; Kafka's default is a week, but less than a day can be configured.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3600);

/// A group member, which implements [`Member`].
pub(crate) struct KafkaMember {
    group: Group,
    output: Output,
    /// An error that occurred after records were taken. The records are returned first.
    deferred: Option<BrokerError>,
    renewal: Renewal,
    clock: Arc<dyn Clock>,
}

/// Time on the clock when all offsets must be committed again.
struct Renewal {
    at: Duration,
}

enum Output {
    ExactlyOnce(Transactions),
    AtLeastOnce { producer: RecordProducer, sent: bool },
}

impl KafkaMember {
    pub(crate) fn join(
        membership: &Membership,
        config: &KafkaConfig,
        admin: &Arc<Admin>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        check_co_partitioned(membership, admin)?;
        // The producer is created first, so that it fences the previous producer with this transactional id before
        // partitions can be assigned.
        let output = Output::new(membership, config, admin, clock)?;
        Ok(Self {
            group: Group::join(membership, config, clock)?,
            output,
            deferred: None,
            renewal: Renewal::after(clock.elapsed()),
            clock: Arc::clone(clock),
        })
    }

    /// Aborts an open transaction, within `CLOSING_ABORT_WITHIN`, and leaves the group. A second call does nothing.
    fn close(&mut self) -> Result<(), BrokerError> {
        let aborted = self.output.abort(CLOSING_ABORT_WITHIN);
        self.group.leave().and(aborted)
    }
}

impl Member for KafkaMember {
    fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError> {
        self.output.serve();
        if let Some(error) = self.deferred.take() {
            return Err(error);
        }
        if let Some(rebalance) = self.group.next_rebalance() {
            return Ok(Some(rebalance));
        }
        let before = records.len();
        let taken = self.group.take(wait, records);
        let (now, later) = records_first(taken, records.len() - before);
        self.deferred = later;
        now?;
        if self.deferred.is_some() { Ok(None) } else { Ok(self.group.next_rebalance()) }
    }

    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.group.assign(tasks)
    }

    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.group.unassign(tasks)
    }

    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.group.pause(inputs)
    }

    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.group.resume(inputs)
    }

    fn position(&self, input: &TopicPartition) -> Offset {
        self.group.position(input)
    }

    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        match &mut self.output {
            Output::ExactlyOnce(transactions) => transactions.send(record),
            Output::AtLeastOnce { producer, sent } => {
                producer.check(record)?;
                *sent = true;
                producer.send(record)
            }
        }
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        match &mut self.output {
            Output::ExactlyOnce(_) => Ok(()),
            Output::AtLeastOnce { producer, .. } => producer.drain(FLUSH_WITHIN),
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        let is_renewed = self.renewal.is_due(self.clock.elapsed());
        let has_sent = self.output.has_sent();
        let all = to_commit(&self.group.positions, offsets, is_renewed, has_sent);
        if !all.is_empty() || has_sent {
            let starts =
                partition_list_at(all.iter().map(|(source, offset)| (source, Start::At(*offset))));
            self.output.commit(self.group.consumer(), &starts)?;
            self.group.positions.committed(&all);
        }
        if is_renewed {
            self.renewal = Renewal::after(self.clock.elapsed());
        }
        Ok(())
    }

    fn write_time(&self) -> Duration {
        match &self.output {
            Output::ExactlyOnce(transactions) => transactions.write_time(),
            Output::AtLeastOnce { producer, .. } => producer.drain_time(),
        }
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.output.abort_with_retries()?;
        self.group.rewind()
    }

    fn leave(mut self: Box<Self>) -> Result<(), BrokerError> {
        self.close()
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "cannot leave the group cleanly");
        }
    }
}

impl Renewal {
    /// The renewal that follows one at `now`.
    fn after(now: Duration) -> Self {
        Self { at: now + RENEWAL_INTERVAL }
    }

    fn is_due(&self, now: Duration) -> bool {
        now >= self.at
    }
}

/// The offsets of a commit: `offsets`, and all others if they must be renewed. Also all if `offsets` is empty but records
/// were sent: a commit without offsets would not involve the group's coordinator, so a fenced member could still commit.
fn to_commit(
    positions: &Positions,
    offsets: &[(TopicPartition, Offset)],
    is_renewed: bool,
    has_sent: bool,
) -> Vec<(TopicPartition, Offset)> {
    if is_renewed || (offsets.is_empty() && has_sent) {
        positions.all_committed_with(offsets)
    } else {
        offsets.to_vec()
    }
}

impl Output {
    fn new(
        membership: &Membership,
        config: &KafkaConfig,
        admin: &Arc<Admin>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        match membership.guarantee {
            ProcessingGuarantee::ExactlyOnce => {
                let properties = config.transactional_producer(membership);
                let producer = RecordProducer::new(&properties, admin, clock)?;
                let timeout = config.transaction_timeout;
                let transactions = Transactions::start(producer, &membership.lead, timeout, clock)?;
                Ok(Self::ExactlyOnce(transactions))
            }
            ProcessingGuarantee::AtLeastOnce => {
                let producer = RecordProducer::new(&config.plain_producer(), admin, clock)?;
                Ok(Self::AtLeastOnce { producer, sent: false })
            }
        }
    }

    fn serve(&self) {
        match self {
            Self::ExactlyOnce(transactions) => transactions.serve(),
            Self::AtLeastOnce { producer, .. } => producer.serve(),
        }
    }

    fn has_sent(&self) -> bool {
        match self {
            Self::ExactlyOnce(transactions) => transactions.is_open(),
            Self::AtLeastOnce { sent, .. } => *sent,
        }
    }

    fn commit(
        &mut self,
        consumer: &BaseConsumer<GroupContext>,
        offsets: &TopicPartitionList,
    ) -> Result<(), BrokerError> {
        match self {
            Self::ExactlyOnce(transactions) => transactions.commit(consumer, offsets),
            Self::AtLeastOnce { producer, sent } => {
                // Outputs are written before their offsets: otherwise an output that fails is lost.
                producer.drain(FLUSH_WITHIN)?;
                commit_offsets(consumer, offsets)?;
                *sent = false;
                Ok(())
            }
        }
    }

    fn abort_with_retries(&mut self) -> Result<(), BrokerError> {
        match self {
            Self::ExactlyOnce(transactions) => transactions.abort_with_retries(),
            Self::AtLeastOnce { .. } => self.abort(FLUSH_WITHIN),
        }
    }

    fn abort(&mut self, within: Duration) -> Result<(), BrokerError> {
        match self {
            Self::ExactlyOnce(transactions) => transactions.abort(within),
            Self::AtLeastOnce { producer, sent } => {
                // Written records cannot be undone. Failed ones are ignored, because their inputs are processed again.
                if let Err(BrokerError::Retry(text)) = producer.drain(within) {
                    return Err(BrokerError::Retry(text));
                }
                *sent = false;
                Ok(())
            }
        }
    }
}

/// Checks that all inputs have the same number of partitions, because a task reads the same partition of each.
fn check_co_partitioned(membership: &Membership, admin: &Admin) -> Result<(), BrokerError> {
    let partitions_of =
        |topic: &Topic| admin.partitions(topic)?.ok_or_else(|| BrokerError::Gone(topic.clone()));
    let lead = &membership.lead;
    let expected = partitions_of(lead)?;
    for co_partitioned_input in &membership.co_partitioned {
        let found = partitions_of(co_partitioned_input)?;
        if found != expected {
            return Err(BrokerError::Fatal(format!(
                "topic {co_partitioned_input} has {found} partitions, but {lead} has {expected}: they must be the same"
            )));
        }
    }
    Ok(())
}

fn commit_offsets(
    consumer: &BaseConsumer<GroupContext>,
    offsets: &TopicPartitionList,
) -> Result<(), BrokerError> {
    if consumer.assignment_lost() {
        return Err(BrokerError::Abort("the assignment is lost".to_owned()));
    }
    if offsets.count() == 0 {
        return Ok(());
    }
    let committed = consumer.commit(offsets, CommitMode::Sync);
    committed.map_err(|error| broker_error("commit offsets", &error))
}

/// The result of a poll that has taken some `records`, and the error to return from the next one: records that were taken
/// together with an error are returned before it.
fn records_first<E>(taken: Result<(), E>, records: usize) -> (Result<(), E>, Option<E>) {
    match taken {
        Err(error) if records > 0 => (Ok(()), Some(error)),
        taken => (taken, None),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::{
        mock::{IN, Mock, OUT, STEP, until, values},
        partition_list::partition_list,
    };

    /// A member that owns the only partition.
    struct Fixture {
        member: KafkaMember,
        mock: Mock,
    }

    impl Fixture {
        fn new(guarantee: ProcessingGuarantee) -> Self {
            let mut mock = Mock::new();
            // Longer than any test takes.
            mock.config.transaction_timeout = TIMEOUT;
            let admin = Arc::new(Admin::connect(&mock.config, &mock.clock).unwrap());
            let membership = Mock::membership(guarantee);
            let member = KafkaMember::join(&membership, &mock.config, &admin, &mock.clock);
            let mut fixture = Self { member: member.unwrap(), mock };
            until("the member has its partition", |_| {
                let rebalance = fixture.member.poll(STEP, &mut Vec::new()).unwrap();
                let Some(Rebalance::Assigned(tasks)) = rebalance else { return None };
                fixture.member.assign(&tasks).unwrap();
                (!tasks.is_empty()).then_some(())
            });
            fixture.member.resume(&[Mock::source()]).unwrap();
            fixture
        }

        fn read(&mut self, count: usize) -> Vec<u8> {
            let mut records = Vec::new();
            until("the records come", |_| {
                assert_eq!(self.member.poll(STEP, &mut records).unwrap(), None);
                (records.len() >= count).then(|| values(&records))
            })
        }

        fn send(&mut self) -> Result<(), BrokerError> {
            self.member.send(Mock::output().as_ref())
        }

        fn commit(&mut self, offset: i64) -> Result<(), BrokerError> {
            self.member.commit(&[(Mock::source(), Offset(offset))])
        }

        /// The group's committed offset.
        fn committed(&self) -> Option<i64> {
            let sources = partition_list([&Mock::source()]);
            let found = self.member.group.consumer().committed_offsets(sources, TIMEOUT).unwrap();
            let committed = found.elements()[0].offset();
            if let rdkafka::Offset::Offset(offset) = committed { Some(offset) } else { None }
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(60);

    const REFUSED: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;

    #[test]
    fn inputs_of_unwritten_outputs_are_not_committed_and_are_read_again() {
        let mut fixture = Fixture::new(ProcessingGuarantee::AtLeastOnce);
        fixture.mock.write(0..3);
        assert_eq!(fixture.read(3), [0, 1, 2]);
        fixture.mock.fail(RDKafkaApiKey::Produce, &[REFUSED]);
        fixture.send().unwrap();
        let failed = fixture.commit(3).unwrap_err();
        assert!(failed.to_string().contains(OUT), "{failed}");
        let moved = fixture.member.group.positions.moved();
        assert_eq!(moved, [(Mock::source(), Start::At(Offset(0)))], "nothing was committed");
        fixture.mock.clear_failures(RDKafkaApiKey::Produce);
        fixture.member.abort().unwrap();
        assert_eq!(fixture.read(3), [0, 1, 2]);
        // The failure was reported once, and does not affect later commits.
        fixture.send().unwrap();
        fixture.commit(3).unwrap();
        assert_eq!(fixture.member.group.positions.moved(), []);
    }

    #[test]
    fn a_commit_may_have_only_outputs_or_only_offsets() {
        let mut fixture = Fixture::new(ProcessingGuarantee::AtLeastOnce);
        fixture.mock.write(0..3);
        assert_eq!(fixture.read(3), [0, 1, 2]);
        fixture.commit(2).unwrap();
        assert_eq!(fixture.committed(), Some(2));
        assert!(!fixture.member.output.has_sent());
        fixture.send().unwrap();
        assert!(fixture.member.output.has_sent());
        fixture.member.commit(&[]).unwrap();
        assert!(!fixture.member.output.has_sent());
        assert_eq!((fixture.committed(), fixture.mock.written()), (Some(2), 1));
    }

    #[test]
    fn a_commit_tells_how_long_it_waited_for_the_records() {
        const DELAY: Duration = Duration::from_millis(50);
        for guarantee in [ProcessingGuarantee::AtLeastOnce, ProcessingGuarantee::ExactlyOnce] {
            let mut fixture = Fixture::new(guarantee);
            fixture.commit(0).unwrap();
            fixture.mock.delay_responses(DELAY);
            fixture.send().unwrap();
            fixture.commit(0).unwrap();
            assert!(fixture.member.write_time() >= DELAY, "{guarantee:?}");
        }
    }

    #[test]
    fn records_of_paused_and_unassigned_partitions_are_not_returned() {
        let mut fixture = Fixture::new(ProcessingGuarantee::AtLeastOnce);
        let expect_no_records = |fixture: &mut Fixture| {
            let mut records = Vec::new();
            (0..5).for_each(|_| assert_eq!(fixture.member.poll(STEP, &mut records).unwrap(), None));
            assert!(records.is_empty(), "{records:?}");
        };
        fixture.member.pause(&[Mock::source()]).unwrap();
        fixture.mock.write(0..3);
        expect_no_records(&mut fixture);
        fixture.member.resume(&[Mock::source()]).unwrap();
        assert_eq!(fixture.read(3), [0, 1, 2]);
        fixture.member.unassign(&[Partition(0)]).unwrap();
        fixture.mock.write(3..6);
        expect_no_records(&mut fixture);
    }

    #[test]
    fn inputs_with_different_partition_counts_are_refused() {
        let mock = Mock::new();
        mock.create_topic("side", 2);
        mock.create_topic("sibling", 1);
        let admin = Arc::new(Admin::connect(&mock.config, &mock.clock).unwrap());
        let join = |co_partitioned_input: &str| {
            let co_partitioned = vec![Topic::new(co_partitioned_input)];
            let guarantee = ProcessingGuarantee::AtLeastOnce;
            let membership = Membership { co_partitioned, ..Mock::membership(guarantee) };
            KafkaMember::join(&membership, &mock.config, &admin, &mock.clock).map(drop)
        };
        let refused = join("side").unwrap_err();
        assert!(refused.to_string().contains("side has 2 partitions"), "{refused}");
        join("sibling").unwrap();
    }

    #[test]
    fn offsets_that_the_group_refuses_abort_the_transaction() {
        let mut fixture = Fixture::new(ProcessingGuarantee::ExactlyOnce);
        fixture.mock.write(0..3);
        assert_eq!(fixture.read(3), [0, 1, 2]);
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION;
        fixture.mock.fail(RDKafkaApiKey::TxnOffsetCommit, &[refused]);
        fixture.send().unwrap();
        let began = fixture.mock.clock.elapsed();
        let failed = fixture.commit(3).unwrap_err();
        assert!(matches!(failed, BrokerError::Abort(_)), "{failed}");
        assert!(fixture.mock.clock.elapsed() - began < TIMEOUT, "it was retried");
        fixture.mock.clear_failures(RDKafkaApiKey::TxnOffsetCommit);
        fixture.member.abort().unwrap();
        assert_eq!(fixture.read(3), [0, 1, 2]);
        fixture.send().unwrap();
        fixture.commit(3).unwrap();
        fixture.member.abort().unwrap();
        fixture.mock.write(3..4);
        assert_eq!(fixture.read(1), [3], "a committed record was read again");
    }

    #[test]
    fn records_taken_with_an_error_are_returned_before_it() {
        assert_eq!(records_first(Err("lost"), 1), (Ok(()), Some("lost")));
        assert_eq!(records_first(Err("lost"), 0), (Err("lost"), None));
        assert_eq!(records_first::<&str>(Ok(()), 1), (Ok(()), None));
    }

    #[test]
    fn all_offsets_are_committed_at_renewals_and_with_outputs_alone() {
        let at = |topic: &str| TopicPartition { topic: Topic::new(topic), partition: Partition(0) };
        let mut positions = Positions::new(vec![Topic::new(IN), Topic::new("side")]);
        positions.hold(&at(IN), Start::At(Offset(3)));
        positions.hold(&at("side"), Start::At(Offset(5)));
        let new = [(at(IN), Offset(4))];
        let all = [(at(IN), Offset(4)), (at("side"), Offset(5))];
        assert_eq!(to_commit(&positions, &new, false, true), new);
        assert_eq!(to_commit(&positions, &new, true, false), all);
        assert_eq!(to_commit(&positions, &[], false, true).len(), 2);
        assert_eq!(to_commit(&positions, &[], false, false), []);

        let renewal = Renewal::after(Duration::from_secs(10));
        assert!(!renewal.is_due(Duration::from_secs(10)));
        assert!(renewal.is_due(Duration::from_secs(10) + RENEWAL_INTERVAL));
        let next = Renewal::after(Duration::from_secs(10) + RENEWAL_INTERVAL);
        assert!(!next.is_due(Duration::from_secs(11) + RENEWAL_INTERVAL));
    }
}
