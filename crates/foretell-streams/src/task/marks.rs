//! The marks of a task's changelogs, which identify the incarnation of each log for its checkpoint. A mark is written once,
//! with the first changes, and is valid when their commit has succeeded.

use crate::{
    record::{InputRecord, OutputRecordRef, TopicPartition},
    state::{Incarnation, MARK_KEY, StoreId},
    task::Task,
};

/// The mark of each store's changelog, by the index of the store.
pub(super) struct Marks(Vec<Mark>);

#[derive(Clone, Default)]
struct Mark {
    current: Option<Incarnation>,
    /// A mark to be flushed, or flushed in the open commit.
    pending: Option<PendingMark>,
}

#[derive(Clone)]
struct PendingMark {
    incarnation: Incarnation,
    value: [u8; 16],
    is_flushed: bool,
}

impl Marks {
    pub(super) fn new(current: impl Iterator<Item = Option<Incarnation>>) -> Self {
        Self(current.map(|current| Mark { current, pending: None }).collect())
    }

    /// The incarnation of a store's changelog, if it is known.
    pub(super) fn current(&self, store: StoreId) -> Option<Incarnation> {
        self.0[store.0].current
    }

    pub(super) fn set(&mut self, store: StoreId, incarnation: Option<Incarnation>) {
        self.0[store.0] = Mark { current: incarnation, pending: None };
    }

    pub(super) fn apply_commit(&mut self) {
        for mark in &mut self.0 {
            if let Some(pending) = mark.pending.take_if(|pending| pending.is_flushed) {
                mark.current = Some(pending.incarnation);
            }
        }
    }

    pub(super) fn roll_back(&mut self) {
        self.0.iter_mut().for_each(|mark| mark.pending = None);
    }
}

impl Task {
    /// The changelogs that have pending changes and no mark.
    pub fn unmarked(&self) -> impl Iterator<Item = (StoreId, TopicPartition)> + '_ {
        self.changelogs().filter(|(store, _)| {
            let Mark { current, pending } = &self.marks.0[store.0];
            current.is_none() && pending.is_none() && self.scope.stores[store.0].pending_len() > 0
        })
    }

    /// Adds a mark for a changelog, which is flushed before the pending changes.
    pub fn mark(&mut self, store: StoreId, incarnation: Incarnation) {
        let value = incarnation.id.to_be_bytes();
        let pending = PendingMark { incarnation, value, is_flushed: false };
        self.marks.0[store.0].pending = Some(pending);
    }

    /// Flushes the pending marks: passes their changelog records to `send`.
    pub(super) fn flush_marks<E>(
        &mut self,
        send: &mut impl FnMut(OutputRecordRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (partition, timestamp) = (Some(self.scope.partition), self.scope.changed_at());
        for (spec, mark) in self.topology.stores.iter().zip(&mut self.marks.0) {
            let Some(pending) = mark.pending.as_mut().filter(|mark| !mark.is_flushed) else {
                continue;
            };
            send(OutputRecordRef {
                topic: &spec.changelog,
                partition,
                timestamp,
                key: Some(MARK_KEY),
                value: Some(&pending.value),
                headers: &[],
            })?;
            pending.is_flushed = true;
        }
        Ok(())
    }

    /// Takes over the last mark among records of a changelog.
    pub(super) fn read_marks(&mut self, store: StoreId, records: &[InputRecord]) {
        if let Some(last) = records.iter().rev().find_map(Incarnation::of) {
            self.marks.set(store, Some(last));
        }
    }
}
