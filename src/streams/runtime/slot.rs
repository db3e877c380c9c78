//! A task in the hands of a worker: where it is in its life, and whether its inputs flow.
//!
//! ```text
//!   Restoring ──every changelog read──▶ Running ◀──it works again── Blocked
//!                                          └──a record must wait──────▶┘
//! ```

use std::time::Duration;

use crate::streams::{
    metrics::StreamsMetrics,
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
    paused: bool,
    restored: usize,
}

enum Phase {
    Restoring(Restore),
    Running,
    Blocked { until: Duration, reason: String },
}

/// What is to be done with the inputs of a task.
pub(super) enum Flow {
    Pause,
    Resume,
}

/// A blocked record is tried again so often.
const BLOCKED_WAIT: Duration = Duration::from_millis(200);

impl Slot {
    /// A new task, about to be restored. Its inputs must be paused.
    pub(super) fn open(task: Task) -> Self {
        let phase = Phase::Restoring(Restore::of(&task));
        Self { task, phase, paused: true, restored: 0 }
    }

    /// Whether a turn would find something to do without waiting.
    pub(super) fn has_work(&self) -> bool {
        match self.phase {
            Phase::Restoring(_) => true,
            Phase::Running => self.task.buffered() > 0,
            Phase::Blocked { .. } => false,
        }
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
        clock: &dyn Clock,
    ) -> Result<usize, StateError> {
        match &self.phase {
            Phase::Restoring(_) => return Ok(0),
            Phase::Blocked { until, .. } if clock.elapsed() < *until => return Ok(0),
            Phase::Running | Phase::Blocked { .. } => self.phase = Phase::Running,
        }
        let mut processed = 0;
        while processed < records_max {
            match self.task.process_next(clock.now())? {
                Step::Processed => processed += 1,
                Step::Idle => break,
                Step::Blocked(reason) => {
                    tracing::warn!(task = %self.task.partition(), reason, "a record has to wait");
                    let until = clock.elapsed() + BLOCKED_WAIT;
                    self.phase = Phase::Blocked { until, reason };
                    break;
                }
            }
        }
        self.task.punctuate_wall_clock(clock.now())?;
        Ok(processed)
    }

    /// What to do with the inputs, if anything: they rest while the task restores, or has more than
    /// `buffered_max` records waiting.
    pub(super) fn regulate(&mut self, buffered_max: usize) -> Option<Flow> {
        let is_restoring = !self.is_restored();
        let buffered = self.task.buffered();
        if !self.paused && buffered > buffered_max {
            self.paused = true;
            return Some(Flow::Pause);
        }
        if self.paused && !is_restoring && buffered < buffered_max / 2 {
            self.paused = false;
            return Some(Flow::Resume);
        }
        None
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
