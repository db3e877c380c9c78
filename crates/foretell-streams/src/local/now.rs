//! The present time, as an argument of every operation on a [`Cluster`](crate::local::cluster::Cluster).

use std::time::Duration;

use crate::time::WallTime;

/// The present time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For sessions and transactions: [`Clock::elapsed`](crate::time::Clock::elapsed).
    pub(crate) elapsed: Duration,
    /// For retention.
    pub(crate) wall: WallTime,
}
