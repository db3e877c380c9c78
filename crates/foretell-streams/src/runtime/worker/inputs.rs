//! What a worker sees to about the inputs of its tasks: which flow, which are behind, and whether all are quiet.

use crate::runtime::{
    active_task::Flow,
    backlog::Behind,
    broker::{BrokerError, Isolation},
    quiet,
    worker::{BUFFERED_MAX, TurnError, Worker},
};

impl Worker {
    /// Pauses what overflows, and resumes what has room.
    pub(super) fn regulate(&mut self) -> Result<(), BrokerError> {
        for active in self.active_tasks.values_mut() {
            let Flow { pause, resume } = active.flow(BUFFERED_MAX);
            if !pause.is_empty() {
                self.member.pause(&pause)?;
                active.flows(&pause, false);
            }
            if !resume.is_empty() {
                self.member.resume(&resume)?;
                active.flows(&resume, true);
            }
        }
        Ok(())
    }

    /// A task that begins, or begins again, waits for those of its inputs that have more.
    pub(super) fn find_ends(&mut self) -> Result<(), BrokerError> {
        let now = self.clock.elapsed();
        for active in self.active_tasks.values_mut() {
            active.look(now, |input| self.member.position(input));
            if !active.wants_ends() {
                continue;
            }
            let mut behind = Vec::new();
            // Alone, an input has nobody to wait for.
            for input in active.task.inputs().iter().filter(|_| active.task.inputs().len() > 1) {
                let end = self.broker.end(input, Isolation::ReadCommitted)?;
                if self.member.position(input) < end {
                    behind.push(Behind { input: input.clone(), end, empty_since: None });
                }
            }
            active.wait_for(behind, now);
        }
        Ok(())
    }

    /// Tasks whose inputs are quiet settle their windows by the clock.
    pub(super) fn follow_the_clock(&mut self) -> Result<(), TurnError> {
        let Self { active_tasks, broker, member, clock, settings, .. } = self;
        let (now, every) = (clock.elapsed(), quiet::asked_every(active_tasks.len()));
        for (partition, active) in active_tasks {
            if !active.may_be_quiet(now, settings.quiet_after, every) {
                continue;
            }
            let is_at_end = active.task.inputs().iter().try_fold(true, |all, input| {
                let end = broker.end(input, Isolation::ReadCommitted)?;
                Ok::<_, BrokerError>(all && member.position(input) >= end)
            });
            let is_answered = is_at_end.is_ok();
            if let Err(error) = &is_at_end {
                tracing::debug!(task = %partition, %error, "its stream time does not advance");
            }
            let gone_on = active.answered(is_at_end.ok(), every, clock.as_ref());
            gone_on.map_err(TurnError::in_task(*partition))?;
            if !is_answered {
                break; // The next one would have to wait as long.
            }
        }
        Ok(())
    }
}
