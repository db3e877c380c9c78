//! What the benchmarks of the job and of the streams layer share: the limit that both are compared with, clocks, and the table
//! of bounds.

pub(crate) mod bare;
pub(crate) mod pipeline;
pub(crate) mod usage;
pub(crate) mod verdicts;
