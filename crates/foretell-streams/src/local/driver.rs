//! A driver of one real [`Task`] without a broker, with a clock set by hand: Kafka's `TopologyTestDriver`.
//!
//! ```text
//!   pipe ─▶ Task ─▶ sent, not committed ──commit──▶ outputs ─▶ read, read_all
//!                          │               └──────▶ changelogs ──restart──▶ a new Task, restored
//!                          └──abort, restart──▶ gone: pipe the records again
//! ```

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use crate::{
    metrics::StreamsMetrics,
    record::{
        InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, Topic, TopicPartition,
    },
    state::{MemoryStores, StateError},
    task::{Step, Task},
    time::{Clock, EventTime, ManualClock, WallTime},
    topology::Topology,
};

/// Drives one task by hand: the way to test a topology. Outputs can be read once they are committed, as by a consumer
/// with `read_committed`.
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
/// let said = topology.source("said", quiet.clone(), Arc::new(Utf8));
/// let shouted = topology.process("shout", &[said], &[], || Shout);
/// topology.sink("shouted", &[shouted], loud.clone(), Arc::new(Utf8));
///
/// let metrics = StreamsMetrics::register(&prometheus::Registry::new())?;
/// let mut driver = TopologyDriver::new(topology.build(), WallTime(0), &metrics);
/// driver.pipe(&quiet, Some(b"key"), Some(b"hello"), EventTime(1))?;
/// assert!(driver.read(&loud).is_empty(), "it is not committed");
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
    /// Where an abort or a restart goes back to.
    committed: BTreeMap<TopicPartition, Offset>,
    /// Committed and not yet read, in the order in which it was sent.
    outputs: Vec<OutputRecord>,
    /// Committed, by topic.
    changelogs: BTreeMap<Topic, Vec<InputRecord>>,
}

const PARTITION: Partition = Partition(0);
const IN_MEMORY: &str = "a store in memory can always be used";

fn open(topology: &Arc<Topology>, metrics: &StreamsMetrics) -> Task {
    Task::open(topology, PARTITION, metrics, &MemoryStores).expect(IN_MEMORY)
}

impl TopologyDriver {
    /// Starts task 0 of `topology` with empty stores in memory; its clock shows `now`.
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

    /// The task's clock. Set it with [`Self::advance`], so that punctuations are called.
    #[must_use]
    pub fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }

    /// The task, to look at its stream time and queues.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Adds the next record of an input, and processes all that is queued.
    ///
    /// # Errors
    /// [`StateError`]: a store can't be read.
    ///
    /// # Panics
    /// If `topic` is not an input of the topology.
    pub fn pipe(
        &mut self,
        topic: &Topic,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: EventTime,
    ) -> Result<Step, StateError> {
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        let (topic, headers) = (topic.clone(), Vec::new());
        self.pipe_record(OutputRecord { topic, partition: None, timestamp, key, value, headers })
    }

    /// Adds a record with its headers, and processes all that is queued.
    ///
    /// # Errors
    /// [`StateError`]: a store can't be read.
    ///
    /// # Panics
    /// If its topic is not an input of the topology.
    pub fn pipe_record(&mut self, record: OutputRecord) -> Result<Step, StateError> {
        self.queue_record(record);
        self.process()
    }

    /// Adds a record without processing it: records of several inputs that are queued together are merged by event time.
    ///
    /// # Panics
    /// If its topic is not an input of the topology.
    pub fn queue_record(&mut self, record: OutputRecord) {
        let OutputRecord { topic, timestamp, key, value, headers, .. } = record;
        let source = TopicPartition { topic, partition: PARTITION };
        let position = self.positions.entry(source.clone()).or_insert(Offset(0));
        let offset = std::mem::replace(position, position.next());
        self.task.add(InputRecord { source, offset, timestamp, key, value, headers });
    }

    /// Processes queued records until there are none ([`Step::Idle`]) or the next one must wait
    /// ([`Step::Blocked`]).
    ///
    /// # Errors
    /// [`StateError`]: a store can't be read.
    pub fn process(&mut self) -> Result<Step, StateError> {
        loop {
            match self.task.process_next(self.clock.now())? {
                Step::Processed => {}
                end @ (Step::Idle | Step::Blocked(_)) => return Ok(end),
            }
        }
    }

    /// Advances the clock by `span`, and calls the wall-clock punctuations that are due.
    ///
    /// # Errors
    /// [`StateError`]: a store can't be read.
    pub fn advance(&mut self, span: Duration) -> Result<(), StateError> {
        self.clock.advance(span);
        self.task.punctuate_wall_clock(self.clock.now())
    }

    /// Advances stream time by `span`, but not past the clock, as a worker does when all inputs are quiet.
    ///
    /// # Errors
    /// [`StateError`]: a store can't be read.
    pub fn advance_stream_time(&mut self, span: Duration) -> Result<(), StateError> {
        self.task.advance_stream_time(span, self.clock.now())
    }

    /// Commits outputs, changelogs and offsets. The outputs can be read from now on.
    pub fn commit(&mut self) {
        self.committed.extend(self.task.consumed());
        let sent = self.task.take_outbox();
        self.outputs.extend(sent.iter().map(OutputRecordRef::to_owned));
        self.task.return_outbox(sent);
        let changelogs = &mut self.changelogs;
        let told: Result<(), Infallible> = self.task.flush_changes(|record| {
            let log = changelogs.entry(record.topic.clone()).or_default();
            log.push(logged(record.to_owned(), log.len()));
            Ok(())
        });
        let Ok(()) = told;
        self.task.committed(self.clock.now(), &BTreeMap::new()).expect(IN_MEMORY);
    }

    /// Rolls everything back to the last commit, as a failed transaction does. Pipe the records again; they get the same
    /// offsets.
    pub fn abort(&mut self) {
        self.task.discarded();
        self.positions = self.committed.clone();
    }

    /// Replaces the task by a new one with stores restored from the changelogs, as after a crash. What was not committed is
    /// lost: pipe those records again.
    pub fn restart(&mut self) {
        self.restore(Arc::clone(&self.topology));
    }

    /// Restarts with another topology over the same changelogs, as an upgrade does.
    pub fn restart_with(&mut self, topology: Topology) {
        self.restore(Arc::new(topology));
    }

    fn restore(&mut self, topology: Arc<Topology>) {
        let mut task = open(&topology, &self.metrics);
        let (changelogs, now): (Vec<_>, _) = (task.changelogs().collect(), self.clock.now());
        for (store, changelog) in changelogs {
            if let Some(records) = self.changelogs.get(&changelog.topic) {
                task.restore(store, records.clone(), now).expect(IN_MEMORY);
            }
        }
        task.start(now);
        self.task = task;
        self.topology = topology;
        self.positions = self.committed.clone();
    }

    /// Appends a record to the changelog of a store, as if an earlier process had written it. The next restart restores it.
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
        log.push(logged(record, log.len()));
    }

    /// Takes the committed records of `topic` that were not read yet.
    pub fn read(&mut self, topic: &Topic) -> Vec<OutputRecord> {
        self.outputs.extract_if(.., |record| record.topic == *topic).collect()
    }

    /// Takes the committed records of all topics but changelogs that were not read yet, in the order of sending.
    pub fn read_all(&mut self) -> Vec<OutputRecord> {
        std::mem::take(&mut self.outputs)
    }

    /// All records that were committed to the changelog of a store.
    #[must_use]
    pub fn changelog(&self, topic: &Topic) -> &[InputRecord] {
        self.changelogs.get(topic).map_or(&[], Vec::as_slice)
    }
}

/// A changelog's record as a restore reads it.
fn logged(record: OutputRecord, place: usize) -> InputRecord {
    let offset = i64::try_from(place).expect("a log in memory is shorter than 2^63");
    InputRecord {
        source: TopicPartition { topic: record.topic, partition: PARTITION },
        offset: Offset(offset),
        timestamp: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}
