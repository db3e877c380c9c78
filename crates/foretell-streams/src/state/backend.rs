//! The port to a storage engine: committed entries of stores, in memory, on disk, or in an engine of your own.

use std::{borrow::Cow, ops::Bound, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    record::{Offset, TopicPartition},
    state::{Incarnation, StateError},
    time::{EventTime, WallTime},
};

/// A key and its new value; `None` deletes the key.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// A key and its value, borrowed where the engine can.
pub type Entry<'s> = (Cow<'s, [u8]>, Cow<'s, [u8]>);

/// The position in the changelog up to which a store is complete. It is written with the changes, in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// A lower bound: the store has everything that was committed to the changelog before it, and perhaps more. Reading
    /// records again does no harm, because the last value of every key wins.
    pub offset: Offset,
    /// The stream time of the task.
    pub stream_time: EventTime,
    /// When the store was last known to be complete. The changelog keeps tombstones for `delete.retention.ms` only, so a
    /// store that is older may hold deleted entries.
    pub complete_at: WallTime,
    /// The incarnation of the changelog that the offset belongs to, if that is known.
    pub incarnation: Option<Incarnation>,
}

impl Checkpoint {
    /// The checkpoint of a restore from the beginning that begins `now`.
    #[must_use]
    pub fn start(now: WallTime) -> Self {
        Self { offset: Offset(0), stream_time: EventTime::MIN, complete_at: now, incarnation: None }
    }
}

/// The kind of access to a store. An engine may be faster without ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// By ranges of keys and by single keys: window stores.
    #[default]
    ByRange,
    /// By single keys: key-value stores. A range may visit all entries.
    ByKey,
}

/// The committed entries of one store of one task, in the order of their keys.
pub trait StateStore {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StateError`] if the entry cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError>;

    /// The entries whose keys lie between the bounds. An item is a [`StateError`] if an entry cannot be read.
    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's>;

    /// The number of entries. It may be an estimate: an engine that appends may include old versions.
    fn len(&self) -> usize;

    /// Whether [`Self::len`] is exact.
    fn is_counted(&self) -> bool {
        true
    }

    /// Whether [`Self::len`] is 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes all of `changes` and the checkpoint, or nothing.
    ///
    /// # Errors
    /// [`StateError::TakenOver`] if another task has opened the store since, or another [`StateError`] if it cannot be
    /// written.
    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError>;

    /// The checkpoint that was written last, or `None` if the store is new.
    fn checkpoint(&self) -> Option<Checkpoint>;

    /// Removes all entries and the checkpoint.
    ///
    /// # Errors
    /// [`StateError::TakenOver`] if another task has opened the store since, or another [`StateError`] if it cannot be
    /// emptied.
    fn clear(&mut self) -> Result<(), StateError>;

    /// Whether no other task of this process has opened the store since.
    fn is_held(&self) -> bool {
        true
    }
}

/// Opens the stores of the tasks of a process: [`MemoryStores`](crate::state::MemoryStores),
/// [`DiskStores`](crate::state::DiskStores), or an engine of your own.
pub trait StoreSupplier: Send + Sync {
    /// Opens the store that `changelog` backs, with its existing contents, or empty. An earlier task that has the store open
    /// can no longer write to it: this process has lost that task, and may not have noticed yet.
    ///
    /// # Errors
    /// [`StateError::Disk`] if the storage cannot be used.
    fn open(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Box<dyn StateStore>, StateError>;

    /// Opens a store for a standby task, or returns `None` if an active task has it open. An active task that opens it later
    /// takes it over.
    ///
    /// # Errors
    /// [`StateError::Disk`] if the storage cannot be used.
    fn open_standby(
        &self,
        changelog: &TopicPartition,
    ) -> Result<Option<Box<dyn StateStore>>, StateError>;

    /// Removes stores that have not been open for a long time. A worker calls it periodically; `now` is the clock's
    /// [`elapsed`](crate::time::Clock::elapsed).
    ///
    /// # Errors
    /// [`StateError::Disk`] if the storage cannot be used.
    fn clean(&self, now: Duration) -> Result<(), StateError>;

    /// Whether stores outlive their tasks. Otherwise a worker does not look up the changelog ends for their checkpoints.
    fn is_lasting(&self) -> bool;
}
