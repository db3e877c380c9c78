//! Bringing a new task's stores up to date from their changelogs, all at once and a little at a time, while the
//! worker goes on polling.
//!
//! ```text
//!   checkpoint ──────▶ changelog ──────▶ end: where it ended when we began, transactions still open included
//!   (or the beginning)   read to its end, and again once every such transaction is decided
//! ```
//! The end of what is committed is not enough: an open transaction of some ghost would hide what a predecessor
//! of ours has committed behind it.

use std::time::Duration;

use crate::streams::{
    record::{InputRecord, Offset, TopicPartition},
    runtime::{
        broker::{Broker, From, Isolation, ReadTo, Reader},
        worker::TurnError,
    },
    state::StoreId,
    task::Task,
    time::{Clock, WallTime},
};

/// The changelogs that a task has still to read.
pub(super) struct Restore {
    changelogs: Vec<Changelog>,
    restored: usize,
}

struct Changelog {
    store: StoreId,
    source: TopicPartition,
    reading: Option<Reading>,
}

struct Reading {
    reader: Box<dyn Reader>,
    /// The next offset to read.
    position: Offset,
    /// Where the changelog ended when we began.
    end: Offset,
    /// Nothing before `end` was undecided when the reader was opened.
    is_decided: bool,
    complete_at: WallTime,
}

/// How long one turn may wait for its changelogs: the worker polls its group in between.
const WAIT_A_TURN: Duration = Duration::from_millis(10);
/// Half of what a broker keeps tombstones for by default (`delete.retention.ms`): an older store may hold what was
/// deleted since, and nobody would say so any more.
const COMPLETE_WITHIN: Duration = Duration::from_secs(12 * 3600);

impl Restore {
    /// All that `task` remembers is to be brought up to date.
    pub(super) fn of(task: &Task) -> Self {
        let changelogs = task.changelogs();
        let changelogs =
            changelogs.map(|(store, source)| Changelog { store, source, reading: None });
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
        let readers = u32::try_from(self.changelogs.len().max(1)).unwrap_or(u32::MAX);
        let wait = WAIT_A_TURN / readers;
        let mut index = 0;
        while index < self.changelogs.len() {
            let changelog = &mut self.changelogs[index];
            let (records, is_done) = changelog.turn(wait, broker, clock, task)?;
            self.restored += records;
            if is_done {
                self.changelogs.swap_remove(index);
            } else {
                index += 1;
            }
        }
        Ok(self.changelogs.is_empty())
    }

    /// Records read so far.
    pub(super) fn restored(&self) -> usize {
        self.restored
    }

    /// Offsets still to go, of the changelogs that are being read: no more records than that.
    pub(super) fn remaining(&self) -> u64 {
        let reading = self.changelogs.iter().filter_map(|changelog| changelog.reading.as_ref());
        let left = reading.map(|reading| reading.end.0 - reading.position.0);
        left.map(|left| u64::try_from(left).unwrap_or(0)).sum()
    }
}

impl Changelog {
    /// How many records came, and whether those were the last.
    fn turn(
        &mut self,
        wait: Duration,
        broker: &dyn Broker,
        clock: &dyn Clock,
        task: &mut Task,
    ) -> Result<(usize, bool), TurnError> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => none.insert(begin(&self.source, self.store, broker, clock, task)?),
        };
        let mut records: Vec<InputRecord> = Vec::new();
        let read_to = reading.reader.read(wait, &mut records)?;
        let count = records.len();
        if let Some(last) = records.last() {
            reading.position = last.offset.next();
        }
        let in_task = TurnError::in_task(task.partition());
        task.restore(self.store, records, reading.complete_at).map_err(&in_task)?;
        if read_to == ReadTo::More {
            return Ok((count, false));
        }
        if reading.is_decided {
            let end = reading.position.max(reading.end);
            task.restored(self.store, end, clock.now()).map_err(in_task)?;
            return Ok((count, true));
        }
        if broker.end(&self.source, Isolation::ReadCommitted)? >= reading.end {
            // What was decided meanwhile may have come after the end that the reader has told.
            reading.reader = broker.read(&self.source, From::Offset(reading.position))?;
            reading.is_decided = true;
        }
        Ok((count, false))
    }
}

fn begin(
    source: &TopicPartition,
    store: StoreId,
    broker: &dyn Broker,
    clock: &dyn Clock,
    task: &mut Task,
) -> Result<Reading, TurnError> {
    let end = broker.end(source, Isolation::ReadUncommitted)?;
    let stable = broker.end(source, Isolation::ReadCommitted)?;
    let now = clock.now();
    let kept = task.checkpoint(store).filter(|kept| match kept {
        kept if kept.offset > end => {
            tracing::warn!(changelog = %source, "it is shorter than the store knew it: restoring anew");
            false
        }
        kept if kept.offset < end && now.since(kept.complete_at) > COMPLETE_WITHIN => {
            tracing::info!(changelog = %source, "the store is older than tombstones are kept: restoring anew");
            false
        }
        _ => true,
    });
    let (from, position, complete_at) = match kept {
        Some(kept) => (From::Offset(kept.offset), kept.offset, kept.complete_at),
        None => {
            task.clear(store).map_err(TurnError::in_task(task.partition()))?;
            (From::Beginning, Offset(0), now)
        }
    };
    let reader = broker.read(source, from)?;
    Ok(Reading { reader, position, end, is_decided: stable >= end, complete_at })
}
