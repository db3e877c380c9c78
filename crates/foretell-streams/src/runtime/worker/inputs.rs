//! Inputs of active tasks: which are paused, which are behind, and whether all inputs of a task are quiet.

use crate::runtime::{
    active_task::InputChanges,
    backlog::BehindInput,
    broker::{BrokerError, Isolation, Member},
    error::TurnError,
    quiet,
    status::InputStatus,
    worker::{WorkerParts, active_tasks::ActiveTasks},
};

/// The number of buffered records above which an input is paused: about 10 MB at 1 kB per record.
pub(super) const BUFFERED_MAX: usize = 10_000;

impl ActiveTasks {
    /// Pauses inputs with too many buffered records, and resumes those with room.
    pub(super) fn pause_and_resume(&mut self, member: &mut dyn Member) -> Result<(), BrokerError> {
        for (_, active) in self.iter_mut() {
            let InputChanges { pause, resume } = active.input_changes(BUFFERED_MAX);
            if !pause.is_empty() {
                member.pause(&pause)?;
                active.set_resumed(&pause, false);
            }
            if !resume.is_empty() {
                member.resume(&resume)?;
                active.set_resumed(&resume, true);
            }
        }
        Ok(())
    }

    /// Updates which inputs are behind, and asks for the ends of the inputs of tasks that start, or start again after an
    /// abort.
    pub(super) fn update_backlogs(
        &mut self,
        parts: &WorkerParts,
        member: &dyn Member,
    ) -> Result<(), BrokerError> {
        let now = parts.clock.elapsed();
        for (_, active) in self.iter_mut() {
            active.update_backlog(now, |input| member.position(input));
            if !active.needs_ends() {
                continue;
            }
            let mut behind = Vec::new();
            // A single input has no other to wait for.
            for input in active.task.inputs().iter().filter(|_| active.task.inputs().len() > 1) {
                let end = parts.broker.end(input, Isolation::ReadCommitted)?;
                if member.position(input) < end {
                    behind.push(BehindInput { input: input.clone(), end, empty_since: None });
                }
            }
            active.wait_for(behind, now);
        }
        Ok(())
    }

    /// How far the inputs of all tasks were read.
    pub(super) fn inputs(&self, member: &dyn Member) -> Vec<InputStatus> {
        let inputs = self.iter().flat_map(|(_, active)| {
            active.task.inputs().iter().map(|input| InputStatus {
                source: input.clone(),
                position: member.position(input),
                buffered: active.task.buffered_of(input),
            })
        });
        inputs.collect()
    }

    /// Advances the stream time of quiet tasks with the clock.
    pub(super) fn advance_quiet_tasks(
        &mut self,
        parts: &WorkerParts,
        member: &dyn Member,
    ) -> Result<(), TurnError> {
        let clock = parts.clock.as_ref();
        let (now, every) = (clock.elapsed(), quiet::check_interval(self.len()));
        let after = parts.settings.quiet_after;
        for (number, active) in self.iter_mut() {
            if !active.is_quiet_check_due(now, after, every) {
                active.follow_clock(now, after, clock).map_err(TurnError::in_task(*number))?;
                continue;
            }
            let is_at_end = active.task.inputs().iter().try_fold(true, |all, input| {
                let end = parts.broker.end(input, Isolation::ReadCommitted)?;
                Ok::<_, BrokerError>(all && member.position(input) >= end)
            });
            let is_answered = is_at_end.is_ok();
            if let Err(error) = &is_at_end {
                tracing::debug!(task = %number, %error, "stream time does not advance");
            }
            let advanced = active.finish_quiet_check(is_at_end.ok(), after, every, clock);
            advanced.map_err(TurnError::in_task(*number))?;
            if !is_answered {
                break; // The next task would have to wait as long.
            }
        }
        Ok(())
    }
}
