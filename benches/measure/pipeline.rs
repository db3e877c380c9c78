//! What is measured: a consume-process-produce loop of the streams layer, or of bare librdkafka.

use anyhow::ensure;

use crate::measure::usage::{Speed, Start};

/// A loop that reads, processes, writes and commits records in small steps.
pub(crate) trait Pipeline {
    /// Runs one step. Waits only if there is nothing to do.
    fn turn(&mut self) -> anyhow::Result<()>;

    /// The number of records read.
    fn read(&self) -> u64;

    /// The number of records committed.
    fn committed(&self) -> u64;

    /// Leaves its group.
    fn leave(self: Box<Self>) -> anyhow::Result<()>;
}

/// Measures how fast `pipeline` processes the `records` of its topic, from the first record read to the commit of the
/// last. The time to join the group and of the first fetch is not included.
pub(crate) fn measure_speed(
    mut pipeline: Box<dyn Pipeline>,
    records: u64,
) -> anyhow::Result<Speed> {
    while pipeline.read() == 0 {
        pipeline.turn()?;
    }
    let (start, before) = (Start::now()?, pipeline.read());
    while pipeline.read() < records || pipeline.committed() < records {
        pipeline.turn()?;
    }
    let speed = start.until_now(records - before)?;
    ensure!(pipeline.committed() == records, "a record was processed twice");
    pipeline.leave()?;
    Ok(speed)
}
