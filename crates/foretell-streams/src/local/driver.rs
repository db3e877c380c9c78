//! A driver of one [`Task`] without a broker, with a manual clock, like Kafka's `TopologyTestDriver`.
//!
//! ```text
//!   pipe ─▶ Task ─▶ sent, not committed ──commit──▶ outputs ─▶ read, read_all
//!                          │               └──────▶ changelogs ──restart──▶ a new Task, restored
//!                          └──abort, restart──▶ dropped: pipe the records again
//! ```

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use crate::{
    metrics::StreamsMetrics,
    record::{
        InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, Topic, TopicPartition,
    },
    state::{MemoryStores, StateError},
    task::{Progress, Task},
    time::{Clock, EventTime, ManualClock, WallTime},
    topology::Topology,
};

/// Runs one task of a topology in a test, without a broker. Outputs can be read once they are committed, as by a consumer
/// with `isolation.level=read_committed`.
///
/// ```
/// use std::sync::Arc;
/// use foretell_streams::{
///     codec::Utf8,
///     local::TopologyDriver,
///     metrics::StreamsMetrics,
///     record::Topic,
///     time::{EventTime, WallTime},
///     topology::{Context, ProcessError, Processor, Record, TopologyBuilder},
/// };
///
/// struct Shout;
///
/// impl Processor for Shout {
///     type In = String;
///     type Out = String;
///
///     fn process(
///         &mut self,
///         record: &Record<String>,
///         ctx: &mut Context<'_, String>,
///     ) -> Result<(), ProcessError> {
///         ctx.forward(&Record { value: record.value.to_uppercase(), ..record.clone() })
///     }
/// }
///
/// let (quiet, loud) = (Topic::new("quiet"), Topic::new("loud"));
/// let mut topology = TopologyBuilder::new("shouting", Topic::new("dead-letters"));
/// let source = topology.source("read", quiet.clone(), Arc::new(Utf8));
/// let shout = topology.process("shout", &[source], &[], || Shout);
/// topology.sink("write", &[shout], loud.clone(), Arc::new(Utf8));
///
/// let metrics = StreamsMetrics::register(&prometheus::Registry::new())?;
/// let mut driver = TopologyDriver::new(topology.build(), WallTime(0), &metrics);
/// driver.pipe(&quiet, Some(b"key"), Some(b"hello"), EventTime(1))?;
/// assert!(driver.read(&loud).is_empty(), "the output is not committed yet");
/// driver.commit();
/// assert_eq!(driver.read(&loud)[0].value.as_deref(), Some(&b"HELLO"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TopologyDriver {
    topology: Arc<Topology>,
    metrics: StreamsMetrics,
    clock: Arc<ManualClock>,
    task: Task,
    /// The offset of the next record of each input.
    positions: BTreeMap<TopicPartition, Offset>,
    /// The committed offsets, to which an abort or a restart rewinds.
    committed: BTreeMap<TopicPartition, Offset>,
    /// Committed outputs that were not read yet, in the order of sending.
    outputs: Vec<OutputRecord>,
    /// Committed changelog records, by topic.
    changelogs: BTreeMap<Topic, Vec<InputRecord>>,
}

const PARTITION: Partition = Partition(0);
const IN_MEMORY: &str = "a store in memory does not fail";

fn open(topology: &Arc<Topology>, metrics: &StreamsMetrics) -> Task {
    Task::open(topology, PARTITION, metrics, &MemoryStores).expect(IN_MEMORY)
}

impl TopologyDriver {
    /// Starts task 0 of `topology` with empty in-memory stores and a clock that shows `now`.
    #[must_use]
    pub fn new(topology: Topology, now: WallTime, metrics: &StreamsMetrics) -> Self {
        let topology = Arc::new(topology);
        let mut task = open(&topology, metrics);
        task.start(now);
        Self {
            topology,
            metrics: metrics.clone(),
            clock: Arc::new(ManualClock::at(now)),
            task,
            positions: BTreeMap::new(),
            committed: BTreeMap::new(),
            outputs: Vec::new(),
            changelogs: BTreeMap::new(),
        }
    }

    /// The task's clock. Advance it with [`Self::advance`], so that punctuations are called.
    #[must_use]
    pub fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }

    /// The task, for example to check its stream time and queues.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Adds the next record of an input without headers, and processes all queued records. See [`Self::process`] for the
    /// result.
    ///
    /// # Errors
    /// [`StateError`] if a store cannot be read.
    ///
    /// # Panics
    /// If `topic` is not an input of the topology.
    pub fn pipe(
        &mut self,
        topic: &Topic,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: EventTime,
    ) -> Result<Progress, StateError> {
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        let (topic, headers) = (topic.clone(), Vec::new());
        self.pipe_record(OutputRecord { topic, partition: None, timestamp, key, value, headers })
    }

    /// Adds a record with its headers, and processes all queued records.
    ///
    /// # Errors
    /// [`StateError`] if a store cannot be read.
    ///
    /// # Panics
    /// If the record's topic is not an input of the topology.
    pub fn pipe_record(&mut self, record: OutputRecord) -> Result<Progress, StateError> {
        self.queue_record(record);
        self.process()
    }

    /// Adds a record without processing it. Records of several inputs that are queued together are merged by event time.
    ///
    /// # Panics
    /// If the record's topic is not an input of the topology.
    pub fn queue_record(&mut self, record: OutputRecord) {
        let OutputRecord { topic, timestamp, key, value, headers, .. } = record;
        let source = TopicPartition { topic, partition: PARTITION };
        let position = self.positions.entry(source.clone()).or_insert(Offset(0));
        let offset = std::mem::replace(position, position.next());
        self.task.add(InputRecord { source, offset, timestamp, key, value, headers });
    }

    /// Processes queued records until none is left ([`Progress::Idle`]) or the next one must wait
    /// ([`Progress::Blocked`]).
    ///
    /// # Errors
    /// [`StateError`] if a store cannot be read.
    pub fn process(&mut self) -> Result<Progress, StateError> {
        loop {
            match self.task.process_next(self.clock.now())? {
                Progress::Processed => {}
                end @ (Progress::Idle | Progress::Blocked(_)) => return Ok(end),
            }
        }
    }

    /// Advances the clock by `span`, and calls the wall-clock punctuations that are due.
    ///
    /// # Errors
    /// [`StateError`] if a store cannot be read.
    pub fn advance(&mut self, span: Duration) -> Result<(), StateError> {
        self.clock.advance(span);
        self.task.punctuate_wall_clock(self.clock.now())
    }

    /// Advances stream time by `span`, but not past the clock, as a worker does while all inputs are read to their ends.
    ///
    /// # Errors
    /// [`StateError`] if a store cannot be read.
    pub fn advance_stream_time(&mut self, span: Duration) -> Result<(), StateError> {
        self.task.advance_stream_time(span, self.clock.now())
    }

    /// Commits outputs, changelogs and offsets. The outputs can be read afterwards.
    pub fn commit(&mut self) {
        self.committed.extend(self.task.consumed());
        let sent = self.task.take_outbox();
        self.outputs.extend(sent.iter().map(OutputRecordRef::to_owned));
        self.task.return_outbox(sent);
        let changelogs = &mut self.changelogs;
        let flushed: Result<(), Infallible> = self.task.flush_changes(|record| {
            let log = changelogs.entry(record.topic.clone()).or_default();
            log.push(changelog_record(record.to_owned(), log.len()));
            Ok(())
        });
        let Ok(()) = flushed;
        self.task.apply_commit(self.clock.now(), &BTreeMap::new()).expect(IN_MEMORY);
    }

    /// Rolls everything back to the last commit, as after a failed transaction. Pipe the records again: they get the same
    /// offsets.
    pub fn abort(&mut self) {
        self.task.roll_back();
        self.positions = self.committed.clone();
    }

    /// Replaces the task by a new one whose stores are restored from the changelogs, as after a crash. Uncommitted records
    /// are lost: pipe them again.
    pub fn restart(&mut self) {
        self.restore(Arc::clone(&self.topology));
    }

    /// Restarts with another topology over the same changelogs, as after an upgrade.
    pub fn restart_with(&mut self, topology: Topology) {
        self.restore(Arc::new(topology));
    }

    fn restore(&mut self, topology: Arc<Topology>) {
        let mut task = open(&topology, &self.metrics);
        let (changelogs, now): (Vec<_>, _) = (task.changelogs().collect(), self.clock.now());
        for (store, changelog) in changelogs {
            if let Some(records) = self.changelogs.get(&changelog.topic) {
                task.restore(store, records, now).expect(IN_MEMORY);
            }
        }
        task.start(now);
        self.task = task;
        self.topology = topology;
        self.positions = self.committed.clone();
    }

    /// Appends a record to a changelog, as if an earlier process had written it. The next restart restores it.
    pub fn append_to_changelog(
        &mut self,
        changelog: &Topic,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: EventTime,
    ) {
        let log = self.changelogs.entry(changelog.clone()).or_default();
        let record = OutputRecord {
            topic: changelog.clone(),
            partition: Some(PARTITION),
            timestamp,
            key: Some(key.to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        };
        log.push(changelog_record(record, log.len()));
    }

    /// Takes the committed records of `topic` that were not read yet, in the order of sending.
    pub fn read(&mut self, topic: &Topic) -> Vec<OutputRecord> {
        self.outputs.extract_if(.., |record| record.topic == *topic).collect()
    }

    /// Takes the committed records of all output topics that were not read yet, in the order of sending. Changelogs are
    /// not included.
    pub fn read_all(&mut self) -> Vec<OutputRecord> {
        std::mem::take(&mut self.outputs)
    }

    /// All records that were committed to a changelog.
    #[must_use]
    pub fn changelog(&self, topic: &Topic) -> &[InputRecord] {
        self.changelogs.get(topic).map_or(&[], Vec::as_slice)
    }
}

/// The record at `index` of a changelog, as a restore reads it.
fn changelog_record(record: OutputRecord, index: usize) -> InputRecord {
    let offset = i64::try_from(index).expect("a log in memory is shorter than 2^63");
    InputRecord {
        source: TopicPartition { topic: record.topic, partition: PARTITION },
        offset: Offset(offset),
        timestamp: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}
