//! What a process finds again after it died: the stores on its machine's disk, or what is left of them.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    record::TopicPartition,
    simulation::{
        fault_injector::{Fault, FaultInjector},
        process::Process,
    },
    state::{
        Access, Change, Checkpoint, Entry, MemoryStore, StateError, StateStore, StoreSupplier,
    },
};

/// A machine's disk.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<BTreeMap<TopicPartition, Kept>>>);

/// A store as the operating system has it, and as it would be after a power cut.
#[derive(Clone, Default)]
struct Kept {
    written: MemoryStore,
    synced: MemoryStore,
    lease: u64,
    is_a_tasks: bool,
}

impl Disk {
    /// What may happen to a disk while no instance uses it.
    pub(super) fn happen_to(&self, faults: &FaultInjector) {
        let mut stores = self.0.lock().unwrap();
        stores.values_mut().for_each(|kept| kept.is_a_tasks = false);
        if faults.one_in(20) {
            faults.note(format_args!("a disk is lost"));
            faults.struck(Fault::DiskLost);
            stores.clear();
        }
        if faults.one_in(4) {
            faults.note(format_args!("the power was cut"));
            faults.struck(Fault::PowerCut);
            stores.values_mut().for_each(|kept| kept.written = kept.synced.clone());
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
    fn open_as(&self, changelog: &TopicPartition, is_a_tasks: bool) -> Option<SimulatedStore> {
        let mut stores = self.disk.0.lock().unwrap();
        let kept = stores.entry(changelog.clone()).or_default();
        if kept.is_a_tasks && !is_a_tasks {
            return None;
        }
        kept.is_a_tasks = is_a_tasks;
        kept.lease += 1;
        Some(SimulatedStore {
            changelog: changelog.clone(),
            contents: kept.written.clone(),
            lease: kept.lease,
            is_a_tasks,
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
        _access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        Ok(Box::new(self.open_as(changelog, true).expect("a task takes over")))
    }

    fn open_standby(
        &self,
        changelog: &TopicPartition,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        let store = self.open_as(changelog, false);
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
    contents: MemoryStore,
    lease: u64,
    is_a_tasks: bool,
    disk: Disk,
    faults: Arc<FaultInjector>,
    process: Process,
}

const WRITE: &[Fault] = &[Fault::CrashBefore, Fault::CrashAfter, Fault::CrashAfter, Fault::Damaged];

impl SimulatedStore {
    fn change(
        &mut self,
        what: &str,
        change: impl FnOnce(&mut MemoryStore) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let dead = || StateError::Disk("this process is dead".to_owned());
        if self.process.is_dead() {
            return Err(dead());
        }
        let fault = self.faults.fault(WRITE, 2);
        if let Some(fault) = fault {
            let (name, changelog) = (&self.process.name, &self.changelog);
            self.faults.note(format_args!("{name} {what} {changelog}: {fault:?}"));
        }
        match fault {
            Some(Fault::CrashBefore) => {
                self.process.die();
                return Err(dead());
            }
            Some(Fault::Damaged) => {
                if self.is_a_tasks {
                    self.process.was_damaged(self.changelog.partition);
                }
                return Err(StateError::DiskCorrupted("by the fault injector".to_owned()));
            }
            _ => {}
        }
        let mut stores = self.disk.0.lock().unwrap();
        let kept = stores.entry(self.changelog.clone()).or_default();
        if kept.lease != self.lease {
            return Err(StateError::TakenOver(self.changelog.clone()));
        }
        change(&mut self.contents)?;
        kept.written = self.contents.clone();
        if self.faults.one_in(5) {
            kept.synced = self.contents.clone();
        }
        if fault == Some(Fault::CrashAfter) {
            self.process.die();
            return Err(dead());
        }
        Ok(())
    }
}

impl Drop for SimulatedStore {
    fn drop(&mut self) {
        let mut stores = self.disk.0.lock().unwrap();
        if let Some(kept) = stores.get_mut(&self.changelog)
            && kept.lease == self.lease
        {
            kept.is_a_tasks = false;
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

    fn len(&self) -> usize {
        self.contents.len()
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change>,
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
        stores.get(&self.changelog).is_some_and(|kept| kept.lease == self.lease)
    }
}
