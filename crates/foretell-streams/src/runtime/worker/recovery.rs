//! Recovery from a turn that failed, by the name of its error.

use crate::{
    record::Partition,
    runtime::{
        broker::BrokerError,
        error::{TurnError, WorkerError},
        worker::Worker,
    },
    state::StateError,
};

impl Worker {
    pub(super) fn recover(&mut self, error: TurnError) -> Result<(), WorkerError> {
        match error {
            TurnError::Broker(error) => self.recover_from_broker(error),
            TurnError::Store(task, error) => self.recover_from_store(task, &error),
        }
    }

    fn recover_from_store(
        &mut self,
        task: Partition,
        error: &StateError,
    ) -> Result<(), WorkerError> {
        match error {
            StateError::Corrupted(_) | StateError::DiskCorrupted(_) | StateError::Unstorable(_) => {
                if !self.tasks.mark_corrupted(task) {
                    return Err(WorkerError::State(format!(
                        "task {task} cannot read its stores, though they were rebuilt from their changelogs: {error}. \
                         Was something else written there?"
                    )));
                }
                tracing::error!(%task, %error, "rebuilding the stores from their changelogs");
                self.rebuild_corrupted().or_else(|error| self.recover(error))
            }
            StateError::TakenOver(_) => self.fence(&error.to_string()),
            // A rebuild would bring the same values from the changelog.
            StateError::OtherFormat { .. } => Err(WorkerError::State(error.to_string())),
            StateError::Disk(reason) => Err(WorkerError::State(reason.clone())),
        }
    }

    fn recover_from_broker(&mut self, error: BrokerError) -> Result<(), WorkerError> {
        let member = self.parts.membership.member.as_str();
        match error {
            BrokerError::Retry(reason) => {
                tracing::warn!(member, reason, "trying again");
                Ok(())
            }
            BrokerError::Abort(reason) => match self.abort(&reason) {
                Ok(()) => Ok(()),
                // The abort failed: continue with a new member.
                Err(BrokerError::Abort(reason) | BrokerError::Retry(reason)) => self.fence(&reason),
                Err(other) => self.recover_from_broker(other),
            },
            BrokerError::Fenced(reason) => self.fence(&reason),
            BrokerError::OutOfRange(input) => {
                // Retention removed records that were not read. They are lost, and the member continues with the oldest
                // record.
                tracing::error!(member, %input, "records were deleted before they were processed");
                Ok(())
            }
            BrokerError::Unsendable { .. } | BrokerError::Gone(_) | BrokerError::Fatal(_) => {
                Err(WorkerError::Broker(error))
            }
        }
    }

    /// Drops the member and all tasks, and joins again.
    fn fence(&mut self, reason: &str) -> Result<(), WorkerError> {
        let membership = &self.parts.membership;
        tracing::warn!(
            member = membership.member,
            reason,
            "fenced: joining again with fresh tasks"
        );
        self.group.fence(membership)?;
        self.tasks.close_all();
        self.pacer.aborted();
        self.parts.metrics.aborted();
        self.rejoin()
    }

    /// Joins again, or leaves it to the next turn if no broker answers.
    pub(super) fn rejoin(&mut self) -> Result<(), WorkerError> {
        if self.group.rejoin(self.parts.broker.as_ref(), &self.parts.membership)? {
            self.publish_status();
        }
        Ok(())
    }

    /// Aborts the transaction and discards everything since the last commit.
    pub(super) fn abort(&mut self, reason: &str) -> Result<(), BrokerError> {
        let joined = self.group.joined()?;
        tracing::warn!(member = self.parts.membership.member, reason, "aborting the transaction");
        self.tasks.discard(self.parts.clock.as_ref());
        // Records of a poll that failed are delivered again.
        joined.polled.clear();
        self.pacer.aborted();
        self.parts.metrics.aborted();
        match joined.member.abort() {
            // The positions of the inputs were not reset, so processing must not continue.
            Err(BrokerError::Retry(reason)) => Err(BrokerError::Abort(reason)),
            result => result,
        }
    }

    /// Rebuilds the stores of corrupted tasks from their changelogs. Until that has succeeded nothing is processed, so
    /// each turn begins with it.
    pub(super) fn rebuild_corrupted(&mut self) -> Result<(), TurnError> {
        if self.tasks.first_corrupted().is_none() {
            return Ok(());
        }
        self.abort("a store cannot be used")?;
        while let Some(task) = self.tasks.first_corrupted() {
            self.tasks.note_rebuild(task);
            let inputs: Vec<_> = self.parts.membership.inputs_of(task).collect();
            self.group.joined()?.member.pause(&inputs)?;
            self.tasks.rebuild(&self.parts, task)?;
        }
        Ok(())
    }
}
