//! The records that wait for a task, one queue an input, the earliest first.

use std::collections::VecDeque;

use crate::streams::record::InputRecord;

/// A queue for each source of the topology.
pub(super) struct InputQueues {
    queues: Vec<VecDeque<InputRecord>>,
}

impl InputQueues {
    pub(super) fn new(sources: usize) -> Self {
        Self { queues: (0..sources).map(|_| VecDeque::new()).collect() }
    }

    pub(super) fn push(&mut self, source: usize, record: InputRecord) {
        self.queues[source].push_back(record);
    }

    /// Back to the head of its queue: it is to be tried again.
    pub(super) fn put_back(&mut self, source: usize, record: InputRecord) {
        self.queues[source].push_front(record);
    }

    /// The record with the lowest timestamp among the heads; of equals, the lower source's.
    pub(super) fn pop(&mut self) -> Option<(usize, InputRecord)> {
        let heads = self.queues.iter().enumerate();
        let heads = heads.filter_map(|(source, queue)| Some((queue.front()?.timestamp, source)));
        let (_, source) = heads.min()?;
        let record = self.queues[source].pop_front()?;
        Some((source, record))
    }

    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    pub(super) fn len_of(&self, source: usize) -> usize {
        self.queues[source].len()
    }

    pub(super) fn clear(&mut self) {
        self.queues.iter_mut().for_each(VecDeque::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{
        record::{Offset, Partition, Topic, TopicPartition},
        time::EventTime,
    };

    fn record(time: i64) -> InputRecord {
        let source = TopicPartition { topic: Topic::new("any"), partition: Partition(0) };
        InputRecord {
            source,
            offset: Offset(time),
            timestamp: EventTime(time),
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    /// Pushes `pushed` (source, time), and expects them to come out as `popped`.
    fn check(pushed: &[(usize, i64)], popped: &[(usize, i64)]) {
        let mut queues = InputQueues::new(3);
        for (source, time) in pushed {
            queues.push(*source, record(*time));
        }
        assert_eq!(queues.len(), pushed.len());
        let out = std::iter::from_fn(|| queues.pop());
        let out: Vec<_> = out.map(|(source, record)| (source, record.timestamp.0)).collect();
        assert_eq!(out, popped);
        assert_eq!(queues.len(), 0);
    }

    #[test]
    fn the_earliest_head_goes_first_and_no_queue_is_reordered() {
        check(&[], &[]);
        check(&[(0, 5), (1, 3), (2, 4)], &[(1, 3), (2, 4), (0, 5)]);
        check(&[(2, 1), (0, 1), (1, 1)], &[(0, 1), (1, 1), (2, 1)]);
        // What is late in its own queue holds back what is behind it, not the other queues.
        check(&[(0, 9), (0, 1), (1, 5), (1, 10)], &[(1, 5), (0, 9), (0, 1), (1, 10)]);
    }

    #[test]
    fn what_is_put_back_is_the_head_again() {
        let mut queues = InputQueues::new(2);
        queues.push(0, record(1));
        queues.push(0, record(2));
        let (source, first) = queues.pop().unwrap();
        queues.put_back(source, first.clone());
        let (_, again) = queues.pop().unwrap();
        assert_eq!(first, again);
        queues.clear();
        assert!(queues.pop().is_none());
    }
}
