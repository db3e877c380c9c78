//! Where committed entries live, as the rest of the layer sees it.

use std::{borrow::Cow, ops::Bound, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    record::{Offset, TopicPartition},
    state::{Change, Incarnation, StateError},
    time::{EventTime, WallTime},
};

/// A key and its value.
pub type Entry<'s> = (Cow<'s, [u8]>, Cow<'s, [u8]>);

/// How far into its changelog a store goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Everything committed to the changelog before this is in the store. What comes after may be too: to read
    /// it once more does no harm, for the last value of every key wins.
    pub offset: Offset,
    /// The stream time of the task.
    pub stream_time: EventTime,
    /// When the store was last known to hold everything. A tombstone outlives this by the changelog's
    /// `delete.retention.ms` only: an older store may hold what was deleted.
    pub complete_at: WallTime,
    /// Which log that is an offset of, if it has a mark.
    pub incarnation: Option<Incarnation>,
}

impl Checkpoint {
    /// Of a store that is to be restored from the beginning, as begun `now`.
    #[must_use]
    pub fn start(now: WallTime) -> Self {
        Self { offset: Offset(0), stream_time: EventTime::MIN, complete_at: now, incarnation: None }
    }
}

/// How entries are asked for, for engines that can gain by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// By ranges of keys, as by single ones.
    #[default]
    ByRange,
    /// One key at a time: a range may take as long as there are entries.
    ByKey,
}

/// The committed entries of one store of one task, in order of keys.
pub trait StateStore {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StateError`]
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError>;

    /// The entries whose keys lie between the bounds.
    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's>;

    /// How many entries there are, about: an engine that appends counts old versions in.
    fn len(&self) -> usize;

    /// Whether [`Self::len`] is a count; else it is an estimate.
    fn is_counted(&self) -> bool {
        true
    }

    /// Whether there is none, about.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes all of `changes` and the checkpoint, or none of it.
    ///
    /// # Errors
    /// [`StateError`]
    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError>;

    /// The checkpoint written last; none if the store is new.
    fn checkpoint(&self) -> Option<Checkpoint>;

    /// Removes everything.
    ///
    /// # Errors
    /// [`StateError`]
    fn clear(&mut self) -> Result<(), StateError>;

    /// Whether nobody has taken it over.
    fn is_held(&self) -> bool {
        true
    }
}

/// Opens the stores of a process' tasks.
pub trait StoreSupplier: Send + Sync {
    /// The store that `changelog` backs, as it was left, or empty. Whoever had it open before can write to it no
    /// more: that is a task which this process has lost and does not know it yet.
    ///
    /// # Errors
    /// [`StateError::Disk`]
    fn open(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Box<dyn StateStore>, StateError>;

    /// The same for a warm copy, which yields: none if a task has the store open, and a task that opens it later
    /// takes it over.
    ///
    /// # Errors
    /// [`StateError::Disk`]
    fn open_standby(
        &self,
        changelog: &TopicPartition,
    ) -> Result<Option<Box<dyn StateStore>>, StateError>;

    /// Removes stores that nobody has had open for long; to be called now and then. `now` is the clock's
    /// [`elapsed`](crate::time::Clock::elapsed).
    ///
    /// # Errors
    /// [`StateError::Disk`]
    fn clean(&self, now: Duration) -> Result<(), StateError>;

    /// Whether stores outlive their task, so that checkpoints are worth their cost.
    fn is_lasting(&self) -> bool;
}
