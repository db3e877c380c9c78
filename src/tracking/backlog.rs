//! Records that were read and not sent yet, in the order in which they are sent.
//!
//! A model belongs to the trials before it, and a decision to the model before it, but each is on a topic of its own. So the
//! topics are merged by the timestamps of their records; a transaction of the learner has one for all of its records, and then
//! the order of the topics counts. Up to the ends that the topics had at the assignment, a topic without records at hand is
//! waited for.

use std::collections::VecDeque;

use foretell_streams::record::{InputRecord, Offset, TopicPartition};

/// The records of one topic.
#[derive(Debug)]
struct Input {
    source: TopicPartition,
    records: VecDeque<InputRecord>,
    /// Maximum number of records at hand before the topic is paused.
    records_max: usize,
    is_paused: bool,
    /// The end at the assignment.
    end: Offset,
}

/// The records of all topics.
#[derive(Debug)]
pub(super) struct Backlog {
    inputs: Vec<Input>,
}

impl Backlog {
    /// An empty backlog of topics, each with the maximum number of its records at hand.
    pub(super) fn new(inputs: impl IntoIterator<Item = (TopicPartition, usize)>) -> Self {
        let input = |(source, records_max)| Input {
            source,
            records: VecDeque::new(),
            records_max,
            is_paused: false,
            end: Offset(0),
        };
        Self { inputs: inputs.into_iter().map(input).collect() }
    }

    /// Begins again with no records, and all topics paused, as an assignment leaves them. `ends` are the present ends of the topics,
    /// in their order; without them, no topic is waited for.
    pub(super) fn assign(&mut self, ends: &[Offset]) {
        let ends = ends.iter().copied().chain(std::iter::repeat(Offset(0)));
        for (input, end) in self.inputs.iter_mut().zip(ends) {
            input.records.clear();
            input.is_paused = true;
            input.end = end;
        }
    }

    /// Forgets the records, and waits for no topic. A topic that was paused for its records can be resumed.
    pub(super) fn clear(&mut self) {
        for input in &mut self.inputs {
            input.records.clear();
            input.end = Offset(0);
        }
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &TopicPartition> {
        self.inputs.iter().map(|input| &input.source)
    }

    pub(super) fn push(&mut self, record: InputRecord) {
        if let Some(input) = self.inputs.iter_mut().find(|input| input.source == record.source) {
            input.records.push_back(record);
        }
    }

    /// The next record to send; none while an earlier one may follow. `position` is the offset up to which a topic was read.
    pub(super) fn next(
        &self,
        position: impl Fn(&TopicPartition) -> Offset,
    ) -> Option<&InputRecord> {
        let may_follow =
            |input: &Input| input.records.is_empty() && position(&input.source) < input.end;
        if self.inputs.iter().any(may_follow) {
            return None;
        }
        let heads = self.inputs.iter().filter_map(|input| input.records.front());
        // The first of those with the same time.
        heads.min_by_key(|record| record.timestamp)
    }

    /// Removes the first record of a topic.
    pub(super) fn remove(&mut self, source: &TopicPartition) {
        if let Some(input) = self.inputs.iter_mut().find(|input| input.source == *source) {
            input.records.pop_front();
        }
    }

    /// The offset of the first record at hand of each topic; none of a topic without one.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (&TopicPartition, Option<Offset>)> {
        self.inputs
            .iter()
            .map(|input| (&input.source, input.records.front().map(|record| record.offset)))
    }

    /// The number of records at hand.
    pub(super) fn len(&self) -> usize {
        self.inputs.iter().map(|input| input.records.len()).sum()
    }

    /// The topics to pause, and those to resume. [`Self::set_paused`] follows.
    pub(super) fn to_pause_and_resume(&self) -> [Vec<TopicPartition>; 2] {
        let of = |inputs: &mut dyn Iterator<Item = &Input>| {
            inputs.map(|input| input.source.clone()).collect()
        };
        let is_full = |input: &&Input| !input.is_paused && input.records.len() >= input.records_max;
        // Not before it is empty: each change makes the client fetch again.
        let is_empty = |input: &&Input| input.is_paused && input.records.is_empty();
        [of(&mut self.inputs.iter().filter(is_full)), of(&mut self.inputs.iter().filter(is_empty))]
    }

    pub(super) fn set_paused(&mut self, sources: &[TopicPartition], is_paused: bool) {
        for input in self.inputs.iter_mut().filter(|input| sources.contains(&input.source)) {
            input.is_paused = is_paused;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_streams::{
        record::{Partition, Topic},
        time::EventTime,
    };

    fn source(topic: &str) -> TopicPartition {
        TopicPartition { topic: Topic::new(topic), partition: Partition(0) }
    }

    fn record(topic: &str, offset: i64, time: i64) -> InputRecord {
        InputRecord {
            source: source(topic),
            offset: Offset(offset),
            timestamp: EventTime(time),
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    fn backlog() -> Backlog {
        Backlog::new([(source("trials"), 2), (source("models"), 2)])
    }

    #[test]
    fn topics_are_merged_by_time_and_then_by_their_order() {
        let mut backlog = backlog();
        for record in [record("models", 0, 20), record("models", 1, 30)] {
            backlog.push(record);
        }
        for record in [record("trials", 0, 10), record("trials", 1, 30)] {
            backlog.push(record);
        }
        let mut order = Vec::new();
        while let Some(next) = backlog.next(|_| Offset(9)).cloned() {
            order.push((next.source.topic.to_string(), next.offset.0));
            backlog.remove(&next.source);
        }
        let expected = [("trials", 0), ("models", 0), ("trials", 1), ("models", 1)];
        assert_eq!(order, expected.map(|(topic, offset)| (topic.to_owned(), offset)));
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn a_topic_is_waited_for_until_it_is_read_to_the_end_that_it_had() {
        let mut backlog = backlog();
        backlog.assign(&[Offset(5), Offset(1)]);
        backlog.push(record("models", 0, 20));
        let position = |offset: i64| move |_: &TopicPartition| Offset(offset);
        assert_eq!(backlog.next(position(4)), None);
        assert_eq!(backlog.next(position(5)).unwrap().offset, Offset(0));
        backlog.push(record("trials", 4, 30));
        assert_eq!(backlog.next(position(4)).unwrap().source, source("models"));
        backlog.clear();
        assert_eq!((backlog.len(), backlog.next(position(0))), (0, None));
        backlog.push(record("models", 0, 20));
        assert!(backlog.next(position(0)).is_some());
    }

    #[test]
    fn a_full_topic_is_paused_until_it_is_empty() {
        let mut backlog = backlog();
        backlog.push(record("trials", 0, 1));
        assert_eq!(backlog.to_pause_and_resume(), [vec![], vec![]]);
        backlog.push(record("trials", 1, 1));
        let [pause, resume] = backlog.to_pause_and_resume();
        assert_eq!((pause.as_slice(), resume.len()), ([source("trials")].as_slice(), 0));
        backlog.set_paused(&pause, true);
        assert_eq!(backlog.to_pause_and_resume(), [vec![], vec![]]);
        backlog.remove(&source("trials"));
        assert_eq!(backlog.to_pause_and_resume(), [vec![], vec![]]);
        backlog.remove(&source("trials"));
        assert_eq!(backlog.to_pause_and_resume(), [vec![], vec![source("trials")]]);
    }
}
