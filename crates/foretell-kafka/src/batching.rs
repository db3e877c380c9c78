//! How long a member gathers records before the broker returns them, and before it sends them.
//!
//! At a low rate nearly all of the CPU time, here and in the broker, goes into requests with few records each. Exactly once,
//! nobody can read a result before the commit, so a member may gather records for a part of the commit interval: the
//! worker commits after the last fetch of an interval, so a record waits no longer than without. At least once, a result can
//! be read as soon as it is sent, so records are fetched and sent at once.

use std::time::Duration;

use foretell_streams::runtime::broker::{Membership, ProcessingGuarantee};

/// The librdkafka properties by which a member gathers records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batching {
    /// The longest time that the broker gathers records for a fetch (`fetch.wait.max.ms`).
    pub(crate) fetch_wait: Duration,
    /// The size from which the broker gathers no more (`fetch.min.bytes`).
    pub(crate) fetch_bytes: u32,
    /// The longest time that a transactional producer gathers records (`linger.ms`). A commit does not wait so long, and
    /// neither does a batch of librdkafka's maximum size of 1 MB.
    pub(crate) linger: Duration,
}

/// There is one fetch in flight per broker. Partitions that are assigned, resumed or sought meanwhile wait until it returns.
/// With librdkafka's default of 500 ms, an abort took a quarter of a second.
const FETCH_WAIT_MAX: Duration = Duration::from_millis(100);

/// The broker waits for a whole number of milliseconds, of which 0 would be polling.
const FETCH_WAIT_MIN: Duration = Duration::from_millis(1);

/// Fetches that fit into a commit interval. `docs/benchmarks.md` has the CPU time and the latency with other numbers. The
/// fetches of several brokers are not synchronous: a record may have to wait for one fetch more.
const FETCHES_PER_COMMIT: u32 = 3;

/// The part of the commit interval before its end at which the last of these fetches must have returned, and the time that a
/// fetch takes besides the waiting: otherwise the commit would just miss it.
const SPARE_PART: u32 = 20;
const ROUND_TRIP: Duration = Duration::from_millis(3);

/// To gather more would save little: a fetch takes some 100 µs of CPU time, and its records as much each 10 kB.
const FETCH_BYTES: u32 = 100_000;

/// librdkafka's default.
const LINGER_MIN: Duration = Duration::from_millis(5);

/// As long may `send` have to wait if librdkafka's queue is full, and no batch in it is.
const LINGER_MAX: Duration = Duration::from_millis(100);

impl Batching {
    pub(crate) fn of(membership: &Membership) -> Self {
        let interval = membership.commit_interval;
        let (fetch_wait, fetch_bytes) = match membership.guarantee {
            ProcessingGuarantee::ExactlyOnce => {
                let fetch = (interval - interval / SPARE_PART) / FETCHES_PER_COMMIT;
                (fetch.saturating_sub(ROUND_TRIP), FETCH_BYTES)
            }
            ProcessingGuarantee::AtLeastOnce => (FETCH_WAIT_MAX, 1),
        };
        Self {
            fetch_wait: fetch_wait.clamp(FETCH_WAIT_MIN, FETCH_WAIT_MAX),
            fetch_bytes,
            linger: interval.clamp(LINGER_MIN, LINGER_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::Mock;

    /// The time that a fetch and a send may gather records, in milliseconds, and the size of a fetch that gathers no more.
    fn gathered(guarantee: ProcessingGuarantee, interval_millis: u64) -> (u128, u128, u32) {
        let commit_interval = Duration::from_millis(interval_millis);
        let batching = Batching::of(&Membership { commit_interval, ..Mock::membership(guarantee) });
        (batching.fetch_wait.as_millis(), batching.linger.as_millis(), batching.fetch_bytes)
    }

    #[test]
    fn exactly_once_a_part_of_the_commit_interval_is_used_to_gather_records() {
        let check = |interval, fetch_wait, linger| {
            let gathered = gathered(ProcessingGuarantee::ExactlyOnce, interval);
            assert_eq!(gathered, (fetch_wait, linger, FETCH_BYTES), "{interval} ms");
        };
        check(1, 1, 5);
        check(20, 3, 20);
        check(100, 28, 100);
        check(1_000, 100, 100);
        check(30_000, 100, 100);
    }

    #[test]
    fn at_least_once_records_are_fetched_and_sent_at_once() {
        for interval in [1, 100, 30_000] {
            let (_, _, fetch_bytes) = gathered(ProcessingGuarantee::AtLeastOnce, interval);
            assert_eq!(fetch_bytes, 1, "{interval} ms");
        }
    }
}
