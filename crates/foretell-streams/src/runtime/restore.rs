//! Bringing a new task's stores up to date from their changelogs, all at once and a little at a time, while the
//! worker goes on polling.
//!
//! ```text
//!   checkpoint ──────▶ changelog ──────▶ end: where it ended when we began, transactions still open included
//!   (or the beginning)   read to its end, and again once every such transaction is decided
//! ```
//! Before that, the log has to be the one that the checkpoint is of: its mark is read where the checkpoint says that it is.
//! The end of what is committed is not enough: an open transaction of some zombie would hide what a predecessor
//! of ours has committed behind it.

use std::time::Duration;

#[cfg(test)]
use crate::planted::Planted;
use crate::{
    record::{InputRecord, Offset, TopicPartition},
    runtime::{
        broker::{Broker, BrokerError, Isolation, ReadFrom, ReadTo, Reader},
        worker::TurnError,
    },
    state::{Checkpoint, Incarnation, StoreId, is_mark},
    task::Task,
    time::{Clock, WallTime},
};

/// The changelogs that a task has still to read, or follows.
pub(super) struct Restore {
    changelogs: Vec<Changelog>,
    restored: usize,
}

struct Changelog {
    store: StoreId,
    source: TopicPartition,
    proof: Option<Proof>,
    reading: Option<Reading>,
}

/// Reads the mark of the log that a checkpoint is of.
struct Proof {
    kept: Checkpoint,
    incarnation: Incarnation,
    reader: Box<dyn Reader>,
    /// The first record from the mark's offset on.
    first: Option<InputRecord>,
}

struct Reading {
    reader: Box<dyn Reader>,
    /// The next offset to read.
    position: Offset,
    /// Where the changelog ended when we looked last.
    end: Offset,
    /// Where it ended when we began, open transactions included.
    decided_at: Offset,
    /// All before that was decided when the reader was opened.
    is_decided: bool,
    at_end: bool,
    complete_at: WallTime,
}

/// How long one turn may wait for its changelogs: the worker polls its group in between.
const WAIT_A_TURN: Duration = Duration::from_millis(10);
/// Half of what a broker keeps tombstones for by default (`delete.retention.ms`): an older store may hold what was
/// deleted since, and nobody would say so any more.
const COMPLETE_WITHIN: Duration = Duration::from_secs(12 * 3600);
/// How often a store that follows its changelog says that it is complete.
const COMPLETE_TOLD_EVERY: Duration = Duration::from_secs(60);

impl Restore {
    /// All that `task` remembers is to be brought up to date.
    pub(super) fn of(task: &Task) -> Self {
        let changelogs = task.changelogs();
        let changelogs = changelogs.map(|(store, source)| Changelog {
            store,
            source,
            proof: None,
            reading: None,
        });
        Self { changelogs: changelogs.collect(), restored: 0 }
    }

    /// Reads on; true when every changelog has been read to its end. An error leaves off where it
    /// was: the next turn goes on.
    pub(super) fn turn(
        &mut self,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<bool, TurnError> {
        let wait = self.wait();
        let mut index = 0;
        while index < self.changelogs.len() {
            let changelog = &mut self.changelogs[index];
            self.restored += changelog.read(wait, broker, clock, task)?;
            if changelog.end_as_of(clock.now(), Duration::ZERO, task)? {
                self.changelogs.swap_remove(index);
            } else {
                index += 1;
            }
        }
        Ok(self.changelogs.is_empty())
    }

    /// Reads on, and never ends: what is written to the changelogs is in the stores a moment later.
    pub(super) fn follow(
        &mut self,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<(), TurnError> {
        let wait = self.wait();
        for changelog in &mut self.changelogs {
            self.restored += changelog.read(wait, broker, clock, task)?;
            changelog.end_as_of(clock.now(), COMPLETE_TOLD_EVERY, task)?;
        }
        Ok(())
    }

    /// Asks again where the changelogs end, for [`Self::remaining`].
    pub(super) fn look_ahead(&mut self, broker: &dyn Broker) -> Result<(), BrokerError> {
        for changelog in &mut self.changelogs {
            if let Some(reading) = &mut changelog.reading {
                let end = broker.end(&changelog.source, Isolation::ReadCommitted)?;
                reading.end = reading.end.max(end);
            }
        }
        Ok(())
    }

    /// A turn's patience, shared out.
    fn wait(&self) -> Duration {
        WAIT_A_TURN / u32::try_from(self.changelogs.len().max(1)).unwrap_or(u32::MAX)
    }

    /// Records read so far.
    pub(super) fn restored(&self) -> usize {
        self.restored
    }

    /// Offsets still to go, of the changelogs that are being read: no more records than that.
    pub(super) fn remaining(&self) -> u64 {
        let reading = self.changelogs.iter().filter_map(|changelog| changelog.reading.as_ref());
        let left = reading.filter(|reading| !reading.at_end);
        let left = left.map(|reading| reading.end.0 - reading.position.0);
        left.map(|left| u64::try_from(left).unwrap_or(0)).sum()
    }
}

impl Proof {
    /// Whether the log has the mark where the checkpoint says that it is; none if that is not known yet.
    fn is_of_the_same_log(
        &mut self,
        wait: Duration,
        broker: &dyn Broker,
        source: &TopicPartition,
    ) -> Result<Option<bool>, BrokerError> {
        let mut records = Vec::new();
        let read_to = self.reader.read(wait, &mut records);
        // Also before an error: the reader will not bring it again.
        self.first = self.first.take().or_else(|| records.into_iter().next());
        let read_to = read_to?;
        if let Some(first) = &self.first {
            let mark = Incarnation::of(first);
            return Ok(Some(mark.is_some_and(|mark| mark.id == self.incarnation.id)));
        }
        if read_to == ReadTo::More {
            return Ok(None);
        }
        let stable = broker.end(source, Isolation::ReadCommitted)?;
        let end = broker.end(source, Isolation::ReadUncommitted)?;
        // The mark may be behind a zombie's open transaction.
        if stable <= self.incarnation.offset && stable < end {
            return Ok(None);
        }
        Ok(Some(false))
    }
}

impl Changelog {
    /// How many records came.
    fn read(
        &mut self,
        wait: Duration,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<usize, TurnError> {
        if self.reading.is_none() {
            self.begin(wait, broker, clock, task)?;
        }
        let Some(reading) = &mut self.reading else { return Ok(0) };
        let mut records: Vec<InputRecord> = Vec::new();
        let read_to = reading.reader.read(wait, &mut records);
        #[cfg(test)]
        if read_to.is_err() && task.topology().has(Planted::RecordsDroppedWithAnError) {
            records.clear();
        }
        let count = records.iter().filter(|record| !is_mark(record)).count();
        if let Some(last) = records.last() {
            reading.position = last.offset.next();
        }
        // Also before an error: the reader will not bring them again.
        let applied = task.restore(self.store, records, reading.complete_at);
        applied.map_err(TurnError::in_task(task.partition()))?;
        reading.at_end = read_to? == ReadTo::End && reading.is_decided;
        if !reading.is_decided
            && broker.end(&self.source, Isolation::ReadCommitted)? >= reading.decided_at
        {
            // What was decided meanwhile may have come after the end that the reader has told, and goes on telling.
            #[cfg(test)]
            if task.topology().has(Planted::ReaderNotReopened) {
                reading.is_decided = true;
                return Ok(count);
            }
            reading.reader = broker.read(&self.source, ReadFrom::Offset(reading.position))?;
            reading.is_decided = true;
        }
        Ok(count)
    }

    /// Begins to read where the store leaves off, or at the beginning; not yet, while it is not known whether the log is the
    /// one that the store is of.
    fn begin(
        &mut self,
        wait: Duration,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<(), TurnError> {
        if self.proof.is_none() {
            let Some((kept, incarnation)) = self.usable(broker, clock, task)? else {
                return self.read_from(None, broker, clock, task);
            };
            let reader = broker.read(&self.source, ReadFrom::Offset(incarnation.offset))?;
            self.proof = Some(Proof { kept, incarnation, reader, first: None });
        }
        let Some(proof) = &mut self.proof else { return Ok(()) };
        let Some(is_same) = proof.is_of_the_same_log(wait, broker, &self.source)? else {
            return Ok(());
        };
        #[cfg(test)]
        let is_same = is_same || task.topology().has(Planted::OffsetsTrustedInAnyLog);
        let kept = proof.kept;
        self.proof = None;
        if is_same {
            return self.read_from(Some(kept), broker, clock, task);
        }
        tracing::warn!(changelog = %self.source, "it is not the one that the store is of, but made anew: restoring anew");
        self.read_from(None, broker, clock, task)
    }

    /// The checkpoint of the store, and which log that is of, unless it is of no use.
    fn usable(
        &self,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &Task,
    ) -> Result<Option<(Checkpoint, Incarnation)>, TurnError> {
        let Some(kept) = task.checkpoint(self.store) else { return Ok(None) };
        let end = broker.end(&self.source, Isolation::ReadUncommitted)?;
        let (changelog, now) = (&self.source, clock.now());
        if kept.offset > end {
            tracing::warn!(%changelog, "it is shorter than the store knew it: restoring anew");
            return Ok(None);
        }
        if kept.offset < end && now.since(kept.complete_at) > COMPLETE_WITHIN {
            tracing::info!(%changelog, "the store is older than tombstones are kept: restoring anew");
            return Ok(None);
        }
        if kept.incarnation.is_none() && kept.offset > Offset(0) {
            tracing::info!(%changelog, "it had no mark when the store was written: restoring anew");
        }
        Ok(kept.incarnation.map(|incarnation| (kept, incarnation)))
    }

    fn read_from(
        &mut self,
        kept: Option<Checkpoint>,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<(), TurnError> {
        let end = broker.end(&self.source, Isolation::ReadUncommitted)?;
        let stable = broker.end(&self.source, Isolation::ReadCommitted)?;
        let (from, position, complete_at) = match kept {
            Some(kept) => (ReadFrom::Offset(kept.offset), kept.offset, kept.complete_at),
            None => {
                let cleared = task.clear(self.store);
                cleared.map_err(TurnError::in_task(task.partition()))?;
                (ReadFrom::Beginning, Offset(0), clock.now())
            }
        };
        let reader = broker.read(&self.source, from)?;
        let is_decided = stable >= end;
        self.reading = Some(Reading {
            reader,
            position,
            end,
            decided_at: end,
            is_decided,
            at_end: false,
            complete_at,
        });
        Ok(())
    }

    /// Whether all was read; the store then says that it was complete `now`, if it last said so `every` ago or
    /// more.
    fn end_as_of(
        &mut self,
        now: WallTime,
        every: Duration,
        task: &mut Task,
    ) -> Result<bool, TurnError> {
        let Some(reading) = self.reading.as_mut().filter(|reading| reading.at_end) else {
            return Ok(false);
        };
        if now.since(reading.complete_at) >= every {
            reading.complete_at = now;
            let end = reading.position.max(reading.decided_at);
            let said = task.finish_restore(self.store, end, now);
            said.map_err(TurnError::in_task(task.partition()))?;
        }
        Ok(true)
    }
}
