//! What is said of stores on disk now and then: how far each goes, so that the next owner reads little
//! again; and that nobody has needed one for long.
//!
//! ```text
//!   where does the changelog end? ──▶ commit ──succeeds──▶ the store goes as far as that end
//! ```
//! In this order. That the commit succeeded shows that the tasks were still ours when the end was told, so that
//! nobody else has written before it; a zombie would take its successor's records for its own.

use std::{collections::BTreeMap, time::Duration};

#[cfg(test)]
use crate::planted::Planted;
use crate::{
    record::{Offset, Partition, TopicPartition},
    runtime::{broker::Isolation, worker::Worker},
    state::StoreId,
};

/// One changelog's end is asked for this often. It costs a millisecond or two.
pub(super) const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// How often stores that have moved away are looked for.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// A store of a task.
pub(super) type Place = (Partition, StoreId);

/// Where changelogs ended before a commit.
pub(super) type Ends = BTreeMap<Partition, BTreeMap<StoreId, Offset>>;

impl Worker {
    /// Whether a store is further than its checkpoint says, and has waited long enough.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let (at, _) = self.checkpointed;
        self.clock.elapsed() >= at + CHECKPOINT_EVERY && self.behind().next().is_some()
    }

    /// Now and then: the end of the changelog whose turn it is.
    pub(super) fn end_in_turn(&mut self) -> Ends {
        if !self.checkpoint_is_due() {
            return Ends::new();
        }
        let (_, last) = self.checkpointed;
        let next = self.behind().find(|(place, _)| Some(*place) > last);
        let Some((place, changelog)) = next.or(self.behind().next()) else { return Ends::new() };
        self.checkpointed = (self.clock.elapsed(), Some(place));
        self.ends([(place, changelog)].into_iter())
    }

    /// Before `tasks` go: their next owner in this process has nothing to read again.
    pub(super) fn ends_of(&self, tasks: &[Partition]) -> Ends {
        self.ends(self.behind().filter(|((task, _), _)| tasks.contains(task)))
    }

    fn ends(&self, changelogs: impl Iterator<Item = (Place, TopicPartition)>) -> Ends {
        let mut ends = Ends::new();
        for ((task, store), changelog) in changelogs {
            match self.broker.end(&changelog, Isolation::ReadCommitted) {
                Ok(end) => ends.entry(task).or_default().insert(store, end),
                Err(error) => {
                    tracing::debug!(%changelog, %error, "the checkpoint stays where it is");
                    // The next one would have to wait as long.
                    break;
                }
            };
        }
        ends
    }

    /// Now and then: what nobody uses goes.
    pub(super) fn clean_stores(&mut self) {
        let now = self.clock.elapsed();
        if now < self.cleaned_at + CLEAN_EVERY {
            return;
        }
        self.cleaned_at = now;
        if let Err(error) = self.stores.clean(now) {
            tracing::warn!(%error, "a store that nobody uses could not be removed");
        }
    }

    /// Plants a bug: the ends that were asked for before the commit are asked for again after it.
    #[cfg(test)]
    pub(super) fn ends_if_asked_late(&self, mut ends: Ends) -> Ends {
        if !self.topology.has(Planted::EndAskedAfterTheCommit) {
            return ends;
        }
        for (task, of_task) in &mut ends {
            for (store, end) in of_task {
                let changelog = self.topology.changelogs()[store.0].clone();
                let changelog = TopicPartition { topic: changelog, partition: *task };
                if let Ok(later) = self.broker.end(&changelog, Isolation::ReadCommitted) {
                    *end = later;
                }
            }
        }
        ends
    }

    fn behind(&self) -> impl Iterator<Item = (Place, TopicPartition)> + '_ {
        let is_lasting = self.stores.is_lasting();
        let restored =
            self.active_tasks.iter().filter(move |(_, active)| is_lasting && active.is_restored());
        restored.flat_map(|(task, active)| {
            active
                .task
                .outdated_checkpoints()
                .map(move |(store, changelog)| ((*task, store), changelog))
        })
    }
}
