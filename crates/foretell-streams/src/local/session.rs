//! The client's side of a membership: what a member reads, and how far it is. The broker forgets it
//! when the member does; what must outlive it (offsets, ownership) is in the
//! [`Cluster`](crate::local::Cluster).

use std::collections::BTreeMap;

use crate::{
    local::{log::Room, topics::Topics, transaction::Epoch},
    record::{InputRecord, Offset, Partition, TopicPartition},
    runtime::broker::{BrokerError, Membership, ProcessingGuarantee},
};

/// Bytes of one poll or read, but for the last record: one record of 16 MiB, or a thousand records of 16 kB.
const BATCH_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One worker's membership, from its `join` on.
#[derive(Debug)]
pub struct Session {
    pub(crate) membership: Membership,
    pub(crate) epoch: Epoch,
    /// Unique in the broker, as it would be in Kafka: groups may use the same names for their members.
    pub(crate) transactional_id: String,
    tasks: BTreeMap<Partition, Vec<Input>>,
    /// Where the next batch begins to fill.
    turn: usize,
    /// Where an abort goes back to in place of what is committed: of that commit the member never heard.
    pub(crate) known: BTreeMap<TopicPartition, Offset>,
}

#[derive(Debug)]
struct Input {
    source: TopicPartition,
    position: Offset,
    flow: Flow,
    /// Whether the worker was told that the position is gone, and so begins again.
    is_told_gone: bool,
}

/// Whether records of an input come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Flowing,
    /// It is paused; what has been fetched before comes with the next batch.
    Ebbing,
    Resting,
}

/// Where a reader outside any group is.
#[derive(Debug)]
pub struct Cursor {
    pub(crate) source: TopicPartition,
    pub(crate) position: Offset,
    /// Whether the reader knows that it is at the end: then it may be kept waiting.
    pub(crate) knows_end: bool,
}

impl Session {
    pub(crate) fn new(membership: Membership, epoch: Epoch) -> Self {
        let transactional_id = format!("{}-{}", membership.group, membership.member);
        let (tasks, known) = (BTreeMap::new(), BTreeMap::new());
        Self { membership, epoch, transactional_id, tasks, turn: 0, known }
    }

    pub(crate) fn is_transactional(&self) -> bool {
        match self.membership.guarantee {
            ProcessingGuarantee::ExactlyOnce => true,
            ProcessingGuarantee::AtLeastOnce => false,
        }
    }

    /// The tasks that the worker takes for its own.
    pub(crate) fn tasks(&self) -> Vec<Partition> {
        self.tasks.keys().copied().collect()
    }

    /// Begins to read a task, unless it does already; its inputs rest at first.
    pub(crate) fn add(&mut self, task: Partition, start: impl Fn(&TopicPartition) -> Offset) {
        let input = |source: TopicPartition| Input {
            position: start(&source),
            source,
            flow: Flow::Resting,
            is_told_gone: false,
        };
        let inputs = || self.membership.inputs_of(task).map(input).collect();
        self.tasks.entry(task).or_insert_with(inputs);
    }

    pub(crate) fn remove(&mut self, tasks: &[Partition]) {
        for task in tasks {
            self.tasks.remove(task);
        }
        self.known.retain(|input, _| !tasks.contains(&input.partition));
    }

    /// It is told that these are committed.
    pub(crate) fn committed(&mut self, offsets: &[(TopicPartition, Offset)]) {
        for (input, _) in offsets {
            self.known.remove(input);
        }
    }

    /// Every input that it reads.
    #[cfg(test)]
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &TopicPartition> {
        self.tasks.values().flatten().map(|input| &input.source)
    }

    /// Goes back to `committed` in every input, or to the beginning where the worker has been told
    /// that this is gone: not to be told again and again.
    pub(crate) fn rewind(
        &mut self,
        topics: &Topics,
        committed: impl Fn(&TopicPartition) -> Offset,
    ) {
        for input in self.tasks.values_mut().flatten() {
            let log = topics.log(&input.source).expect("topics are never deleted");
            input.position = committed(&input.source);
            input.is_told_gone &= !log.reaches(input.position);
            if input.is_told_gone {
                input.position = log.start();
            }
        }
    }

    /// Stops or goes on with `inputs`.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if one of them is not assigned; then none is changed.
    pub(crate) fn set_paused(
        &mut self,
        inputs: &[TopicPartition],
        is_paused: bool,
    ) -> Result<(), BrokerError> {
        let is_known = |input: &&TopicPartition| self.input(input).is_some();
        if let Some(unknown) = inputs.iter().find(|input| !is_known(input)) {
            return Err(BrokerError::Fatal(format!("{unknown} is not assigned")));
        }
        for input in self.tasks.values_mut().flatten() {
            if inputs.contains(&input.source) {
                input.flow = match (is_paused, input.flow) {
                    (false, _) => Flow::Flowing,
                    (true, Flow::Flowing) => Flow::Ebbing,
                    (true, flow @ (Flow::Ebbing | Flow::Resting)) => flow,
                };
            }
        }
        Ok(())
    }

    /// The next offset to be read.
    pub(crate) fn position(&self, input: &TopicPartition) -> Offset {
        self.input(input).map_or(Offset(0), |input| input.position)
    }

    fn input(&self, source: &TopicPartition) -> Option<&Input> {
        self.tasks.get(&source.partition)?.iter().find(|input| input.source == *source)
    }

    /// Appends one batch to `records`: from every input its share, then from those that have more. The
    /// input to begin with changes from batch to batch, so that none starves.
    ///
    /// # Errors
    /// [`BrokerError::OutOfRange`] if a position is not in its log; then nothing was read, and the next
    /// fetch reads that one from its beginning.
    pub(crate) fn fetch(
        &mut self,
        topics: &Topics,
        records: &mut Vec<InputRecord>,
    ) -> Result<(), BrokerError> {
        let inputs = self.tasks.values_mut().flatten();
        let mut inputs: Vec<&mut Input> =
            inputs.filter(|input| input.flow != Flow::Resting).collect();
        if inputs.is_empty() {
            return Ok(());
        }
        for input in &mut inputs {
            let log = topics.log(&input.source).expect("topics are never deleted");
            if !log.reaches(input.position) {
                input.position = log.start();
                input.is_told_gone = true;
                return Err(BrokerError::OutOfRange(input.source.clone()));
            }
        }
        let before = records.len();
        let first = self.turn % inputs.len();
        inputs.rotate_left(first);
        let mut room = room_of_batch(topics);
        let records_max = topics.batch_records_max();
        for share in [records_max.div_ceil(inputs.len()), records_max] {
            for input in &mut inputs {
                let log = topics.log(&input.source).expect("topics are never deleted");
                let offered = share.min(room.records);
                let mut part = Room { records: offered, bytes: room.bytes };
                input.position = log.read(&input.source, input.position, &mut part, records);
                room = Room { records: room.records - (offered - part.records), bytes: part.bytes };
            }
        }
        for input in inputs.iter_mut().filter(|input| input.flow == Flow::Ebbing) {
            input.flow = Flow::Resting;
        }
        if records.len() > before {
            self.turn = first + 1;
        }
        Ok(())
    }
}

impl Cursor {
    /// Appends one batch to `records`, and says whether that was all there is.
    ///
    /// # Errors
    /// [`BrokerError::OutOfRange`] if the position is not in the log.
    pub(crate) fn fetch(
        &mut self,
        topics: &Topics,
        records: &mut Vec<InputRecord>,
    ) -> Result<bool, BrokerError> {
        let log = topics.log(&self.source).expect("topics are never deleted");
        if !log.reaches(self.position) {
            return Err(BrokerError::OutOfRange(self.source.clone()));
        }
        let mut room = room_of_batch(topics);
        self.position = log.read(&self.source, self.position, &mut room, records);
        Ok(self.position >= log.stable_end())
    }
}

fn room_of_batch(topics: &Topics) -> Room {
    Room { records: topics.batch_records_max(), bytes: BATCH_BYTES_MAX }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        local::{LocalSettings, cluster::Now},
        record::{OutputRecord, Topic},
        runtime::broker::{Cleanup, TopicSpec},
        time::{EventTime, WallTime},
    };

    const NOW: Now = Now { elapsed: Duration::ZERO, wall: WallTime(0) };

    /// Topics `lead` and `co_partitioned_input` of three partitions with so many records in each.
    fn topics(lead: [usize; 3], co_partitioned_input: [usize; 3], value_bytes: usize) -> Topics {
        let mut topics = Topics::new(LocalSettings::default());
        for (name, counts) in [("lead", lead), ("side", co_partitioned_input)] {
            let name = Topic::new(name);
            let cleanup = Cleanup::Delete { retention: None };
            let message_bytes_max = Some(u32::MAX);
            let spec = TopicSpec { name: name.clone(), partitions: 3, cleanup, message_bytes_max };
            topics.create(&spec).unwrap();
            for (partition, count) in (0..).map(Partition).zip(counts) {
                let to = TopicPartition { topic: name.clone(), partition };
                for _ in 0..count {
                    let record = OutputRecord {
                        topic: name.clone(),
                        partition: Some(partition),
                        timestamp: EventTime(0),
                        key: None,
                        value: Some(vec![0; value_bytes]),
                        headers: Vec::new(),
                    };
                    topics.append(&to, record, None, NOW).unwrap();
                }
            }
        }
        topics
    }

    fn session(tasks: i32) -> Session {
        let membership = Membership {
            group: "g".to_owned(),
            member: "m".to_owned(),
            lead: Topic::new("lead"),
            co_partitioned: vec![Topic::new("side")],
            guarantee: ProcessingGuarantee::ExactlyOnce,
        };
        let mut session = Session::new(membership, Epoch(0));
        for task in 0..tasks {
            session.add(Partition(task), |_| Offset(0));
            session.set_paused(&inputs(task), false).unwrap();
        }
        session
    }

    fn inputs(task: i32) -> [TopicPartition; 2] {
        ["lead", "side"]
            .map(|topic| TopicPartition { topic: Topic::new(topic), partition: Partition(task) })
    }

    /// How many records of each partition the next batch has: lead first, then co-partitioned input.
    fn batch(session: &mut Session, topics: &Topics) -> [usize; 6] {
        let mut records = Vec::new();
        session.fetch(topics, &mut records).unwrap();
        let mut counts = [0; 6];
        for record in records {
            let row = if record.source.topic.as_str() == "lead" { 0 } else { 3 };
            counts[row + usize::try_from(record.source.partition.0).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn a_batch_is_shared_and_what_one_leaves_another_takes() {
        let full = topics([2000; 3], [2000; 3], 1);
        assert_eq!(batch(&mut session(2), &full), [250, 250, 0, 250, 250, 0]);
        let uneven = topics([2000, 10, 0], [0, 0, 5], 1);
        assert_eq!(batch(&mut session(3), &uneven), [985, 10, 0, 0, 0, 5]);
    }

    #[test]
    fn large_records_take_turns() {
        let half_a_batch = usize::try_from(BATCH_BYTES_MAX / 2).unwrap();
        let large = topics([3, 3, 0], [0; 3], half_a_batch);
        let mut session = session(2);
        let mut sum = [0; 6];
        for _ in 0..3 {
            let counts = batch(&mut session, &large);
            assert_eq!(counts.iter().sum::<usize>(), 2, "{counts:?}");
            sum = std::array::from_fn(|index| sum[index] + counts[index]);
        }
        assert_eq!(sum, [3, 3, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_paused_stays_where_it_is() {
        let topics = topics([1500; 3], [1; 3], 1);
        let mut session = session(2);
        session.set_paused(&inputs(1)[..1], true).unwrap();
        session.set_paused(&inputs(1)[..1], true).unwrap();
        assert_eq!(batch(&mut session, &topics), [748, 250, 0, 1, 1, 0], "it was on its way");
        assert_eq!(batch(&mut session, &topics), [752, 0, 0, 0, 0, 0]);
        session.set_paused(&inputs(1)[..1], true).unwrap();
        assert_eq!(batch(&mut session, &topics), [0; 6], "once");
        session.set_paused(&inputs(1), false).unwrap();
        assert_eq!(batch(&mut session, &topics), [0, 1000, 0, 0, 0, 0]);
        let unknown = session.set_paused(&[inputs(0), inputs(2)].concat(), true);
        assert!(matches!(unknown, Err(BrokerError::Fatal(_))));
        assert_eq!(session.position(&inputs(1)[0]), Offset(1250));
        // What is new rests.
        session.add(Partition(2), |_| Offset(0));
        assert_eq!(batch(&mut session, &topics), [0, 250, 0, 0, 0, 0]);
    }

    #[test]
    fn one_position_out_of_range_and_nothing_is_read() {
        let topics = topics([1; 3], [1; 3], 1);
        let mut session = session(3);
        let committed =
            |source: &TopicPartition| Offset(if source.partition == Partition(2) { 2 } else { 0 });
        session.rewind(&topics, committed);
        for topic in ["lead", "side"] {
            let mut records = Vec::new();
            let expected = TopicPartition { topic: Topic::new(topic), partition: Partition(2) };
            let refused = session.fetch(&topics, &mut records);
            assert!(matches!(refused, Err(BrokerError::OutOfRange(gone)) if gone == expected));
            assert!(records.is_empty());
        }
        assert_eq!(
            batch(&mut session, &topics),
            [1; 6],
            "said once, it goes on from the beginning"
        );
        session.rewind(&topics, committed);
        assert_eq!(batch(&mut session, &topics), [1; 6], "and so after an abort");
        session.rewind(&topics, |_| Offset(1));
        assert_eq!(batch(&mut session, &topics), [0; 6]);
        session.rewind(&topics, committed);
        assert!(session.fetch(&topics, &mut Vec::new()).is_err(), "another time it is news again");
    }
}
