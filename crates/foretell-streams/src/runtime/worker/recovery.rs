//! What becomes of a turn that failed, by the name of its error.

use crate::{
    record::Partition,
    runtime::{
        broker::BrokerError,
        worker::{TurnError, Worker, WorkerError},
    },
    state::{StateError, StoreId},
};

/// How often in a row, with no commit in between.
const FENCED_MAX: u32 = 5;

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
                if !self.rebuilt.insert(task) {
                    return Err(WorkerError::State(format!(
                        "task {task} cannot read its stores, though they were rebuilt from their changelogs: {error}. \
                         Was something else written there?"
                    )));
                }
                tracing::error!(%task, %error, "rebuilding the stores from their changelogs");
                self.corrupted.insert(task);
                self.rebuild_corrupted().or_else(|error| self.recover(error))
            }
            StateError::TakenOver(_) => self.rejoin(&error.to_string()),
            // What is on disk comes from the changelog, which has the same.
            StateError::OtherFormat { .. } => Err(WorkerError::State(error.to_string())),
            StateError::Disk(reason) => Err(WorkerError::State(reason.clone())),
        }
    }

    fn recover_from_broker(&mut self, error: BrokerError) -> Result<(), WorkerError> {
        let member = self.membership.member.as_str();
        match error {
            BrokerError::Retry(reason) => {
                tracing::warn!(member, reason, "trying again");
                Ok(())
            }
            BrokerError::Abort(reason) => match self.abort(&reason) {
                Ok(()) => Ok(()),
                // An abort that cannot be aborted: start over with a new member.
                Err(BrokerError::Abort(reason) | BrokerError::Retry(reason)) => {
                    self.rejoin(&reason)
                }
                Err(other) => self.recover_from_broker(other),
            },
            BrokerError::Fenced(reason) => self.rejoin(&reason),
            BrokerError::OutOfRange(input) => {
                // The broker has let records go that we had not read: nothing brings them back, and
                // the member goes on with the oldest there are.
                tracing::error!(member, %input, "records were deleted before they were processed");
                Ok(())
            }
            BrokerError::Unsendable { .. } | BrokerError::Gone(_) | BrokerError::Fatal(_) => {
                Err(WorkerError::Broker(error))
            }
        }
    }

    fn rejoin(&mut self, reason: &str) -> Result<(), WorkerError> {
        let member = self.membership.member.clone();
        tracing::warn!(member, reason, "fenced: joining again with fresh tasks");
        self.fenced += 1;
        if self.fenced > FENCED_MAX {
            return Err(WorkerError::FencedAgain { member, times: self.fenced });
        }
        self.active_tasks.clear();
        self.rebuilt.clear();
        self.corrupted.clear();
        self.polled.clear();
        self.pending = None;
        self.processed = 0;
        self.joined = false;
        self.metrics.aborted();
        self.must_rejoin = true;
        self.come_back()
    }

    /// Joins again. Who has worked before waits for a broker that is away, and tries again at each turn, so that
    /// a stop need not wait.
    pub(super) fn come_back(&mut self) -> Result<(), WorkerError> {
        match self.broker.join(&self.membership) {
            Ok(member) => {
                self.member = member;
                self.must_rejoin = false;
                self.publish_status();
                Ok(())
            }
            Err(BrokerError::Retry(reason)) => {
                tracing::warn!(member = self.membership.member, reason, "joining again");
                Ok(())
            }
            Err(error) => Err(WorkerError::Broker(error)),
        }
    }

    pub(super) fn abort(&mut self, reason: &str) -> Result<(), BrokerError> {
        tracing::warn!(member = self.membership.member, reason, "aborting the transaction");
        for active in self.active_tasks.values_mut() {
            active.discarded(self.clock.as_ref());
        }
        // A poll that failed may have left records here, which come again.
        self.polled.clear();
        self.processed = 0;
        self.metrics.aborted();
        match self.member.abort() {
            // Not rewound yet: nobody may go on from here.
            Err(BrokerError::Retry(reason)) => Err(BrokerError::Abort(reason)),
            result => result,
        }
    }

    /// Tasks whose stores can't be read, or could not be written, start over from their changelogs. Until that has
    /// worked they must process nothing, so it is tried again at each turn.
    pub(super) fn rebuild_corrupted(&mut self) -> Result<(), TurnError> {
        if self.corrupted.is_empty() {
            return Ok(());
        }
        self.abort("a store cannot be used")?;
        while let Some(partition) = self.corrupted.first().copied() {
            self.rebuilt.insert(partition);
            let inputs: Vec<_> = self.membership.inputs_of(partition).collect();
            self.member.pause(&inputs)?;
            self.open_empty(partition)?;
            self.corrupted.remove(&partition);
        }
        Ok(())
    }

    /// A fresh task that remembers nothing but its changelogs.
    pub(super) fn open_empty(&mut self, partition: Partition) -> Result<(), TurnError> {
        self.open(partition)?;
        let Some(active) = self.active_tasks.get_mut(&partition) else { return Ok(()) };
        for index in 0..self.topology.stores.len() {
            let cleared = active.task.clear(StoreId(index));
            cleared.map_err(TurnError::in_task(partition))?;
        }
        Ok(())
    }
}
