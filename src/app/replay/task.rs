//! A task in memory, without a broker: what it writes is returned, and its changelogs are not kept.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;

use foretell_streams::{
    metrics::StreamsMetrics,
    record::{
        InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, Topic, TopicPartition,
    },
    state::MemoryStores,
    task::{Progress, Task},
    time::WallTime,
    topology::Topology,
};

/// The only partition of a replay.
pub(super) const PARTITION: Partition = Partition(0);

/// Task 0 of a topology, which commits after each record.
pub(super) struct InMemoryTask {
    task: Task,
    /// The offset of the next record of each input.
    positions: BTreeMap<Topic, Offset>,
}

impl InMemoryTask {
    pub(super) fn start(
        topology: Topology,
        metrics: &StreamsMetrics,
        now: WallTime,
    ) -> anyhow::Result<Self> {
        let mut task = Task::open(&Arc::new(topology), PARTITION, metrics, &MemoryStores)?;
        task.start(now);
        Ok(Self { task, positions: BTreeMap::new() })
    }

    /// Processes a record of an input, at its next offset.
    ///
    /// # Errors
    /// If a store fails, or the record would have to wait, which nothing could end.
    pub(super) fn process(&mut self, record: OutputRecord, now: WallTime) -> anyhow::Result<()> {
        let OutputRecord { topic, timestamp, key, value, headers, .. } = record;
        let position = self.positions.entry(topic.clone()).or_insert(Offset(0));
        let offset = std::mem::replace(position, position.next());
        let source = TopicPartition { topic, partition: PARTITION };
        self.process_at(InputRecord { source, offset, timestamp, key, value, headers }, now)
    }

    /// Processes a record of an input, at the offset that it has.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub(super) fn process_at(&mut self, record: InputRecord, now: WallTime) -> anyhow::Result<()> {
        self.task.add(record);
        loop {
            match self.task.process_next(now)? {
                Progress::Processed => {}
                Progress::Idle => return Ok(()),
                Progress::Blocked(reason) => {
                    anyhow::bail!("a record cannot be processed: {reason}")
                }
            }
        }
    }

    /// Calls the wall-clock punctuations that are due.
    ///
    /// # Errors
    /// If a store fails.
    pub(super) fn tick(&mut self, now: WallTime) -> anyhow::Result<()> {
        self.task.punctuate_wall_clock(now).context("a punctuation failed")
    }

    /// Commits, and returns the outputs. `on_change` gets each record of a changelog.
    ///
    /// # Errors
    /// If `on_change` fails, or a store.
    pub(super) fn commit(
        &mut self,
        now: WallTime,
        mut on_change: impl FnMut(OutputRecordRef<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<OutputRecord>> {
        let sent = self.task.take_outbox();
        let outputs = sent.iter().map(OutputRecordRef::to_owned).collect();
        self.task.return_outbox(sent);
        self.task.flush_changes(&mut on_change)?;
        self.task.apply_commit(now, &BTreeMap::new())?;
        Ok(outputs)
    }
}
