//! A task in the hands of a worker: where it is in its life, which of its inputs flow, and which of them it must
//! wait for.
//!
//! ```text
//!   Restoring ──every changelog read──▶ Running ◀──it works again── Blocked
//!                                          └──a record must wait──────▶┘
//! ```

use std::time::Duration;

use crate::streams::{
    metrics::StreamsMetrics,
    record::{InputRecord, Offset, TopicPartition},
    runtime::{
        broker::Broker,
        restore::Restore,
        status::{TaskState, TaskStatus},
        worker::TurnError,
    },
    state::StateError,
    task::{Step, Task},
    time::{Clock, EventTime},
};

/// See the module.
pub(super) struct Slot {
    pub(super) task: Task,
    phase: Phase,
    /// By the place of the input.
    is_flowing: Vec<bool>,
    /// Inputs that are known to have more than has come; none if that is still to be found out.
    behind: Option<Vec<Behind>>,
    restored: usize,
}

/// An input with records before `end` that have not come yet. What other inputs have may be later than those, and has
/// to wait, or stream time would pass them by.
pub(super) struct Behind {
    pub(super) input: TopicPartition,
    pub(super) end: Offset,
    pub(super) empty_since: Option<Duration>,
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

impl Slot {
    /// A new task, about to be restored. Its inputs must be paused.
    pub(super) fn open(task: Task) -> Self {
        let phase = Phase::Restoring(Restore::of(&task));
        let is_flowing = vec![false; task.inputs().len()];
        Self { task, phase, is_flowing, behind: None, restored: 0 }
    }

    /// Queues a record of one of its inputs.
    pub(super) fn add(&mut self, record: InputRecord) {
        if let Some(behind) = &mut self.behind {
            behind.retain(|one| one.input != record.source || record.offset.next() < one.end);
        }
        self.task.add(record);
    }

    /// What was processed since the last commit never was: its records come again.
    pub(super) fn discarded(&mut self) {
        self.task.discarded();
        self.behind = None;
    }

    /// Whether a turn would find something to do without waiting.
    pub(super) fn has_work(&self) -> bool {
        match self.phase {
            Phase::Restoring(_) => true,
            Phase::Running => self.task.buffered() > 0 && !self.lacks_input(),
            Phase::Blocked { .. } => false,
        }
    }

    /// Whether it is still to be found out which inputs are behind.
    pub(super) fn wants_ends(&self) -> bool {
        self.is_restored() && self.behind.is_none()
    }

    /// These inputs are behind.
    pub(super) fn wait_for(&mut self, behind: Vec<Behind>) {
        self.behind = Some(behind);
    }

    /// Whether the next record has to wait for an input that has more, and has said nothing for less than
    /// `idle_max`; after that, it goes on without (`max.task.idle.ms`, KIP-353, KIP-695).
    fn must_wait(&mut self, clock: &dyn Clock, idle_max: Duration) -> bool {
        let Self { task, behind, .. } = self;
        let Some(behind) = behind.as_mut().filter(|behind| !behind.is_empty()) else {
            return false;
        };
        let now = clock.elapsed();
        behind.retain_mut(|one| {
            if task.buffered_of(&one.input) > 0 {
                one.empty_since = None;
                return true;
            }
            let waited = now.saturating_sub(*one.empty_since.get_or_insert(now));
            if waited >= idle_max {
                tracing::info!(input = %one.input, ?waited, "nothing came: going on without it");
            }
            waited < idle_max
        });
        self.lacks_input()
    }

    fn lacks_input(&self) -> bool {
        let mut behind = self.behind.iter().flatten();
        behind.any(|one| self.task.buffered_of(&one.input) == 0)
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
                Step::Processed => processed += 1,
                Step::Idle => break,
                Step::Blocked(reason) => {
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

    pub(super) fn status(&self) -> TaskStatus {
        let (state, blocked_by) = match &self.phase {
            Phase::Restoring(_) => (TaskState::Restoring, None),
            Phase::Running => (TaskState::Running, None),
            Phase::Blocked { reason, .. } => (TaskState::Blocked, Some(reason.clone())),
        };
        TaskStatus {
            partition: self.task.partition().0,
            state,
            blocked_by,
            stream_time: Some(self.task.stream_time()).filter(|time| *time > EventTime::MIN),
            buffered: self.task.buffered(),
            restored: self.restored,
            restore_remaining: self.restore_remaining(),
            store_entries: self.task.store_entries(),
        }
    }
}
