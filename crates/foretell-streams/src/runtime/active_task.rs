//! A task in the hands of a worker: where it is in its life, which of its inputs flow, and which of them it must
//! wait for.
//!
//! ```text
//!   Restoring ──every changelog read──▶ Running ◀──it works again── Blocked
//!                                          └──a record must wait──────▶┘
//! ```

use std::time::Duration;

use crate::{
    metrics::{BlockedFor, StreamsMetrics},
    record::{InputRecord, Offset, TopicPartition},
    runtime::{
        backlog::{Backlog, Behind},
        broker::Broker,
        quiet::Quiet,
        restore::Restore,
        status::{TaskState, TaskStatus},
        worker::TurnError,
    },
    state::StateError,
    task::{Progress, Task},
    time::{Clock, EventTime, WallTime},
};

/// See the module.
pub(super) struct ActiveTask {
    pub(super) task: Task,
    phase: Phase,
    /// By the place of the input.
    is_flowing: Vec<bool>,
    /// Which inputs have more than has come.
    backlog: Backlog,
    quiet: Quiet,
    restored: usize,
    /// Why it waits, as it was published last.
    published: Option<String>,
    blocked: Option<Blocked>,
}

/// Since when it waits, by both clocks, and where that is told.
struct Blocked {
    elapsed: Duration,
    since: WallTime,
    told: BlockedFor,
}

enum Phase {
    Restoring(Restore),
    Running,
    Blocked { until: Duration, reason: String },
}

/// What is to be done with the inputs of a task.
#[derive(Default)]
pub(super) struct Flow {
    pub(super) pause: Vec<TopicPartition>,
    pub(super) resume: Vec<TopicPartition>,
}

/// A blocked record is tried again so often.
const BLOCKED_WAIT: Duration = Duration::from_millis(200);

impl ActiveTask {
    /// A new task, about to be restored. Its inputs must be paused.
    pub(super) fn open(task: Task, clock: &dyn Clock) -> Self {
        let phase = Phase::Restoring(Restore::of(&task));
        let is_flowing = vec![false; task.inputs().len()];
        let (backlog, quiet) = (Backlog::Unknown, Quiet::since(clock.elapsed()));
        Self {
            task,
            phase,
            is_flowing,
            backlog,
            quiet,
            restored: 0,
            published: None,
            blocked: None,
        }
    }

    /// Queues a record of one of its inputs.
    pub(super) fn add(&mut self, record: InputRecord) {
        self.backlog.came(&record);
        self.task.add(record);
    }

    /// What was processed since the last commit never was: its records come again.
    pub(super) fn discarded(&mut self, clock: &dyn Clock) {
        self.task.roll_back();
        self.backlog = Backlog::Unknown;
        self.quiet.end(clock.elapsed());
    }

    /// Whether a turn would find something to do without waiting.
    pub(super) fn has_work(&self) -> bool {
        match self.phase {
            Phase::Restoring(_) => true,
            Phase::Running => self.task.buffered() > 0 && self.lacking().is_none(),
            Phase::Blocked { .. } => false,
        }
    }

    /// Whether it is still to be found out which inputs are behind.
    pub(super) fn wants_ends(&self) -> bool {
        self.is_restored() && self.backlog.is_unknown()
    }

    /// These inputs are behind.
    pub(super) fn wait_for(&mut self, inputs: Vec<Behind>, asked_at: Duration) {
        self.backlog = match inputs.is_empty() {
            true => Backlog::Over,
            false => Backlog::Behind { inputs, asked_at },
        };
    }

    /// Sees how far its inputs have been read.
    pub(super) fn look(&mut self, now: Duration, position: impl Fn(&TopicPartition) -> Offset) {
        self.backlog.look(now, position);
    }

    fn must_wait(&mut self, clock: &dyn Clock, idle_max: Duration) -> bool {
        let Self { task, backlog, .. } = self;
        // Before each record: without a look at the clock, where nothing is waited for.
        if !backlog.is_behind() {
            return false;
        }
        let buffered = |input: &TopicPartition| task.buffered_of(input);
        backlog.must_wait(clock.elapsed(), idle_max, buffered)
    }

    /// The input that it has to wait for.
    fn lacking(&self) -> Option<&Behind> {
        self.backlog.lacking(|input| self.task.buffered_of(input))
    }

    /// Whether the broker is to be asked if all its inputs are at their ends, since it has had nothing to do for `after`.
    pub(super) fn may_be_quiet(&self, now: Duration, after: Duration, every: Duration) -> bool {
        matches!(self.phase, Phase::Running)
            && self.task.buffered() == 0
            && self.lacking().is_none()
            && self.task.follows_stream_time()
            && self.quiet.is_due(now, after, every)
    }

    /// The answer, none if there was none: stream time may go on without records.
    pub(super) fn answered(
        &mut self,
        is_at_end: Option<bool>,
        every: Duration,
        clock: &dyn Clock,
    ) -> Result<(), StateError> {
        let span = self.quiet.answered(clock.elapsed(), is_at_end, every);
        if span.is_zero() { Ok(()) } else { self.task.advance_stream_time(span, clock.now()) }
    }

    /// Whether its stores are up to date.
    pub(super) fn is_restored(&self) -> bool {
        !matches!(self.phase, Phase::Restoring(_))
    }

    /// Changelog records still to be read, at most.
    pub(super) fn restore_remaining(&self) -> u64 {
        match &self.phase {
            Phase::Restoring(restore) => restore.remaining(),
            Phase::Running | Phase::Blocked { .. } => 0,
        }
    }

    /// Restores on; true if that was the end of it.
    pub(super) fn restore(
        &mut self,
        broker: &dyn Broker,
        clock: &dyn Clock,
        metrics: &StreamsMetrics,
    ) -> Result<bool, TurnError> {
        let Phase::Restoring(restore) = &mut self.phase else { return Ok(false) };
        let is_done = restore.turn(broker, clock, &mut self.task)?;
        let before = std::mem::replace(&mut self.restored, restore.restored());
        metrics.restored(self.restored.saturating_sub(before));
        if is_done {
            tracing::info!(task = %self.task.partition(), records = self.restored, "restored");
            self.task.start(clock.now());
            self.phase = Phase::Running;
        }
        Ok(is_done)
    }

    /// Restores from the beginning of all changelogs. The records that have come meanwhile wait on: they would not come again.
    pub(super) fn restart_restore(&mut self) -> Result<(), StateError> {
        let stores: Vec<_> = self.task.changelogs().map(|(store, _)| store).collect();
        stores.into_iter().try_for_each(|store| self.task.clear(store))?;
        self.phase = Phase::Restoring(Restore::of(&self.task));
        self.restored = 0;
        Ok(())
    }

    /// Processes at most `records_max` records, and the punctuations that are due; returns how many
    /// records those were.
    pub(super) fn process(
        &mut self,
        records_max: usize,
        idle_max: Duration,
        clock: &dyn Clock,
    ) -> Result<usize, StateError> {
        let waited_for = match &self.phase {
            Phase::Restoring(_) => return Ok(0),
            Phase::Blocked { until, .. } if clock.elapsed() < *until => return Ok(0),
            Phase::Blocked { reason, .. } => Some(reason.clone()),
            Phase::Running => None,
        };
        self.phase = Phase::Running;
        let mut processed = 0;
        while processed < records_max && !self.must_wait(clock, idle_max) {
            match self.task.process_next(clock.now())? {
                Progress::Processed => processed += 1,
                Progress::Idle => break,
                Progress::Blocked(reason) => {
                    // Told once, however often it is tried again.
                    if processed > 0 || waited_for.as_ref() != Some(&reason) {
                        tracing::warn!(task = %self.task.partition(), reason, "a record has to wait");
                    }
                    let until = clock.elapsed() + BLOCKED_WAIT;
                    self.phase = Phase::Blocked { until, reason };
                    break;
                }
            }
        }
        self.task.punctuate_wall_clock(clock.now())?;
        if processed > 0 || matches!(self.phase, Phase::Blocked { .. }) {
            self.quiet.end(clock.elapsed());
        }
        Ok(processed)
    }

    /// What to do with the inputs, if anything: they rest while the task restores, and one that has more
    /// than `buffered_max` records waiting rests by itself.
    pub(super) fn flow(&self, buffered_max: usize) -> Flow {
        let mut flow = Flow::default();
        for (input, is_flowing) in self.task.inputs().iter().zip(&self.is_flowing) {
            let buffered = self.task.buffered_of(input);
            if *is_flowing && buffered > buffered_max {
                flow.pause.push(input.clone());
            } else if !is_flowing && self.is_restored() && buffered < buffered_max / 2 {
                flow.resume.push(input.clone());
            }
        }
        flow
    }

    /// That was done.
    pub(super) fn flows(&mut self, inputs: &[TopicPartition], is_flowing: bool) {
        for (input, flows) in self.task.inputs().iter().zip(&mut self.is_flowing) {
            if inputs.contains(input) {
                *flows = is_flowing;
            }
        }
    }

    /// Why its next record waits, if it does.
    fn blocked_by(&self) -> Option<String> {
        match &self.phase {
            Phase::Restoring(_) => None,
            Phase::Running => {
                let one = self.lacking().filter(|_| self.task.buffered() > 0)?;
                let Behind { input, end, .. } = one;
                Some(format!("records of {input} before offset {end} have still to come"))
            }
            Phase::Blocked { reason, .. } => Some(reason.clone()),
        }
    }

    /// Takes note of whether it waits, after it was to process; `records` is how many it has.
    pub(super) fn note_wait(
        &mut self,
        records: usize,
        worker: &str,
        metrics: &StreamsMetrics,
        clock: &dyn Clock,
    ) {
        if records > 0 || self.blocked_by().is_none() {
            self.blocked = None;
            return;
        }
        let now = clock.elapsed();
        let task = self.task.partition();
        let blocked = self.blocked.get_or_insert_with(|| Blocked {
            elapsed: now,
            since: clock.now(),
            told: metrics.blocked(worker, &task.to_string()),
        });
        blocked.told.tell(now.saturating_sub(blocked.elapsed));
    }

    /// Whether it waits for something else than it did when this was asked last.
    pub(super) fn wait_has_changed(&mut self) -> bool {
        let waits = self.blocked_by();
        let has_changed = self.published != waits;
        self.published = waits;
        has_changed
    }

    pub(super) fn status(&self) -> TaskStatus {
        let state = match &self.phase {
            Phase::Restoring(_) => TaskState::Restoring,
            Phase::Running => TaskState::Running,
            Phase::Blocked { .. } => TaskState::Blocked,
        };
        TaskStatus {
            partition: self.task.partition().0,
            state,
            blocked_by: self.blocked_by(),
            blocked_since: self.blocked.as_ref().map(|blocked| blocked.since),
            stream_time: Some(self.task.stream_time()).filter(|time| *time > EventTime::MIN),
            buffered: self.task.buffered(),
            restored: self.restored,
            restore_remaining: self.restore_remaining(),
            store_entries: self.task.store_entries(),
            store_entries_estimated: !self.task.entries_are_counted(),
        }
    }
}
