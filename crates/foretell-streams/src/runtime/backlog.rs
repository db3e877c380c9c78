//! Inputs of a task that have more records than were fetched so far. Records of the other inputs wait, because they may
//! have later event times and would advance stream time past the missing ones (KIP-353, KIP-695).
//!
//! ```text
//!   Unknown ──the broker is asked──▶ Behind ──every end reached──▶ Done
//!      ▲                               │  └──this took over a second: ask again──▶ Unknown
//!      └── abort ── any                └──no record for `max_task_idle`──▶ Done
//! ```
//! An end is reached by its last record, or by the member's position: after the last record there may be transaction
//! markers or records of an aborted transaction, which are never delivered.

use std::time::Duration;

use crate::record::{InputRecord, Offset, TopicPartition};

/// The inputs that a task waits for.
pub(super) enum Backlog {
    /// The broker has to be asked for the ends of the inputs.
    Unknown,
    /// The inputs that were not read to their ends yet, and when those were asked for.
    Behind { inputs: Vec<BehindInput>, asked_at: Duration },
    /// The task waits for no input.
    Done,
}

/// An input with records before `end` that were not fetched yet.
pub(super) struct BehindInput {
    pub(super) input: TopicPartition,
    pub(super) end: Offset,
    /// Since when the task has no record of it.
    pub(super) empty_since: Option<Duration>,
}

/// The time of catching up after which the ends are asked for again: by then new records may be a backlog, too.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Backlog {
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    pub(super) fn is_behind(&self) -> bool {
        matches!(self, Self::Behind { .. })
    }

    fn inputs(&self) -> &[BehindInput] {
        match self {
            Self::Behind { inputs, .. } => inputs,
            Self::Unknown | Self::Done => &[],
        }
    }

    /// Notes a fetched record, which may be the last before an end.
    pub(super) fn fetched(&mut self, record: &InputRecord) {
        if let Self::Behind { inputs, .. } = self {
            inputs.retain(|one| one.input != record.source || record.offset.next() < one.end);
        }
    }

    /// Removes the inputs that were read to their ends, by the member's positions.
    pub(super) fn update(&mut self, now: Duration, position: impl Fn(&TopicPartition) -> Offset) {
        let Self::Behind { inputs, asked_at } = self else { return };
        inputs.retain(|one| position(&one.input) < one.end);
        if inputs.is_empty() {
            let was_long = now.saturating_sub(*asked_at) > ASK_AGAIN_AFTER;
            *self = if was_long { Self::Unknown } else { Self::Done };
        }
    }

    /// The first input that is behind and has no buffered record.
    pub(super) fn awaited(
        &self,
        buffered: impl Fn(&TopicPartition) -> usize,
    ) -> Option<&BehindInput> {
        self.inputs().iter().find(|one| buffered(&one.input) == 0)
    }

    /// Whether the next record has to wait for one of the inputs. Stops waiting for all of them when one has had no
    /// record for `idle_max`.
    pub(super) fn must_wait(
        &mut self,
        now: Duration,
        idle_max: Duration,
        buffered: impl Fn(&TopicPartition) -> usize,
    ) -> bool {
        let Self::Behind { inputs, .. } = self else { return false };
        let mut given_up = None;
        for one in inputs.iter_mut() {
            if buffered(&one.input) > 0 {
                one.empty_since = None;
                continue;
            }
            let waited = now.saturating_sub(*one.empty_since.get_or_insert(now));
            if waited >= idle_max {
                given_up = Some((&one.input, one.end, waited));
            }
        }
        if let Some((input, end, waited)) = given_up {
            tracing::warn!(
                %input, %end, ?waited,
                "this input has records that were not fetched in time: processing continues without them, they may be \
                 late (streams.max_task_idle)"
            );
            *self = Self::Done;
        }
        self.awaited(buffered).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{Partition, Topic},
        time::EventTime,
    };

    const MAX: Duration = Duration::from_secs(300);

    fn input() -> TopicPartition {
        TopicPartition { topic: Topic::new("side"), partition: Partition(0) }
    }

    fn behind(end: i64) -> Backlog {
        let one = BehindInput { input: input(), end: Offset(end), empty_since: None };
        Backlog::Behind { inputs: vec![one], asked_at: Duration::ZERO }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_task_waits_until_the_end_of_an_input_is_reached() {
        let mut backlog = behind(5);
        assert!(backlog.must_wait(at(0), MAX, |_| 0));
        assert!(!backlog.must_wait(at(0), MAX, |_| 1), "a buffered record can be compared");
        backlog.update(at(0), |_| Offset(4));
        assert!(backlog.must_wait(at(0), MAX, |_| 0));
        backlog.update(at(0), |_| Offset(5));
        assert!(!backlog.must_wait(at(0), MAX, |_| 0));
        assert!(!backlog.is_unknown());
    }

    #[test]
    fn an_end_is_reached_by_its_own_last_record() {
        let mut backlog = behind(5);
        let mut must_wait_after = |topic: &str, offset| {
            let source = TopicPartition { topic: Topic::new(topic), partition: Partition(0) };
            backlog.fetched(&InputRecord {
                source,
                offset: Offset(offset),
                timestamp: EventTime(0),
                key: None,
                value: None,
                headers: Vec::new(),
            });
            backlog.must_wait(at(0), MAX, |_| 0)
        };
        assert!(must_wait_after("side", 3));
        assert!(must_wait_after("lead", 9), "this is another input");
        assert!(!must_wait_after("side", 4));
    }

    #[test]
    fn ends_are_asked_for_again_after_a_long_catch_up() {
        let mut backlog = behind(5);
        backlog.update(at(2), |_| Offset(5));
        assert!(backlog.is_unknown());
    }

    #[test]
    fn the_wait_is_bounded_from_the_last_record_on() {
        let mut backlog = behind(5);
        assert!(backlog.must_wait(at(0), MAX, |_| 0));
        assert!(!backlog.must_wait(at(290), MAX, |_| 1));
        assert!(backlog.must_wait(at(310), MAX, |_| 0));
        assert!(backlog.must_wait(at(609), MAX, |_| 0));
        assert!(!backlog.must_wait(at(610), MAX, |_| 0));
        backlog.update(at(611), |_| Offset(4));
        assert!(!backlog.is_unknown(), "or the task would wait again");
    }
}
