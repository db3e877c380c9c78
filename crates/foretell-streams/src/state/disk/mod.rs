//! Stores on disk: one LSM tree each, in one database of the process ([fjall](https://docs.rs/fjall)).
//!
//! ```text
//!   folder/                         locked by one process
//!     <changelog>/<partition>       one keyspace for each store of a task
//!       0                →  Checkpoint
//!       1 ‖ key          →  value
//! ```
//! The disk is a cache of the changelog. Writes go to the operating system with each commit, and to the disk when the
//! operating system flushes them. After a power cut, a tree has an older state with the checkpoint of that state (or an
//! older checkpoint, which is harmless), and the changelog brings it up to date. For the same reason a corrupted tree is
//! dropped and rebuilt. The engine panics at some corruptions; `guard.rs` turns these panics into errors. If a store of
//! the database cannot even be emptied, a new database replaces it (`engine.rs`).

mod engine;
mod guard;
mod last_fetch;
mod read_ahead;
mod store;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fjall::Keyspace;

use crate::{
    record::TopicPartition,
    state::{
        Access, StateError, StateStore, StoreSupplier,
        disk::{
            engine::{Engine, options},
            guard::Guarded,
            store::DiskStore,
        },
    },
};

/// The time after which a store that is not open is removed. Until then its task may return to this process.
const UNUSED_FOR: Duration = Duration::from_secs(3600);

/// Opens the stores of a process in one folder on disk. A task that starts again on the same disk reads only the tail of its
/// changelogs.
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

/// The state that the stores of a process share.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

struct State {
    engine: Engine,
    /// The holder of each store, by the name of its keyspace.
    leases: BTreeMap<String, Lease>,
}

#[derive(Clone, Copy, Default)]
struct Lease {
    /// Increases when the holder changes. An earlier holder may not write any more.
    number: u64,
    holder: Holder,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Holder {
    #[default]
    None,
    /// No holder, first observed by a clean-up at this time.
    NoneSince(Duration),
    Standby,
    Task,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Leases a store to a new holder and returns the number of the lease, or `None` if an active task has the store and
    /// the new holder is not one.
    fn lease(&mut self, name: &str, holder: Holder) -> Option<u64> {
        let lease = self.leases.entry(name.to_owned()).or_default();
        if holder != Holder::Task && lease.holder == Holder::Task {
            return None;
        }
        *lease = Lease { number: lease.number + 1, holder };
        Some(lease.number)
    }

    /// The tree of a store and the number of its lease, or `None` as for [`Self::lease`].
    fn open(
        &mut self,
        name: &str,
        holder: Holder,
    ) -> Result<Option<(Guarded<Keyspace>, u64)>, StateError> {
        let Some(lease) = self.lease(name, holder) else { return Ok(None) };
        let tree = self.engine.call(|| self.engine.database.keyspace(name, options))?;
        Ok(Some((Guarded::new(tree), lease)))
    }

    /// Replaces a corrupted database by a new one. The tasks that have stores of the old one open get
    /// [`StateError::TakenOver`] and open their stores again.
    fn begin_new_database(&mut self, reason: &str) -> Result<(), StateError> {
        self.engine = self.engine.begin_new_database(reason)?;
        for lease in self.leases.values_mut() {
            *lease = Lease { number: lease.number + 1, holder: Holder::None };
        }
        Ok(())
    }
}

impl DiskStores {
    /// Opens the database in `folder`, and creates the folder if it does not exist. A corrupted database is replaced by an
    /// empty one, because the changelogs have all of its contents.
    ///
    /// # Errors
    /// [`StateError::Disk`] if another process uses the folder, or it cannot be read or written.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let state = State { engine: Engine::open(folder)?, leases: BTreeMap::new() };
        Ok(Self(Shared(Arc::new(Mutex::new(state)))))
    }
}

impl StoreSupplier for DiskStores {
    fn open(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        match self.0.open_as(changelog, access, Holder::Task)? {
            Some(store) => Ok(Box::new(store)),
            None => Err(StateError::TakenOver(changelog.clone())),
        }
    }

    fn open_standby(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        let store = self.0.open_as(changelog, access, Holder::Standby)?;
        Ok(store.map(|store| Box::new(store) as Box<dyn StateStore>))
    }

    fn clean(&self, now: Duration) -> Result<(), StateError> {
        let mut state = self.0.lock();
        let State { engine, leases } = &mut *state;
        for name in engine.call(|| Ok(engine.database.list_keyspace_names()))? {
            let lease = leases.entry(name.to_string()).or_default();
            match lease.holder {
                Holder::None => lease.holder = Holder::NoneSince(now),
                Holder::NoneSince(since) if now >= since + UNUSED_FOR => {
                    tracing::info!(store = %*name, "removing a store whose task has moved to another process");
                    engine.call(|| {
                        let tree = engine.database.keyspace(&name, options)?;
                        engine.database.delete_keyspace(tree)
                    })?;
                    leases.remove(&*name);
                }
                Holder::NoneSince(_) | Holder::Standby | Holder::Task => {}
            }
        }
        Ok(())
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

impl Shared {
    /// Opens a store for a holder. Returns `None` if an active task has it and the new holder is not one.
    fn open_as(
        &self,
        changelog: &TopicPartition,
        access: Access,
        holder: Holder,
    ) -> Result<Option<DiskStore>, StateError> {
        let name = changelog.to_string();
        let mut state = self.lock();
        let opened = match state.open(&name, holder) {
            Err(StateError::DiskCorrupted(reason)) => {
                state.begin_new_database(&reason)?;
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
            access,
            name,
            lease,
            checkpoint: None,
            last_fetch: RefCell::default(),
            read_ahead: RefCell::default(),
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

#[cfg(test)]
mod tests;
