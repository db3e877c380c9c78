//! Stores on disk, in one LSM tree each, all in one database of the process ([fjall](https://docs.rs/fjall)).
//!
//! ```text
//!   folder/                         one process at a time (it is locked)
//!     <changelog>/<partition>       a keyspace a store of a task
//!       0                →  Checkpoint
//!       1 ‖ key          →  value
//! ```
//! The disk is a cache of the changelog. What is written reaches the operating system with each commit, and
//! the disk when that sees fit: after a power cut, a tree is as it was a while ago, its checkpoint with it (or
//! newer than its checkpoint, which does no harm), and the changelog brings it up to date. For the same reason,
//! what is damaged is thrown away. The engine panics at some damage: that is damage as well (`guard.rs`),
//! and where no store of the database can be used any more, there is a new one (`engine.rs`).

mod engine;
mod guard;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    iter,
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fjall::Keyspace;

use crate::{
    codec::{Codec, Stored},
    record::TopicPartition,
    state::{
        Access, Change, Checkpoint, Entry, StateError, StateStore, StoreSupplier,
        disk::{
            engine::{Engine, options},
            guard::Guarded,
        },
    },
};

/// A store that nobody has open any more is removed after this long: its task may come back.
const UNUSED_FOR: Duration = Duration::from_secs(3600);

const CHECKPOINT: &[u8] = &[0];
const ENTRY: u8 = 1;
/// Of the checkpoint, and of what keys and values are made of: a store with another one is rebuilt.
const CHECKPOINT_FORMAT: u8 = 2;

/// Supplies the stores of a process from one folder on disk. A task that starts where it ran before reads only the tail of
/// its changelogs.
///
/// ```
/// # use std::{error::Error, sync::Arc};
/// # use foretell_streams::{codec::Utf8, local::LocalBroker, record::Topic, time::SystemClock, topology::TopologyBuilder};
/// use foretell_streams::{runtime::WorkerParts, state::DiskStores};
///
/// # let mut builder = TopologyBuilder::new("copy", Topic::new("dead-letters"));
/// # builder.source("in", Topic::new("in"), Arc::new(Utf8));
/// # let (topology, broker) = (Arc::new(builder.build()), Arc::new(LocalBroker::new(Arc::new(SystemClock::new()))));
/// # let folder = tempfile::tempdir()?;
/// let parts = WorkerParts {
///     stores: Arc::new(DiskStores::open(folder.path())?),
///     ..WorkerParts::new(broker, &topology, "copy", "worker-1")
/// };
/// # Ok::<(), Box<dyn Error>>(())
/// ```
pub struct DiskStores(Shared);

/// What its stores know of it.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

struct State {
    engine: Engine,
    /// Who has each store open.
    leases: BTreeMap<String, Lease>,
}

#[derive(Clone, Copy, Default)]
struct Lease {
    /// Grows when the holder changes: the holder before must not write any more.
    number: u64,
    holder: Holder,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Holder {
    /// Since that time on the clock, if somebody has looked.
    #[default]
    Nobody,
    NobodySince(Duration),
    Standby,
    Task,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next holder of a store; none if a task has it and the new holder is not one.
    fn lease(&mut self, name: &str, holder: Holder) -> Option<u64> {
        let lease = self.leases.entry(name.to_owned()).or_default();
        if holder != Holder::Task && lease.holder == Holder::Task {
            return None;
        }
        *lease = Lease { number: lease.number + 1, holder };
        Some(lease.number)
    }

    /// The store's tree, and the number of its lease.
    fn open(
        &mut self,
        name: &str,
        holder: Holder,
    ) -> Result<Option<(Guarded<Keyspace>, u64)>, StateError> {
        let Some(lease) = self.lease(name, holder) else { return Ok(None) };
        let tree = self.engine.call(|| self.engine.database.keyspace(name, options))?;
        Ok(Some((Guarded::new(tree), lease)))
    }

    /// A new database in place of the one that is damaged. A task that has a store of that one open finds it taken over, and
    /// opens it again.
    fn begin_new_database(&mut self, why: &str) -> Result<(), StateError> {
        self.engine = self.engine.begin_new_database(why)?;
        for lease in self.leases.values_mut() {
            *lease = Lease { number: lease.number + 1, holder: Holder::Nobody };
        }
        Ok(())
    }
}

impl DiskStores {
    /// Opens the database in `folder`, and creates the folder if it does not exist. A damaged database is emptied, because
    /// the changelogs have all of its contents.
    ///
    /// # Errors
    /// [`StateError::Disk`] if another process has it, or the folder can't be used.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let state = State { engine: Engine::open(folder)?, leases: BTreeMap::new() };
        Ok(Self(Shared(Arc::new(Mutex::new(state)))))
    }
}

impl StoreSupplier for DiskStores {
    fn open(
        &self,
        changelog: &TopicPartition,
        _access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        match self.0.open_as(changelog, Holder::Task)? {
            Some(store) => Ok(Box::new(store)),
            None => Err(StateError::TakenOver(changelog.clone())),
        }
    }

    fn open_standby(
        &self,
        changelog: &TopicPartition,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        let store = self.0.open_as(changelog, Holder::Standby)?;
        Ok(store.map(|store| Box::new(store) as Box<dyn StateStore>))
    }

    fn clean(&self, now: Duration) -> Result<(), StateError> {
        let mut state = self.0.lock();
        let State { engine, leases } = &mut *state;
        for name in engine.call(|| Ok(engine.database.list_keyspace_names()))? {
            let lease = leases.entry(name.to_string()).or_default();
            match lease.holder {
                Holder::Nobody => lease.holder = Holder::NobodySince(now),
                Holder::NobodySince(since) if now >= since + UNUSED_FOR => {
                    tracing::info!(store = %*name, "removing a store that has moved away");
                    engine.call(|| {
                        let tree = engine.database.keyspace(&name, options)?;
                        engine.database.delete_keyspace(tree)
                    })?;
                    leases.remove(&*name);
                }
                Holder::NobodySince(_) | Holder::Standby | Holder::Task => {}
            }
        }
        Ok(())
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

impl Shared {
    /// None if a task has it and the new holder is not one.
    fn open_as(
        &self,
        changelog: &TopicPartition,
        holder: Holder,
    ) -> Result<Option<DiskStore>, StateError> {
        let name = changelog.to_string();
        let mut state = self.lock();
        let opened = match state.open(&name, holder) {
            Err(StateError::Damaged(why)) => {
                state.begin_new_database(&why)?;
                state.open(&name, holder)
            }
            opened => opened,
        };
        let Some((tree, lease)) = opened? else { return Ok(None) };
        let engine = state.engine.clone();
        drop(state);
        let mut store = DiskStore {
            shared: self.clone(),
            engine,
            tree,
            changelog: changelog.clone(),
            name,
            lease,
            checkpoint: None,
        };
        match store.read_checkpoint() {
            Ok(checkpoint) => store.checkpoint = checkpoint,
            Err(error @ StateError::Disk(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(%changelog, %error, "rebuilding the store from its changelog");
                store.clear()?;
            }
        }
        Ok(Some(store))
    }
}

/// One tree, for one holder of its lease.
struct DiskStore {
    shared: Shared,
    engine: Engine,
    tree: Guarded<Keyspace>,
    changelog: TopicPartition,
    name: String,
    lease: u64,
    checkpoint: Option<Checkpoint>,
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        if let Some(lease) = self.shared.lock().leases.get_mut(&self.name)
            && lease.number == self.lease
        {
            lease.holder = Holder::Nobody;
        }
    }
}

impl DiskStore {
    fn read_checkpoint(&self) -> Result<Option<Checkpoint>, StateError> {
        let Some(bytes) = self.engine.call(|| self.tree.get(CHECKPOINT))? else { return Ok(None) };
        let checkpoint = Stored::version(CHECKPOINT_FORMAT).decode(&bytes);
        checkpoint.map(Some).map_err(StateError::Corrupted)
    }

    fn is_held_in(&self, state: &State) -> bool {
        state.leases.get(&self.name).is_some_and(|lease| lease.number == self.lease)
    }

    /// Runs `write` if nobody has taken over, and keeps everybody from it meanwhile.
    fn as_holder(
        &self,
        write: impl FnOnce() -> Result<(), fjall::Error>,
    ) -> Result<(), StateError> {
        let state = self.shared.lock();
        if !self.is_held_in(&state) {
            return Err(StateError::TakenOver(self.changelog.clone()));
        }
        self.engine.call(write)
    }
}

impl StateStore for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        let value = self.engine.call(|| self.tree.get(entry_key(key)))?;
        Ok(value.map(|value| Cow::Owned(value.to_vec())))
    }

    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's> {
        let from = match from {
            Bound::Unbounded => Bound::Included(vec![ENTRY]),
            Bound::Included(_) | Bound::Excluded(_) => from.map(entry_key),
        };
        let to = to.map(entry_key);
        let mut entries = match self.engine.call(|| Ok(self.tree.range((from, to)))) {
            Ok(entries) => Some(Guarded::new(entries)),
            Err(error) => return Box::new(iter::once(Err(error))),
        };
        Box::new(iter::from_fn(move || {
            let left = entries.as_mut()?;
            match self.engine.call(|| left.next().map(fjall::Guard::into_inner).transpose()) {
                Ok(entry) => {
                    let (key, value) = entry?;
                    Some(Ok((Cow::Owned(key[1..].to_vec()), Cow::Owned(value.to_vec()))))
                }
                Err(error) => {
                    // It may say so without end.
                    entries = None;
                    Some(Err(error))
                }
            }
        }))
    }

    fn len(&self) -> usize {
        // The checkpoint is no entry.
        let entries = self.engine.call(|| Ok(self.tree.approximate_len()));
        entries.map_or(0, |entries| entries.saturating_sub(1))
    }

    fn is_counted(&self) -> bool {
        false
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        let mut batch = self.engine.database.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.tree, entry_key(&key), value),
                None => batch.remove(&self.tree, entry_key(&key)),
            }
        }
        let mut bytes = Vec::new();
        let format = Stored::version(CHECKPOINT_FORMAT);
        format.encode(&checkpoint, &mut bytes).map_err(StateError::Unstorable)?;
        batch.insert(&self.tree, CHECKPOINT, bytes);
        self.as_holder(|| batch.commit())?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn clear(&mut self) -> Result<(), StateError> {
        self.checkpoint = None;
        let why = match self.as_holder(|| self.tree.clear()) {
            Err(StateError::Damaged(why)) => why,
            result => return result,
        };
        // It can't even be emptied. Who has it is who has it.
        let mut state = self.shared.lock();
        let holder = state.leases.get(&self.name).map_or(Holder::Task, |lease| lease.holder);
        state.begin_new_database(&why)?;
        if let Some((tree, lease)) = state.open(&self.name, holder)? {
            (self.tree, self.lease) = (tree, lease);
            self.engine = state.engine.clone();
        }
        Ok(())
    }

    fn is_held(&self) -> bool {
        self.is_held_in(&self.shared.lock())
    }
}

fn entry_key(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(ENTRY);
    bytes.extend_from_slice(key);
    bytes
}

#[cfg(test)]
mod tests;
