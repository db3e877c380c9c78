//! The port to a broker: every call that the runtime makes. `foretell-kafka` implements it over librdkafka,
//! [`crate::local`] in this process.

use std::time::Duration;

use crate::record::{
    InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, Topic, TopicPartition,
};

/// A connection to a cluster: the port that a broker's client implements.
///
/// Code that takes it as `Arc<dyn Broker>` runs on a Kafka cluster and in a test:
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use foretell_streams::{
///     local::LocalBroker, record::{OutputRecord, Partition, Topic, TopicPartition},
///     runtime::broker::{Broker, BrokerError, Cleanup, ReadFrom, Isolation, ReadTo, TopicSpec},
///     time::{EventTime, SystemClock},
/// };
///
/// /// Counts the records of a partition up to its end.
/// fn read_all(broker: &dyn Broker, source: &TopicPartition) -> Result<usize, BrokerError> {
///     let mut records = Vec::new();
///     let mut reader = broker.read(source, ReadFrom::Beginning)?;
///     while reader.read(Duration::from_millis(100), &mut records)? == ReadTo::More {}
///     Ok(records.len())
/// }
///
/// let broker: Arc<dyn Broker> = Arc::new(LocalBroker::new(Arc::new(SystemClock::new())));
/// let topic = Topic::new("orders");
/// let cleanup = Cleanup::Delete { retention: Some(Duration::from_secs(3600)) };
/// broker.create_topics(&[TopicSpec { name: topic.clone(), partitions: 1, cleanup, message_bytes_max: None }])?;
/// let mut publisher = broker.publish()?;
/// publisher.send(OutputRecord::new(&topic, Some(b"ann"), Some(b"a book"), EventTime(0)))?;
/// publisher.flush()?;
///
/// let source = TopicPartition { topic, partition: Partition(0) };
/// assert_eq!(read_all(broker.as_ref(), &source)?, 1);
/// assert_eq!(broker.end(&source, Isolation::ReadCommitted)?.0, 1);
/// # Ok::<(), BrokerError>(())
/// ```
pub trait Broker: Send + Sync {
    /// Joins a group with the consumer and the producer of one worker. Does not wait for an assignment.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if the settings are rejected; [`BrokerError::Retry`] if no broker answers.
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError>;

    /// Opens a reader of one partition outside any group, committed records only: for restores, and for topics that every
    /// instance reads as a whole.
    ///
    /// # Errors
    /// [`BrokerError`], for example if the topic does not exist.
    fn read(&self, source: &TopicPartition, from: ReadFrom)
    -> Result<Box<dyn Reader>, BrokerError>;

    /// Opens a reader of a changelog partition, like [`Self::read`]. Its records may lack their headers: changelog records have
    /// none, and looking for them takes time.
    ///
    /// # Errors
    /// As for [`Self::read`].
    fn read_changelog(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        self.read(source, from)
    }

    /// Opens a follower of several partitions outside any group, committed records only: one client for all of them.
    ///
    /// # Errors
    /// [`BrokerError`] if the consumer cannot be created.
    fn follow(&self) -> Result<Box<dyn Follower>, BrokerError>;

    /// Opens a publisher, which writes outside any transaction (idempotent, acknowledged by all in-sync replicas).
    ///
    /// # Errors
    /// [`BrokerError`] if the producer cannot be created.
    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError>;

    /// Creates those of `topics` that do not exist, and returns their names. Waits until they can be used.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`], for example if an existing topic has another number of partitions.
    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError>;

    /// Returns the present end offset of `source`: the last stable offset or the high watermark, by `isolation`.
    ///
    /// # Errors
    /// [`BrokerError`], for example if the topic does not exist.
    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError>;

    /// Returns the number of partitions of `topic`, or `None` if it does not exist. `None` may take some seconds, because a
    /// broker of the cluster may have outdated metadata.
    ///
    /// # Errors
    /// [`BrokerError`] if no broker answers.
    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError>;
}

/// The settings of a worker's membership in a consumer group. [`Membership::new`] derives them from a topology.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The consumer group.
    pub group: String,
    /// The name of the worker, unique in its group and the same after a restart. Together with the group it is the
    /// transactional id, by which a worker fences its predecessor (KIP-98).
    pub member: String,
    /// The topic that the group subscribes to; its partitions number the tasks.
    pub lead: Topic,
    /// The co-partitioned topics: they have as many partitions as the lead, and are assigned with it.
    pub co_partitioned: Vec<Topic>,
    /// Whether commits are transactions.
    pub guarantee: ProcessingGuarantee,
    /// The longest time between two commits, if there is something to commit (`commit.interval.ms`). Exactly once, outputs
    /// are visible only after a commit, so a client may gather records for a part of it.
    pub commit_interval: Duration,
}

impl Membership {
    /// The default of [`Self::commit_interval`].
    pub const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

    /// Every input partition of the task `partition`: the lead first, then the co-partitioned inputs.
    pub fn inputs_of(&self, partition: Partition) -> impl Iterator<Item = TopicPartition> + '_ {
        let topics = std::iter::once(&self.lead).chain(&self.co_partitioned);
        topics.map(move |topic| TopicPartition { topic: topic.clone(), partition })
    }
}

/// The guarantee of a commit (KIP-129, KIP-447).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessingGuarantee {
    /// Outputs, changelogs and offsets are committed in one transaction.
    #[default]
    #[serde(rename = "exactly_once_v2")]
    ExactlyOnce,
    /// Outputs are written first, then changelogs, then offsets. After a failure, records may be processed twice, and a
    /// process that stalled during a commit may overwrite changes of the new owner of its tasks.
    AtLeastOnce,
}

/// A member of a consumer group: the consumer and the producer of one worker, on one thread.
///
/// ```text
///   poll ─▶ Assigned(p) ─▶ assign(p) ─▶ resume(inputs)  … records of p's inputs follow
///        ─▶ Revoked(p)  ─▶ commit (or abort if lost) ─▶ unassign(p)
///   send* ─▶ (flush ─▶ send*) ─▶ commit(offsets) ──ok──▶ the next send opens the next transaction
///                                    └── Err(Abort) ──▶ abort() ──▶ records since the last commit are polled again
/// ```
///
/// `poll` only announces a rebalance. The member owns the partitions until the worker answers, so the commit before a
/// revocation is an ordinary commit.
///
/// A caller must expect the following, because librdkafka does it:
/// - `poll` returns fewer records than there are, or none, and the others later;
/// - `poll` appends records *and* returns an error or a rebalance: these records are not delivered again;
/// - an error hides a rebalance, which the next `poll` announces;
/// - after [`Member::pause`], records that were already fetched are still delivered, but none that was written after the pause;
/// - an error is returned again by a later call, even by one of the next transaction;
/// - a record that `send` has accepted is lost, and `send`, `flush` or `commit` returns the error later, no later than the
///   `commit` of that record;
/// - a call for several inputs or tasks fails after it took effect for some or all of them: it can be repeated.
///
/// An implementation must neither skip a record nor deliver one again without an abort, although librdkafka does both.
/// If a pause, a resume, a rebalance or an error moves the position of librdkafka, the member seeks back.
pub trait Member {
    /// Waits at most `wait` for records, appends them to `records`, in order within each partition, and returns a change of
    /// the assignment if there is one to be answered. Call it again within the session timeout, even if all partitions are
    /// paused.
    ///
    /// # Errors
    /// [`BrokerError`], named after the recovery.
    fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError>;

    /// Answers [`Rebalance::Assigned`]: assigns every input of `tasks`, paused, at the committed offset of the group, or at
    /// the beginning if there is none. Call it even for no tasks.
    ///
    /// # Errors
    /// [`BrokerError`], named after the recovery.
    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError>;

    /// Answers [`Rebalance::Revoked`]: stops reading every input of `tasks`.
    ///
    /// # Errors
    /// [`BrokerError`], named after the recovery.
    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError>;

    /// Stops fetching `inputs`, which stay assigned: while their tasks restore, or while their queues are full. Records that
    /// were already fetched may still be delivered.
    ///
    /// # Errors
    /// [`BrokerError`], named after the recovery.
    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError>;

    /// Fetches `inputs` again, from where they were paused.
    ///
    /// # Errors
    /// [`BrokerError`], named after the recovery.
    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError>;

    /// Returns the offset after the last record of an assigned input that `poll` returned, or the end of the partition if
    /// that was reached: the last offsets may be transaction markers. 0 if nothing was read yet from the beginning.
    fn position(&self, input: &TopicPartition) -> Offset;

    /// Sends a record; exactly once, in the open transaction or a new one. Waits for the broker only if too many bytes are
    /// in flight.
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`] if this record cannot be written; [`BrokerError::Gone`] if the topic does not exist;
    /// otherwise named after the recovery.
    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError>;

    /// At least once: waits until everything sent so far is written, because later records depend on it. In a transaction it
    /// does nothing.
    ///
    /// # Errors
    /// [`BrokerError::Abort`]: a record was not written; call [`Member::abort`]. [`BrokerError::Retry`]: not all records are
    /// written yet.
    fn flush(&mut self) -> Result<(), BrokerError>;

    /// Makes everything sent since the last commit durable, together with `offsets` (each is the next to read). Exactly once:
    /// all or nothing. At least once: first the records, then the offsets. Without records and offsets it does nothing.
    ///
    /// # Errors
    /// [`BrokerError::Abort`]: nothing took effect; call [`Member::abort`]. (At least once, a part may have taken effect.)
    /// [`BrokerError::Fenced`]: another member has taken over; drop this one and join again.
    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError>;

    /// Returns the part of the last [`Member::commit`] in which it waited until the records were written; zero if the client
    /// does not tell.
    fn write_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Discards everything sent since the last commit, and seeks every assigned partition back to its last committed offset.
    /// No record fetched before the abort is delivered after it.
    ///
    /// # Errors
    /// [`BrokerError`], named after the recovery.
    fn abort(&mut self) -> Result<(), BrokerError>;

    /// Leaves the group at once, without waiting for the session timeout. Commits nothing.
    ///
    /// # Errors
    /// [`BrokerError`]; the member is closed all the same.
    fn leave(self: Box<Self>) -> Result<(), BrokerError>;
}

/// A change of a member's assignment. A task has the number of its partition of the lead topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// These tasks are assigned in addition, perhaps none.
    Assigned(Vec<Partition>),
    /// These tasks are revoked.
    Revoked {
        /// The revoked tasks.
        tasks: Vec<Partition>,
        /// Whether the tasks are lost already, because the session has timed out: abort, do not commit.
        lost: bool,
    },
}

/// The position at which a [`Reader`] or [`Follower`] starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the oldest record.
    Beginning,
    /// At this offset, or the first record after it.
    Offset(Offset),
    /// After the newest record at present.
    End,
}

/// Which end of a partition is meant (`isolation.level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The last stable offset: the end of the records before the first open transaction.
    ReadCommitted,
    /// The high watermark: the end of all records.
    ReadUncommitted,
}

/// A reader of one partition, committed records only.
///
/// A caller must expect that it returns fewer records than there are; that it appends records *and* returns an error, and
/// does not return these records again; that it reports an end which it has reported before, without the records written
/// since.
pub trait Reader: Send {
    /// Waits at most `wait` for records and appends them to `records`, even if it returns an error.
    ///
    /// # Errors
    /// [`BrokerError`], named after the recovery.
    fn read(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError>;
}

/// The position reached by [`Reader::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadTo {
    /// There may be more records.
    More,
    /// The end of the partition as it was at some time since the reader was opened, without records of aborted or open
    /// transactions. To reach a later end, open another reader, or compare offsets.
    End,
}

/// A reader of several partitions, committed records only. Partitions can be opened and closed at any time.
pub trait Follower: Send {
    /// Starts to follow `source`, which must not be open, and returns the offset at which it starts.
    ///
    /// # Errors
    /// [`BrokerError::OutOfRange`] if the offset is not in the partition; else [`BrokerError`], for example if the topic does
    /// not exist.
    fn open(&mut self, source: &TopicPartition, from: ReadFrom) -> Result<Offset, BrokerError>;

    /// Stops following `source`, which must be open.
    ///
    /// # Errors
    /// [`BrokerError`]: create another follower.
    fn close(&mut self, source: &TopicPartition) -> Result<(), BrokerError>;

    /// Waits at most `wait` for records and appends them to `records`, in order within each partition.
    ///
    /// # Errors
    /// [`BrokerError`]: records after those in `records` may be missing. Open another follower that starts there.
    fn read(&mut self, wait: Duration, records: &mut Vec<InputRecord>) -> Result<(), BrokerError>;
}

/// A producer outside any transaction.
pub trait Publisher: Send {
    /// Sends a record. Waits only if too many bytes are in flight.
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`] if this record cannot be written; [`BrokerError::Gone`] if the topic does not exist;
    /// otherwise named after the recovery.
    fn send(&mut self, record: OutputRecord) -> Result<(), BrokerError>;

    /// Waits until everything sent is acknowledged.
    ///
    /// # Errors
    /// [`BrokerError`] if a record was not written, after the retries of the producer.
    fn flush(&mut self) -> Result<(), BrokerError>;
}

/// The settings of a topic to create. [`TopicSpec::all_of`] returns those of a topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name of the topic.
    pub name: Topic,
    /// The number of partitions.
    pub partitions: u32,
    /// Which records are kept, and how long.
    pub cleanup: Cleanup,
    /// The largest record batch in bytes (`max.message.bytes`); `None` for the default of the broker.
    pub message_bytes_max: Option<u32>,
}

/// Which records a topic keeps (`cleanup.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records of the last `retention`, or all records without one.
    Delete {
        /// The time for which records are kept (`retention.ms`).
        retention: Option<Duration>,
    },
    /// The last record of every key.
    Compact,
    /// The last record of every key, for `retention`.
    CompactDelete {
        /// The time for which records are kept (`retention.ms`).
        retention: Duration,
    },
}

/// The origin of the timestamps of a topic's records (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// Set by the producer.
    CreateTime,
    /// Set by the broker when it appends the record.
    LogAppendTime,
}

impl Timestamps {
    /// The value of Kafka's setting `message.timestamp.type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

impl Cleanup {
    /// Returns the timestamps that a topic with this policy needs; `None` if both will do. Retention uses the timestamps, so
    /// with a retention they are set on append: otherwise a record of a past event would be deleted at once. A compacted
    /// topic keeps the timestamps of its producers, because a restore takes stream time from the records of a changelog.
    #[must_use]
    pub fn timestamps(self) -> Option<Timestamps> {
        match self {
            Self::Delete { retention: Some(_) } => Some(Timestamps::LogAppendTime),
            Self::Delete { retention: None } => None,
            Self::Compact | Self::CompactDelete { .. } => Some(Timestamps::CreateTime),
        }
    }
}

/// An error of a call to a broker. Each variant is named after the recovery.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker is not available: make the same call again.
    #[error("the broker is not available: {0}")]
    Retry(String),
    /// The transaction cannot be committed: call [`Member::abort`], discard, and process again.
    #[error("the transaction must be aborted: {0}")]
    Abort(String),
    /// Another member with this name or these partitions has taken over: drop the member and join again.
    #[error("fenced by another member: {0}")]
    Fenced(String),
    /// This record can never be written (it exceeds the size limit, or its partition does not exist): dead-letter it.
    #[error("cannot write to {topic}: {reason}")]
    Unsendable {
        /// The topic that rejected the record.
        topic: Topic,
        /// The reason given by the broker or the client.
        reason: String,
    },
    /// The position no longer exists, because records were deleted. A member reports this once and continues with the oldest
    /// record; a reader has to be opened again.
    #[error("the log was truncated: the position in {0} no longer exists")]
    OutOfRange(TopicPartition),
    /// A topic does not exist, according to several answers: stop until an operator has created it. The records for it are
    /// not dead-lettered.
    #[error("topic {0} does not exist: create it and start again")]
    Gone(Topic),
    /// An operator must act: stop with this message.
    #[error("{0}")]
    Fatal(String),
}
