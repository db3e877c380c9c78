//! The client's side of a membership: the inputs that a member reads, and its positions. It ends with the member. What
//! must outlive the member (offsets, ownership) is in the [`Cluster`](crate::local::cluster::Cluster).

use std::collections::BTreeMap;

use crate::{
    local::{log::Room, topics::Topics, transaction::Epoch},
    record::{InputRecord, Offset, Partition, TopicPartition},
    runtime::broker::{BrokerError, Membership, ProcessingGuarantee},
};

/// Maximum bytes of one poll or read, not counting the last record: one record of 16 MiB, or a thousand of 16 kB.
const BATCH_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A worker's membership, from its `join` on.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) membership: Membership,
    pub(crate) epoch: Epoch,
    /// Group and member name, since two groups may have members of the same name.
    pub(crate) transactional_id: String,
    tasks: BTreeMap<Partition, Vec<Input>>,
    /// The index of the input with which the next batch starts.
    turn: usize,
    /// Offsets to which an abort rewinds instead of the committed ones, after a commit whose result the member did not
    /// get.
    pub(crate) known_committed: BTreeMap<TopicPartition, Offset>,
}

#[derive(Debug)]
struct Input {
    source: TopicPartition,
    position: Offset,
    fetch_state: FetchState,
    /// Whether `OutOfRange` was reported for the position, so that reading restarts at the beginning.
    is_reported_out_of_range: bool,
}

/// Whether records of an input are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FetchState {
    Active,
    /// Paused, with one more batch to come: the records before `fetched_to`, which could be fetched before the pause.
    Pausing {
        fetched_to: Offset,
    },
    Paused,
}

/// The position of a reader that is not in a group.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) source: TopicPartition,
    pub(crate) position: Offset,
    /// Whether the end was reported to the reader, so that its next read may wait.
    pub(crate) is_end_reported: bool,
}

impl Session {
    pub(crate) fn new(membership: Membership, epoch: Epoch) -> Self {
        let transactional_id = format!("{}-{}", membership.group, membership.member);
        let (tasks, known_committed) = (BTreeMap::new(), BTreeMap::new());
        Self { membership, epoch, transactional_id, tasks, turn: 0, known_committed }
    }

    pub(crate) fn is_transactional(&self) -> bool {
        match self.membership.guarantee {
            ProcessingGuarantee::ExactlyOnce => true,
            ProcessingGuarantee::AtLeastOnce => false,
        }
    }

    /// The tasks that the worker was assigned and has not unassigned.
    pub(crate) fn tasks(&self) -> Vec<Partition> {
        self.tasks.keys().copied().collect()
    }

    /// Adds the inputs of a task, paused, unless they are there.
    pub(crate) fn add(&mut self, task: Partition, start: impl Fn(&TopicPartition) -> Offset) {
        let input = |source: TopicPartition| Input {
            position: start(&source),
            source,
            fetch_state: FetchState::Paused,
            is_reported_out_of_range: false,
        };
        let inputs = || self.membership.inputs_of(task).map(input).collect();
        self.tasks.entry(task).or_insert_with(inputs);
    }

    pub(crate) fn remove(&mut self, tasks: &[Partition]) {
        for task in tasks {
            self.tasks.remove(task);
        }
        self.known_committed.retain(|input, _| !tasks.contains(&input.partition));
    }

    /// Records that the member got the result of a successful commit.
    pub(crate) fn acknowledge_commit(&mut self, offsets: &[(TopicPartition, Offset)]) {
        for (input, _) in offsets {
            self.known_committed.remove(input);
        }
    }

    pub(crate) fn inputs(&self) -> impl Iterator<Item = &TopicPartition> {
        self.tasks.values().flatten().map(|input| &input.source)
    }

    /// Rewinds every input to `committed`, or to the start of the log if `OutOfRange` was reported for it before and
    /// would be reported again. Paused inputs stay paused, and records that were fetched before are discarded.
    pub(crate) fn rewind(
        &mut self,
        topics: &Topics,
        committed: impl Fn(&TopicPartition) -> Offset,
    ) {
        for input in self.tasks.values_mut().flatten() {
            let log = topics.log(&input.source).expect("a topic is never removed");
            input.position = committed(&input.source);
            input.is_reported_out_of_range &= !log.reaches(input.position);
            if input.is_reported_out_of_range {
                input.position = log.start();
            }
            input.fetch_state = match input.fetch_state {
                FetchState::Active => FetchState::Active,
                FetchState::Pausing { .. } | FetchState::Paused => FetchState::Paused,
            };
        }
    }

    /// Pauses `inputs`. Those that are paused already stay as they are.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if one of them is not assigned. None is changed then.
    pub(crate) fn pause(
        &mut self,
        topics: &Topics,
        inputs: &[TopicPartition],
    ) -> Result<(), BrokerError> {
        for input in self.assigned_mut(inputs)? {
            if input.fetch_state == FetchState::Active {
                let log = topics.log(&input.source).expect("a topic is never removed");
                input.fetch_state = FetchState::Pausing { fetched_to: log.stable_end() };
            }
        }
        Ok(())
    }

    /// Resumes `inputs` at their positions.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if one of them is not assigned. None is changed then.
    pub(crate) fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        for input in self.assigned_mut(inputs)? {
            input.fetch_state = FetchState::Active;
        }
        Ok(())
    }

    fn assigned_mut<'a>(
        &'a mut self,
        inputs: &'a [TopicPartition],
    ) -> Result<impl Iterator<Item = &'a mut Input>, BrokerError> {
        if let Some(unknown) = inputs.iter().find(|input| self.input(input).is_none()) {
            return Err(BrokerError::Fatal(format!("{unknown} is not assigned")));
        }
        let assigned = self.tasks.values_mut().flatten();
        Ok(assigned.filter(|input| inputs.contains(&input.source)))
    }

    /// The next offset to read.
    pub(crate) fn position(&self, input: &TopicPartition) -> Offset {
        self.input(input).map_or(Offset(0), |input| input.position)
    }

    fn input(&self, source: &TopicPartition) -> Option<&Input> {
        self.tasks.get(&source.partition)?.iter().find(|input| input.source == *source)
    }

    /// Appends one batch to `records`: an equal share of each input, then more of the inputs that have more. The first
    /// input changes from batch to batch, so that none starves.
    ///
    /// # Errors
    /// [`BrokerError::OutOfRange`] if a position is not in its log. Nothing was read then, and the next fetch reads that
    /// input from its beginning.
    pub(crate) fn fetch(
        &mut self,
        topics: &Topics,
        records: &mut Vec<InputRecord>,
    ) -> Result<(), BrokerError> {
        let inputs = self.tasks.values_mut().flatten();
        let mut inputs: Vec<&mut Input> =
            inputs.filter(|input| input.fetch_state != FetchState::Paused).collect();
        if inputs.is_empty() {
            return Ok(());
        }
        for input in &mut inputs {
            let log = topics.log(&input.source).expect("a topic is never removed");
            if !log.reaches(input.position) {
                input.position = log.start();
                input.is_reported_out_of_range = true;
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
                let log = topics.log(&input.source).expect("a topic is never removed");
                let offered = share.min(room.records);
                let mut part = Room { records: offered, bytes: room.bytes };
                let end = match input.fetch_state {
                    FetchState::Active | FetchState::Paused => log.stable_end(),
                    FetchState::Pausing { fetched_to } => fetched_to,
                };
                let range = input.position..end;
                input.position = log.read(&input.source, range, &mut part, records);
                room = Room { records: room.records - (offered - part.records), bytes: part.bytes };
            }
        }
        for input in inputs {
            if input.fetch_state != FetchState::Active {
                input.fetch_state = FetchState::Paused;
            }
        }
        if records.len() > before {
            self.turn = first + 1;
        }
        Ok(())
    }
}

impl Cursor {
    /// Appends one batch to `records`. Returns whether the reader is at the end.
    ///
    /// # Errors
    /// [`BrokerError::OutOfRange`] if the position is not in the log.
    pub(crate) fn fetch(
        &mut self,
        topics: &Topics,
        records: &mut Vec<InputRecord>,
    ) -> Result<bool, BrokerError> {
        let log = topics.log(&self.source).expect("a topic is never removed");
        if !log.reaches(self.position) {
            return Err(BrokerError::OutOfRange(self.source.clone()));
        }
        let mut room = room_of_batch(topics);
        self.position = log.read(&self.source, self.position..log.stable_end(), &mut room, records);
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
        local::{LocalSettings, now::Now},
        record::{OutputRecord, Topic},
        runtime::broker::{Cleanup, TopicSpec},
        time::{EventTime, WallTime},
    };

    const NOW: Now = Now { elapsed: Duration::ZERO, wall: WallTime(0) };

    /// The topics `lead` and `side` of three partitions with the given numbers of records.
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
            commit_interval: Membership::COMMIT_INTERVAL,
        };
        let mut session = Session::new(membership, Epoch(0));
        for task in 0..tasks {
            session.add(Partition(task), |_| Offset(0));
            session.resume(&inputs(task)).unwrap();
        }
        session
    }

    fn inputs(task: i32) -> [TopicPartition; 2] {
        ["lead", "side"]
            .map(|topic| TopicPartition { topic: Topic::new(topic), partition: Partition(task) })
    }

    /// The number of records of each partition in the next batch: the lead's, then the co-partitioned input's.
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
    fn a_batch_is_shared_and_unused_shares_go_to_other_inputs() {
        let full = topics([2000; 3], [2000; 3], 1);
        assert_eq!(batch(&mut session(2), &full), [250, 250, 0, 250, 250, 0]);
        let uneven = topics([2000, 10, 0], [0, 0, 5], 1);
        assert_eq!(batch(&mut session(3), &uneven), [985, 10, 0, 0, 0, 5]);
    }

    #[test]
    fn inputs_with_large_records_take_turns() {
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
    fn a_paused_input_keeps_its_position() {
        let topics = topics([1500; 3], [1; 3], 1);
        let mut session = session(2);
        session.pause(&topics, &inputs(1)[..1]).unwrap();
        session.pause(&topics, &inputs(1)[..1]).unwrap();
        assert_eq!(batch(&mut session, &topics), [748, 250, 0, 1, 1, 0], "fetched before");
        assert_eq!(batch(&mut session, &topics), [752, 0, 0, 0, 0, 0]);
        session.pause(&topics, &inputs(1)[..1]).unwrap();
        assert_eq!(batch(&mut session, &topics), [0; 6], "once");
        session.resume(&inputs(1)).unwrap();
        assert_eq!(batch(&mut session, &topics), [0, 1000, 0, 0, 0, 0]);
        let unknown = session.pause(&topics, &[inputs(0), inputs(2)].concat());
        assert!(matches!(unknown, Err(BrokerError::Fatal(_))));
        assert_eq!(session.position(&inputs(1)[0]), Offset(1250));
        // A new input is paused.
        session.add(Partition(2), |_| Offset(0));
        assert_eq!(batch(&mut session, &topics), [0, 250, 0, 0, 0, 0]);
    }

    #[test]
    fn a_paused_input_returns_no_record_that_was_written_after_the_pause() {
        let mut session = session(2);
        session.pause(&topics([3, 0, 0], [0; 3], 1), &inputs(0)).unwrap();
        session.pause(&topics([0; 3], [0; 3], 1), &inputs(1)).unwrap();
        let later = topics([5, 5, 0], [5, 5, 0], 1);
        assert_eq!(batch(&mut session, &later), [3, 0, 0, 0, 0, 0]);
        assert_eq!(session.position(&inputs(0)[0]), Offset(3));
        assert_eq!(batch(&mut session, &later), [0; 6]);
        session.resume(&[inputs(0), inputs(1)].concat()).unwrap();
        assert_eq!(batch(&mut session, &later), [2, 5, 0, 5, 5, 0]);
    }

    #[test]
    fn a_rewound_input_stays_paused_and_returns_no_record_that_was_fetched_before() {
        let topics = topics([5; 3], [5; 3], 1);
        let mut session = session(2);
        session.pause(&topics, &inputs(0)).unwrap();
        session.rewind(&topics, |_| Offset(1));
        assert_eq!(batch(&mut session, &topics), [0, 4, 0, 0, 4, 0]);
        session.resume(&inputs(0)).unwrap();
        assert_eq!(batch(&mut session, &topics), [4, 0, 0, 4, 0, 0]);
    }

    #[test]
    fn nothing_is_read_while_a_position_is_out_of_range() {
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
            "reported once, then read from the beginning"
        );
        session.rewind(&topics, committed);
        assert_eq!(batch(&mut session, &topics), [1; 6], "after an abort as well");
        session.rewind(&topics, |_| Offset(1));
        assert_eq!(batch(&mut session, &topics), [0; 6]);
        session.rewind(&topics, committed);
        assert!(
            session.fetch(&topics, &mut Vec::new()).is_err(),
            "the next time it is reported again"
        );
    }
}
