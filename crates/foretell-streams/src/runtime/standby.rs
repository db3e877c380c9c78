//! Standby tasks, as in Kafka Streams: the stores of the tasks that other instances have, kept up to date
//! on this one's disk, so that a task that moves here has little to read.
//!
//! ```text
//!   every task of the topology ── held by a worker of ours? ──yes──▶ left alone
//!                                            └──no──▶ copy: follow its changelogs until a worker opens its stores
//! ```
//! The stores themselves say who has them: a worker takes one over from here, and never the other way round.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[cfg(test)]
use crate::planted::Planted;
use crate::{
    metrics::StreamsMetrics,
    record::Partition,
    runtime::{
        broker::{Broker, BrokerError},
        restore::Restore,
        worker::{StopSignal, TurnError, WorkerError},
    },
    state::{StateError, StoreId, StoreSupplier},
    task::Task,
    time::Clock,
    topology::Topology,
};

/// The parts of a [`Standby`].
pub struct StandbyParts {
    /// The cluster whose changelogs it reads.
    pub broker: Arc<dyn Broker>,
    /// The topology whose tasks it keeps.
    pub topology: Arc<Topology>,
    /// The consumer group of the workers, as a label of its metrics.
    pub group: String,
    /// The stores, shared with the workers of this process.
    pub stores: Arc<dyn StoreSupplier>,
    /// The clock for pauses.
    pub clock: Arc<dyn Clock>,
    /// The metrics that it updates.
    pub metrics: StreamsMetrics,
}

/// The standby tasks of one thread. They need stores that outlive a task, such as
/// [`DiskStores`](crate::state::DiskStores); with [`MemoryStores`](crate::state::MemoryStores) there are none.
pub struct Standby {
    parts: StandbyParts,
    copies: BTreeMap<Partition, Copy>,
    looked_at: Option<Duration>,
}

struct Copy {
    task: Task,
    restore: Restore,
    /// It can't be used, and is still to be emptied.
    is_damaged: bool,
}

/// How often it looks for tasks that nobody here has, and how far it is behind.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Before the next try, when the broker is away.
const RETRY_WAIT: Duration = Duration::from_millis(200);

impl Standby {
    /// A standby that has copied nothing yet.
    #[must_use]
    pub fn new(parts: StandbyParts) -> Self {
        Self { parts, copies: BTreeMap::new(), looked_at: None }
    }

    /// Follows changelogs until `stop`.
    ///
    /// # Errors
    /// [`WorkerError`]
    pub fn run(mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        while !stop.is_stopped() {
            if !self.turn()? {
                stop.wait(RETRY_WAIT);
            }
        }
        Ok(())
    }

    /// Reads a little of every changelog that it follows; false if there was nothing to do, or the broker is away.
    ///
    /// # Errors
    /// [`WorkerError`], if it can't go on.
    pub fn turn(&mut self) -> Result<bool, WorkerError> {
        let now = self.parts.clock.elapsed();
        let is_due = self.looked_at.is_none_or(|at| now >= at + LOOK_EVERY);
        if is_due {
            self.looked_at = Some(now);
            let looked = self.look();
            if !self.overcome(looked)? {
                return Ok(false);
            }
        }
        let partitions: Vec<Partition> = self.copies.keys().copied().collect();
        let mut has_work = false;
        for partition in partitions {
            let followed = self.follow(partition);
            has_work |= self.overcome(followed)?;
        }
        Ok(has_work)
    }

    /// The tasks of which it has a copy that is no worker's by now.
    #[cfg(test)]
    pub(crate) fn copies(&self) -> Vec<Partition> {
        let held = self.copies.iter().filter(|(_, copy)| copy.task.holds_its_stores());
        held.map(|(task, _)| *task).collect()
    }

    fn look(&mut self) -> Result<(), TurnError> {
        let parts = &self.parts;
        self.copies.retain(|task, copy| {
            let is_held = copy.task.holds_its_stores();
            #[cfg(test)]
            let is_held = is_held || parts.topology.has(Planted::CopyKeptAfterTakeover);
            if !is_held {
                tracing::info!(%task, "a worker has taken the standby copy over");
            }
            is_held
        });
        let partitions = parts.broker.partitions(parts.topology.lead())?.unwrap_or(0);
        for partition in (0..i32::try_from(partitions).unwrap_or(i32::MAX)).map(Partition) {
            if self.copies.contains_key(&partition) {
                continue;
            }
            let stores = parts.stores.as_ref();
            let opened = Task::open_standby(&parts.topology, partition, &parts.metrics, stores);
            if let Some(task) = opened.map_err(TurnError::in_task(partition))? {
                tracing::info!(task = %partition, "keeping a standby copy");
                let restore = Restore::of(&task);
                self.copies.insert(partition, Copy { task, restore, is_damaged: false });
            }
        }
        let mut lag = 0;
        for copy in self.copies.values_mut() {
            copy.restore.look_ahead(parts.broker.as_ref())?;
            lag += copy.restore.remaining();
        }
        parts.metrics.standby(&parts.group, self.copies.len(), lag);
        Ok(())
    }

    fn follow(&mut self, partition: Partition) -> Result<(), TurnError> {
        let Some(Copy { task, restore, is_damaged }) = self.copies.get_mut(&partition) else {
            return Ok(());
        };
        if *is_damaged {
            return self.rebuild(partition);
        }
        let (broker, clock) = (self.parts.broker.as_ref(), self.parts.clock.as_ref());
        match restore.follow(broker, clock, task) {
            Err(TurnError::Broker(BrokerError::OutOfRange(changelog))) => {
                tracing::warn!(%changelog, "it was cut off meanwhile: copying anew");
                self.rebuild(partition)
            }
            // It goes at the next look.
            Err(TurnError::Store(_, StateError::TakenOver(_))) => Ok(()),
            Err(TurnError::Store(
                _,
                error @ (StateError::Corrupted(_)
                | StateError::OtherFormat { .. }
                | StateError::DiskCorrupted(_)
                | StateError::Unstorable(_)),
            )) => {
                tracing::error!(task = %partition, %error, "copying anew");
                *is_damaged = true;
                self.rebuild(partition)
            }
            result => result,
        }
    }

    /// Empties a copy, and lets go of it: the next look makes another. No copy is worth the process: one that can't be emptied
    /// is tried again.
    fn rebuild(&mut self, partition: Partition) -> Result<(), TurnError> {
        let Some(copy) = self.copies.get_mut(&partition) else { return Ok(()) };
        let mut stores = (0..self.parts.topology.stores.len()).map(StoreId);
        let cleared = stores.try_for_each(|store| copy.task.clear(store));
        match cleared {
            // It is a worker's by now, which sees for itself.
            Ok(()) | Err(StateError::TakenOver(_)) => {}
            Err(StateError::DiskCorrupted(reason)) => {
                let reason = format!("the copy of task {partition} cannot be emptied: {reason}");
                return Err(BrokerError::Retry(reason).into());
            }
            Err(error) => return Err(TurnError::in_task(partition)(error)),
        }
        self.copies.remove(&partition);
        Ok(())
    }

    /// True if nothing was wrong, false if it passes by itself.
    fn overcome(&self, result: Result<(), TurnError>) -> Result<bool, WorkerError> {
        match result {
            Ok(()) => Ok(true),
            Err(TurnError::Broker(BrokerError::Retry(reason))) => {
                tracing::warn!(group = self.parts.group, reason, "standby copies fall behind");
                Ok(false)
            }
            Err(TurnError::Broker(error)) => Err(WorkerError::Broker(error)),
            Err(TurnError::Store(_, error)) => Err(WorkerError::State(error.to_string())),
        }
    }
}
