//! A broker that fails as a seed says, at every call: before it took effect, after it, or without an answer.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::streams::{
    local::LocalBroker,
    record::{InputRecord, Offset, OutputRecordRef, Partition, Topic, TopicPartition},
    runtime::broker::{
        Broker, BrokerError, From, Isolation, Member, Membership, Publisher, ReadTo, Reader,
        Rebalance, TopicSpec,
    },
};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The process dies; the call had no effect.
    CrashBefore,
    /// The process dies; the call had its effect.
    CrashAfter,
    /// Nobody answers just now.
    Unavailable,
    /// The transaction can't be committed any more.
    Aborted,
    /// Somebody has taken over.
    Fenced,
    /// It took effect, and nobody will ever say so.
    AnswerLost,
    /// What is on the disk is not what was written.
    Damaged,
}

/// A mistake that the simulation must find: each has been made by somebody in earnest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// First the outputs are committed, then, on their own, the offsets.
    OffsetsOutsideTheTransaction,
    /// The stores keep what was written before the commit has succeeded.
    StateBeforeTheCommit,
    /// After an abort, reading goes on where it was.
    NoSeekAfterAnAbort,
    /// A commit is taken from whoever no longer owns the partitions.
    StaleGroupMetadata,
    /// A commit whose answer is lost is taken for one that failed.
    LostAnswerTakenForAnAbort,
    /// A store says that it goes further than it does.
    CheckpointAhead,
}

/// The seed's will: the dice, the faults that they give, and the log of both.
pub(super) struct Weather {
    dice: Mutex<StdRng>,
    /// A call in so many fails; 0 for none.
    one_in: u64,
    calm: AtomicBool,
    bug: Option<Bug>,
    log: Mutex<String>,
    counts: Mutex<BTreeMap<Fault, usize>>,
}

impl Weather {
    pub(super) fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let one_in = [0, 20, 60, 200][dice.random_range(0..4_usize)];
        Self {
            dice: Mutex::new(dice),
            one_in,
            calm: AtomicBool::new(false),
            bug,
            log: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// One of `0..end`.
    pub(super) fn roll(&self, end: u64) -> u64 {
        self.dice.lock().unwrap().random_range(0..end)
    }

    pub(super) fn one_in(&self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    /// From here on, nothing fails.
    pub(super) fn calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        writeln!(self.log.lock().unwrap(), "{what}").unwrap();
    }

    pub(super) fn log(&self) -> MutexGuard<'_, String> {
        self.log.lock().unwrap()
    }

    pub(super) fn counts(&self) -> BTreeMap<Fault, usize> {
        self.counts.lock().unwrap().clone()
    }

    pub(super) fn fault(&self, possible: &[Fault]) -> Option<Fault> {
        if self.calm.load(Ordering::SeqCst) || self.one_in == 0 || !self.one_in(self.one_in) {
            return None;
        }
        let index = usize::try_from(self.roll(possible.len() as u64)).unwrap();
        *self.counts.lock().unwrap().entry(possible[index]).or_default() += 1;
        Some(possible[index])
    }
}

/// One process' way to the broker.
#[derive(Clone)]
pub(super) struct FaultyBroker {
    pub(super) inner: LocalBroker,
    pub(super) weather: Arc<Weather>,
    pub(super) process: Process,
}

/// A process that can die, after which nothing of it reaches the broker.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) name: String,
    dead: Arc<AtomicBool>,
}

impl Process {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), dead: Arc::default() }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn die(&self) -> BrokerError {
        self.dead.store(true, Ordering::SeqCst);
        BrokerError::Fatal("this process is dead".to_owned())
    }
}

use Fault::{Aborted, AnswerLost, CrashAfter, CrashBefore, Damaged, Fenced, Unavailable};

const OUTSIDE: &[Fault] = &[CrashBefore, CrashAfter, Unavailable];
const POLL: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Unavailable, Fenced];
const ANSWER: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Fenced];
const SEND: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Aborted, Fenced];
const COMMIT: &[Fault] =
    &[CrashBefore, CrashAfter, Unavailable, Aborted, Aborted, Fenced, AnswerLost, AnswerLost];
const ABORT: &[Fault] = &[CrashBefore, CrashAfter, Unavailable, Fenced, AnswerLost];

impl FaultyBroker {
    fn call<T>(
        &self,
        name: &str,
        possible: &[Fault],
        operation: impl FnOnce() -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        if self.process.is_dead() {
            return Err(self.process.die());
        }
        let Some(fault) = self.weather.fault(possible) else { return operation() };
        self.weather.note(format_args!("{} {name}: {fault:?}", self.process.name));
        let reason = format!("{fault:?}");
        match fault {
            CrashBefore => Err(self.process.die()),
            CrashAfter => {
                // Dead men hear no answers.
                let _unheard = operation();
                Err(self.process.die())
            }
            Unavailable => Err(BrokerError::Retry(reason)),
            Aborted => Err(BrokerError::Abort(reason)),
            Fenced => Err(BrokerError::Fenced(reason)),
            AnswerLost => {
                operation()?;
                match self.weather.has(Bug::LostAnswerTakenForAnAbort) {
                    true => Err(BrokerError::Abort(reason)),
                    false => Err(BrokerError::Fenced(reason)),
                }
            }
            Damaged => unreachable!("no disk is asked here"),
        }
    }
}

impl Broker for FaultyBroker {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        let member = self.call("join", OUTSIDE, || self.inner.join(membership))?;
        let positions = BTreeMap::new();
        Ok(Box::new(FaultyMember { broker: self.clone(), member, positions }))
    }

    fn read(&self, source: &TopicPartition, from: From) -> Result<Box<dyn Reader>, BrokerError> {
        let reader = self.call("open", OUTSIDE, || self.inner.read(source, from))?;
        Ok(Box::new(FaultyReader { broker: self.clone(), reader }))
    }

    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        self.inner.publish()
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        self.inner.create_topics(topics)
    }

    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError> {
        let Offset(end) = self.call("end", OUTSIDE, || self.inner.end(source, isolation))?;
        let ahead = self.weather.has(Bug::CheckpointAhead);
        Ok(Offset(if ahead && isolation == Isolation::ReadCommitted { end + 3 } else { end }))
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.inner.partitions(topic)
    }
}

struct FaultyReader {
    broker: FaultyBroker,
    reader: Box<dyn Reader>,
}

impl Reader for FaultyReader {
    fn read(
        &mut self,
        _wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError> {
        let Self { broker, reader } = self;
        if broker.weather.one_in(4) {
            return Ok(ReadTo::More); // A slow one.
        }
        broker.call("read", OUTSIDE, || reader.read(Duration::ZERO, records))
    }
}

struct FaultyMember {
    broker: FaultyBroker,
    member: Box<dyn Member>,
    /// The next offset of each input; what [`Bug::NoSeekAfterAnAbort`] goes on from.
    positions: BTreeMap<TopicPartition, Offset>,
}

impl FaultyMember {
    fn call<T>(
        &mut self,
        name: &str,
        possible: &[Fault],
        operation: impl FnOnce(&mut dyn Member) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let Self { broker, member, .. } = self;
        broker.call(name, possible, || operation(member.as_mut()))
    }
}

impl Member for FaultyMember {
    fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError> {
        let before = records.len();
        let rebalance = self.call("poll", POLL, |member| member.poll(wait, records))?;
        if self.broker.weather.has(Bug::NoSeekAfterAnAbort) {
            let mut polled = records.split_off(before);
            polled.retain(|record| {
                let next = self.positions.entry(record.source.clone()).or_insert(Offset(0));
                let is_new = record.offset >= *next;
                *next = (*next).max(Offset(record.offset.0 + 1));
                is_new
            });
            records.append(&mut polled);
        }
        Ok(rebalance)
    }

    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.positions.retain(|source, _| !tasks.contains(&source.partition));
        self.call("assign", ANSWER, |member| member.assign(tasks))
    }

    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.call("unassign", ANSWER, |member| member.unassign(tasks))
    }

    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.call("pause", ANSWER, |member| member.pause(inputs))
    }

    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.call("resume", ANSWER, |member| member.resume(inputs))
    }

    fn position(&self, input: &TopicPartition) -> Offset {
        self.member.position(input)
    }

    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        self.call("send", SEND, |member| member.send(record))
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        if self.broker.weather.has(Bug::OffsetsOutsideTheTransaction) {
            self.call("commit", COMMIT, |member| member.commit(&[]))?;
        }
        self.call("commit", COMMIT, |member| member.commit(offsets))
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.call("abort", ABORT, |member| member.abort())
    }

    fn leave(self: Box<Self>) -> Result<(), BrokerError> {
        let Self { broker, member, .. } = *self;
        broker.call("leave", OUTSIDE, || member.leave())
    }
}
