//! What a process finds again after it died: the stores on its machine's disk, or what is left of them.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex},
};

use crate::streams::{
    record::TopicPartition,
    simulation::faults::{Fault, Process, Weather},
    state::{Change, Checkpoint, Entry, MemoryStore, StateError, StateStore, StoreSupplier},
};

/// A machine's disk.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<BTreeMap<TopicPartition, Kept>>>);

/// A store as the operating system has it, and as it would be after a power cut.
#[derive(Clone, Default)]
struct Kept {
    written: MemoryStore,
    synced: MemoryStore,
}

impl Disk {
    /// Whatever may befall a disk while nobody uses it.
    pub(super) fn befall(&self, weather: &Weather) {
        let mut stores = self.0.lock().unwrap();
        if weather.one_in(20) {
            weather.note(format_args!("a disk is lost"));
            stores.clear();
        }
        if weather.one_in(4) {
            weather.note(format_args!("the power was cut"));
            stores.values_mut().for_each(|kept| kept.written = kept.synced.clone());
        }
    }
}

/// The stores of one process.
pub(super) struct SimulatedStores {
    pub(super) disk: Disk,
    pub(super) weather: Arc<Weather>,
    pub(super) process: Process,
}

impl StoreSupplier for SimulatedStores {
    fn open(&self, changelog: &TopicPartition) -> Result<Box<dyn StateStore>, StateError> {
        let kept = self.disk.0.lock().unwrap().get(changelog).cloned().unwrap_or_default();
        Ok(Box::new(SimulatedStore {
            changelog: changelog.clone(),
            contents: kept.written,
            disk: self.disk.clone(),
            weather: Arc::clone(&self.weather),
            process: self.process.clone(),
        }))
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

struct SimulatedStore {
    changelog: TopicPartition,
    contents: MemoryStore,
    disk: Disk,
    weather: Arc<Weather>,
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
        let fault = self.weather.fault(WRITE);
        if let Some(fault) = fault {
            let (name, changelog) = (&self.process.name, &self.changelog);
            self.weather.note(format_args!("{name} {what} {changelog}: {fault:?}"));
        }
        match fault {
            Some(Fault::CrashBefore) => {
                self.process.die();
                return Err(dead());
            }
            Some(Fault::Damaged) => return Err(StateError::Damaged("by the weather".to_owned())),
            _ => {}
        }
        change(&mut self.contents)?;
        let mut stores = self.disk.0.lock().unwrap();
        let kept = stores.entry(self.changelog.clone()).or_default();
        kept.written = self.contents.clone();
        if self.weather.one_in(5) {
            kept.synced = self.contents.clone();
        }
        if fault == Some(Fault::CrashAfter) {
            self.process.die();
            return Err(dead());
        }
        Ok(())
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
}
