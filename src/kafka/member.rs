//! One worker's part in a group: its consumer and its producer, on the worker's thread.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use crate::{
    kafka::{
        admin::Admin, config::KafkaConfig, error::broker_error, group::Group, list::list_at,
        outlet::Outlet, places::Start, publisher::FLUSH_WITHIN, rebalance::GroupEvents,
        transaction::Transactions,
    },
    streams::{
        record::{InputRecord, Offset, OutputRecordRef, Partition, Topic, TopicPartition},
        runtime::broker::{BrokerError, Member, Membership, ProcessingGuarantee, Rebalance},
        time::Clock,
    },
};

/// How long leaving waits for the broker to abort what is open.
const LAST_ABORT_WITHIN: Duration = Duration::from_secs(2);

/// The offsets of companions expire, since nobody subscribes to them: Kafka keeps them for a week, but it may
/// be configured to keep them for less than a day. So all offsets are committed again this often.
const COMMIT_ALL_EVERY: Duration = Duration::from_secs(3600);

/// A consumer and a producer.
pub(crate) struct KafkaMember {
    group: Group,
    output: Output,
    /// Came up when records had already been taken: those go first.
    postponed: Option<BrokerError>,
    /// When all offsets are to be committed again, on the clock.
    commit_all_at: Duration,
    clock: Arc<dyn Clock>,
}

enum Output {
    ExactlyOnce(Transactions),
    AtLeastOnce { outlet: Outlet, sent: bool },
}

impl KafkaMember {
    pub(crate) fn join(
        membership: &Membership,
        config: &KafkaConfig,
        admin: &Arc<Admin>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        check_co_partitioned(membership, admin)?;
        // The producer first: its start fences a predecessor before anything can be assigned to us.
        let output = Output::new(membership, config, admin, clock)?;
        Ok(Self {
            group: Group::join(membership, config, clock)?,
            output,
            postponed: None,
            commit_all_at: clock.elapsed() + COMMIT_ALL_EVERY,
            clock: Arc::clone(clock),
        })
    }

    /// What a commit is to contain: `offsets`, and now and then all others.
    fn to_commit(&self, offsets: &[(TopicPartition, Offset)]) -> Vec<(TopicPartition, Offset)> {
        let due = self.clock.elapsed() >= self.commit_all_at;
        // Without offsets the group's coordinator would not be asked, and a member that it has
        // given up could write.
        let unguarded = offsets.is_empty() && self.output.has_sent();
        if due || unguarded {
            self.group.places.all_committed_with(offsets)
        } else {
            offsets.to_vec()
        }
    }

    /// Aborts what is open and leaves. Bounded in time; the second time it does nothing.
    fn close(&mut self) -> Result<(), BrokerError> {
        let aborted = self.output.abort(LAST_ABORT_WITHIN);
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
        if let Some(error) = self.postponed.take() {
            return Err(error);
        }
        if let Some(rebalance) = self.group.next_rebalance() {
            return Ok(Some(rebalance));
        }
        let before = records.len();
        match self.group.take(wait, records) {
            Ok(()) => Ok(self.group.next_rebalance()),
            Err(error) if records.len() > before => {
                self.postponed = Some(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
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
            Output::AtLeastOnce { outlet, sent } => {
                outlet.check(record)?;
                *sent = true;
                outlet.send(record)
            }
        }
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        match &mut self.output {
            Output::ExactlyOnce(_) => Ok(()),
            Output::AtLeastOnce { outlet, .. } => outlet.drain(FLUSH_WITHIN),
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        let all = self.to_commit(offsets);
        if !all.is_empty() || self.output.has_sent() {
            let starts = list_at(all.iter().map(|(source, offset)| (source, Start::At(*offset))));
            self.output.commit(self.group.consumer(), &starts)?;
            self.group.places.committed(&all);
        }
        if self.clock.elapsed() >= self.commit_all_at {
            self.commit_all_at = self.clock.elapsed() + COMMIT_ALL_EVERY;
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.output.abort_patiently()?;
        self.group.rewind()
    }

    fn leave(mut self: Box<Self>) -> Result<(), BrokerError> {
        self.close()
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "a member was dropped without a clean leave");
        }
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
                let outlet = Outlet::new(&properties, admin, clock)?;
                let timeout = config.transaction_timeout;
                let transactions = Transactions::start(outlet, &membership.lead, timeout, clock)?;
                Ok(Self::ExactlyOnce(transactions))
            }
            ProcessingGuarantee::AtLeastOnce => {
                let outlet = Outlet::new(&config.plain_producer(), admin, clock)?;
                Ok(Self::AtLeastOnce { outlet, sent: false })
            }
        }
    }

    fn serve(&self) {
        match self {
            Self::ExactlyOnce(transactions) => transactions.serve(),
            Self::AtLeastOnce { outlet, .. } => outlet.serve(),
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
        consumer: &BaseConsumer<GroupEvents>,
        offsets: &TopicPartitionList,
    ) -> Result<(), BrokerError> {
        match self {
            Self::ExactlyOnce(transactions) => transactions.commit(consumer, offsets),
            Self::AtLeastOnce { outlet, sent } => {
                // An offset past a record that was not written would lose it.
                outlet.drain(FLUSH_WITHIN)?;
                commit_offsets(consumer, offsets)?;
                *sent = false;
                Ok(())
            }
        }
    }

    fn abort_patiently(&mut self) -> Result<(), BrokerError> {
        match self {
            Self::ExactlyOnce(transactions) => transactions.abort_patiently(),
            Self::AtLeastOnce { .. } => self.abort(FLUSH_WITHIN),
        }
    }

    fn abort(&mut self, within: Duration) -> Result<(), BrokerError> {
        match self {
            Self::ExactlyOnce(transactions) => transactions.abort(within),
            Self::AtLeastOnce { outlet, sent } => {
                // What is written stays written. What failed is processed again, so it is no news.
                if let Err(BrokerError::Retry(text)) = outlet.drain(within) {
                    return Err(BrokerError::Retry(text));
                }
                *sent = false;
                Ok(())
            }
        }
    }
}

/// Companions follow the lead's partition numbers, so there must be as many of theirs.
fn check_co_partitioned(membership: &Membership, admin: &Admin) -> Result<(), BrokerError> {
    let partitions_of =
        |topic: &Topic| admin.partitions(topic)?.ok_or_else(|| BrokerError::Gone(topic.clone()));
    let lead = &membership.lead;
    let expected = partitions_of(lead)?;
    for companion in &membership.companions {
        let found = partitions_of(companion)?;
        if found != expected {
            return Err(BrokerError::Fatal(format!(
                "topic {companion} has {found} partitions, but {lead} has {expected}: they must be the same"
            )));
        }
    }
    Ok(())
}

fn commit_offsets(
    consumer: &BaseConsumer<GroupEvents>,
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
