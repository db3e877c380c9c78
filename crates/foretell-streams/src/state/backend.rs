//! The port to a storage engine: committed entries of stores, in memory, on disk, or in an engine of your own.

use std::{
    borrow::Cow,
    ops::{Bound, ControlFlow, RangeBounds},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    record::{Offset, TopicPartition},
    state::{
        Incarnation, Position, StateError,
        window_key::{BY_TIME_END, BY_TIME_START, WindowKey},
    },
    time::{EventTime, WallTime},
};

/// A key and its new value; `None` deletes the key.
pub type Change<'c> = (&'c [u8], Option<&'c [u8]>);

/// The same change with a shorter lifetime, to chain it to others.
pub(crate) fn shorten<'s, 'c: 's>(change: Change<'c>) -> Change<'s> {
    change
}

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

/// The kind of access to a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// By single keys: key-value stores.
    #[default]
    ByKey,
    /// By key and time: window stores, see [`StateStore::fetch`] and [`StateStore::oldest`].
    Windowed,
}

/// The committed entries of one store of one task.
///
/// The keys of a window store have a layout, which [`Self::fetch`] and [`Self::oldest`] read. An engine in which these are
/// faster than ranges of keys implements them, and then keeps the order of expiry itself.
pub trait StateStore {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StateError`] if the entry cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError>;

    /// The entries whose keys lie between the bounds, in the order of keys. It may visit all entries. An item is a
    /// [`StateError`] if an entry cannot be read.
    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's>;

    /// Passes the entries of `key` in a window store with positions in `from..=to` to `visit`, in order, until it breaks.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read.
    fn fetch(
        &self,
        key: &[u8],
        from: Position,
        to: Position,
        visit: &mut dyn FnMut(Position, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let [from, to] = [from, to].map(|position| WindowKey { name: key, position }.to_bytes());
        if from > to {
            return Ok(());
        }
        for entry in self.range(Bound::Included(&from), Bound::Included(&to)) {
            let (key, value) = entry?;
            let Some(key) = WindowKey::parse(&key) else { continue };
            if visit(key.position, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Passes the keys and positions of the entries of a window store to `visit` until it breaks, in the order of time,
    /// sequence and key, beginning with `from`.
    ///
    /// # Errors
    /// [`StateError`] if an entry cannot be read.
    fn oldest(
        &self,
        from: Option<(&[u8], Position)>,
        visit: &mut dyn FnMut(&[u8], Position) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let mut start = Vec::new();
        match from {
            Some((name, position)) => WindowKey { name, position }.append_by_time_to(&mut start),
            None => start.extend_from_slice(BY_TIME_START),
        }
        for entry in self.range(Bound::Included(&start), Bound::Excluded(BY_TIME_END)) {
            let (key, _) = entry?;
            let Some(key) = WindowKey::parse_by_time(&key) else { continue };
            if visit(key.name, key.position).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Whether [`Self::oldest`] needs no index entries among the changes of [`Self::write`].
    fn has_time_order(&self) -> bool {
        false
    }

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
        changes: &mut dyn Iterator<Item = Change<'_>>,
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

    /// Makes room for about `additional` entries, which a restore is about to write. An engine that needs no room ignores it.
    fn reserve(&mut self, _additional: usize) {}

    /// Releases room that was made in vain, at the end of a restore.
    fn shrink(&mut self) {}

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
        access: Access,
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

pub(super) fn is_within(key: &[u8], from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    RangeBounds::<[u8]>::contains::<[u8]>(&(from, to), key)
}
