//! Tasks: one partition's instance of a topology, with its queues, stores and nodes. A task does no I/O: records go in,
//! and an outbox and changed stores come out.
//!
//! ```text
//!            restore*                    process, punctuate
//!   Created ─────────▶ Restoring ──end──▶ Running ──changes, consumed──▶ (the worker commits)
//!                                           ▲  ▲                            │        │
//!                                           │  └────────── committed ◀──ok──┘        │
//!                                           └───────────── discarded ◀──aborted──────┘
//! ```

mod dead_letter;
mod input;
mod marks;
mod restore;
mod times;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[cfg(test)]
use crate::planted::Planted;
use crate::{
    metrics::{Counter, StreamsMetrics},
    record::{InputRecord, Offset, OutputRecordRef, Partition, TopicPartition},
    state::{self, Checkpoint, StateError, Store, StoreId, StoreSupplier},
    task::{input::InputQueues, marks::Marks},
    time::{EventTime, WallTime},
    topology::{Outbox, ProcessError, PunctuationKind, Scope, StoreKind, Topology},
};

/// One partition's instance of a topology. A worker or a [`TopologyDriver`](crate::local::TopologyDriver) drives it;
/// applications need it only to look at.
pub struct Task {
    topology: Arc<Topology>,
    metrics: StreamsMetrics,
    scope: Scope,
    inputs: Vec<TopicPartition>,
    queues: InputQueues,
    /// The next offset of each input, if it was processed since the last commit.
    consumed: Vec<Option<Offset>>,
    /// The next offset of one of its inputs, as it was committed last.
    committed_offset: Option<(TopicPartition, Offset)>,
    /// Why the last punctuation of a node failed, so that it is told once.
    failed_punctuations: BTreeMap<usize, String>,
    /// Which logs its changelogs are.
    marks: Marks,
    /// Which stores were written since their checkpoint was moved on.
    behind: BTreeSet<StoreId>,
    /// Stream time, and when each punctuation is next, as of the last commit: an abort goes back
    /// there, or the records that come again would find another time than they did at first.
    committed_times: (EventTime, Vec<Option<i64>>),
    /// Stream time as each store knows it, until all are restored.
    store_times: Vec<EventTime>,
    /// Stream time as the changelogs were told it last, about: a restore begins there.
    told_time: EventTime,
    /// Whether they are to be told it though no store has changed.
    owes_time: bool,
    /// Counts the records of each input.
    records: Vec<Counter>,
    /// By how much, at the next commit.
    processed: Vec<u64>,
}

/// The result of [`Task::process_next`].
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// One record was processed, or sent to the dead-letter topic.
    Processed,
    /// No record is queued.
    Idle,
    /// The next record must wait, for this reason.
    Blocked(String),
}

impl Task {
    /// Opens a task with the stores of `stores`, as they were left.
    ///
    /// # Errors
    /// [`StateError::Disk`] if a store cannot be opened.
    pub fn open(
        topology: &Arc<Topology>,
        partition: Partition,
        metrics: &StreamsMetrics,
        stores: &dyn StoreSupplier,
    ) -> Result<Self, StateError> {
        let mut opened = Vec::with_capacity(topology.stores.len());
        for spec in &topology.stores {
            let changelog = TopicPartition { topic: spec.changelog.clone(), partition };
            let access = spec.kind.access();
            opened.push(Store::over(stores.open(&changelog, access)?, access));
        }
        Ok(Self::with_stores(topology, partition, metrics, opened))
    }

    /// Opens a standby task, which only follows its changelogs; `None` if an active task has one of its stores open.
    ///
    /// # Errors
    /// [`StateError::Disk`] if a store cannot be opened.
    pub fn open_standby(
        topology: &Arc<Topology>,
        partition: Partition,
        metrics: &StreamsMetrics,
        stores: &dyn StoreSupplier,
    ) -> Result<Option<Self>, StateError> {
        let mut opened = Vec::with_capacity(topology.stores.len());
        for spec in &topology.stores {
            let changelog = TopicPartition { topic: spec.changelog.clone(), partition };
            let access = spec.kind.access();
            let Some(store) = stores.open_standby(&changelog)? else { return Ok(None) };
            opened.push(Store::over(store, access));
        }
        Ok(Some(Self::with_stores(topology, partition, metrics, opened)))
    }

    fn with_stores(
        topology: &Arc<Topology>,
        partition: Partition,
        metrics: &StreamsMetrics,
        opened: Vec<Store>,
    ) -> Self {
        let sources = topology.sources.iter();
        let inputs = sources.clone();
        let inputs = inputs.map(|source| TopicPartition { topic: source.topic.clone(), partition });
        let records = sources.map(|source| metrics.records(source.topic.as_str())).collect();
        let time_of =
            |kept: Option<Checkpoint>| kept.map_or(EventTime::MIN, |kept| kept.stream_time);
        let store_times: Vec<_> = opened.iter().map(|store| time_of(store.checkpoint())).collect();
        let stream_time = store_times.iter().copied().max().unwrap_or(EventTime::MIN);
        let marks = opened.iter().map(|store| store.checkpoint()?.incarnation);
        let marks = Marks::new(marks);
        Self {
            topology: Arc::clone(topology),
            metrics: metrics.clone(),
            scope: topology.instantiate(partition, opened, stream_time),
            inputs: inputs.collect(),
            queues: InputQueues::new(topology.sources.len()),
            consumed: vec![None; topology.sources.len()],
            committed_offset: None,
            failed_punctuations: BTreeMap::new(),
            marks,
            behind: BTreeSet::new(),
            committed_times: (stream_time, Vec::new()),
            store_times,
            told_time: stream_time,
            owes_time: false,
            records,
            processed: vec![0; topology.sources.len()],
        }
    }

    /// What it is an instance of.
    #[cfg(test)]
    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The task's number: that of its lead partition.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.scope.partition
    }

    /// The last committed offset of one of its inputs, or `None` if nothing was committed.
    #[must_use]
    pub fn committed_offset(&self) -> Option<(TopicPartition, Offset)> {
        self.committed_offset.clone()
    }

    /// Starts the processors. Call it when the stores are restored, before the first record.
    pub fn start(&mut self, now: WallTime) {
        self.scope.now = now;
        // Kept by a clock that was fast, or by a release that followed one.
        self.scope.stream_time = self.scope.stream_time.min(self.scope.latest());
        for index in 0..self.topology.nodes.len() {
            self.scope.with_node(index, |node, scope| node.start(scope, index));
        }
        self.resume_stream_time();
        self.told_time = self.scope.stream_time;
        self.keep_times();
    }

    /// Adds a record to the queue of its input.
    pub fn add(&mut self, record: InputRecord) {
        let sources = &self.topology.sources;
        let source = sources.iter().position(|source| source.topic == record.source.topic);
        let source = source.expect("a worker hands a task records of its own inputs");
        self.queues.push(source, record);
    }

    /// The number of queued records.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.queues.len()
    }

    /// The input partitions, the lead's first.
    #[must_use]
    pub fn inputs(&self) -> &[TopicPartition] {
        &self.inputs
    }

    /// The number of queued records of one input.
    #[must_use]
    pub fn buffered_of(&self, input: &TopicPartition) -> usize {
        let source = self.inputs.iter().position(|known| known == input);
        source.map_or(0, |source| self.queues.len_of(source))
    }

    /// The stream time, as in [`Context::stream_time`](crate::topology::Context::stream_time).
    #[must_use]
    pub fn stream_time(&self) -> EventTime {
        self.scope.stream_time
    }

    /// Processes the earliest of the queues' heads, from its source to the end of the topology. A head that cannot be used
    /// becomes a dead letter at once; one that cannot be decoded yet blocks the task, because it may be the earliest.
    ///
    /// # Errors
    /// [`StateError`] if a store fails. Nothing else stops a task.
    pub fn process_next(&mut self, now: WallTime) -> Result<Step, StateError> {
        self.scope.now = now;
        while let Some(source) = self.queues.unknown() {
            if let Some(step) = self.extract(source)? {
                return Ok(step);
            }
        }
        let latest = self.scope.latest();
        let Some((source, time)) = self.queues.earliest(latest) else { return Ok(Step::Idle) };
        let node = self.topology.sources[source].node;
        self.scope.input = self.queues.pop(source);
        let offset = self.scope.input.as_ref().map(|record| record.offset);
        self.scope.outbox.send_for(offset.map(|offset| (source, offset)));
        let result = self.atomically(|scope| {
            scope.with_node(node, |node_ref, scope| node_ref.process(&(), scope, node))
        });
        let record = self.scope.input.take().expect("nobody takes a task's input away");
        match result {
            Ok(()) => self.note_time(source, &record, time),
            Err(ProcessError::Reject { class, schema_id, message }) => {
                self.scope.dead_letters.push(dead_letter::of(&record, class, schema_id, message));
            }
            Err(ProcessError::Retry(reason)) => {
                self.queues.put_back(source, record, time);
                return Ok(Step::Blocked(reason));
            }
            Err(ProcessError::State(error)) => return Err(error),
        }
        self.done(source, record.offset);
        self.scope.outbox.send_for(None);
        self.punctuate(PunctuationKind::StreamTime, self.scope.stream_time.0)?;
        Ok(Step::Processed)
    }

    /// Finds out the event time of a queue's head; otherwise says what became of it.
    fn extract(&mut self, source: usize) -> Result<Option<Step>, StateError> {
        let node = self.topology.sources[source].node;
        let Some(head) = self.queues.head(source) else { return Ok(None) };
        let now = self.scope.now;
        let extracted = self.scope.with_node(node, |node, _| node.extract(head, now));
        match extracted {
            Ok(time) => {
                #[cfg(test)]
                let time = if self.topology.has(Planted::MergeByRecordTime) {
                    head.timestamp
                } else {
                    time
                };
                self.queues.know(source, time);
                Ok(None)
            }
            Err(ProcessError::Reject { class, schema_id, message }) => {
                let letter = dead_letter::of(head, class, schema_id, message);
                let offset = head.offset;
                self.queues.pop(source);
                self.scope.dead_letters.push(letter);
                self.done(source, offset);
                Ok(Some(Step::Processed))
            }
            Err(ProcessError::Retry(reason)) => Ok(Some(Step::Blocked(reason))),
            Err(ProcessError::State(error)) => Err(error),
        }
    }

    /// A record of `source` was processed, or became a dead letter.
    fn done(&mut self, source: usize, offset: Offset) {
        self.processed[source] += 1;
        self.consumed[source] = Some(offset.next());
        self.write_dead_letters();
    }

    /// Runs `work`; if it fails, nothing that it wrote or sent remains.
    fn atomically(
        &mut self,
        work: impl FnOnce(&mut Scope) -> Result<(), ProcessError>,
    ) -> Result<(), ProcessError> {
        let scope = &mut self.scope;
        let (sent, counted, time) = (scope.outbox.len(), scope.counts.len(), scope.stream_time);
        scope.stores.iter_mut().for_each(Store::begin_record);
        let result = work(scope);
        if result.is_err() {
            scope.outbox.truncate(sent);
            scope.counts.truncate(counted);
            scope.dead_letters.clear();
            scope.stream_time = time;
            scope.stores.iter_mut().for_each(Store::roll_back);
        }
        result
    }

    fn write_dead_letters(&mut self) {
        for letter in std::mem::take(&mut self.scope.dead_letters) {
            self.scope.counts.push((self.metrics.dead_letters(letter.class), 1));
            let written_at = self.scope.written_at();
            let record = dead_letter::record(&self.topology.dead_letters, letter, written_at);
            self.scope.outbox.push(record);
        }
    }

    /// Whether a store was changed since the last commit.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.owes_time || self.scope.stores.iter().any(Store::has_changes)
    }

    /// Takes the outputs since the last call. Return them with [`Self::return_outbox`], so that their buffer is used again.
    pub fn take_outbox(&mut self) -> Outbox {
        std::mem::take(&mut self.scope.outbox)
    }

    /// Returns an outbox whose records were sent.
    pub fn return_outbox(&mut self, mut outbox: Outbox) {
        if self.scope.outbox.is_empty() {
            outbox.clear();
            self.scope.outbox = outbox;
        }
    }

    /// How many changes its changelogs have still to be told.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        let pending_changes: usize = self.scope.stores.iter().map(Store::pending_len).sum();
        pending_changes + usize::from(self.owes_time)
    }

    /// Hands the records of those to `send`.
    ///
    /// # Errors
    /// What `send` says: the task must then be [`discarded`](Self::discarded).
    pub fn flush_changes<E>(
        &mut self,
        mut send: impl FnMut(OutputRecordRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.tell_marks(&mut send)?;
        let has_pending = self.pending_changes().next().is_some();
        self.pending_changes().try_for_each(&mut send)?;
        if self.owes_time && !has_pending {
            self.time_alone().into_iter().try_for_each(&mut send)?;
        }
        if self.owes_time || has_pending {
            self.told_time = self.scope.changed_at();
        }
        self.owes_time = false;
        self.scope.stores.iter_mut().for_each(Store::mark_flushed);
        Ok(())
    }

    fn pending_changes(&self) -> impl Iterator<Item = OutputRecordRef<'_>> {
        let (partition, timestamp) = (Some(self.scope.partition), self.scope.changed_at());
        self.topology.stores.iter().zip(&self.scope.stores).flat_map(move |(spec, store)| {
            let is_logged = |key: &[u8]| spec.kind != StoreKind::Window || state::is_logged(key);
            let changes = store.pending_changes().filter(move |(key, _)| is_logged(key));
            changes.map(move |(key, value)| OutputRecordRef {
                topic: &spec.changelog,
                partition,
                timestamp,
                key: Some(key),
                value,
                headers: &[],
            })
        })
    }

    /// The offsets to commit with the outputs and changes.
    pub fn consumed(&self) -> impl Iterator<Item = (TopicPartition, Offset)> + '_ {
        let consumed = self.inputs.iter().zip(&self.consumed);
        consumed.filter_map(|(input, offset)| Some((input.clone(), (*offset)?)))
    }

    /// Makes the changes of a successful commit permanent. `ends` are the changelogs' ends before it.
    ///
    /// # Errors
    /// [`StateError`] if a store could not be written, and is behind its changelog.
    pub fn committed(
        &mut self,
        now: WallTime,
        ends: &BTreeMap<StoreId, Offset>,
    ) -> Result<(), StateError> {
        let first = self.consumed().next();
        self.committed_offset = first.or(self.committed_offset.take());
        self.consumed.fill(None);
        self.keep_times();
        self.marks.committed();
        for (counter, by) in self.scope.counts.drain(..) {
            counter.add(by);
        }
        for (counter, by) in self.records.iter().zip(&mut self.processed) {
            counter.add(std::mem::take(by));
        }
        let stream_time = self.scope.stream_time;
        let mut result = Ok(());
        for (store, id) in self.scope.stores.iter_mut().zip((0..).map(StoreId)) {
            let (has_changes, end) = (store.has_changes(), ends.get(&id));
            if has_changes || end.is_some() {
                let before = store.checkpoint().map_or(Offset(0), |before| before.offset);
                let offset = end.copied().unwrap_or(before);
                let incarnation = self.marks.known(id);
                let kept =
                    store.commit(Checkpoint { offset, stream_time, complete_at: now, incarnation });
                result = result.and(kept);
            }
            if end.is_some() {
                self.behind.remove(&id);
            }
            // The end was told before these were in the log for good.
            if has_changes {
                self.behind.insert(id);
            }
        }
        result
    }

    /// Rolls back to the last commit, after one that failed. The records since then must be added again.
    pub fn discarded(&mut self) {
        self.consumed.fill(None);
        self.marks.discarded();
        self.queues.clear();
        self.scope.outbox.clear();
        self.scope.counts.clear();
        self.processed.fill(0);
        self.scope.dead_letters.clear();
        self.scope.stores.iter_mut().for_each(Store::discard);
        let (stream_time, next) = &self.committed_times;
        self.scope.stream_time = *stream_time;
        self.told_time = self.told_time.min(*stream_time);
        self.owes_time = false;
        for (schedule, next) in self.scope.schedules.iter_mut().zip(next) {
            schedule.next = *next;
        }
    }
}

#[cfg(test)]
mod tests;
