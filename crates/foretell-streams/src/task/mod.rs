//! Tasks: one partition's instance of a topology, with its queues, stores and nodes. A task does no I/O: records go in,
//! and an outbox and changed stores come out.
//!
//! ```text
//!            restore*                    process, punctuate
//!   Created ─────────▶ Restoring ──start──▶ Running ──take_outbox, flush_changes, consumed──▶ (the worker commits)
//!                                             ▲  ▲                                               │        │
//!                                             │  └─────────────── apply_commit ◀─────────────ok──┘        │
//!                                             └────────────────── roll_back ◀────────────────aborted──────┘
//! ```

pub mod dead_letter;
mod input;
mod marks;
mod restore;
mod times;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    metrics::{Counter, StreamsMetrics},
    record::{InputRecord, Offset, OutputRecordRef, Partition, TopicPartition},
    state::{Checkpoint, StateError, Store, StoreId, StoreSupplier},
    task::{input::InputQueues, marks::Marks},
    time::{EventTime, WallTime},
    topology::{Outbox, ProcessError, PunctuationKind, Scope, StoreKind, Topology},
};

/// One partition's instance of a topology. A [`Worker`](crate::runtime::Worker) or a
/// [`TopologyDriver`](crate::local::TopologyDriver) drives it. Applications only inspect it, as with
/// [`TopologyDriver::task`](crate::local::TopologyDriver::task).
pub struct Task {
    topology: Arc<Topology>,
    metrics: StreamsMetrics,
    scope: Scope,
    inputs: Vec<TopicPartition>,
    queues: InputQueues,
    /// The next offset of each input from which records were processed since the last commit.
    consumed: Vec<Option<Offset>>,
    /// The next offset of one of the inputs at the last commit that had any.
    committed_offset: Option<(TopicPartition, Offset)>,
    /// The last failure of each node's punctuations, so that it is logged once.
    failed_punctuations: BTreeMap<usize, String>,
    /// The incarnations of the changelogs.
    marks: Marks,
    /// Stores that were written since the offset of their checkpoint was last advanced.
    outdated_checkpoints: BTreeSet<StoreId>,
    /// Stream time and the next time of each punctuation at the last commit. An abort restores them, so that
    /// reprocessed records see the same stream time as the first time.
    committed_times: (EventTime, Vec<Option<i64>>),
    /// The stream time of each store, until all are restored.
    store_times: Vec<EventTime>,
    /// The stream time that was last flushed to a changelog, approximately. A restore resumes there.
    flushed_time: EventTime,
    /// Whether stream time must be flushed although no store has changed.
    is_time_pending: bool,
    /// Metric of processed records, by input.
    records: Vec<Counter>,
    /// Records processed since the last commit, by input.
    processed: Vec<u64>,
}

/// The result of [`Task::process_next`].
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// One record was processed, or sent to the dead-letter topic.
    Processed,
    /// No record is queued.
    Idle,
    /// The next record must wait, for this reason. Later records of the task wait behind it.
    Blocked(String),
}

impl Task {
    /// Opens a task over the existing contents of its stores.
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
            let Some(store) = stores.open_standby(&changelog, access)? else { return Ok(None) };
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
            outdated_checkpoints: BTreeSet::new(),
            committed_times: (stream_time, Vec::new()),
            store_times,
            flushed_time: stream_time,
            is_time_pending: false,
            records,
            processed: vec![0; topology.sources.len()],
        }
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
        // The stored time may come from a fast clock, or from a release without this bound.
        self.scope.stream_time = self.scope.stream_time.min(self.scope.latest());
        for index in 0..self.topology.nodes.len() {
            self.scope.with_node(index, |node, scope| node.start(scope, index));
        }
        self.resume_stream_time();
        self.flushed_time = self.scope.stream_time;
        self.save_committed_times();
    }

    /// Adds a record to the queue of its input.
    ///
    /// # Panics
    /// If the record's topic is not an input of the topology.
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
    pub fn process_next(&mut self, now: WallTime) -> Result<Progress, StateError> {
        self.scope.now = now;
        while let Some(source) = self.queues.without_time() {
            if let Some(progress) = self.extract(source)? {
                return Ok(progress);
            }
        }
        let latest = self.scope.latest();
        let Some((source, time)) = self.queues.earliest(latest) else { return Ok(Progress::Idle) };
        let node = self.topology.sources[source].node;
        self.scope.input = self.queues.pop(source);
        let offset = self.scope.input.as_ref().map(|record| record.offset);
        self.scope.outbox.set_origin(offset.map(|offset| (source, offset)));
        let result = self.atomically(|scope| {
            scope.with_node(node, |node_ref, scope| node_ref.process(&(), scope, node))
        });
        let record = self.scope.input.take().expect("the input is set above");
        match result {
            Ok(()) => self.count_implausible_time(source, &record, time),
            Err(ProcessError::Reject { class, schema_id, message }) => {
                self.scope.dead_letters.push(dead_letter::of(&record, class, schema_id, message));
            }
            Err(ProcessError::Retry(reason)) => {
                self.queues.put_back(source, record, time);
                return Ok(Progress::Blocked(reason));
            }
            Err(ProcessError::State(error)) => return Err(error),
        }
        self.consume(source, record.offset);
        self.scope.outbox.set_origin(None);
        self.punctuate(PunctuationKind::StreamTime, self.scope.stream_time.0)?;
        Ok(Progress::Processed)
    }

    /// Extracts the event time of a queue's head. Returns `None` if that succeeded, or else what happened to the record.
    fn extract(&mut self, source: usize) -> Result<Option<Progress>, StateError> {
        let node = self.topology.sources[source].node;
        let Some(head) = self.queues.head(source) else { return Ok(None) };
        let now = self.scope.now;
        let extracted = self.scope.with_node(node, |node, _| node.extract(head, now));
        match extracted {
            Ok(time) => {
                self.queues.set_time(source, time);
                Ok(None)
            }
            Err(ProcessError::Reject { class, schema_id, message }) => {
                let letter = dead_letter::of(head, class, schema_id, message);
                let offset = head.offset;
                self.queues.pop(source);
                self.scope.dead_letters.push(letter);
                self.consume(source, offset);
                Ok(Some(Progress::Processed))
            }
            Err(ProcessError::Retry(reason)) => Ok(Some(Progress::Blocked(reason))),
            Err(ProcessError::State(error)) => Err(error),
        }
    }

    /// Marks a record of `source` as consumed: it was processed, or became a dead letter.
    fn consume(&mut self, source: usize, offset: Offset) {
        self.processed[source] += 1;
        self.consumed[source] = Some(offset.next());
        self.write_dead_letters();
    }

    /// Runs `work`. If it fails, all its writes and outputs are rolled back.
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

    /// Whether the next commit changes a store or must flush stream time.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.is_time_pending || self.scope.stores.iter().any(Store::has_changes)
    }

    /// Takes the outputs since the last call. Return the outbox with [`Self::return_outbox`] to reuse its buffer.
    pub fn take_outbox(&mut self) -> Outbox {
        std::mem::take(&mut self.scope.outbox)
    }

    /// Reuses the buffer of an outbox whose records were sent.
    pub fn return_outbox(&mut self, mut outbox: Outbox) {
        if self.scope.outbox.is_empty() {
            outbox.clear();
            self.scope.outbox = outbox;
        }
    }

    /// The number of changes that are not yet flushed to the changelogs.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        let stores = self.topology.stores.iter().zip(&self.scope.stores);
        let pending_changes: usize = stores
            .map(|(spec, store)| match spec.kind {
                // `WorkerSettings::changes_pending_max` counts the change of the index by time as well.
                StoreKind::Window => 2 * store.pending_len(),
                StoreKind::KeyValue => store.pending_len(),
            })
            .sum();
        pending_changes + usize::from(self.is_time_pending)
    }

    /// Flushes the pending changes: passes their changelog records to `send`.
    ///
    /// # Errors
    /// The error of `send`. The task must then be [rolled back](Self::roll_back).
    pub fn flush_changes<E>(
        &mut self,
        mut send: impl FnMut(OutputRecordRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.flush_marks(&mut send)?;
        let has_pending = self.pending_changes().next().is_some();
        self.pending_changes().try_for_each(&mut send)?;
        if self.is_time_pending && !has_pending {
            self.time_record().into_iter().try_for_each(&mut send)?;
        }
        if self.is_time_pending || has_pending {
            self.flushed_time = self.scope.changed_at();
        }
        self.is_time_pending = false;
        self.scope.stores.iter_mut().for_each(Store::mark_flushed);
        Ok(())
    }

    fn pending_changes(&self) -> impl Iterator<Item = OutputRecordRef<'_>> {
        let (partition, timestamp) = (Some(self.scope.partition), self.scope.changed_at());
        self.topology.stores.iter().zip(&self.scope.stores).flat_map(move |(spec, store)| {
            store.pending_changes().map(move |(key, value)| OutputRecordRef {
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

    /// Applies a successful commit: makes the changes of the stores permanent and publishes the metrics. `ends` are the
    /// changelogs' ends that were read before the commit.
    ///
    /// # Errors
    /// [`StateError`] if a store could not be written. It is behind its changelog then.
    pub fn apply_commit(
        &mut self,
        now: WallTime,
        ends: &BTreeMap<StoreId, Offset>,
    ) -> Result<(), StateError> {
        let first = self.consumed().next();
        self.committed_offset = first.or(self.committed_offset.take());
        self.consumed.fill(None);
        self.save_committed_times();
        self.marks.apply_commit();
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
                let incarnation = self.marks.current(id);
                let checkpoint = Checkpoint { offset, stream_time, complete_at: now, incarnation };
                result = result.and(store.commit(checkpoint));
            }
            if end.is_some() {
                self.outdated_checkpoints.remove(&id);
            }
            // The end was read before the changes of this commit were in the changelog.
            if has_changes {
                self.outdated_checkpoints.insert(id);
            }
        }
        result
    }

    /// Rolls back to the last commit, after a failed one. Add the records since then again.
    pub fn roll_back(&mut self) {
        self.consumed.fill(None);
        self.marks.roll_back();
        self.queues.clear();
        self.scope.outbox.clear();
        self.scope.counts.clear();
        self.processed.fill(0);
        self.scope.dead_letters.clear();
        self.scope.stores.iter_mut().for_each(Store::discard);
        let (stream_time, next) = &self.committed_times;
        self.scope.stream_time = *stream_time;
        self.flushed_time = self.flushed_time.min(*stream_time);
        self.is_time_pending = false;
        for (schedule, next) in self.scope.schedules.iter_mut().zip(next) {
            schedule.next = *next;
        }
    }
}

#[cfg(test)]
mod tests;
