//! The port to a broker: all that the runtime asks of one. `foretell-kafka` implements it over librdkafka,
//! [`crate::local`] in this process.

use std::time::Duration;

use crate::record::{
    InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, Topic, TopicPartition,
};

/// A connection to a cluster: the port that a broker's client implements.
///
/// Take it as `Arc<dyn Broker>`, and the same code runs on a Kafka and in a test:
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use foretell_streams::{
///     local::LocalBroker, record::{OutputRecord, Partition, Topic, TopicPartition},
///     runtime::broker::{Broker, BrokerError, Cleanup, ReadFrom, Isolation, ReadTo, TopicSpec},
///     time::{EventTime, SystemClock},
/// };
///
/// /// All records of a partition up to its end.
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
    /// Joins a group with one worker's consumer and producer. Does not wait for an assignment.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if the settings are refused; [`BrokerError::Retry`] if no broker answers.
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError>;

    /// Opens a reader of one partition outside any group, committed records only: for restores, and for tables
    /// that every instance reads whole.
    ///
    /// # Errors
    /// [`BrokerError`], such as for a topic that does not exist.
    fn read(&self, source: &TopicPartition, from: ReadFrom)
    -> Result<Box<dyn Reader>, BrokerError>;

    /// Opens a follower of several partitions outside any group, committed records only: one client for all of them.
    ///
    /// # Errors
    /// [`BrokerError`] if no consumer can be made.
    fn follow(&self) -> Result<Box<dyn Follower>, BrokerError>;

    /// Opens a publisher, which writes outside any transaction (idempotent, acknowledged by all in-sync replicas).
    ///
    /// # Errors
    /// [`BrokerError`] if no producer can be made.
    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError>;

    /// Creates those of `topics` that do not exist, and returns their names. Waits until the
    /// created ones can be used.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`], such as when an existing topic has another number of partitions.
    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError>;

    /// The offset after the last record of `source` at present.
    ///
    /// # Errors
    /// [`BrokerError`], such as for a topic that does not exist.
    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError>;

    /// The number of partitions of `topic`, or `None` if it does not exist. `None` may take some seconds, because one broker
    /// of a cluster may not know a new topic yet.
    ///
    /// # Errors
    /// [`BrokerError`] if no broker answers.
    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError>;
}

/// A worker's part in a consumer group. [`Membership::new`] takes it from a topology.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The consumer group.
    pub group: String,
    /// This worker's name, which no other worker of the group has, and which is the same after a restart: it is the
    /// transactional id, by which a worker fences its predecessor.
    pub member: String,
    /// The topic that the group subscribes to; its partitions number the tasks.
    pub lead: Topic,
    /// Topics with the same number of partitions that follow the lead's assignment.
    pub co_partitioned: Vec<Topic>,
    /// Whether a commit is a transaction.
    pub guarantee: ProcessingGuarantee,
}

impl Membership {
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
    /// Outputs are written first, then changelogs, then offsets. After a failure records may come twice, and a process that
    /// stalled in the middle of a commit may overwrite what the new owner of its tasks has stored.
    AtLeastOnce,
}

/// One worker's part in a group: its consumer and its producer, on one thread.
///
/// ```text
///   poll ─▶ Assigned(p) ─▶ assign(p) ─▶ resume(inputs)  … records of p's inputs follow
///        ─▶ Revoked(p)  ─▶ commit (or abort if lost) ─▶ unassign(p)
///   send* ─▶ (flush ─▶ send*) ─▶ commit(offsets) ──ok──▶ the next send opens the next transaction
///                                    └── Err(Abort) ──▶ abort() ──▶ records since the last commit come again
/// ```
///
/// A rebalance is only announced by `poll`, never carried out inside it: the member goes on owning
/// the partitions until the worker answers, so that the commit before a revocation is an ordinary
/// one.
///
/// A caller must be ready for these, because librdkafka does them:
/// - `poll` returns fewer records than there are, or none, and the others later;
/// - `poll` appends records *and* returns an error or a rebalance: these records are delivered, and not again;
/// - an error hides a rebalance, which the next `poll` announces;
/// - after [`Member::pause`], records that were already fetched are delivered once more;
/// - an error is returned again by a later call, even by one of the next transaction;
/// - a record that `send` has accepted is lost, and `send`, `flush` or `commit` returns the error later, no later than the
///   `commit` of that record;
/// - a call for several inputs or tasks fails after it took effect for some or all of them: it can be repeated.
///
/// An implementation must not skip a record, or deliver one again without an abort, though librdkafka does.
/// Where a pause, a resume, a rebalance or an error moves librdkafka's position, the member moves it back.
pub trait Member {
    /// Waits at most `wait` for records, appends them to `records`, in order within each partition, and returns a change of
    /// the assignment if there is one to be answered. Call it again within the session time-out, even when all partitions
    /// are paused.
    ///
    /// # Errors
    /// [`BrokerError`] by recovery.
    fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError>;

    /// Answers [`Rebalance::Assigned`]: assigns every input of `tasks`, paused, at the group's committed offset, or at the
    /// beginning where there is none. Call it even for no tasks.
    ///
    /// # Errors
    /// [`BrokerError`] by recovery.
    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError>;

    /// Answers [`Rebalance::Revoked`]: stops reading every input of `tasks`.
    ///
    /// # Errors
    /// [`BrokerError`] by recovery.
    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError>;

    /// Stops fetching `inputs`, which stay assigned: while their tasks restore, or when their queues are full.
    /// Records already fetched may still come once.
    ///
    /// # Errors
    /// [`BrokerError`] by recovery.
    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError>;

    /// Goes on fetching `inputs`, where they were paused.
    ///
    /// # Errors
    /// [`BrokerError`] by recovery.
    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError>;

    /// The offset after the last record of an assigned input that `poll` returned, or the end of the partition if it was
    /// reached: the last offsets may belong to markers of transactions. 0 if nothing was read yet from the beginning.
    fn position(&self, input: &TopicPartition) -> Offset;

    /// Writes a record; exactly once, in the open transaction or a new one. Waits for the broker only when too many bytes
    /// are in flight.
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`] if this very record can't be written; [`BrokerError::Gone`] if none can;
    /// else by recovery.
    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError>;

    /// At least once: waits until everything sent so far is written, so that later records can rely on it. In a transaction
    /// it does nothing.
    ///
    /// # Errors
    /// [`BrokerError::Abort`]: something was not written; call [`Member::abort`]. [`BrokerError::Retry`]: not yet.
    fn flush(&mut self) -> Result<(), BrokerError>;

    /// Makes everything sent since the last commit durable, together with `offsets` (each the next
    /// one to read). Exactly once: all or nothing. At least once: first the records, then the offsets.
    /// With nothing sent and no offsets it does nothing.
    ///
    /// # Errors
    /// [`BrokerError::Abort`]: nothing took effect; call [`Member::abort`]. (At least once, some of it may have.)
    /// [`BrokerError::Fenced`]: another member has taken over; drop this one and join again.
    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError>;

    /// Discards everything sent since the last commit, and seeks every assigned partition back to its last committed offset.
    /// No record fetched before the abort is delivered after it.
    ///
    /// # Errors
    /// [`BrokerError`] by recovery.
    fn abort(&mut self) -> Result<(), BrokerError>;

    /// Leaves the group at once, without waiting for the session to run out. Commits nothing.
    ///
    /// # Errors
    /// [`BrokerError`]; the member is gone all the same.
    fn leave(self: Box<Self>) -> Result<(), BrokerError>;
}

/// A change of a member's assignment. Partition numbers are the lead's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// These tasks are assigned in addition, perhaps none.
    Assigned(Vec<Partition>),
    /// These tasks are taken away.
    Revoked {
        /// The tasks that are taken away.
        tasks: Vec<Partition>,
        /// Whether they are lost already, because the session timed out: abort, do not commit.
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

/// The records up to which a log is considered (`isolation.level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Records before the first open transaction: up to the last stable offset.
    ReadCommitted,
    /// All records: up to the high watermark.
    ReadUncommitted,
}

/// A reader of one partition, committed records only.
///
/// A caller must be ready for these: it returns fewer records than there are; it appends records *and* returns an error, and
/// does not return them again; it reports an end that it has reported before, without the records written since.
pub trait Reader: Send {
    /// Waits at most `wait` for records and appends them to `records`, even if it returns an error.
    ///
    /// # Errors
    /// [`BrokerError`] by recovery.
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
    /// The end of the partition at some time since the reader was opened, records of aborted or open transactions not
    /// counted. To reach a later end, open another reader, or compare offsets.
    End,
}

/// A reader of several partitions, which may be opened and closed at any time; committed records only.
pub trait Follower: Send {
    /// Starts to follow `source`, and returns the offset from which on.
    ///
    /// # Errors
    /// [`BrokerError`], such as for a topic that does not exist.
    fn open(&mut self, source: &TopicPartition, from: ReadFrom) -> Result<Offset, BrokerError>;

    /// Stops following `source`.
    ///
    /// # Errors
    /// [`BrokerError`]: make another follower.
    fn close(&mut self, source: &TopicPartition) -> Result<(), BrokerError>;

    /// Waits at most `wait` for records and appends them to `records`, in order within each partition.
    ///
    /// # Errors
    /// [`BrokerError`]: records after those in `records` may be missing. Open another follower that starts there.
    fn read(&mut self, wait: Duration, records: &mut Vec<InputRecord>) -> Result<(), BrokerError>;
}

/// A producer outside any transaction.
pub trait Publisher: Send {
    /// Sends a record. Waits only when too many bytes are in flight.
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`] if this very record can't be written; [`BrokerError::Gone`] if none can;
    /// else by recovery.
    fn send(&mut self, record: OutputRecord) -> Result<(), BrokerError>;

    /// Waits until everything sent is acknowledged.
    ///
    /// # Errors
    /// [`BrokerError`] if something was not, after the broker's own retries.
    fn flush(&mut self) -> Result<(), BrokerError>;
}

/// The settings of a topic to create. [`TopicSpec::all_of`] lists those of a topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The topic.
    pub name: Topic,
    /// The number of partitions.
    pub partitions: u32,
    /// What is kept, and how long.
    pub cleanup: Cleanup,
    /// The largest record batch, in bytes, if not the broker's default (`max.message.bytes`).
    pub message_bytes_max: Option<u32>,
}

/// Which records a topic keeps (`cleanup.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records of the last `retention`, or all records without one.
    Delete {
        /// `retention.ms`
        retention: Option<Duration>,
    },
    /// The last record of every key.
    Compact,
    /// The last record of every key, for `retention`.
    CompactDelete {
        /// `retention.ms`
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
    /// Kafka's name of this setting.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

impl Cleanup {
    /// The timestamps that a topic with this policy needs, if it matters. Retention goes by timestamps, so with a retention
    /// they are set on append: otherwise a record of a past event would be deleted at once. A compacted topic keeps those
    /// of its writers, because a restore takes stream time from the records of a changelog.
    #[must_use]
    pub fn timestamps(self) -> Option<Timestamps> {
        match self {
            Self::Delete { retention: Some(_) } => Some(Timestamps::LogAppendTime),
            Self::Delete { retention: None } => None,
            Self::Compact | Self::CompactDelete { .. } => Some(Timestamps::CreateTime),
        }
    }
}

/// A failed call to a broker; each variant is named for the recovery.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker is not available: make the same call again.
    #[error("the broker is not available just now: {0}")]
    Retry(String),
    /// The transaction cannot be committed: call [`Member::abort`], discard, and process again.
    #[error("the transaction must be aborted: {0}")]
    Abort(String),
    /// Another member with this name or these partitions has taken over: drop the member and join again.
    #[error("fenced by another member: {0}")]
    Fenced(String),
    /// This record can never be written (larger than the limit, an unknown partition): send it to the dead-letter topic.
    #[error("cannot write to {topic}: {reason}")]
    Unsendable {
        /// The topic that refused it.
        topic: Topic,
        /// The reason.
        reason: String,
    },
    /// The position does not exist any more. A member reports this once and goes on with the oldest record; for a reader,
    /// open another one.
    #[error("the log was cut off before {0}")]
    OutOfRange(TopicPartition),
    /// A topic does not exist, as several answers said: stop until an operator has created it. It is not
    /// the fault of the record that was to be written there.
    #[error("topic {0} does not exist: create it and start again")]
    Gone(Topic),
    /// An operator must act: stop with this message.
    #[error("{0}")]
    Fatal(String),
}
