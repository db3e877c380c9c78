//! The marks of a task's changelogs, by which a checkpoint knows which log it is of: each is written once, with the first
//! changes, and counts when that commit has succeeded.

use crate::{
    record::{InputRecord, OutputRecordRef, TopicPartition},
    state::{Incarnation, MARK_KEY, StoreId},
    task::Task,
};

/// Of each store.
pub(super) struct Marks(Vec<Mark>);

#[derive(Clone, Default)]
struct Mark {
    known: Option<Incarnation>,
    /// To be told, or told in the open commit.
    new: Option<New>,
}

#[derive(Clone)]
struct New {
    incarnation: Incarnation,
    value: [u8; 16],
    is_flushed: bool,
}

impl Marks {
    pub(super) fn new(known: impl Iterator<Item = Option<Incarnation>>) -> Self {
        Self(known.map(|known| Mark { known, new: None }).collect())
    }

    /// The one that the log is known to have.
    pub(super) fn known(&self, store: StoreId) -> Option<Incarnation> {
        self.0[store.0].known
    }

    pub(super) fn know(&mut self, store: StoreId, incarnation: Option<Incarnation>) {
        self.0[store.0] = Mark { known: incarnation, new: None };
    }

    pub(super) fn committed(&mut self) {
        for mark in &mut self.0 {
            if let Some(new) = mark.new.take_if(|new| new.is_flushed) {
                mark.known = Some(new.incarnation);
            }
        }
    }

    pub(super) fn discarded(&mut self) {
        self.0.iter_mut().for_each(|mark| mark.new = None);
    }
}

impl Task {
    /// The changelogs that have changes to be told, and no mark.
    pub fn unmarked(&self) -> impl Iterator<Item = (StoreId, TopicPartition)> + '_ {
        self.changelogs().filter(|(store, _)| {
            let Mark { known, new } = &self.marks.0[store.0];
            known.is_none() && new.is_none() && self.scope.stores[store.0].pending_len() > 0
        })
    }

    /// A mark for a changelog, to be told before its changes.
    pub fn mark(&mut self, store: StoreId, incarnation: Incarnation) {
        let value = incarnation.id.to_be_bytes();
        self.marks.0[store.0].new = Some(New { incarnation, value, is_flushed: false });
    }

    /// Hands the marks that are to be told to `send`.
    pub(super) fn tell_marks<E>(
        &mut self,
        send: &mut impl FnMut(OutputRecordRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (partition, timestamp) = (Some(self.scope.partition), self.scope.changed_at());
        for (spec, mark) in self.topology.stores.iter().zip(&mut self.marks.0) {
            let Some(new) = mark.new.as_mut().filter(|new| !new.is_flushed) else { continue };
            send(OutputRecordRef {
                topic: &spec.changelog,
                partition,
                timestamp,
                key: Some(MARK_KEY),
                value: Some(&new.value),
                headers: &[],
            })?;
            new.is_flushed = true;
        }
        Ok(())
    }

    /// Takes note of the marks among a changelog's records.
    pub(super) fn read_marks(&mut self, store: StoreId, records: &[InputRecord]) {
        if let Some(last) = records.iter().rev().find_map(Incarnation::of) {
            self.marks.know(store, Some(last));
        }
    }
}
