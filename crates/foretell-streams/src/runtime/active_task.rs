//! An active task of a worker: its state, which of its inputs are fetched, and which it must wait for.
//!
//! ```text
//!   Restoring ──every changelog read──▶ Running ◀──processed on a retry─── Blocked
//!                                          └──the next record has to wait────▶┘
//! ```

use std::time::Duration;

use crate::{
    metrics::{BlockedSeconds, StreamsMetrics},
    record::{InputRecord, Offset, TopicPartition},
    runtime::{
        backlog::{Backlog, BehindInput},
        broker::Broker,
        error::TurnError,
        quiet::QuietPeriod,
        restore::Restore,
        status::{TaskState, TaskStatus},
    },
    state::StateError,
    task::{Progress, Task},
    time::{Clock, EventTime, WallTime},
};

/// A task, the state of its inputs, and the reasons for which it waits.
pub(super) struct ActiveTask {
    pub(super) task: Task,
    phase: Phase,
    /// Whether each input, by its index in the topology, is fetched rather than paused.
    is_resumed: Vec<bool>,
    backlog: Backlog,
    quiet: QuietPeriod,
    /// Changelog records read by the present or last restore.
    restored: usize,
    /// The reason for waiting in the last published status.
    published_reason: Option<String>,
    blocked: Option<Blocked>,
}

/// The start of a wait, by both clocks, and the metric that shows it.
struct Blocked {
    elapsed: Duration,
    since: WallTime,
    seconds: BlockedSeconds,
}

enum Phase {
    Restoring(Restore),
    Running,
    Blocked { until: Duration, reason: String },
}

/// Inputs of a task to be paused and resumed.
#[derive(Default)]
pub(super) struct InputChanges {
    pub(super) pause: Vec<TopicPartition>,
    pub(super) resume: Vec<TopicPartition>,
}

/// The number of records for which the time of day is read once. Reading it for each cost a thirtieth of a pass-through
/// topology's time.
const RECORDS_PER_CLOCK_READ: usize = 8;
/// The interval of retries of a blocked record.
const BLOCKED_WAIT: Duration = Duration::from_millis(200);

impl ActiveTask {
    /// A new task, to be restored. Its inputs must be paused.
    pub(super) fn open(task: Task, clock: &dyn Clock) -> Self {
        let phase = Phase::Restoring(Restore::of(&task));
        let is_resumed = vec![false; task.inputs().len()];
        Self {
            task,
            phase,
            is_resumed,
            backlog: Backlog::Unknown,
            quiet: QuietPeriod::starting_at(clock.elapsed()),
            restored: 0,
            published_reason: None,
            blocked: None,
        }
    }

    /// Queues a record of one of its inputs.
    pub(super) fn add(&mut self, record: InputRecord) {
        self.backlog.fetched(&record);
        self.task.add(record);
    }

    /// Discards everything since the last commit, after an abort. Its records are delivered again.
    pub(super) fn discard(&mut self, clock: &dyn Clock) {
        self.task.roll_back();
        self.backlog = Backlog::Unknown;
        self.quiet.restart(clock.elapsed());
    }

    /// Whether a turn would find something to do without waiting.
    pub(super) fn has_work(&self) -> bool {
        match self.phase {
            Phase::Restoring(_) => true,
            Phase::Running => self.task.buffered() > 0 && self.awaited_input().is_none(),
            Phase::Blocked { .. } => false,
        }
    }

    /// Whether the broker has to be asked for the ends of its inputs.
    pub(super) fn needs_ends(&self) -> bool {
        self.is_restored() && self.backlog.is_unknown()
    }

    /// Sets the inputs that are behind, by ends that were read at `asked_at`.
    pub(super) fn wait_for(&mut self, inputs: Vec<BehindInput>, asked_at: Duration) {
        self.backlog = match inputs.is_empty() {
            true => Backlog::Done,
            false => Backlog::Behind { inputs, asked_at },
        };
    }

    /// Updates its backlog by the positions of the member.
    pub(super) fn update_backlog(
        &mut self,
        now: Duration,
        position: impl Fn(&TopicPartition) -> Offset,
    ) {
        self.backlog.update(now, position);
    }

    fn must_wait(&mut self, clock: &dyn Clock, idle_max: Duration) -> bool {
        let Self { task, backlog, .. } = self;
        // This runs before each record, so it reads the clock only if the task waits for an input.
        if !backlog.is_behind() {
            return false;
        }
        let buffered = |input: &TopicPartition| task.buffered_of(input);
        backlog.must_wait(clock.elapsed(), idle_max, buffered)
    }

    /// The input that it has to wait for.
    fn awaited_input(&self) -> Option<&BehindInput> {
        self.backlog.awaited(|input| self.task.buffered_of(input))
    }

    /// Whether it has nothing to do, and its stream time matters.
    fn is_quiet(&self) -> bool {
        matches!(self.phase, Phase::Running)
            && self.task.buffered() == 0
            && self.awaited_input().is_none()
            && self.task.follows_stream_time()
    }

    /// Whether to ask the broker if all inputs are at their ends, because it has nothing to do.
    pub(super) fn is_quiet_check_due(
        &self,
        now: Duration,
        after: Duration,
        every: Duration,
    ) -> bool {
        self.is_quiet() && self.quiet.is_check_due(now, after, every)
    }

    /// Advances stream time by the result of a check, which is `None` if the broker did not answer.
    pub(super) fn finish_quiet_check(
        &mut self,
        is_at_end: Option<bool>,
        after: Duration,
        every: Duration,
        clock: &dyn Clock,
    ) -> Result<(), StateError> {
        let span = self.quiet.checked(clock.elapsed(), is_at_end, after, every);
        self.advance_stream_time(span, clock)
    }

    /// Advances stream time up to `now`, at which no check is due, if it follows the clock.
    pub(super) fn follow_clock(
        &mut self,
        now: Duration,
        after: Duration,
        clock: &dyn Clock,
    ) -> Result<(), StateError> {
        if !self.is_quiet() {
            return Ok(());
        }
        let span = self.quiet.passed(now, after);
        self.advance_stream_time(span, clock)
    }

    fn advance_stream_time(&mut self, span: Duration, clock: &dyn Clock) -> Result<(), StateError> {
        if span.is_zero() { Ok(()) } else { self.task.advance_stream_time(span, clock.now()) }
    }

    /// Whether its stores are up to date.
    pub(super) fn is_restored(&self) -> bool {
        !matches!(self.phase, Phase::Restoring(_))
    }

    /// The number of changelog records still to be read, at most.
    pub(super) fn restore_remaining(&self) -> u64 {
        match &self.phase {
            Phase::Restoring(restore) => restore.remaining(),
            Phase::Running | Phase::Blocked { .. } => 0,
        }
    }

    /// Continues the restore; returns whether this ended it.
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

    /// Restores all stores from the beginning of their changelogs. Records that were fetched meanwhile stay queued: they
    /// are not delivered again.
    pub(super) fn restart_restore(&mut self) -> Result<(), StateError> {
        let stores: Vec<_> = self.task.changelogs().map(|(store, _)| store).collect();
        stores.into_iter().try_for_each(|store| self.task.clear(store))?;
        self.phase = Phase::Restoring(Restore::of(&self.task));
        self.restored = 0;
        Ok(())
    }

    /// Processes at most `records_max` records, and the punctuations that are due. Returns the number of records.
    pub(super) fn process(
        &mut self,
        records_max: usize,
        idle_max: Duration,
        clock: &dyn Clock,
    ) -> Result<usize, StateError> {
        let last_reason = match &self.phase {
            Phase::Restoring(_) => return Ok(0),
            Phase::Blocked { until, .. } if clock.elapsed() < *until => return Ok(0),
            Phase::Blocked { reason, .. } => Some(reason.clone()),
            Phase::Running => None,
        };
        self.phase = Phase::Running;
        let (mut processed, mut now) = (0, clock.now());
        let stream_time = self.task.stream_time();
        while processed < records_max && !self.must_wait(clock, idle_max) {
            if processed > 0 && processed.is_multiple_of(RECORDS_PER_CLOCK_READ) {
                now = clock.now();
            }
            match self.task.process_next(now)? {
                Progress::Processed => processed += 1,
                Progress::Idle => break,
                Progress::Blocked(reason) => {
                    // Logged once, however often the record is retried.
                    if processed > 0 || last_reason.as_ref() != Some(&reason) {
                        tracing::warn!(task = %self.task.partition(), reason, "a record has to wait");
                    }
                    let until = clock.elapsed() + BLOCKED_WAIT;
                    self.phase = Phase::Blocked { until, reason };
                    break;
                }
            }
        }
        self.task.punctuate_wall_clock(clock.now())?;
        // Records that do not advance stream time, such as late ones, do not keep the clock from doing so.
        if matches!(self.phase, Phase::Blocked { .. }) {
            self.quiet.restart(clock.elapsed());
        } else if self.task.stream_time() > stream_time {
            self.quiet.advanced(clock.elapsed());
        }
        Ok(processed)
    }

    /// The inputs to pause and resume. While the task restores, all are paused; later, an input with more than
    /// `buffered_max` buffered records, until it has fewer than half as many.
    pub(super) fn input_changes(&self, buffered_max: usize) -> InputChanges {
        let mut changes = InputChanges::default();
        for (input, is_resumed) in self.task.inputs().iter().zip(&self.is_resumed) {
            let buffered = self.task.buffered_of(input);
            if *is_resumed && buffered > buffered_max {
                changes.pause.push(input.clone());
            } else if !is_resumed && self.is_restored() && buffered < buffered_max / 2 {
                changes.resume.push(input.clone());
            }
        }
        changes
    }

    /// Notes that `inputs` were resumed or paused.
    pub(super) fn set_resumed(&mut self, inputs: &[TopicPartition], is_resumed: bool) {
        for (input, state) in self.task.inputs().iter().zip(&mut self.is_resumed) {
            if inputs.contains(input) {
                *state = is_resumed;
            }
        }
    }

    /// The reason why its next record waits, if it does.
    fn blocked_by(&self) -> Option<String> {
        match &self.phase {
            Phase::Restoring(_) => None,
            Phase::Running => {
                let awaited = self.awaited_input().filter(|_| self.task.buffered() > 0)?;
                let BehindInput { input, end, .. } = awaited;
                Some(format!("waiting for records of {input} before offset {end}"))
            }
            Phase::Blocked { reason, .. } => Some(reason.clone()),
        }
    }

    /// Updates the time for which it has been blocked, after it has processed `records` records in this turn.
    pub(super) fn update_blocked(
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
            seconds: metrics.blocked(worker, &task.to_string()),
        });
        blocked.seconds.set(now.saturating_sub(blocked.elapsed));
    }

    /// Whether the reason why it waits is another than at the last call.
    pub(super) fn blocked_reason_has_changed(&mut self) -> bool {
        let reason = self.blocked_by();
        let has_changed = self.published_reason != reason;
        self.published_reason = reason;
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
