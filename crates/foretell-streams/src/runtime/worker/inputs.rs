//! What a worker sees to about the inputs of its tasks: which flow, which are behind, and whether all are quiet.

use crate::runtime::{
    backlog::Behind,
    broker::{BrokerError, Isolation},
    quiet,
    slot::Flow,
    worker::{BUFFERED_MAX, TurnError, Worker},
};

impl Worker {
    /// Pauses what overflows, and resumes what has room.
    pub(super) fn regulate(&mut self) -> Result<(), BrokerError> {
        for slot in self.slots.values_mut() {
            let Flow { pause, resume } = slot.flow(BUFFERED_MAX);
            if !pause.is_empty() {
                self.member.pause(&pause)?;
                slot.flows(&pause, false);
            }
            if !resume.is_empty() {
                self.member.resume(&resume)?;
                slot.flows(&resume, true);
            }
        }
        Ok(())
    }

    /// A task that begins, or begins again, waits for those of its inputs that have more.
    pub(super) fn find_ends(&mut self) -> Result<(), BrokerError> {
        let now = self.clock.elapsed();
        for slot in self.slots.values_mut() {
            slot.look(now, |input| self.member.position(input));
            if !slot.wants_ends() {
                continue;
            }
            let mut behind = Vec::new();
            // Alone, an input has nobody to wait for.
            for input in slot.task.inputs().iter().filter(|_| slot.task.inputs().len() > 1) {
                let end = self.broker.end(input, Isolation::ReadCommitted)?;
                if self.member.position(input) < end {
                    behind.push(Behind { input: input.clone(), end, empty_since: None });
                }
            }
            slot.wait_for(behind, now);
        }
        Ok(())
    }

    /// Tasks whose inputs are quiet settle their windows by the clock.
    pub(super) fn follow_the_clock(&mut self) -> Result<(), TurnError> {
        let Self { slots, broker, member, clock, settings, .. } = self;
        let (now, every) = (clock.elapsed(), quiet::asked_every(slots.len()));
        for (partition, slot) in slots {
            if !slot.may_be_quiet(now, settings.quiet_after, every) {
                continue;
            }
            let is_at_end = slot.task.inputs().iter().try_fold(true, |all, input| {
                let end = broker.end(input, Isolation::ReadCommitted)?;
                Ok::<_, BrokerError>(all && member.position(input) >= end)
            });
            let is_answered = is_at_end.is_ok();
            if let Err(error) = &is_at_end {
                tracing::debug!(task = %partition, %error, "its stream time stands still");
            }
            let gone_on = slot.answered(is_at_end.ok(), every, clock.as_ref());
            gone_on.map_err(TurnError::in_task(*partition))?;
            if !is_answered {
                break; // The next one would have to wait as long.
            }
        }
        Ok(())
    }
}
