//! Commits: send outputs, flush changes to the changelogs, commit the offsets, then apply all of it to the stores.
//!
//! ```text
//!   outboxes ─▶ send ─▶ (flush) ─▶ flush changes to changelogs ─▶ commit(offsets) ─▶ apply to the stores
//! ```

use crate::{
    commit_times::CommitTimes,
    record::OutputRecordRef,
    runtime::{
        broker::{BrokerError, Isolation, Member},
        error::TurnError,
        worker::{
            Worker, WorkerParts,
            active_tasks::ActiveTasks,
            checkpointer::{self, Ends},
            commit_pacer::CommitPacer,
        },
    },
    state::Incarnation,
};

impl ActiveTasks {
    /// Sends the outputs in the outboxes.
    pub(super) fn send(
        &mut self,
        member: &mut dyn Member,
        pacer: &mut CommitPacer,
    ) -> Result<(), BrokerError> {
        for (_, active) in self.iter_mut() {
            let mut outbox = active.task.take_outbox();
            // An output that is dead-lettered makes a dead letter, which is sent in another round.
            while !outbox.is_empty() {
                pacer.add_changes();
                for (index, record) in outbox.iter().enumerate() {
                    match send(member, record) {
                        Err(BrokerError::Unsendable { reason, .. })
                            if active.task.can_dead_letter(record) =>
                        {
                            let origin = outbox.origin(index);
                            active.task.dead_letter_output(record.to_owned(), origin, reason);
                        }
                        other => other.map_err(fatal_if_unsendable)?,
                    }
                }
                active.task.return_outbox(outbox);
                outbox = active.task.take_outbox();
            }
            active.task.return_outbox(outbox);
        }
        Ok(())
    }

    /// Flushes the changes of tasks that have at least `changes_min` pending changes to their changelogs.
    pub(super) fn flush_changelogs(
        &mut self,
        parts: &WorkerParts,
        member: &mut dyn Member,
        changes_min: usize,
    ) -> Result<(), BrokerError> {
        if parts.stores.is_lasting() {
            self.mark_changelogs(parts, changes_min);
        }
        for (_, active) in
            self.iter_mut().filter(|(_, active)| active.task.pending_len() >= changes_min)
        {
            active
                .task
                .flush_changes(|record| send(member, record).map_err(fatal_if_unsendable))?;
        }
        Ok(())
    }

    /// Adds a mark to changelogs without one, before their first changes: later checkpoints name the incarnation of the
    /// log by it. If the broker does not say where a changelog ends, the mark waits for later changes.
    fn mark_changelogs(&mut self, parts: &WorkerParts, changes_min: usize) {
        let now = parts.clock.now().0;
        for (_, active) in
            self.iter_mut().filter(|(_, active)| active.task.pending_len() >= changes_min)
        {
            let unmarked: Vec<_> = active.task.unmarked().collect();
            for (store, changelog) in unmarked {
                match parts.broker.end(&changelog, Isolation::ReadUncommitted) {
                    Ok(end) => {
                        let mark = Incarnation::new(&parts.membership.member, now, end);
                        active.task.mark(store, mark);
                    }
                    Err(error) => {
                        tracing::debug!(%changelog, %error, "the changelog gets no mark yet");
                        return;
                    }
                }
            }
        }
    }
}

impl Worker {
    pub(super) fn commit_is_due(&self) -> bool {
        let now = self.parts.clock.elapsed();
        self.pacer.is_due(now)
            || (self.pacer.is_due_after_batch() && !self.tasks.have_work())
            || (self.pacer.is_idle() && self.checkpoint_is_due(now))
    }

    /// Commits, and advances the checkpoint of the next store if that is due.
    pub(super) fn commit(&mut self) -> Result<(), TurnError> {
        let now = self.parts.clock.elapsed();
        let next = match self.parts.stores.is_lasting() {
            true => self.checkpointer.next(now, self.tasks.stores_behind()),
            false => None,
        };
        let ends = checkpointer::read_ends(self.parts.broker.as_ref(), next.into_iter());
        self.commit_with(ends)
    }

    /// Commits, and advances the checkpoints of all stores: before a stop.
    pub(super) fn commit_all(&mut self) -> Result<(), TurnError> {
        self.commit_with(self.ends_of(&self.tasks.numbers()))
    }

    /// Commits. If that succeeds, checkpoints advance to `ends`, which were read before.
    pub(super) fn commit_with(&mut self, ends: Ends) -> Result<(), TurnError> {
        let Self { parts, group, tasks, pacer, .. } = self;
        let started = parts.clock.elapsed();
        let member = group.joined()?.member.as_mut();
        tasks.send(member, pacer)?;
        if tasks.have_changes() {
            // A reader that finds the changes of a record in a changelog must find its outputs, too.
            member.flush()?;
        }
        let mut offsets = tasks.consumed();
        if !ends.is_empty() && offsets.is_empty() {
            // A commit without offsets would not check whether the tasks still belong to this worker.
            offsets.extend(tasks.committed_offset());
        }
        let ends = if offsets.is_empty() { Ends::new() } else { ends };
        tasks.flush_changelogs(parts, member, 1)?;
        let sent = parts.clock.elapsed();
        member.commit(&offsets).map_err(abort_instead_of_retry)?;
        let (write, committed) = (member.write_time(), parts.clock.elapsed());
        group.committed();
        let result = tasks.apply_commit(parts.clock.as_ref(), &ends);
        tasks.finish_rebuilds(offsets.iter().map(|(source, _)| source.partition));
        result?;
        let applied = parts.clock.elapsed();
        pacer.committed(started, applied);
        parts.metrics.committed(CommitTimes {
            send: sent.saturating_sub(started),
            write,
            commit: committed.saturating_sub(sent + write),
            apply: applied.saturating_sub(committed),
        });
        self.publish_status();
        Ok(())
    }
}

/// The error of a call that cannot be repeated alone: records were taken from their tasks, and some were sent.
fn abort_instead_of_retry(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Retry(reason) => BrokerError::Abort(reason),
        BrokerError::Abort(_)
        | BrokerError::Fenced(_)
        | BrokerError::Unsendable { .. }
        | BrokerError::OutOfRange(_)
        | BrokerError::Gone(_)
        | BrokerError::Fatal(_) => error,
    }
}

fn send(member: &mut dyn Member, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
    // Only the caller's loop has the record, so it must be processed again.
    member.send(record).map_err(abort_instead_of_retry)
}

/// Turns a record that can neither be sent nor dead-lettered into a fatal error: without a changelog record, the store
/// would differ from its changelog.
fn fatal_if_unsendable(error: BrokerError) -> BrokerError {
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
