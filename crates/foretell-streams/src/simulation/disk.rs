//! The stores on a machine's disk, which survive a crash of the process, with the faults of disks.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    record::{Partition, TopicPartition},
    simulation::{
        fault_injector::{Fault, FaultInjector},
        process::Process,
    },
    state::{
        Access, Change, Checkpoint, Entry, MemoryStore, Position, StateError, StateStore,
        StoreSupplier,
    },
};

/// A machine's disk.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<BTreeMap<TopicPartition, StoredState>>>);

/// The contents of a store on disk, and its present holder.
#[derive(Clone)]
struct StoredState {
    /// As written to the operating system.
    written: MemoryStore,
    /// As synced to the disk: the contents after a power cut.
    synced: MemoryStore,
    lease: u64,
    is_active_task: bool,
    /// Whether the holder of the lease is a standby task.
    is_standby_task: bool,
}

impl StoredState {
    fn new(access: Access) -> Self {
        let empty = MemoryStore::new(access);
        Self {
            written: empty.clone(),
            synced: empty,
            lease: 0,
            is_active_task: false,
            is_standby_task: false,
        }
    }
}

impl Disk {
    /// Whether a standby task holds the stores of `task`.
    pub(super) fn has_standby(&self, task: Partition) -> bool {
        let stores = self.0.lock().unwrap();
        let mut of_task = stores.iter().filter(|(changelog, _)| changelog.partition == task);
        of_task.clone().count() > 0 && of_task.all(|(_, stored)| stored.is_standby_task)
    }

    /// Injects the faults of a disk that no instance uses.
    pub(super) fn inject_faults(&self, faults: &FaultInjector) {
        let mut stores = self.0.lock().unwrap();
        stores.values_mut().for_each(|stored| stored.is_active_task = false);
        if faults.one_in(20) {
            faults.log_event(format_args!("a disk is lost"));
            faults.count(Fault::DiskLost);
            stores.clear();
        }
        if faults.one_in(4) {
            faults.log_event(format_args!("a power cut"));
            faults.count(Fault::PowerCut);
            stores.values_mut().for_each(|stored| stored.written = stored.synced.clone());
        }
    }
}

/// The stores of one process.
pub(super) struct SimulatedStores {
    pub(super) disk: Disk,
    pub(super) faults: Arc<FaultInjector>,
    pub(super) process: Process,
}

impl SimulatedStores {
    fn open_as(
        &self,
        changelog: &TopicPartition,
        access: Access,
        is_active_task: bool,
    ) -> Option<SimulatedStore> {
        let mut stores = self.disk.0.lock().unwrap();
        let stored = stores.entry(changelog.clone()).or_insert_with(|| StoredState::new(access));
        if stored.is_active_task && !is_active_task {
            return None;
        }
        stored.is_active_task = is_active_task;
        stored.is_standby_task = !is_active_task;
        stored.lease += 1;
        Some(SimulatedStore {
            changelog: changelog.clone(),
            access,
            contents: stored.written.clone(),
            lease: stored.lease,
            is_active_task,
            disk: self.disk.clone(),
            faults: Arc::clone(&self.faults),
            process: self.process.clone(),
        })
    }
}

impl StoreSupplier for SimulatedStores {
    fn open(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        Ok(Box::new(
            self.open_as(changelog, access, true).expect("an active task takes over any store"),
        ))
    }

    fn open_standby(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        let store = self.open_as(changelog, access, false);
        Ok(store.map(|store| Box::new(store) as Box<dyn StateStore>))
    }

    fn clean(&self, _now: Duration) -> Result<(), StateError> {
        Ok(())
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

struct SimulatedStore {
    changelog: TopicPartition,
    access: Access,
    contents: MemoryStore,
    lease: u64,
    is_active_task: bool,
    disk: Disk,
    faults: Arc<FaultInjector>,
    process: Process,
}

const WRITE: &[Fault] =
    &[Fault::CrashBefore, Fault::CrashAfter, Fault::CrashAfter, Fault::StoreCorrupted];

impl SimulatedStore {
    fn change(
        &mut self,
        action: &str,
        change: impl FnOnce(&mut MemoryStore) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let crashed = || StateError::Disk("this process has crashed".to_owned());
        if self.process.has_crashed() {
            return Err(crashed());
        }
        let fault = self.faults.fault(WRITE, 2);
        if let Some(fault) = fault {
            let (name, changelog) = (&self.process.name, &self.changelog);
            self.faults.log_event(format_args!("{name} {action} {changelog}: {fault:?}"));
        }
        match fault {
            Some(Fault::CrashBefore) => {
                self.process.crash();
                return Err(crashed());
            }
            Some(Fault::StoreCorrupted) => {
                if self.is_active_task {
                    self.process.record_corruption(self.changelog.partition);
                }
                return Err(StateError::DiskCorrupted("by the fault injector".to_owned()));
            }
            _ => {}
        }
        let mut stores = self.disk.0.lock().unwrap();
        let stored = stores.entry(self.changelog.clone());
        let stored = stored.or_insert_with(|| StoredState::new(self.access));
        if stored.lease != self.lease {
            return Err(StateError::TakenOver(self.changelog.clone()));
        }
        change(&mut self.contents)?;
        stored.written = self.contents.clone();
        if self.faults.one_in(5) {
            stored.synced = self.contents.clone();
        }
        if fault == Some(Fault::CrashAfter) {
            self.process.crash();
            return Err(crashed());
        }
        Ok(())
    }
}

impl Drop for SimulatedStore {
    fn drop(&mut self) {
        let mut stores = self.disk.0.lock().unwrap();
        if let Some(stored) = stores.get_mut(&self.changelog)
            && stored.lease == self.lease
        {
            stored.is_active_task = false;
            stored.is_standby_task = false;
        }
    }
}

impl StateStore for SimulatedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        self.contents.get(key)
    }

    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's> {
        self.contents.range(from, to)
    }

    fn fetch(
        &self,
        key: &[u8],
        from: Position,
        to: Position,
        visit: &mut dyn FnMut(Position, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.contents.fetch(key, from, to, visit)
    }

    fn oldest(
        &self,
        from: Option<(&[u8], Position)>,
        visit: &mut dyn FnMut(&[u8], Position) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.contents.oldest(from, visit)
    }

    fn has_time_order(&self) -> bool {
        self.contents.has_time_order()
    }

    fn len(&self) -> usize {
        self.contents.len()
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change<'_>>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        self.change("writes", |contents| contents.write(changes, checkpoint))
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.contents.checkpoint()
    }

    fn clear(&mut self) -> Result<(), StateError> {
        self.change("clears", MemoryStore::clear)
    }

    fn is_held(&self) -> bool {
        let stores = self.disk.0.lock().unwrap();
        stores.get(&self.changelog).is_some_and(|stored| stored.lease == self.lease)
    }
}
