//! Restore of a task's stores from their changelogs: all stores at once, a few records per turn, while the worker
//! continues to poll.
//!
//! ```text
//!   checkpoint ──────▶ changelog ──────▶ end: of the changelog at the start, open transactions included
//!   (or the beginning)   read to its end, and again once every such transaction is decided
//! ```
//! Before that, the log must be the one that the checkpoint belongs to: its mark is read at the offset that the checkpoint
//! names. The last stable offset is not enough as an end: the open transaction of a zombie would hide records that the
//! previous owner has committed behind it.

use std::time::Duration;

use crate::{
    record::{InputRecord, Offset, TopicPartition},
    runtime::{
        broker::{Broker, BrokerError, Isolation, ReadFrom, ReadTo, Reader},
        error::TurnError,
    },
    state::{Checkpoint, Incarnation, StoreId, is_mark},
    task::Task,
    time::{Clock, WallTime},
};

/// The changelogs that an active task has still to read, or that a standby task follows.
pub(super) struct Restore {
    changelogs: Vec<Changelog>,
    /// Changelog records read so far.
    restored: usize,
}

struct Changelog {
    store: StoreId,
    source: TopicPartition,
    check: Option<IncarnationCheck>,
    reading: Option<Reading>,
}

/// A check that the log is the one that a checkpoint belongs to, by the mark in it.
struct IncarnationCheck {
    checkpoint: Checkpoint,
    incarnation: Incarnation,
    reader: Box<dyn Reader>,
    /// The first record at or after the offset of the mark.
    first: Option<InputRecord>,
}

struct Reading {
    reader: Box<dyn Reader>,
    /// The next offset to read.
    position: Offset,
    /// The end of the changelog, when it was last asked for.
    end: Offset,
    /// The end of the changelog when the restore began, open transactions included.
    initial_end: Offset,
    /// Whether all transactions before `initial_end` were decided when the reader was opened.
    is_decided: bool,
    at_end: bool,
    /// When the store last held everything that the changelog held.
    complete_at: WallTime,
    /// Records read so far, and how many are read before the number of entries is estimated again.
    read: usize,
    estimated_at: usize,
    /// Room for records, empty between two turns.
    buffer: Vec<InputRecord>,
}

/// The longest that one turn waits for changelogs: the worker polls its group in between.
const WAIT_PER_TURN: Duration = Duration::from_millis(10);
/// Half of the time for which a broker keeps tombstones by default (`delete.retention.ms`). An older store may hold
/// entries that were deleted since, whose tombstones are no longer in the changelog.
const COMPLETE_WITHIN: Duration = Duration::from_secs(12 * 3600);
/// The number of records after which the number of entries is estimated first, and the factor of the next such number.
const ESTIMATED_AFTER: usize = 64;
const ESTIMATED_AGAIN: usize = 8;
/// The interval at which a standby store records that it is complete.
const COMPLETE_RECORDED_EVERY: Duration = Duration::from_secs(60);

impl Restore {
    /// A restore of all stores of `task`.
    pub(super) fn of(task: &Task) -> Self {
        let changelogs = task.changelogs();
        let changelogs = changelogs.map(|(store, source)| Changelog {
            store,
            source,
            check: None,
            reading: None,
        });
        Self { changelogs: changelogs.collect(), restored: 0 }
    }

    /// Reads more records; returns whether every changelog has been read to its end. After an error the next turn
    /// continues where this one ended.
    pub(super) fn turn(
        &mut self,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<bool, TurnError> {
        let wait = self.wait_per_changelog();
        let mut index = 0;
        while index < self.changelogs.len() {
            let changelog = &mut self.changelogs[index];
            self.restored += changelog.read(wait, broker, clock, task)?;
            if changelog.record_if_complete(clock.now(), Duration::ZERO, task)? {
                self.changelogs.swap_remove(index);
            } else {
                index += 1;
            }
        }
        Ok(self.changelogs.is_empty())
    }

    /// Reads more records and never ends, as a standby does.
    pub(super) fn follow(
        &mut self,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<(), TurnError> {
        let wait = self.wait_per_changelog();
        for changelog in &mut self.changelogs {
            self.restored += changelog.read(wait, broker, clock, task)?;
            changelog.record_if_complete(clock.now(), COMPLETE_RECORDED_EVERY, task)?;
        }
        Ok(())
    }

    /// Asks again where the changelogs end, for [`Self::remaining`].
    pub(super) fn update_ends(&mut self, broker: &dyn Broker) -> Result<(), BrokerError> {
        for changelog in &mut self.changelogs {
            if let Some(reading) = &mut changelog.reading {
                let end = broker.end(&changelog.source, Isolation::ReadCommitted)?;
                reading.end = reading.end.max(end);
            }
        }
        Ok(())
    }

    fn wait_per_changelog(&self) -> Duration {
        WAIT_PER_TURN / u32::try_from(self.changelogs.len().max(1)).unwrap_or(u32::MAX)
    }

    /// The number of records read so far.
    pub(super) fn restored(&self) -> usize {
        self.restored
    }

    /// The number of offsets up to the ends of the changelogs that are being read, an upper bound of the records.
    pub(super) fn remaining(&self) -> u64 {
        let reading = self.changelogs.iter().filter_map(|changelog| changelog.reading.as_ref());
        let unfinished = reading.filter(|reading| !reading.at_end);
        let offsets = unfinished.map(|reading| reading.end.0 - reading.position.0);
        offsets.map(|offsets| u64::try_from(offsets).unwrap_or(0)).sum()
    }
}

impl IncarnationCheck {
    /// Whether the log has the mark at the offset that the checkpoint names; `None` if that is not known yet.
    fn is_of_the_same_log(
        &mut self,
        wait: Duration,
        broker: &dyn Broker,
        source: &TopicPartition,
    ) -> Result<Option<bool>, BrokerError> {
        let mut records = Vec::new();
        let read_to = self.reader.read(wait, &mut records);
        // Records that came with an error count too: the reader does not return them again.
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
        // The mark may be behind the open transaction of a zombie.
        if stable <= self.incarnation.offset && stable < end {
            return Ok(None);
        }
        Ok(Some(false))
    }
}

impl Reading {
    /// Has the store make room for the entries to come, now and then, after `read` more records.
    fn estimate_entries(&mut self, read: usize, store: StoreId, task: &mut Task) {
        self.read += read;
        if self.read >= self.estimated_at {
            self.estimated_at = self.read.saturating_mul(ESTIMATED_AGAIN);
            let remaining = usize::try_from(self.end.0 - self.position.0).unwrap_or(0);
            task.expect_entries(store, self.read, remaining);
        }
    }
}

impl Changelog {
    /// Reads records into the store; returns their number.
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
        let mut records = std::mem::take(&mut reading.buffer);
        let read_to = reading.reader.read(wait, &mut records);
        let count = records.iter().filter(|record| !is_mark(record)).count();
        if let Some(last) = records.last() {
            reading.position = last.offset.next();
        }
        // Before the error is returned: the reader does not return these records again.
        let applied = task.restore(self.store, &records, reading.complete_at);
        applied.map_err(TurnError::in_task(task.partition()))?;
        reading.estimate_entries(records.len(), self.store, task);
        records.clear();
        reading.buffer = records;
        reading.at_end = read_to? == ReadTo::End && reading.is_decided;
        if !reading.is_decided
            && broker.end(&self.source, Isolation::ReadCommitted)? >= reading.initial_end
        {
            // Another reader, because this one may report the end that it found before the transactions were decided.
            reading.reader =
                broker.read_changelog(&self.source, ReadFrom::Offset(reading.position))?;
            reading.is_decided = true;
        }
        Ok(count)
    }

    /// Starts to read at the store's checkpoint, or at the beginning. Does not start yet while it is unknown whether the
    /// log is the one that the checkpoint belongs to.
    fn begin(
        &mut self,
        wait: Duration,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<(), TurnError> {
        if self.check.is_none() {
            let usable = self.usable_checkpoint(broker, clock, task)?;
            let Some((checkpoint, incarnation)) = usable else {
                return self.read_from(None, broker, clock, task);
            };
            let reader =
                broker.read_changelog(&self.source, ReadFrom::Offset(incarnation.offset))?;
            self.check = Some(IncarnationCheck { checkpoint, incarnation, reader, first: None });
        }
        let Some(check) = &mut self.check else { return Ok(()) };
        let Some(is_same) = check.is_of_the_same_log(wait, broker, &self.source)? else {
            return Ok(());
        };
        let checkpoint = check.checkpoint;
        self.check = None;
        if is_same {
            return self.read_from(Some(checkpoint), broker, clock, task);
        }
        tracing::warn!(
            changelog = %self.source,
            "the changelog was recreated since the store was written: restoring from the beginning"
        );
        self.read_from(None, broker, clock, task)
    }

    /// The checkpoint of the store and the incarnation of the log that it belongs to; `None` if the store has to be
    /// restored from the beginning.
    fn usable_checkpoint(
        &self,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &Task,
    ) -> Result<Option<(Checkpoint, Incarnation)>, TurnError> {
        let Some(checkpoint) = task.checkpoint(self.store) else { return Ok(None) };
        let end = broker.end(&self.source, Isolation::ReadUncommitted)?;
        let (changelog, now) = (&self.source, clock.now());
        if checkpoint.offset > end {
            tracing::warn!(%changelog, "the changelog ends before the store's checkpoint: restoring from the beginning");
            return Ok(None);
        }
        if checkpoint.offset < end && now.since(checkpoint.complete_at) > COMPLETE_WITHIN {
            tracing::info!(%changelog, "the store is older than tombstones are kept: restoring from the beginning");
            return Ok(None);
        }
        if checkpoint.incarnation.is_none() && checkpoint.offset > Offset(0) {
            tracing::info!(%changelog, "the store's checkpoint names no mark of its changelog: restoring from the beginning");
        }
        Ok(checkpoint.incarnation.map(|incarnation| (checkpoint, incarnation)))
    }

    fn read_from(
        &mut self,
        checkpoint: Option<Checkpoint>,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<(), TurnError> {
        let end = broker.end(&self.source, Isolation::ReadUncommitted)?;
        let stable = broker.end(&self.source, Isolation::ReadCommitted)?;
        let (from, position, complete_at) = match checkpoint {
            Some(Checkpoint { offset, complete_at, .. }) => {
                (ReadFrom::Offset(offset), offset, complete_at)
            }
            None => {
                let cleared = task.clear(self.store);
                cleared.map_err(TurnError::in_task(task.partition()))?;
                (ReadFrom::Beginning, Offset(0), clock.now())
            }
        };
        let reader = broker.read_changelog(&self.source, from)?;
        let is_decided = stable >= end;
        self.reading = Some(Reading {
            reader,
            position,
            end,
            initial_end: end,
            is_decided,
            at_end: false,
            complete_at,
            read: 0,
            estimated_at: ESTIMATED_AFTER,
            buffer: Vec::new(),
        });
        Ok(())
    }

    /// Returns whether the changelog was read to its end. If so, the store records that it is complete as of `now`, unless
    /// it has recorded that less than `every` ago.
    fn record_if_complete(
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
            let end = reading.position.max(reading.initial_end);
            let recorded = task.finish_restore(self.store, end, now);
            recorded.map_err(TurnError::in_task(task.partition()))?;
        }
        Ok(true)
    }
}
