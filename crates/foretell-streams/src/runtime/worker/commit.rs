//! What tasks have sent and what their stores were told goes out; then all of it counts, with the offsets.
//!
//! ```text
//!   outboxes ─▶ send ─▶ (flush) ─▶ tell changelogs ─▶ commit(offsets) ─▶ stores keep what they were told
//! ```

use std::{collections::BTreeMap, time::Duration};

#[cfg(test)]
use crate::planted::Planted;
use crate::{
    record::{OutputRecordRef, Partition},
    runtime::{
        broker::{BrokerError, Isolation, Member},
        worker::{TurnError, Worker, checkpoints::Ends},
    },
    state::Incarnation,
};

/// A commit of nothing, so that the member can renew offsets that would expire.
const IDLE_COMMIT: Duration = Duration::from_secs(60);

impl Worker {
    /// Sends what waits in the outboxes.
    pub(super) fn send(&mut self) -> Result<(), BrokerError> {
        for active in self.active_tasks.values_mut() {
            let mut outbox = active.task.take_outbox();
            // An output that is dead-lettered leaves a dead letter behind, which is to be sent as well.
            while !outbox.is_empty() {
                self.processed = self.processed.max(1);
                for (place, record) in outbox.iter().enumerate() {
                    match send(self.member.as_mut(), record) {
                        Err(BrokerError::Unsendable { reason, .. })
                            if active.task.can_dead_letter(record) =>
                        {
                            let origin = outbox.origin(place);
                            active.task.dead_letter_output(record.to_owned(), origin, reason);
                        }
                        other => other.map_err(must_be_taken)?,
                    }
                }
                active.task.return_outbox(outbox);
                outbox = active.task.take_outbox();
            }
            active.task.return_outbox(outbox);
        }
        Ok(())
    }

    /// Tells the changelogs of tasks whose stores have at least so many changes.
    pub(super) fn flush_changelogs(&mut self, changes_min: usize) -> Result<(), BrokerError> {
        if self.stores.is_lasting() {
            self.mark_changelogs(changes_min);
        }
        let member = self.member.as_mut();
        for active in
            self.active_tasks.values_mut().filter(|active| active.task.pending_len() >= changes_min)
        {
            active.task.flush_changes(|record| send(member, record).map_err(must_be_taken))?;
        }
        Ok(())
    }

    /// A changelog without a mark gets one before its first changes, for the checkpoints to come. Where nobody says where it
    /// ends, that waits for other changes.
    fn mark_changelogs(&mut self, changes_min: usize) {
        let now = self.clock.now().0;
        for active in
            self.active_tasks.values_mut().filter(|active| active.task.pending_len() >= changes_min)
        {
            let unmarked: Vec<_> = active.task.unmarked().collect();
            for (store, changelog) in unmarked {
                match self.broker.end(&changelog, Isolation::ReadUncommitted) {
                    Ok(end) => {
                        let mark = Incarnation::new(&self.membership.member, now, end);
                        active.task.mark(store, mark);
                    }
                    Err(error) => {
                        tracing::debug!(%changelog, %error, "it is not marked yet");
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn commit_is_due(&self) -> bool {
        let since = self.clock.elapsed().saturating_sub(self.committed_at);
        since >= IDLE_COMMIT
            || self.processed >= self.settings.commit_records_max
            || (self.processed > 0 && since >= self.settings.commit_interval)
            || (self.processed == 0 && self.checkpoint_is_due())
    }

    pub(super) fn commit(&mut self) -> Result<(), TurnError> {
        let ends = self.end_in_turn();
        self.commit_with(ends)
    }

    /// Commits; if that succeeds, stores go as far as their changelogs did before it.
    pub(super) fn commit_with(&mut self, ends: Ends) -> Result<(), TurnError> {
        let started = self.clock.elapsed();
        self.send()?;
        if self.active_tasks.values().any(|active| active.task.has_changes()) {
            // A reader that finds a record's changes in a changelog must find its outputs, too.
            self.member.flush()?;
        }
        let mut offsets = Vec::new();
        for active in self.active_tasks.values() {
            offsets.extend(active.task.consumed());
        }
        if !ends.is_empty() && offsets.is_empty() {
            // A commit of nothing would not ask whether the tasks are ours.
            offsets.extend(
                self.active_tasks.values().find_map(|active| active.task.committed_offset()),
            );
        }
        let ends = if offsets.is_empty() { Ends::new() } else { ends };
        self.flush_changelogs(1)?;
        #[cfg(test)]
        if self.topology.has(Planted::StateBeforeTheCommit) {
            self.keep_state(&Ends::new())?;
        }
        let result = self.member.commit(&offsets);
        if let Err(BrokerError::Retry(reason)) = result {
            // The changelog records are sent already: a second try would send them twice.
            return Err(BrokerError::Abort(reason).into());
        }
        result?;
        self.forget_fences();
        #[cfg(test)]
        let ends = self.ends_if_asked_late(ends);
        let kept = self.keep_state(&ends);
        self.forget_rebuilds(offsets.iter().map(|(source, _)| source.partition));
        kept?;
        self.committed_at = self.clock.elapsed();
        self.processed = 0;
        self.metrics.committed(self.committed_at.saturating_sub(started));
        self.publish_status();
        Ok(())
    }

    fn keep_state(&mut self, ends: &Ends) -> Result<(), TurnError> {
        let (now, none) = (self.clock.now(), BTreeMap::new());
        let mut result = Ok(());
        // All of them, whatever comes of one: what is committed must not be discarded.
        for (partition, active) in &mut self.active_tasks {
            let kept = active.task.apply_commit(now, ends.get(partition).unwrap_or(&none));
            if kept.is_err() {
                self.corrupted.insert(*partition);
            }
            result = result.and(kept.map_err(TurnError::in_task(*partition)));
        }
        result
    }

    /// The name is this worker's, whatever came before.
    fn forget_fences(&mut self) {
        #[cfg(test)]
        if self.topology.has(Planted::FencesNotForgotten) {
            return;
        }
        self.fenced = 0;
    }

    /// To rebuild the stores of these `tasks` has helped, unless they could not follow the commit.
    fn forget_rebuilds(&mut self, tasks: impl Iterator<Item = Partition>) {
        #[cfg(test)]
        if self.topology.has(Planted::RebuildsNotForgotten) {
            return;
        }
        for task in tasks.filter(|task| !self.corrupted.contains(task)) {
            self.rebuilt.remove(&task);
        }
    }

    pub(super) fn last_commit(&mut self) -> Result<(), TurnError> {
        let tasks: Vec<Partition> = self.active_tasks.keys().copied().collect();
        self.commit_with(self.ends_of(&tasks))
    }
}

fn send(member: &mut dyn Member, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
    match member.send(record) {
        // It is in the caller's loop alone, and must come again.
        Err(BrokerError::Retry(reason)) => Err(BrokerError::Abort(reason)),
        result => result,
    }
}

/// Without a record of a changelog, what we remember is not what the log says.
fn must_be_taken(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Unsendable { topic, reason } => {
            BrokerError::Fatal(format!("cannot write to {topic}: {reason}"))
        }
        BrokerError::Retry(_)
        | BrokerError::Abort(_)
        | BrokerError::Fenced(_)
        | BrokerError::OutOfRange(_)
        | BrokerError::Gone(_)
        | BrokerError::Fatal(_) => error,
    }
}
