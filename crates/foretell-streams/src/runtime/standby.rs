//! Standby tasks, as in Kafka Streams: copies of the stores of tasks that run on other instances, kept up to date on this
//! instance's disk, so that a task that moves here has little to restore.
//!
//! ```text
//!   each task of the topology ── its stores are open in a worker of this process? ──yes──▶ no standby
//!                                            └──no──▶ standby: follow its changelogs until a worker opens its stores
//! ```
//! Ownership is recorded in the store: a worker takes a store over from a standby, a standby never from a worker.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    metrics::StreamsMetrics,
    record::Partition,
    runtime::{
        broker::{Broker, BrokerError},
        error::{TurnError, WorkerError},
        restore::Restore,
        stop_signal::StopSignal,
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
    /// The clock for intervals and for the age of stores.
    pub clock: Arc<dyn Clock>,
    /// The metrics that it updates.
    pub metrics: StreamsMetrics,
}

/// The standby tasks of one thread (`num.standby.replicas` of Kafka Streams). They need stores that outlive a task, such as
/// [`DiskStores`](crate::state::DiskStores); with [`MemoryStores`](crate::state::MemoryStores) there are none.
///
/// ```
/// use std::sync::Arc;
/// use foretell_streams::{
///     codec::{Stored, Utf8}, local::LocalBroker, metrics::StreamsMetrics, record::Topic,
///     runtime::{Standby, StandbyParts, broker::{Broker, TopicSpec}}, state::DiskStores,
///     time::{Clock, SystemClock}, topology::TopologyBuilder,
/// };
///
/// let mut builder = TopologyBuilder::new("shop", Topic::new("dead-letters"));
/// builder.source("orders", Topic::new("orders"), Arc::new(Utf8));
/// builder.key_value_store("totals", Arc::new(Stored::<u32>::version(1)));
/// let topology = Arc::new(builder.build());
/// let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
/// let broker = Arc::new(LocalBroker::new(Arc::clone(&clock)));
/// broker.create_topics(&TopicSpec::all_of(&topology, 2))?;
///
/// let folder = tempfile::tempdir()?;
/// let mut standby = Standby::new(StandbyParts {
///     broker,
///     topology,
///     group: "shop".to_owned(),
///     stores: Arc::new(DiskStores::open(folder.path())?), // The workers of the process share them.
///     clock,
///     metrics: StreamsMetrics::unregistered(),
/// });
/// // On a thread of its own: `standby.run(&stop)`. In a test:
/// assert!(standby.turn()?, "it follows the changelogs of both tasks");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Standby {
    parts: StandbyParts,
    tasks: BTreeMap<Partition, StandbyTask>,
    updated_at: Option<Duration>,
}

struct StandbyTask {
    task: Task,
    restore: Restore,
    /// Whether its stores cannot be used and were not emptied yet.
    is_corrupted: bool,
}

/// The interval of looking for tasks without an owner here, and of measuring the lag.
const UPDATE_EVERY: Duration = Duration::from_secs(1);
/// The time to the next attempt while the broker is not available.
const RETRY_WAIT: Duration = Duration::from_millis(200);

impl Standby {
    /// A standby without tasks yet.
    #[must_use]
    pub fn new(parts: StandbyParts) -> Self {
        Self { parts, tasks: BTreeMap::new(), updated_at: None }
    }

    /// Follows changelogs until `stop`.
    ///
    /// # Errors
    /// [`WorkerError`] if it cannot continue; an unavailable broker is retried.
    pub fn run(mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        while !stop.is_stopped() {
            if !self.turn()? {
                stop.wait(RETRY_WAIT);
            }
        }
        Ok(())
    }

    /// Reads some records of every changelog that it follows. Returns false if there was nothing to do, or the broker is not
    /// available.
    ///
    /// # Errors
    /// [`WorkerError`] if it cannot continue.
    pub fn turn(&mut self) -> Result<bool, WorkerError> {
        let now = self.parts.clock.elapsed();
        let is_due = self.updated_at.is_none_or(|at| now >= at + UPDATE_EVERY);
        if is_due {
            self.updated_at = Some(now);
            let updated = self.update_tasks();
            if !self.is_ok_or_retry(updated)? {
                return Ok(false);
            }
        }
        let partitions: Vec<Partition> = self.tasks.keys().copied().collect();
        let mut has_work = false;
        for partition in partitions {
            let followed = self.follow(partition);
            has_work |= self.is_ok_or_retry(followed)?;
        }
        Ok(has_work)
    }

    /// The tasks whose stores it holds.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Vec<Partition> {
        let held = self.tasks.iter().filter(|(_, standby)| standby.task.holds_its_stores());
        held.map(|(task, _)| *task).collect()
    }

    /// Closes standby tasks that a worker has taken over, opens those that no worker of this process has, and measures the
    /// lag.
    fn update_tasks(&mut self) -> Result<(), TurnError> {
        let parts = &self.parts;
        self.tasks.retain(|task, standby| {
            let is_held = standby.task.holds_its_stores();
            if !is_held {
                tracing::info!(%task, "a worker has taken the standby task over");
            }
            is_held
        });
        let partitions = parts.broker.partitions(parts.topology.lead())?.unwrap_or(0);
        for partition in (0..i32::try_from(partitions).unwrap_or(i32::MAX)).map(Partition) {
            if self.tasks.contains_key(&partition) {
                continue;
            }
            let stores = parts.stores.as_ref();
            let opened = Task::open_standby(&parts.topology, partition, &parts.metrics, stores);
            if let Some(task) = opened.map_err(TurnError::in_task(partition))? {
                tracing::info!(task = %partition, "keeping a standby task");
                let restore = Restore::of(&task);
                self.tasks.insert(partition, StandbyTask { task, restore, is_corrupted: false });
            }
        }
        let mut lag = 0;
        for standby in self.tasks.values_mut() {
            standby.restore.update_ends(parts.broker.as_ref())?;
            lag += standby.restore.remaining();
        }
        parts.metrics.standby(&parts.group, self.tasks.len(), lag);
        Ok(())
    }

    fn follow(&mut self, partition: Partition) -> Result<(), TurnError> {
        let Some(StandbyTask { task, restore, is_corrupted }) = self.tasks.get_mut(&partition)
        else {
            return Ok(());
        };
        if *is_corrupted {
            return self.clear_and_close(partition);
        }
        let (broker, clock) = (self.parts.broker.as_ref(), self.parts.clock.as_ref());
        match restore.follow(broker, clock, task) {
            Err(TurnError::Broker(BrokerError::OutOfRange(changelog))) => {
                tracing::warn!(%changelog, "truncated while the standby was reading it: copying from the beginning");
                self.clear_and_close(partition)
            }
            // The next update closes it.
            Err(TurnError::Store(_, StateError::TakenOver(_))) => Ok(()),
            Err(TurnError::Store(
                _,
                error @ (StateError::Corrupted(_)
                | StateError::OtherFormat { .. }
                | StateError::DiskCorrupted(_)
                | StateError::Unstorable(_)),
            )) => {
                tracing::error!(task = %partition, %error, "the standby task is corrupted: copying from the beginning");
                *is_corrupted = true;
                self.clear_and_close(partition)
            }
            result => result,
        }
    }

    /// Empties the stores of a standby task and closes it; the next update opens it again. Stores that cannot be emptied are
    /// tried again: a failed standby task must not stop the process.
    fn clear_and_close(&mut self, partition: Partition) -> Result<(), TurnError> {
        let Some(standby) = self.tasks.get_mut(&partition) else { return Ok(()) };
        let mut stores = (0..self.parts.topology.stores.len()).map(StoreId);
        let cleared = stores.try_for_each(|store| standby.task.clear(store));
        match cleared {
            // If a worker has taken the stores over, it rebuilds them itself.
            Ok(()) | Err(StateError::TakenOver(_)) => {}
            Err(StateError::DiskCorrupted(reason)) => {
                let reason = format!("the standby task {partition} cannot be emptied: {reason}");
                return Err(BrokerError::Retry(reason).into());
            }
            Err(error) => return Err(TurnError::in_task(partition)(error)),
        }
        self.tasks.remove(&partition);
        Ok(())
    }

    /// Returns true after a success, and false after an error that is retried.
    fn is_ok_or_retry(&self, result: Result<(), TurnError>) -> Result<bool, WorkerError> {
        match result {
            Ok(()) => Ok(true),
            Err(TurnError::Broker(BrokerError::Retry(reason))) => {
                tracing::warn!(
                    group = self.parts.group,
                    reason,
                    "cannot read the changelogs of standby tasks; retrying"
                );
                Ok(false)
            }
            Err(TurnError::Broker(error)) => Err(WorkerError::Broker(error)),
            Err(TurnError::Store(_, error)) => Err(WorkerError::State(error.to_string())),
        }
    }
}
