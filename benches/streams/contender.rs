//! What is measured: a consumer that produces, ours or a bare one.

use anyhow::ensure;

use crate::usage::{Speed, Start};

/// Reads, processes, writes and commits, a little at a time.
pub(crate) trait Contender {
    /// One step; waits only with nothing to do.
    fn turn(&mut self) -> anyhow::Result<()>;

    /// How many records it has read.
    fn read(&self) -> u64;

    /// How many of them are committed.
    fn committed(&self) -> u64;

    /// Leaves its group.
    fn leave(self: Box<Self>) -> anyhow::Result<()>;
}

/// How fast `contender` does the `records` that its topic holds: from the first one read to the commit of the last.
/// To join a group, and the first fetch, take what they take and are left out.
pub(crate) fn race(mut contender: Box<dyn Contender>, records: u64) -> anyhow::Result<Speed> {
    while contender.read() == 0 {
        contender.turn()?;
    }
    let (start, before) = (Start::now()?, contender.read());
    while contender.read() < records || contender.committed() < records {
        contender.turn()?;
    }
    let speed = start.until_now(records - before)?;
    ensure!(contender.committed() == records, "a record was processed twice");
    contender.leave()?;
    Ok(speed)
}
