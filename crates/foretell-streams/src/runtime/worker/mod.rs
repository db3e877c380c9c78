//! A worker: one thread, one member of the group, its tasks; a synchronous loop that a test can
//! single-step.
//!
//! ```text
//!   turn:  poll ─▶ answer a rebalance ─▶ restore ─▶ process ─▶ punctuate ─▶ send ─▶ commit if due
//!            │ Retry      the same again                                             │
//!            │ Abort      abort, discard uncommitted state, records come again ◀─────┘
//!            │ Fenced     drop the member and all tasks, join again
//!            │ Damaged    a store: forget it, read its changelog again
//!            └ Fatal      leave; the process stops, saying why
//! ```

mod checkpoints;
mod commit;
mod inputs;
mod parts;
mod recovery;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use parts::WorkerParts;

use crate::{
    metrics::StreamsMetrics,
    record::{InputRecord, Partition, Topic},
    runtime::{
        active_task::ActiveTask,
        broker::{Broker, BrokerError, Member, Membership, ProcessingGuarantee, Rebalance},
        status::{StatusBoard, WorkerStatus},
        worker::checkpoints::Place,
    },
    state::{StateError, StoreSupplier},
    task::Task,
    time::Clock,
    topology::Topology,
};

/// Commit intervals and limits of a worker.
///
/// ```
/// use std::time::Duration;
/// use foretell_streams::runtime::WorkerSettings;
///
/// let settings = WorkerSettings { commit_interval: Duration::from_secs(1), ..WorkerSettings::default() };
/// assert_eq!(settings.commit_records_max, 10_000);
/// ```
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The longest time between two commits, if there is something to commit. Outputs are visible after a commit only.
    pub commit_interval: Duration,
    /// The number of processed records after which a commit comes sooner.
    pub commit_records_max: usize,
    /// The longest wait of a starting task for an input that gives nothing. A task merges its inputs by event time, so it
    /// waits until each input has been read to where it ended at the start (KIP-695).
    pub max_task_idle: Duration,
    /// The time without records after which a task's stream time goes on with the clock, if all its inputs are read to their
    /// ends.
    pub quiet_after: Duration,
    /// Exactly once: the number of pending changes of a task after which they are sent to the changelogs before the commit.
    /// Below this, a key that is written several times is sent once a commit.
    pub changes_pending_max: usize,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(100),
            commit_records_max: 10_000,
            max_task_idle: Duration::from_secs(300),
            quiet_after: Duration::from_secs(10),
            changes_pending_max: 1_000,
        }
    }
}

/// A shared flag that asks workers, standbys and monitors to stop. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<Stop>);

#[derive(Debug, Default)]
struct Stop {
    is_set: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl StopSignal {
    /// Asks all holders to stop. A worker finishes its turn, commits, and leaves its group.
    pub fn stop(&self) {
        self.0.is_set.store(true, Ordering::SeqCst);
        // Under the lock, or a thread that has just looked would sleep through it.
        let _guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.changed.notify_all();
    }

    /// Whether [`Self::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// Waits for [`Self::stop`], at most this long on the machine's clock.
    pub fn wait(&self, at_most: Duration) {
        let guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.changed.wait_timeout_while(guard, at_most, |()| !self.is_stopped());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Why a worker ended before it was asked to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The broker refused for good.
    #[error(transparent)]
    Broker(BrokerError),
    /// Another process has this one's name, and each fences the other.
    #[error(
        "`{member}` was fenced {times} times without a commit in between: does another process use \
         the same instance id? Give each process its own"
    )]
    FencedAgain {
        /// The contested name.
        member: String,
        /// How often.
        times: u32,
    },
    /// The stores can't be used, and to rebuild them would not help.
    #[error("{0}")]
    State(String),
    /// Topics in use have other partitions than at the start: keys go to other tasks than what those remember.
    #[error("{}", told(.0))]
    Repartitioned(Vec<Repartitioned>),
}

/// A topic with another number of partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repartitioned {
    /// Which.
    pub topic: Topic,
    /// How many it had.
    pub had: u32,
    /// How many it has.
    pub has: u32,
}

fn told(topics: &[Repartitioned]) -> String {
    let told = topics.iter().map(|Repartitioned { topic, had, has }| {
        format!("topic {topic} has {has} partitions, not {had} as at the start")
    });
    told.collect::<Vec<_>>().join("; ")
}

/// What ends a turn early.
#[derive(Debug)]
pub(super) enum TurnError {
    Broker(BrokerError),
    /// A store of the task.
    Store(Partition, StateError),
}

impl From<BrokerError> for TurnError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl TurnError {
    /// What went wrong with a store of `task`.
    pub(super) fn in_task(task: Partition) -> impl Fn(StateError) -> Self {
        move |error| Self::Store(task, error)
    }
}

/// Turns without anything to do last this long.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// Records a turn: the group must be polled within its session.
const RECORDS_A_TURN_MAX: usize = 1_000;
/// Above this, an input is paused: about 10 MB at 1 kB a record.
const BUFFERED_MAX: usize = 10_000;
/// Each try takes the broker's own patience.
const JOIN_TRIES_MAX: u32 = 5;
/// How often a restore says how far it is.
const RESTORE_TOLD_EVERY: Duration = Duration::from_secs(5);

/// One thread of an application: a member of the consumer group, with the tasks that the group assigns to it.
///
/// A worker recovers from aborts, fencing, lost partitions and damaged stores by itself. It ends when it is asked to stop,
/// or with a [`WorkerError`] that needs an operator. It stays on the thread on which it joined.
///
/// ```
/// use std::{sync::Arc, thread, time::Duration};
/// use foretell_streams::{
///     codec::Utf8, local::LocalBroker, record::{OutputRecord, Partition, Topic, TopicPartition},
///     runtime::{StopSignal, Worker, WorkerParts, broker::{Broker, ReadFrom, TopicSpec}},
///     time::{EventTime, SystemClock}, topology::TopologyBuilder,
/// };
///
/// let (lines, copies) = (Topic::new("lines"), Topic::new("copies"));
/// let mut builder = TopologyBuilder::new("copy", Topic::new("dead-letters"));
/// let read = builder.source("read", lines.clone(), Arc::new(Utf8));
/// builder.sink("write", &[read], copies.clone(), Arc::new(Utf8));
/// let topology = Arc::new(builder.build());
///
/// let broker: Arc<dyn Broker> = Arc::new(LocalBroker::new(Arc::new(SystemClock::new())));
/// broker.create_topics(&TopicSpec::all_of(&topology, 1))?;
/// broker.publish()?.send(OutputRecord::new(&lines, None, Some(b"hello"), EventTime(0)))?;
///
/// let parts = WorkerParts::new(Arc::clone(&broker), &topology, "copy", "worker-1");
/// let stop = StopSignal::default();
/// let worker = thread::spawn({
///     let stop = stop.clone();
///     move || Worker::join(parts)?.run(&stop)
/// });
///
/// let mut records = Vec::new();
/// let mut reader = broker.read(&TopicPartition { topic: copies, partition: Partition(0) }, ReadFrom::Beginning)?;
/// while records.is_empty() && !worker.is_finished() {
///     reader.read(Duration::from_millis(100), &mut records)?;
/// }
/// stop.stop();
/// worker.join().expect("the worker does not panic")?;
/// assert_eq!(records[0].value.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Worker {
    broker: Arc<dyn Broker>,
    topology: Arc<Topology>,
    membership: Membership,
    settings: WorkerSettings,
    clock: Arc<dyn Clock>,
    metrics: StreamsMetrics,
    board: StatusBoard,
    stores: Arc<dyn StoreSupplier>,
    member: Box<dyn Member>,
    active_tasks: BTreeMap<Partition, ActiveTask>,
    /// Rebuilt, and with nothing committed since: to rebuild them again would not help.
    rebuilt: BTreeSet<Partition>,
    /// Their stores are not what their changelogs say, and are to be rebuilt before anything else is done.
    corrupted: BTreeSet<Partition>,
    /// A change of assignment that is still to be answered.
    pending: Option<Rebalance>,
    polled: Vec<InputRecord>,
    processed: usize,
    committed_at: Duration,
    /// When a checkpoint was moved on, and whose.
    checkpointed: (Duration, Option<Place>),
    restore_told_at: Duration,
    cleaned_at: Duration,
    joined: bool,
    fenced: u32,
    /// The member was fenced or failed, and a new one has to join.
    must_rejoin: bool,
}

fn join_group(
    broker: &dyn Broker,
    membership: &Membership,
) -> Result<Box<dyn Member>, WorkerError> {
    let mut tries = 1;
    loop {
        match broker.join(membership) {
            Err(BrokerError::Retry(reason)) if tries < JOIN_TRIES_MAX => {
                tracing::warn!(member = membership.member, reason, "joining again");
                tries += 1;
            }
            result => return result.map_err(WorkerError::Broker),
        }
    }
}

impl Worker {
    /// Joins the group. The first turns of the loop bring an assignment.
    ///
    /// # Errors
    /// [`WorkerError::Broker`] if the broker refuses, or does not answer after several tries.
    pub fn join(parts: WorkerParts) -> Result<Self, WorkerError> {
        for input in std::iter::once(&parts.membership.lead).chain(&parts.membership.co_partitioned)
        {
            parts.metrics.begin_input(input.as_str());
        }
        let member = join_group(parts.broker.as_ref(), &parts.membership)?;
        let committed_at = parts.clock.elapsed();
        parts.board.publish(&parts.membership.member, WorkerStatus::default());
        Ok(Self {
            broker: parts.broker,
            topology: parts.topology,
            membership: parts.membership,
            settings: parts.settings,
            clock: parts.clock,
            metrics: parts.metrics,
            board: parts.board,
            stores: parts.stores,
            member,
            active_tasks: BTreeMap::new(),
            rebuilt: BTreeSet::new(),
            corrupted: BTreeSet::new(),
            pending: None,
            polled: Vec::new(),
            processed: 0,
            committed_at,
            checkpointed: (committed_at, None),
            restore_told_at: committed_at,
            cleaned_at: committed_at,
            joined: false,
            fenced: 0,
            must_rejoin: false,
        })
    }

    /// Runs turns until `stop`, then commits and leaves the group.
    ///
    /// # Errors
    /// [`WorkerError`], after it has left the group.
    pub fn run(mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        self.metrics.thread_started();
        let mut result = Ok(());
        while result.is_ok() && !stop.is_stopped() {
            result = self.turn(IDLE_WAIT);
        }
        self.metrics.thread_ended();
        let left = self.close(result.is_ok());
        result.and(left)
    }

    /// Runs one turn of the loop, for a test that single-steps it: waits at most `wait` for records, then processes them and
    /// commits if that is due.
    ///
    /// # Errors
    /// [`WorkerError`], if the worker can't go on.
    pub fn turn(&mut self, wait: Duration) -> Result<(), WorkerError> {
        if self.must_rejoin {
            return self.come_back();
        }
        match self.try_turn(wait) {
            Ok(()) => Ok(()),
            Err(error) => self.recover(error),
        }
    }

    fn try_turn(&mut self, wait: Duration) -> Result<(), TurnError> {
        self.rebuild_corrupted()?;
        // What could not be answered at the last turn comes first.
        self.answer_rebalance()?;
        let wait = self.patience(wait);
        self.pending = self.member.poll(wait, &mut self.polled)?;
        for record in self.polled.drain(..) {
            if let Some(active) = self.active_tasks.get_mut(&record.source.partition) {
                active.add(record);
            }
        }
        // At once: what is lost is written to by another already.
        self.answer_rebalance()?;
        self.restore()?;
        self.process()?;
        self.regulate()?;
        self.send()?;
        // Without a transaction, outputs would have to be waited for each time.
        if self.membership.guarantee == ProcessingGuarantee::ExactlyOnce {
            self.flush_changelogs(self.settings.changes_pending_max)?;
        }
        if self.commit_is_due() {
            self.commit()?;
        }
        self.clean_stores();
        Ok(())
    }

    /// How long a poll may wait: not at all with work at hand, and never past the next commit.
    fn patience(&self, wait: Duration) -> Duration {
        if self.active_tasks.values().any(ActiveTask::has_work) {
            return Duration::ZERO;
        }
        if self.processed == 0 {
            return wait;
        }
        let since = self.clock.elapsed().saturating_sub(self.committed_at);
        wait.min(self.settings.commit_interval.saturating_sub(since))
    }

    fn answer_rebalance(&mut self) -> Result<(), TurnError> {
        match self.pending.clone() {
            None => return Ok(()),
            Some(Rebalance::Assigned(tasks)) => {
                self.member.assign(&tasks)?;
                for partition in tasks {
                    self.open(partition)?;
                }
                self.joined = true;
            }
            Some(Rebalance::Revoked { tasks, lost }) => {
                if lost {
                    self.abort("partitions were lost")?;
                } else {
                    match self.commit_with(self.ends_of(&tasks)) {
                        Err(TurnError::Broker(BrokerError::Abort(reason))) => {
                            self.abort(&reason)?
                        }
                        other => other?,
                    }
                }
                self.active_tasks.retain(|partition, _| !tasks.contains(partition));
                self.corrupted.retain(|partition| !tasks.contains(partition));
                self.member.unassign(&tasks)?;
            }
        }
        self.pending = None;
        self.publish_status();
        Ok(())
    }

    /// A fresh task in place of whatever was there. Its inputs are paused until it is restored.
    fn open(&mut self, partition: Partition) -> Result<(), TurnError> {
        let stores = self.stores.as_ref();
        let task = Task::open(&self.topology, partition, &self.metrics, stores)
            .map_err(TurnError::in_task(partition))?;
        self.active_tasks.insert(partition, ActiveTask::open(task, self.clock.as_ref()));
        Ok(())
    }

    fn restore(&mut self) -> Result<(), TurnError> {
        let (mut changed, mut cut_off) = (false, Vec::new());
        let mut is_restoring = false;
        for (partition, active) in &mut self.active_tasks {
            match active.restore(self.broker.as_ref(), self.clock.as_ref(), &self.metrics) {
                Err(TurnError::Broker(BrokerError::OutOfRange(changelog))) => {
                    tracing::warn!(%changelog, "it was cut off meanwhile: restoring anew");
                    cut_off.push(*partition);
                }
                restored => changed |= restored?,
            }
            is_restoring |= !active.is_restored();
        }
        for partition in cut_off {
            let Some(active) = self.active_tasks.get_mut(&partition) else { continue };
            active.restart_restore().map_err(TurnError::in_task(partition))?;
        }
        if is_restoring && self.clock.elapsed() >= self.restore_told_at + RESTORE_TOLD_EVERY {
            self.tell_restore();
            changed = true;
        }
        if changed {
            self.publish_status();
        }
        Ok(())
    }

    fn tell_restore(&mut self) {
        self.restore_told_at = self.clock.elapsed();
        for (task, active) in self.active_tasks.iter().filter(|(_, active)| !active.is_restored()) {
            let status = active.status();
            let (records, remaining) = (status.restored, status.restore_remaining);
            tracing::info!(%task, records, remaining, "restoring");
        }
    }

    fn process(&mut self) -> Result<(), TurnError> {
        self.find_ends()?;
        self.follow_the_clock()?;
        let idle_max = self.settings.max_task_idle;
        for (partition, active) in &mut self.active_tasks {
            let records = active.process(RECORDS_A_TURN_MAX, idle_max, self.clock.as_ref());
            let records = records.map_err(TurnError::in_task(*partition))?;
            self.processed += records;
            let member = &self.membership.member;
            active.note_wait(records, member, &self.metrics, self.clock.as_ref());
            // A punctuation may write and send nothing: that is to be committed as well.
            if self.processed == 0 && active.task.has_changes() {
                self.processed = 1;
            }
        }
        let changed = self
            .active_tasks
            .values_mut()
            .filter_map(|active| active.wait_has_changed().then_some(()));
        if changed.count() > 0 {
            self.publish_status();
        }
        Ok(())
    }

    fn close(mut self, commit: bool) -> Result<(), WorkerError> {
        // What a member of no use has sent must not be committed: what it was made of is dropped.
        if commit
            && !self.must_rejoin
            && let Err(error) = self.last_commit()
        {
            tracing::warn!(?error, "the last commit failed; its records will come again");
        }
        self.member.leave().map_err(WorkerError::Broker)
    }

    fn publish_status(&self) {
        let remaining = self.active_tasks.values().map(ActiveTask::restore_remaining).sum();
        self.metrics.restore_remaining(&self.membership.member, remaining);
        let tasks = self.active_tasks.values().map(ActiveTask::status).collect();
        let status = WorkerStatus { joined: self.joined, tasks };
        self.board.publish(&self.membership.member, status);
    }
}
