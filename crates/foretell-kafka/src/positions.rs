//! Positions and committed offsets of the partitions that a member owns. No I/O.

use std::collections::BTreeMap;

use foretell_streams::record::{Offset, Partition, Topic, TopicPartition};

/// The offset at which reading (re)starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Start {
    /// The oldest record: no offset was ever committed.
    Beginning,
    /// The record with this offset.
    At(Offset),
}

#[derive(Clone, Copy, Debug)]
struct PartitionPosition {
    /// Committed offset of the group.
    committed: Start,
    /// Offset after the last record that was returned by `poll`.
    next: Start,
}

/// Positions of the partitions that a member owns. The inputs of a task share its partition number, so a partition is
/// identified by the index of its topic among the inputs, and that number.
#[derive(Debug)]
pub(crate) struct Positions {
    /// The lead topic, then the co-partitioned inputs.
    topics: Vec<Topic>,
    positions: BTreeMap<(usize, Partition), PartitionPosition>,
}

impl Positions {
    pub(crate) fn new(topics: Vec<Topic>) -> Self {
        Self { topics, positions: BTreeMap::new() }
    }

    /// Adds or resets a partition, which is read from `start` on.
    pub(crate) fn hold(&mut self, source: &TopicPartition, start: Start) {
        if let Some(index) = self.index_of(&source.topic) {
            let position = PartitionPosition { committed: start, next: start };
            self.positions.insert((index, source.partition), position);
        }
    }

    /// Removes every input of `task`.
    pub(crate) fn release(&mut self, task: Partition) {
        self.positions.retain(|(_, partition), _| *partition != task);
    }

    /// Every input of `tasks` that is owned.
    pub(crate) fn held_of(&self, tasks: &[Partition]) -> Vec<TopicPartition> {
        let keys = self.positions.keys().filter(|(_, partition)| tasks.contains(partition));
        keys.map(|(index, partition)| self.source(*index, *partition)).collect()
    }

    /// Advances the position behind the record of `source` at `offset`. Returns false if the record must be dropped, because
    /// the partition is not owned, or the record was returned before (a pause in the middle of a batch makes librdkafka fetch
    /// it again).
    pub(crate) fn hand_out(&mut self, source: &TopicPartition, offset: Offset) -> bool {
        let Some(topic) = self.index_of(&source.topic) else { return false };
        let Some(position) = self.positions.get_mut(&(topic, source.partition)) else {
            return false;
        };
        if position.next > Start::At(offset) {
            return false;
        }
        position.next = Start::At(offset.next());
        true
    }

    /// Records committed offsets.
    pub(crate) fn committed(&mut self, offsets: &[(TopicPartition, Offset)]) {
        for (source, offset) in offsets {
            let Some(index) = self.index_of(&source.topic) else { continue };
            if let Some(position) = self.positions.get_mut(&(index, source.partition)) {
                position.committed = Start::At(*offset);
            }
        }
    }

    /// All committed offsets, replaced by those in `offsets`.
    pub(crate) fn all_committed_with(
        &self,
        offsets: &[(TopicPartition, Offset)],
    ) -> Vec<(TopicPartition, Offset)> {
        let mut all: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        for ((index, partition), position) in &self.positions {
            if let Start::At(offset) = position.committed {
                all.insert(self.source(*index, *partition), offset);
            }
        }
        all.extend(offsets.iter().cloned());
        all.into_iter().collect()
    }

    /// The partitions whose position differs from the committed offset, with that offset, to seek to it.
    pub(crate) fn moved(&self) -> Vec<(TopicPartition, Start)> {
        let moved =
            self.positions.iter().filter(|(_, position)| position.next != position.committed);
        moved
            .map(|((index, partition), position)| {
                (self.source(*index, *partition), position.committed)
            })
            .collect()
    }

    /// The offset after the last record of `source` that was returned; 0 if reading starts at the beginning.
    pub(crate) fn position(&self, source: &TopicPartition) -> Offset {
        let index = self.index_of(&source.topic);
        let position = index.and_then(|index| self.positions.get(&(index, source.partition)));
        match position.map(|position| position.next) {
            Some(Start::At(offset)) => offset,
            Some(Start::Beginning) | None => Offset(0),
        }
    }

    /// Resets all positions to the committed offsets.
    pub(crate) fn rewind(&mut self) {
        for position in self.positions.values_mut() {
            position.next = position.committed;
        }
    }

    /// The position of each partition.
    pub(crate) fn next(&self) -> impl Iterator<Item = (TopicPartition, Start)> + '_ {
        self.positions
            .iter()
            .map(|((index, partition), position)| (self.source(*index, *partition), position.next))
    }

    fn source(&self, index: usize, partition: Partition) -> TopicPartition {
        TopicPartition { topic: self.topics[index].clone(), partition }
    }

    fn index_of(&self, topic: &Topic) -> Option<usize> {
        self.topics.iter().position(|known| known == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: Topic::new(topic), partition: Partition(partition) }
    }

    fn positions() -> Positions {
        let mut positions = Positions::new(vec![Topic::new("lead"), Topic::new("side")]);
        for task in [0, 1] {
            positions.hold(&at("lead", task), Start::At(Offset(10)));
            positions.hold(&at("side", task), Start::Beginning);
        }
        positions
    }

    #[test]
    fn only_partitions_that_were_read_are_sought() {
        let mut positions = positions();
        assert_eq!(positions.moved(), []);
        positions.hand_out(&at("lead", 0), Offset(10));
        positions.hand_out(&at("side", 1), Offset(0));
        let expected = [(at("lead", 0), Start::At(Offset(10))), (at("side", 1), Start::Beginning)];
        assert_eq!(positions.moved(), expected);
        positions.rewind();
        assert_eq!(positions.moved(), []);
    }

    #[test]
    fn a_rewind_goes_back_to_the_committed_offset() {
        let mut positions = positions();
        for offset in 10..15 {
            positions.hand_out(&at("lead", 0), Offset(offset));
        }
        positions.committed(&[(at("lead", 0), Offset(12))]);
        assert_eq!(positions.moved(), [(at("lead", 0), Start::At(Offset(12)))]);
    }

    #[test]
    fn records_of_partitions_that_are_not_owned_are_dropped() {
        let mut positions = positions();
        positions.release(Partition(1));
        for (source, is_held) in
            [(at("lead", 1), false), (at("other", 0), false), (at("lead", 0), true)]
        {
            assert_eq!(positions.hand_out(&source, Offset(10)), is_held, "{source}");
        }
        assert_eq!(positions.held_of(&[Partition(1)]), []);
        assert_eq!(
            positions.held_of(&[Partition(0), Partition(1)]),
            [at("lead", 0), at("side", 0)]
        );
    }

    #[test]
    fn a_record_is_returned_again_only_after_a_rewind() {
        let mut positions = positions();
        let hand_out =
            |positions: &mut Positions, offset| positions.hand_out(&at("lead", 0), Offset(offset));
        assert!(hand_out(&mut positions, 10));
        assert!(!hand_out(&mut positions, 10));
        assert!(hand_out(&mut positions, 12), "compaction and control records leave gaps");
        assert!(!hand_out(&mut positions, 11));
        positions.rewind();
        assert!(hand_out(&mut positions, 10));
        let from_the_beginning = at("side", 0);
        assert!(positions.hand_out(&from_the_beginning, Offset(0)));
    }

    #[test]
    fn new_offsets_replace_committed_ones() {
        let positions = positions();
        let newer = [(at("lead", 1), Offset(20))];
        let expected = [(at("lead", 0), Offset(10)), (at("lead", 1), Offset(20))];
        assert_eq!(positions.all_committed_with(&newer), expected);
    }
}
