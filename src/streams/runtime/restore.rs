//! Bringing a new task's stores up to date from their changelogs, a little at a time, while the worker
//! goes on polling.

use std::time::Duration;

use crate::streams::{
    record::{InputRecord, TopicPartition},
    runtime::broker::{Broker, BrokerError, From, ReadTo, Reader},
    state::StoreId,
    task::Task,
};

/// The changelogs that a task has still to read, the present one last.
pub(super) struct Restore {
    changelogs: Vec<(StoreId, TopicPartition)>,
    reader: Option<Box<dyn Reader>>,
    records: Vec<InputRecord>,
    restored: usize,
}

/// How long one turn may wait for a changelog: the worker polls its group in between.
const WAIT_A_TURN: Duration = Duration::from_millis(10);

impl Restore {
    /// Everything that `task` remembers is to be read.
    pub(super) fn of(task: &Task) -> Self {
        let changelogs = task.changelogs().collect();
        Self { changelogs, reader: None, records: Vec::new(), restored: 0 }
    }

    /// Reads on; true when every changelog has been read to its end. An error leaves off where it
    /// was: the next turn goes on.
    pub(super) fn turn(
        &mut self,
        broker: &dyn Broker,
        task: &mut Task,
    ) -> Result<bool, BrokerError> {
        let Some((store, changelog)) = self.changelogs.last() else { return Ok(true) };
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(broker.read(changelog, From::Beginning)?),
        };
        self.records.clear();
        let read_to = reader.read(WAIT_A_TURN, &mut self.records)?;
        task.restore(*store, &self.records);
        self.restored += self.records.len();
        if read_to == ReadTo::End {
            self.reader = None;
            self.changelogs.pop();
        }
        Ok(self.changelogs.is_empty())
    }

    pub(super) fn restored(&self) -> usize {
        self.restored
    }
}
