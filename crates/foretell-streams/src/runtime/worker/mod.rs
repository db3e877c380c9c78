//! A worker: one thread, one member of the group and its tasks, in a synchronous loop that a test can single-step.
//!
//! ```text
//!   turn:  poll ─▶ answer a rebalance ─▶ restore ─▶ process ─▶ punctuate ─▶ send ─▶ commit if due
//!            │ Retry      the next turn tries again                                  │
//!            │ Abort      abort, discard uncommitted state, poll records again ◀─────┘
//!            │ Fenced     drop the member and all tasks, join again
//!            │ Corrupted  rebuild the stores of the task from their changelogs
//!            └ Fatal      leave the group; the process ends with the error
//! ```
//!
//! Each part of it has one job: `membership` (joined or not), `active_tasks` (open, corrupted, restored), `commit_pacer`
//! (when a commit is due) and `checkpointer` (which store advances). `inputs` and `commit` are steps of a turn, `recovery`
//! is what follows one that failed.

mod active_tasks;
mod checkpointer;
mod commit;
mod commit_pacer;
mod inputs;
mod membership;
mod parts;
mod recovery;
#[cfg(test)]
pub(crate) mod recovery_history;
mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use parts::WorkerParts;
pub use settings::WorkerSettings;

use crate::{
    record::Partition,
    runtime::{
        broker::{BrokerError, ProcessingGuarantee, Rebalance},
        error::{TurnError, WorkerError},
        status::WorkerStatus,
        stop_signal::StopSignal,
        worker::{
            active_tasks::ActiveTasks,
            checkpointer::{Checkpointer, Ends},
            commit_pacer::CommitPacer,
            membership::GroupMember,
        },
    },
};

/// The longest turn of a worker without anything to do.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// The interval at which the positions of the inputs are published, for the lag: they change without a commit.
const INPUTS_PUBLISHED_EVERY: Duration = Duration::from_secs(1);

/// One thread of an application: a member of the consumer group, with the tasks that the group assigns to it.
///
/// A worker recovers from aborts, fencing, lost partitions and corrupted stores by itself. It ends when it is asked to stop,
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
    parts: WorkerParts,
    group: GroupMember,
    tasks: ActiveTasks,
    pacer: CommitPacer,
    checkpointer: Checkpointer,
    inputs_published_at: Duration,
}

impl Worker {
    /// Joins the group. The first turns of the loop bring an assignment.
    ///
    /// # Errors
    /// [`WorkerError::Broker`] if the broker refuses, or does not answer after several tries.
    pub fn join(parts: WorkerParts) -> Result<Self, WorkerError> {
        let membership = &parts.membership;
        for input in std::iter::once(&membership.lead).chain(&membership.co_partitioned) {
            parts.metrics.expose_input(input.as_str());
        }
        let group = GroupMember::join(parts.broker.as_ref(), membership)?;
        let now = parts.clock.elapsed();
        parts.board.publish(&membership.member, WorkerStatus::default());
        Ok(Self {
            group,
            tasks: ActiveTasks::new(now),
            pacer: CommitPacer::new(
                membership.commit_interval,
                parts.settings.commit_records_max,
                now,
            ),
            checkpointer: Checkpointer::new(now),
            inputs_published_at: now,
            parts,
        })
    }

    /// Runs turns until `stop`, then commits and leaves the group.
    ///
    /// # Errors
    /// [`WorkerError`], after it has left the group.
    pub fn run(mut self, stop: &StopSignal) -> Result<(), WorkerError> {
        self.parts.metrics.thread_started();
        let mut result = Ok(());
        while result.is_ok() && !stop.is_stopped() {
            result = self.turn(IDLE_WAIT);
        }
        self.parts.metrics.thread_ended();
        let left = self.close(result.is_ok());
        result.and(left)
    }

    /// Runs one turn of the loop, for a test that single-steps it: waits at most `wait` for records, then processes them and
    /// commits if that is due.
    ///
    /// # Errors
    /// [`WorkerError`] if the worker cannot recover.
    pub fn turn(&mut self, wait: Duration) -> Result<(), WorkerError> {
        if !self.group.is_joined() {
            return self.rejoin();
        }
        match self.try_turn(wait) {
            Ok(()) => Ok(()),
            Err(error) => self.recover(error),
        }
    }

    fn try_turn(&mut self, wait: Duration) -> Result<(), TurnError> {
        self.rebuild_corrupted()?;
        // A rebalance that could not be answered in the last turn.
        self.answer_rebalance()?;
        self.poll(wait)?;
        // Before anything is processed: another worker may already write for a task that was lost.
        self.answer_rebalance()?;
        self.restore()?;
        self.process()?;
        self.send()?;
        if self.commit_is_due() {
            self.commit()?;
        }
        let now = self.parts.clock.elapsed();
        self.checkpointer.clean(now, self.parts.stores.as_ref());
        self.publish_inputs(now)?;
        Ok(())
    }

    /// Waits for records: not at all if tasks have work, and never past the next commit.
    fn poll(&mut self, wait: Duration) -> Result<(), BrokerError> {
        let wait = self.poll_wait(wait);
        let joined = self.group.joined()?;
        joined.pending = joined.member.poll(wait, &mut joined.polled)?;
        self.pacer.polled(self.parts.clock.elapsed(), !joined.polled.is_empty());
        for record in joined.polled.drain(..) {
            self.tasks.add(record);
        }
        Ok(())
    }

    fn poll_wait(&self, wait: Duration) -> Duration {
        match self.tasks.have_work() {
            true => Duration::ZERO,
            false => self.pacer.poll_wait(self.parts.clock.elapsed(), wait),
        }
    }

    fn answer_rebalance(&mut self) -> Result<(), TurnError> {
        match self.group.joined()?.pending.clone() {
            None => return Ok(()),
            Some(Rebalance::Assigned(tasks)) => {
                self.group.joined()?.member.assign(&tasks)?;
                for task in tasks {
                    self.tasks.open(&self.parts, task)?;
                }
                self.group.joined()?.has_assignment = true;
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
                self.tasks.close(&tasks);
                self.group.joined()?.member.unassign(&tasks)?;
            }
        }
        self.group.joined()?.pending = None;
        self.publish_status();
        Ok(())
    }

    fn restore(&mut self) -> Result<(), TurnError> {
        if self.tasks.restore(&self.parts)? {
            self.publish_status();
        }
        Ok(())
    }

    fn process(&mut self) -> Result<(), TurnError> {
        let member = self.group.joined()?.member.as_ref();
        self.tasks.update_backlogs(&self.parts, member)?;
        self.tasks.advance_quiet_tasks(&self.parts, member)?;
        if self.tasks.process(&self.parts, &mut self.pacer)? {
            self.publish_status();
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), BrokerError> {
        let member = self.group.joined()?.member.as_mut();
        self.tasks.pause_and_resume(member)?;
        self.tasks.send(member, &mut self.pacer)?;
        // Only in a transaction: otherwise the outputs would have to be written first, each time.
        if self.parts.membership.guarantee == ProcessingGuarantee::ExactlyOnce {
            let changes_min = self.parts.settings.changes_pending_max;
            self.tasks.flush_changelogs(&self.parts, member, changes_min)?;
        }
        Ok(())
    }

    /// Whether a store needs a checkpoint, and it is time for one.
    fn checkpoint_is_due(&self, now: Duration) -> bool {
        self.checkpointer.is_due(now)
            && self.parts.stores.is_lasting()
            && self.tasks.stores_behind().next().is_some()
    }

    /// The ends of the changelogs of `tasks`, before they are closed: their next owner in this process then has nothing to
    /// restore.
    fn ends_of(&self, tasks: &[Partition]) -> Ends {
        if !self.parts.stores.is_lasting() {
            return Ends::new();
        }
        let behind = self.tasks.stores_behind().filter(|((task, _), _)| tasks.contains(task));
        checkpointer::read_ends(self.parts.broker.as_ref(), behind)
    }

    fn close(mut self, commit: bool) -> Result<(), WorkerError> {
        // A member that was fenced has nothing to commit: its tasks are closed.
        if commit
            && self.group.is_joined()
            && let Err(error) = self.commit_all()
        {
            tracing::warn!(?error, "the last commit failed; its records will be processed again");
        }
        self.group.leave().map_err(WorkerError::Broker)
    }

    /// Publishes how far the inputs were read, if that is due.
    fn publish_inputs(&mut self, now: Duration) -> Result<(), BrokerError> {
        if now < self.inputs_published_at + INPUTS_PUBLISHED_EVERY {
            return Ok(());
        }
        self.inputs_published_at = now;
        let inputs = self.tasks.inputs(self.group.joined()?.member.as_ref());
        self.parts.board.publish_inputs(&self.parts.membership.member, inputs);
        Ok(())
    }

    fn publish_status(&self) {
        let name = &self.parts.membership.member;
        self.parts.metrics.restore_remaining(name, self.tasks.restore_remaining());
        let joined = self.group.has_assignment();
        let status = WorkerStatus { joined, tasks: self.tasks.statuses() };
        self.parts.board.publish(name, status);
    }
}
