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
///     runtime::broker::{Broker, BrokerError, Cleanup, From, Isolation, ReadTo, TopicSpec},
///     time::{EventTime, SystemClock},
/// };
///
/// /// All records of a partition up to its end.
/// fn read_all(broker: &dyn Broker, source: &TopicPartition) -> Result<usize, BrokerError> {
///     let mut records = Vec::new();
///     let mut reader = broker.read(source, From::Beginning)?;
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
    fn read(&self, source: &TopicPartition, from: From) -> Result<Box<dyn Reader>, BrokerError>;

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
    pub companions: Vec<Topic>,
    /// Whether a commit is a transaction.
    pub guarantee: ProcessingGuarantee,
}

impl Membership {
    /// Every input partition of the task `partition`: the lead first, then the companions.
    pub fn inputs_of(&self, partition: Partition) -> impl Iterator<Item = TopicPartition> + '_ {
        let topics = std::iter::once(&self.lead).chain(&self.companions);
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
/// What a member may do, since librdkafka does, and a caller must be ready for:
/// - `poll` gives fewer records than there are, or none, and brings the others later;
/// - it appends records *and* returns an error, or a rebalance: they have come, and do not come again;
/// - an error hides a rebalance, which the next `poll` announces;
/// - after [`Member::pause`], records that were on their way come once more;
/// - an error is told again by a later call, also by one of the next transaction;
/// - a record that `send` has taken is lost, and a later call says so: `send`, `flush` or `commit`, never later than that
///   `commit`;
/// - a call about several inputs or tasks fails and has been done for some of them, or for all: to make it again is the same as once.
///
/// What it must not do, though librdkafka does: skip a record, or bring one again that was not taken back by an abort.
/// Where a pause, a resume, a rebalance or an error moves librdkafka's position, the member moves it back.
pub trait Member {
    /// Waits at most `wait`, appends the records that have come to `records`, in order within each
    /// partition, and returns a change of the assignment if there is one to be answered.
    /// Must be called again within the session's time, also when all partitions are paused.
    ///
    /// # Errors
    /// [`BrokerError`] by recovery.
    fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError>;

    /// Answers [`Rebalance::Assigned`]: every input of `tasks` is to be read from the group's
    /// committed offset on, or from the beginning where there is none; it rests until it is resumed.
    /// Call it also for no tasks.
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

    /// The offset after the last record of an assigned input that came out of `poll`, or the end of the partition if
    /// it was reached: behind the last record there may be offsets that never come out. 0 if it is read from the
    /// beginning and nothing came yet.
    fn position(&self, input: &TopicPartition) -> Offset;

    /// Writes a record; in the open transaction, or a new one, if exactly once. Does not wait for
    /// the broker, except when too much is under way.
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`] if this very record can't be written; [`BrokerError::Gone`] if none can;
    /// else by recovery.
    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError>;

    /// Waits until everything sent so far is written, if it is not in a transaction: what is sent after it may count
    /// on it. In a transaction all counts at once, and it does nothing.
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

    /// Forgets everything sent since the last commit, and goes back to the offsets of the last
    /// commit in every partition still assigned: those records come again, and none fetched
    /// before the abort comes out of `poll` any more.
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
    /// These are now ours, besides what we have (perhaps none).
    Assigned(Vec<Partition>),
    /// These go to somebody else.
    Revoked {
        /// What we lose.
        tasks: Vec<Partition>,
        /// They are gone already (the session ran out): abort, do not commit.
        lost: bool,
    },
}

/// Where a [`Reader`] starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The oldest record there is.
    Beginning,
    /// This record, or the first after it.
    Offset(Offset),
    /// After the newest record there is now.
    End,
}

/// Which records count (`isolation.level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Those before the first transaction that is still open: the last stable offset.
    ReadCommitted,
    /// All, whatever becomes of them: the high watermark.
    ReadUncommitted,
}

/// Reads one partition, committed records only.
///
/// What a reader may do, and a caller must be ready for: it gives fewer records than there are; it appends records *and* returns an
/// error, and does not bring them again; it tells an end that it has told before, without them that were written since.
pub trait Reader: Send {
    /// Waits at most `wait` and appends what has come to `records`, also where it returns an error.
    ///
    /// # Errors
    /// [`BrokerError`] by recovery.
    fn read(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError>;
}

/// How far a [`Reader::read`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadTo {
    /// There may be more.
    More,
    /// The end of the partition as it stood at some time since the reader was opened (an aborted or open transaction's
    /// records behind it do not count). To come to a later end, open another reader, or look at offsets.
    End,
}

/// Reads several partitions, which may be opened and closed on the way; committed records only.
pub trait Follower: Send {
    /// Follows `source` besides what is followed; returns the offset from which on.
    ///
    /// # Errors
    /// [`BrokerError`], such as for a topic that does not exist.
    fn open(&mut self, source: &TopicPartition, from: From) -> Result<Offset, BrokerError>;

    /// Follows `source` no longer.
    ///
    /// # Errors
    /// [`BrokerError`]: make another follower.
    fn close(&mut self, source: &TopicPartition) -> Result<(), BrokerError>;

    /// Waits at most `wait` and appends what has come to `records`, in order within each partition.
    ///
    /// # Errors
    /// [`BrokerError`]: something may be left out after `records`, so make another follower that begins there.
    fn read(&mut self, wait: Duration, records: &mut Vec<InputRecord>) -> Result<(), BrokerError>;
}

/// Writes outside any transaction.
pub trait Publisher: Send {
    /// Hands a record over; waits only when too much is under way.
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
    /// Records of the last `retention`; for ever if there is none.
    Delete {
        /// `retention.ms`
        retention: Option<Duration>,
    },
    /// The last record of every key.
    Compact,
    /// The last record of every key, for as long as `retention`.
    CompactDelete {
        /// `retention.ms`
        retention: Duration,
    },
}

/// Whose timestamps the records of a topic bear (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// Those that their writers gave them.
    CreateTime,
    /// When the broker appended them.
    LogAppendTime,
}

impl Timestamps {
    /// As Kafka names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

impl Cleanup {
    /// Whose timestamps a topic's records are to bear, if that matters. A retention goes by them, and must not go by what
    /// happened long ago: it counts from when a record came. A compacted topic keeps what its writers say, for a restore
    /// takes stream time from the records of a changelog.
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
        /// Where it was to go.
        topic: Topic,
        /// Why it can't.
        reason: String,
    },
    /// The position asked for is no longer there. A member says so once and goes on with the oldest
    /// record there is; a reader starts over when it is opened anew.
    #[error("the log was cut off before {0}")]
    OutOfRange(TopicPartition),
    /// A topic does not exist any more, as several answers said: stop until an operator has created it again. It is not
    /// the fault of the record that was to be written there.
    #[error("topic {0} does not exist any more: make it again, and start again")]
    Gone(Topic),
    /// An operator must act: stop with this message.
    #[error("{0}")]
    Fatal(String),
}
