//! Checkpoints of stores on disk: how far a store follows its changelog, so that the next owner restores only the rest.
//!
//! ```text
//!   end of the changelog ──▶ commit ──succeeds──▶ the checkpoint advances to that end
//! ```
//! The order matters. A commit that succeeds proves that the tasks still belonged to this worker when the end was read, so
//! no other worker had written before it. A zombie would count the records of its successor as its own.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    record::{Offset, Partition, TopicPartition},
    runtime::broker::{Broker, Isolation},
    state::{StoreId, StoreSupplier},
};

/// The interval of checkpoints, each of one store: to ask the broker for the end of a changelog takes 1 to 2 ms.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// The interval of removing stores on disk that no task has used for long.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// A store of a task.
pub(super) type TaskStore = (Partition, StoreId);

/// Ends of changelogs, read before a commit.
pub(super) type Ends = BTreeMap<Partition, BTreeMap<StoreId, Offset>>;

/// Chooses the store whose checkpoint advances next, in turns, and when unused stores are removed.
pub(super) struct Checkpointer {
    advanced_at: Duration,
    /// The store whose checkpoint advanced last.
    last: Option<TaskStore>,
    cleaned_at: Duration,
}

impl Checkpointer {
    pub(super) fn new(now: Duration) -> Self {
        Self { advanced_at: now, last: None, cleaned_at: now }
    }

    /// Whether it is time for the next checkpoint, if a store needs one.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.advanced_at + CHECKPOINT_EVERY
    }

    /// The next of the stores that are `behind`, in the order of [`TaskStore`], after the one that was last; `None` if it
    /// is not time, or no store is behind.
    pub(super) fn next(
        &mut self,
        now: Duration,
        behind: impl Iterator<Item = (TaskStore, TopicPartition)>,
    ) -> Option<(TaskStore, TopicPartition)> {
        if !self.is_due(now) {
            return None;
        }
        let (mut first, mut next) = (None, None);
        for entry in behind {
            if Some(entry.0) > self.last {
                next = Some(entry);
                break;
            }
            first.get_or_insert(entry);
        }
        let (store, changelog) = next.or(first)?;
        self.advanced_at = now;
        self.last = Some(store);
        Some((store, changelog))
    }

    /// Removes stores that no task uses, every [`CLEAN_EVERY`].
    pub(super) fn clean(&mut self, now: Duration, stores: &dyn StoreSupplier) {
        if now < self.cleaned_at + CLEAN_EVERY {
            return;
        }
        self.cleaned_at = now;
        if let Err(error) = stores.clean(now) {
            tracing::warn!(%error, "cannot remove an unused store");
        }
    }
}

/// Asks where these changelogs end. After the first that cannot be answered it stops, because the others would have to
/// wait as long; their checkpoints stay where they are.
pub(super) fn read_ends(
    broker: &dyn Broker,
    changelogs: impl Iterator<Item = (TaskStore, TopicPartition)>,
) -> Ends {
    let mut ends = Ends::new();
    for ((task, store), changelog) in changelogs {
        match broker.end(&changelog, Isolation::ReadCommitted) {
            Ok(end) => ends.entry(task).or_default().insert(store, end),
            Err(error) => {
                tracing::debug!(%changelog, %error, "the checkpoint does not advance");
                break;
            }
        };
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Topic;

    fn behind(stores: &[(i32, usize)]) -> Vec<(TaskStore, TopicPartition)> {
        let of = |(task, store): &(i32, usize)| {
            let (topic, partition) = (Topic::new("changelog"), Partition(*task));
            ((partition, StoreId(*store)), TopicPartition { topic, partition })
        };
        stores.iter().map(of).collect()
    }

    /// The next store at `seconds`, of those that are `behind`.
    fn next(
        checkpointer: &mut Checkpointer,
        seconds: u64,
        stores: &[(i32, usize)],
    ) -> Option<(i32, usize)> {
        let next = checkpointer.next(Duration::from_secs(seconds), behind(stores).into_iter());
        next.map(|((task, store), _)| (task.0, store.0))
    }

    #[test]
    fn stores_take_turns_one_a_second() {
        let mut checkpointer = Checkpointer::new(Duration::ZERO);
        let all = [(0, 0), (0, 1), (2, 0)];
        assert_eq!(next(&mut checkpointer, 0, &all), None, "it is not time");
        assert_eq!(next(&mut checkpointer, 1, &all), Some((0, 0)));
        assert_eq!(next(&mut checkpointer, 1, &all), None, "one a second");
        assert_eq!(next(&mut checkpointer, 2, &all), Some((0, 1)));
        assert_eq!(next(&mut checkpointer, 3, &all), Some((2, 0)));
        assert_eq!(next(&mut checkpointer, 4, &all), Some((0, 0)), "from the beginning");
    }

    #[test]
    fn a_store_that_is_not_behind_is_passed_over() {
        let mut checkpointer = Checkpointer::new(Duration::ZERO);
        assert_eq!(next(&mut checkpointer, 1, &[(0, 0), (1, 0)]), Some((0, 0)));
        assert_eq!(next(&mut checkpointer, 2, &[(2, 0)]), Some((2, 0)));
        assert_eq!(next(&mut checkpointer, 3, &[]), None);
        assert_eq!(next(&mut checkpointer, 3, &[(1, 0)]), Some((1, 0)), "no turn was used up");
    }
}
