//! The queued records of a task, one queue per input, merged by event time.
//!
//! ```text
//!   input ─▶ [ raw raw raw head ]──┐     only the head is decoded and has an event time:
//!   input ─▶ [ raw head ]──────────┴─▶   the earliest head is processed next
//! ```

use std::collections::VecDeque;

use crate::{record::InputRecord, time::EventTime};

/// One queue for each source of the topology.
pub(super) struct InputQueues {
    queues: Vec<Queue>,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<InputRecord>,
    /// The event time of the head, once it is extracted.
    time: Option<EventTime>,
}

impl InputQueues {
    pub(super) fn new(sources: usize) -> Self {
        Self { queues: (0..sources).map(|_| Queue::default()).collect() }
    }

    pub(super) fn push(&mut self, source: usize, record: InputRecord) {
        self.queues[source].records.push_back(record);
    }

    /// The first source whose head has no event time yet.
    pub(super) fn without_time(&self) -> Option<usize> {
        self.queues.iter().position(|queue| queue.time.is_none() && !queue.records.is_empty())
    }

    pub(super) fn head(&self, source: usize) -> Option<&InputRecord> {
        self.queues[source].records.front()
    }

    /// Sets the event time of a source's head.
    pub(super) fn set_time(&mut self, source: usize, time: EventTime) {
        self.queues[source].time = Some(time);
    }

    /// The source with the earliest head, and the head's time; among equal times, the lowest source. Times after `latest`
    /// count as `latest`: stream time does not advance beyond it, so such a head need not wait for other inputs.
    pub(super) fn earliest(&self, latest: EventTime) -> Option<(usize, EventTime)> {
        let heads = self.queues.iter().enumerate();
        let heads = heads.filter_map(|(source, queue)| Some((source, queue.time?)));
        heads.min_by_key(|(source, time)| (*time.min(&latest), *source))
    }

    /// Removes the head and its event time.
    pub(super) fn pop(&mut self, source: usize) -> Option<InputRecord> {
        self.queues[source].time = None;
        self.queues[source].records.pop_front()
    }

    /// Puts a record back as the head of its queue, to be tried again.
    pub(super) fn put_back(&mut self, source: usize, record: InputRecord, time: EventTime) {
        self.queues[source].records.push_front(record);
        self.queues[source].time = Some(time);
    }

    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(|queue| queue.records.len()).sum()
    }

    pub(super) fn len_of(&self, source: usize) -> usize {
        self.queues[source].records.len()
    }

    pub(super) fn clear(&mut self) {
        self.queues.fill_with(Queue::default);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Offset, Partition, Topic, TopicPartition};

    fn record(time: i64) -> InputRecord {
        let source = TopicPartition { topic: Topic::new("any"), partition: Partition(0) };
        InputRecord {
            source,
            offset: Offset(time),
            // Must not matter.
            timestamp: EventTime(-time),
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    const LATEST: EventTime = EventTime(50);

    fn pop(queues: &mut InputQueues) -> Option<(usize, i64)> {
        while let Some(source) = queues.without_time() {
            let time = EventTime(queues.head(source).unwrap().offset.0);
            queues.set_time(source, time);
        }
        let (source, time) = queues.earliest(LATEST)?;
        queues.pop(source).unwrap();
        Some((source, time.0))
    }

    /// Pushes records of the given sources and times, and compares the order in which they are popped.
    fn check(pushed: &[(usize, i64)], popped: &[(usize, i64)]) {
        let mut queues = InputQueues::new(3);
        for (source, time) in pushed {
            queues.push(*source, record(*time));
        }
        assert_eq!(queues.len(), pushed.len());
        let out: Vec<_> = std::iter::from_fn(|| pop(&mut queues)).collect();
        assert_eq!(out, popped);
        assert_eq!(queues.len(), 0);
    }

    #[test]
    fn the_earliest_head_goes_first_and_no_queue_is_reordered() {
        check(&[], &[]);
        check(&[(0, 5), (1, 3), (2, 4)], &[(1, 3), (2, 4), (0, 5)]);
        check(&[(2, 1), (0, 1), (1, 1)], &[(0, 1), (1, 1), (2, 1)]);
        // A record that is late in its own queue holds back the records behind it, not the other queues.
        check(&[(0, 9), (0, 1), (1, 5), (1, 10)], &[(1, 5), (0, 9), (0, 1), (1, 10)]);
    }

    #[test]
    fn a_record_of_a_fast_clock_counts_as_the_latest_possible_stream_time() {
        check(&[(0, 900), (0, 7), (1, 40), (1, 50)], &[(1, 40), (0, 900), (0, 7), (1, 50)]);
        check(&[(0, 900), (1, 800)], &[(0, 900), (1, 800)]);
    }

    #[test]
    fn a_record_that_is_put_back_is_the_head_again_with_its_time() {
        let mut queues = InputQueues::new(2);
        queues.push(0, record(1));
        queues.push(0, record(2));
        queues.set_time(0, EventTime(1));
        let first = queues.pop(0).unwrap();
        assert_eq!(queues.without_time(), Some(0), "the next head has no time yet");
        queues.put_back(0, first.clone(), EventTime(1));
        assert_eq!(
            (queues.without_time(), queues.earliest(LATEST)),
            (None, Some((0, EventTime(1))))
        );
        assert_eq!(queues.pop(0), Some(first));
        queues.clear();
        assert_eq!((queues.without_time(), queues.earliest(LATEST)), (None, None));
    }
}
