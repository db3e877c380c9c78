//! Which inputs of a task are known to have more than has come. What the others have may be later than that, and has to
//! wait, or stream time would pass it by (KIP-353, KIP-695).
//!
//! ```text
//!   Unknown ──the broker is asked──▶ Behind ──every end reached──▶ Caught up
//!      ▲                               │  └──took long: more may have come──▶ Unknown
//!      └── abort ── any                └──nothing came for too long──▶ Given up
//! ```
//! An end is reached by its last record, or by the member's position: behind the last record there may be markers of
//! transactions, or records of an aborted one, which never come.

use std::time::Duration;

use crate::record::{InputRecord, Offset, TopicPartition};

/// See the module.
pub(super) enum Backlog {
    /// The broker is to be asked.
    Unknown,
    /// Of these inputs something is still to come.
    Behind { inputs: Vec<Behind>, asked_at: Duration },
    /// Nobody is waited for.
    Over,
}

/// An input with records before `end` that have not come yet.
pub(super) struct Behind {
    pub(super) input: TopicPartition,
    pub(super) end: Offset,
    pub(super) empty_since: Option<Duration>,
}

/// What comes while it catches up for longer than this is a backlog, too.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Backlog {
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    pub(super) fn is_behind(&self) -> bool {
        matches!(self, Self::Behind { .. })
    }

    fn inputs(&self) -> &[Behind] {
        match self {
            Self::Behind { inputs, .. } => inputs,
            Self::Unknown | Self::Over => &[],
        }
    }

    /// A record has come.
    pub(super) fn came(&mut self, record: &InputRecord) {
        if let Self::Behind { inputs, .. } = self {
            inputs.retain(|one| one.input != record.source || record.offset.next() < one.end);
        }
    }

    /// Lets go of what has been read to its end.
    pub(super) fn look(&mut self, now: Duration, position: impl Fn(&TopicPartition) -> Offset) {
        let Self::Behind { inputs, asked_at } = self else { return };
        inputs.retain(|one| position(&one.input) < one.end);
        if inputs.is_empty() {
            let was_long = now.saturating_sub(*asked_at) > ASK_AGAIN_AFTER;
            *self = if was_long { Self::Unknown } else { Self::Over };
        }
    }

    /// The first input that is behind, and has nothing at hand.
    pub(super) fn lacking(&self, buffered: impl Fn(&TopicPartition) -> usize) -> Option<&Behind> {
        self.inputs().iter().find(|one| buffered(&one.input) == 0)
    }

    /// Whether the next record has to wait for one of them; not for one that has given nothing for `idle_max`.
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
                "it has records that have not come: going on without them, they may be late \
                 (streams.max_task_idle)"
            );
            *self = Self::Over;
        }
        self.lacking(buffered).is_some()
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
        let one = Behind { input: input(), end: Offset(end), empty_since: None };
        Backlog::Behind { inputs: vec![one], asked_at: Duration::ZERO }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_waits_until_the_end_is_reached() {
        let mut backlog = behind(5);
        assert!(backlog.must_wait(at(0), MAX, |_| 0));
        assert!(!backlog.must_wait(at(0), MAX, |_| 1), "what is at hand can be compared");
        backlog.look(at(0), |_| Offset(4));
        assert!(backlog.must_wait(at(0), MAX, |_| 0));
        backlog.look(at(0), |_| Offset(5));
        assert!(!backlog.must_wait(at(0), MAX, |_| 0));
        assert!(!backlog.is_unknown());
    }

    #[test]
    fn an_end_is_reached_by_its_own_last_record() {
        let mut backlog = behind(5);
        let mut came = |topic: &str, offset| {
            let source = TopicPartition { topic: Topic::new(topic), partition: Partition(0) };
            backlog.came(&InputRecord {
                source,
                offset: Offset(offset),
                timestamp: EventTime(0),
                key: None,
                value: None,
                headers: Vec::new(),
            });
            backlog.must_wait(at(0), MAX, |_| 0)
        };
        assert!(came("side", 3));
        assert!(came("lead", 9), "another input's");
        assert!(!came("side", 4));
    }

    #[test]
    fn a_catch_up_that_took_long_is_looked_at_again() {
        let mut backlog = behind(5);
        backlog.look(at(2), |_| Offset(5));
        assert!(backlog.is_unknown());
    }

    #[test]
    fn the_wait_is_bounded_since_the_last_record() {
        let mut backlog = behind(5);
        assert!(backlog.must_wait(at(0), MAX, |_| 0));
        assert!(!backlog.must_wait(at(290), MAX, |_| 1));
        assert!(backlog.must_wait(at(310), MAX, |_| 0));
        assert!(backlog.must_wait(at(609), MAX, |_| 0));
        assert!(!backlog.must_wait(at(610), MAX, |_| 0));
        backlog.look(at(611), |_| Offset(4));
        assert!(!backlog.is_unknown(), "or it would wait again");
    }
}
