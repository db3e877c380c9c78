//! Which partitions a member holds, how far each has been read, and how far committed. No I/O.

use std::collections::BTreeMap;

use foretell_streams::record::{Offset, Partition, Topic, TopicPartition};

/// Where reading (re)starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Start {
    /// At the oldest record: nothing was ever committed.
    Beginning,
    /// At this record.
    At(Offset),
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// The group's committed position.
    committed: Start,
    /// The record after the last one handed out.
    next: Start,
}

/// The partitions held. A task's inputs share its partition number, so a place is found by the
/// topic's index among the inputs and that number.
#[derive(Debug)]
pub(crate) struct Places {
    /// The lead first, then the companions.
    topics: Vec<Topic>,
    places: BTreeMap<(usize, Partition), Place>,
}

impl Places {
    pub(crate) fn new(topics: Vec<Topic>) -> Self {
        Self { topics, places: BTreeMap::new() }
    }

    /// Holds `source` from `start` on.
    pub(crate) fn hold(&mut self, source: &TopicPartition, start: Start) {
        if let Some(index) = self.index_of(source.topic.as_str()) {
            let place = Place { committed: start, next: start };
            self.places.insert((index, source.partition), place);
        }
    }

    /// Lets every input of `task` go.
    pub(crate) fn release(&mut self, task: Partition) {
        self.places.retain(|(_, partition), _| *partition != task);
    }

    /// Every input of `tasks` that is held.
    pub(crate) fn held_of(&self, tasks: &[Partition]) -> Vec<TopicPartition> {
        let keys = self.places.keys().filter(|(_, partition)| tasks.contains(partition));
        keys.map(|key| self.source(*key)).collect()
    }

    /// Notes that the record of `source` at `offset` was handed out. False if that is not held, or was handed out
    /// before (a pause in the midst of a batch makes librdkafka fetch it again): then the record must not come out.
    pub(crate) fn hand_out(&mut self, source: &TopicPartition, offset: Offset) -> bool {
        let Some(topic) = self.index_of(source.topic.as_str()) else { return false };
        let Some(place) = self.places.get_mut(&(topic, source.partition)) else { return false };
        if place.next > Start::At(offset) {
            return false;
        }
        place.next = Start::At(offset.next());
        true
    }

    /// Notes what was committed.
    pub(crate) fn committed(&mut self, offsets: &[(TopicPartition, Offset)]) {
        for (source, offset) in offsets {
            let Some(index) = self.index_of(source.topic.as_str()) else { continue };
            if let Some(place) = self.places.get_mut(&(index, source.partition)) {
                place.committed = Start::At(*offset);
            }
        }
    }

    /// Every committed offset, with those of `offsets` in place of older ones.
    pub(crate) fn all_committed_with(
        &self,
        offsets: &[(TopicPartition, Offset)],
    ) -> Vec<(TopicPartition, Offset)> {
        let mut all: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        for (key, place) in &self.places {
            if let Start::At(offset) = place.committed {
                all.insert(self.source(*key), offset);
            }
        }
        all.extend(offsets.iter().cloned());
        all.into_iter().collect()
    }

    /// The partitions that something was handed out of since the last commit, and where to seek them.
    pub(crate) fn moved(&self) -> Vec<(TopicPartition, Start)> {
        let moved = self.places.iter().filter(|(_, place)| place.next != place.committed);
        moved.map(|(key, place)| (self.source(*key), place.committed)).collect()
    }

    /// The offset after the last record of `source` that was handed out; 0 if reading starts at the beginning.
    pub(crate) fn position(&self, source: &TopicPartition) -> Offset {
        let index = self.index_of(source.topic.as_str());
        let place = index.and_then(|index| self.places.get(&(index, source.partition)));
        match place.map(|place| place.next) {
            Some(Start::At(offset)) => offset,
            Some(Start::Beginning) | None => Offset(0),
        }
    }

    /// Goes back to what is committed.
    pub(crate) fn rewind(&mut self) {
        for place in self.places.values_mut() {
            place.next = place.committed;
        }
    }

    /// Where each partition goes on.
    pub(crate) fn next(&self) -> impl Iterator<Item = (TopicPartition, Start)> + '_ {
        self.places.iter().map(|(key, place)| (self.source(*key), place.next))
    }

    fn source(&self, (index, partition): (usize, Partition)) -> TopicPartition {
        TopicPartition { topic: self.topics[index].clone(), partition }
    }

    fn index_of(&self, topic: &str) -> Option<usize> {
        self.topics.iter().position(|known| known.as_str() == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: Topic::new(topic), partition: Partition(partition) }
    }

    fn places() -> Places {
        let mut places = Places::new(vec![Topic::new("lead"), Topic::new("companion")]);
        for task in [0, 1] {
            places.hold(&at("lead", task), Start::At(Offset(10)));
            places.hold(&at("companion", task), Start::Beginning);
        }
        places
    }

    #[test]
    fn only_what_moved_is_sought() {
        let mut places = places();
        assert_eq!(places.moved(), []);
        places.hand_out(&at("lead", 0), Offset(10));
        places.hand_out(&at("companion", 1), Offset(0));
        let expected =
            [(at("lead", 0), Start::At(Offset(10))), (at("companion", 1), Start::Beginning)];
        assert_eq!(places.moved(), expected);
        places.rewind();
        assert_eq!(places.moved(), []);
    }

    #[test]
    fn a_commit_moves_the_place_to_rewind_to() {
        let mut places = places();
        for offset in 10..15 {
            places.hand_out(&at("lead", 0), Offset(offset));
        }
        places.committed(&[(at("lead", 0), Offset(12))]);
        assert_eq!(places.moved(), [(at("lead", 0), Start::At(Offset(12)))]);
    }

    #[test]
    fn what_is_not_held_does_not_come_out() {
        let mut places = places();
        places.release(Partition(1));
        for (source, is_held) in
            [(at("lead", 1), false), (at("other", 0), false), (at("lead", 0), true)]
        {
            assert_eq!(places.hand_out(&source, Offset(10)), is_held, "{source}");
        }
        assert_eq!(places.held_of(&[Partition(1)]), []);
        assert_eq!(
            places.held_of(&[Partition(0), Partition(1)]),
            [at("lead", 0), at("companion", 0)]
        );
    }

    #[test]
    fn what_was_handed_out_comes_out_again_only_after_a_rewind() {
        let mut places = places();
        let hand_out =
            |places: &mut Places, offset| places.hand_out(&at("lead", 0), Offset(offset));
        assert!(hand_out(&mut places, 10));
        assert!(!hand_out(&mut places, 10));
        assert!(hand_out(&mut places, 12), "compaction and markers leave gaps");
        assert!(!hand_out(&mut places, 11));
        places.rewind();
        assert!(hand_out(&mut places, 10));
        let from_the_beginning = at("companion", 0);
        assert!(places.hand_out(&from_the_beginning, Offset(0)));
    }

    #[test]
    fn all_committed_offsets_take_the_newest() {
        let places = places();
        let newer = [(at("lead", 1), Offset(20))];
        let expected = [(at("lead", 0), Offset(10)), (at("lead", 1), Offset(20))];
        assert_eq!(places.all_committed_with(&newer), expected);
    }
}
