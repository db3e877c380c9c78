//! Planted bugs of the runtime that the simulation must catch, as wrappers around the ports: a broker, a member, readers,
//! stores and nodes that make the mistake from outside. So no production code knows of them.
//!
//! ```text
//!   Worker ─▶ BuggyBroker, BuggyMember, BuggyReader ─▶ FaultyBroker ─▶ LocalBroker
//!      └────▶ BuggyStores, BuggyStore ─▶ SimulatedStores
//! ```
//! Bugs of the broker are planted in `faulty_broker` and `faulty_member`. Two bugs, in which a worker does not reset a count after a
//! commit, are in `processes`, through [`RecoveryHistory`](crate::runtime::RecoveryHistory).

use std::{
    any::Any,
    borrow::Cow,
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use crate::{
    local::LocalBroker,
    record::{InputRecord, Offset, OutputRecordRef, Partition, Topic, TopicPartition},
    runtime::broker::{
        Broker, BrokerError, Follower, Isolation, Member, Membership, Publisher, ReadFrom, ReadTo,
        Reader, Rebalance, TopicSpec,
    },
    simulation::fault_injector::Bug,
    state::{
        Access, Change, Checkpoint, Entry, Incarnation, MARK_KEY, Position, StateError, StateStore,
        StoreSupplier, shorten,
    },
    time::{EventTime, WallTime},
    topology::{Node, NodeKind, NodeSpec, ProcessError, Punctuation, Scope, Topology},
};

/// Wraps the ports of one process for `bug`. `log` is the broker without faults.
pub(super) fn plant(
    bug: Bug,
    broker: Arc<dyn Broker>,
    stores: Arc<dyn StoreSupplier>,
    log: LocalBroker,
) -> (Arc<dyn Broker>, Arc<dyn StoreSupplier>) {
    let shared = Arc::<Shared>::default();
    let stores = BuggyStores { inner: stores, bug, log: log.clone(), shared: Arc::clone(&shared) };
    (Arc::new(BuggyBroker { inner: broker, bug, log, shared }), Arc::new(stores))
}

type OwnedChange = (Vec<u8>, Option<Vec<u8>>);

/// The last change of each key.
type LastChanges = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// State that the wrapped broker and the wrapped stores of one process share.
#[derive(Default)]
struct Shared {
    /// Changes of key-value stores sent to changelogs since the last commit.
    sent: Mutex<BTreeMap<TopicPartition, Vec<OwnedChange>>>,
    /// Those changes from the moment before a commit on: [`Bug::StateBeforeTheCommit`] has them in the stores.
    written: Mutex<BTreeMap<TopicPartition, LastChanges>>,
    /// The changelogs whose ends were asked for before a commit.
    asked: Mutex<Vec<TopicPartition>>,
    /// Their ends after the commit, until the stores are written or the member is called: those that
    /// [`Bug::EndAskedAfterTheCommit`] takes for checkpoints.
    later_ends: Mutex<BTreeMap<TopicPartition, Offset>>,
    /// Open readers of partitions that had undecided transactions when they were opened.
    readers: Mutex<BTreeMap<TopicPartition, Weak<Mutex<OpenReader>>>>,
}

struct OpenReader {
    reader: Box<dyn Reader>,
    position: Offset,
}

struct BuggyBroker {
    inner: Arc<dyn Broker>,
    bug: Bug,
    log: LocalBroker,
    shared: Arc<Shared>,
}

impl BuggyBroker {
    /// [`Bug::ReaderNotReopened`]: a reader that was opened at this position before the last transaction was decided.
    fn undecided_reader(
        &self,
        source: &TopicPartition,
        position: Offset,
    ) -> Option<Arc<Mutex<OpenReader>>> {
        let reader = self.shared.readers.lock().unwrap().get(source)?.upgrade()?;
        let is_there = reader.lock().unwrap().position == position;
        is_there.then_some(reader)
    }
}

impl Broker for BuggyBroker {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        let inner = self.inner.join(membership)?;
        let (broker, shared) = (Arc::clone(&self.inner), Arc::clone(&self.shared));
        shared.sent.lock().unwrap().clear();
        Ok(Box::new(BuggyMember { inner, bug: self.bug, broker, shared }))
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        let position = if let ReadFrom::Offset(offset) = from { offset } else { Offset(0) };
        if let Some(reader) = self.undecided_reader(source, position) {
            return Ok(Box::new(BuggyReader { reader, bug: self.bug }));
        }
        let reader = self.inner.read(source, from)?;
        let reader = Arc::new(Mutex::new(OpenReader { reader, position }));
        if self.bug == Bug::ReaderNotReopened {
            let end = |isolation| self.log.end(source, isolation);
            let is_decided = end(Isolation::ReadCommitted)? == end(Isolation::ReadUncommitted)?;
            let mut readers = self.shared.readers.lock().unwrap();
            match is_decided {
                true => readers.remove(source),
                false => readers.insert(source.clone(), Arc::downgrade(&reader)),
            };
        }
        Ok(Box::new(BuggyReader { reader, bug: self.bug }))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, BrokerError> {
        self.inner.follow()
    }

    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        self.inner.publish()
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        self.inner.create_topics(topics)
    }

    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError> {
        let end = self.inner.end(source, isolation)?;
        if isolation == Isolation::ReadCommitted && source.topic.as_str().ends_with("-changelog") {
            self.shared.asked.lock().unwrap().push(source.clone());
        }
        Ok(end)
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.inner.partitions(topic)
    }
}

struct BuggyReader {
    reader: Arc<Mutex<OpenReader>>,
    bug: Bug,
}

impl Reader for BuggyReader {
    fn read(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError> {
        let before = records.len();
        let OpenReader { reader, position } = &mut *self.reader.lock().unwrap();
        let read_to = reader.read(wait, records);
        if let Some(last) = records[before..].last() {
            *position = last.offset.next();
        }
        if read_to.is_err() && self.bug == Bug::RecordsDroppedWithAnError {
            records.truncate(before);
        }
        read_to
    }
}

struct BuggyMember {
    inner: Box<dyn Member>,
    bug: Bug,
    broker: Arc<dyn Broker>,
    shared: Arc<Shared>,
}

impl BuggyMember {
    /// The wrapped member, for a call after which no store is written by an earlier commit.
    fn inner(&mut self) -> &mut dyn Member {
        self.shared.later_ends.lock().unwrap().clear();
        self.inner.as_mut()
    }

    fn ask_for_later_ends(&self) {
        let asked = std::mem::take(&mut *self.shared.asked.lock().unwrap());
        for changelog in asked {
            if let Ok(end) = self.broker.end(&changelog, Isolation::ReadCommitted) {
                self.shared.later_ends.lock().unwrap().insert(changelog, end);
            }
        }
    }
}

impl Member for BuggyMember {
    fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError> {
        self.shared.asked.lock().unwrap().clear();
        self.inner().poll(wait, records)
    }

    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.inner().assign(tasks)
    }

    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.inner().unassign(tasks)
    }

    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.inner().pause(inputs)
    }

    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.inner().resume(inputs)
    }

    fn position(&self, input: &TopicPartition) -> Offset {
        self.inner.position(input)
    }

    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        self.inner().send(record)?;
        if let (Some(partition), Some(key)) = (record.partition, record.key)
            && record.topic.as_str().ends_with("-numbers-changelog")
            && key != MARK_KEY
        {
            let changelog = TopicPartition { topic: record.topic.clone(), partition };
            let change = (key.to_vec(), record.value.map(<[u8]>::to_vec));
            self.shared.sent.lock().unwrap().entry(changelog).or_default().push(change);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        self.inner().flush()
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        let sent = std::mem::take(&mut *self.shared.sent.lock().unwrap());
        if self.bug == Bug::StateBeforeTheCommit {
            let mut written = self.shared.written.lock().unwrap();
            for (changelog, changes) in sent {
                written.entry(changelog).or_default().extend(changes);
            }
        }
        self.inner().commit(offsets)?;
        if self.bug == Bug::EndAskedAfterTheCommit {
            self.ask_for_later_ends();
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.shared.sent.lock().unwrap().clear();
        self.inner().abort()
    }

    fn leave(self: Box<Self>) -> Result<(), BrokerError> {
        self.inner.leave()
    }
}

struct BuggyStores {
    inner: Arc<dyn StoreSupplier>,
    bug: Bug,
    log: LocalBroker,
    shared: Arc<Shared>,
}

impl BuggyStores {
    fn wrap(
        &self,
        changelog: &TopicPartition,
        inner: Box<dyn StateStore>,
        is_active: bool,
    ) -> Box<dyn StateStore> {
        let has_bug = self.bug == Bug::OffsetsTrustedInAnyLog;
        let trusted = if has_bug { self.mark_of(changelog) } else { None };
        Box::new(BuggyStore {
            inner,
            bug: self.bug,
            changelog: changelog.clone(),
            shared: Arc::clone(&self.shared),
            is_active,
            trusted,
        })
    }

    /// The mark that a changelog has now.
    fn mark_of(&self, changelog: &TopicPartition) -> Option<Incarnation> {
        let mut records = Vec::new();
        let mut reader = self.log.read(changelog, ReadFrom::Beginning).unwrap();
        while reader.read(Duration::ZERO, &mut records).unwrap() == ReadTo::More {}
        records.iter().find_map(Incarnation::of)
    }
}

impl StoreSupplier for BuggyStores {
    fn open(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        Ok(self.wrap(changelog, self.inner.open(changelog, access)?, true))
    }

    fn open_standby(
        &self,
        changelog: &TopicPartition,
        access: Access,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        let store = self.inner.open_standby(changelog, access)?;
        Ok(store.map(|store| self.wrap(changelog, store, false)))
    }

    fn clean(&self, now: Duration) -> Result<(), StateError> {
        self.inner.clean(now)
    }

    fn is_lasting(&self) -> bool {
        self.inner.is_lasting()
    }
}

struct BuggyStore {
    inner: Box<dyn StateStore>,
    bug: Bug,
    changelog: TopicPartition,
    shared: Arc<Shared>,
    /// Whether it belongs to an active task, not to a standby task.
    is_active: bool,
    /// [`Bug::OffsetsTrustedInAnyLog`]: the mark that its checkpoint names until it is written.
    trusted: Option<Incarnation>,
}

impl BuggyStore {
    /// Removes the changes that were written before a commit.
    fn take_written(&self) -> LastChanges {
        match self.is_active {
            true => self.shared.written.lock().unwrap().remove(&self.changelog).unwrap_or_default(),
            false => BTreeMap::new(),
        }
    }
}

impl StateStore for BuggyStore {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        if self.is_active
            && let Some(written) = self.shared.written.lock().unwrap().get(&self.changelog)
            && let Some(value) = written.get(key)
        {
            return Ok(value.clone().map(Cow::Owned));
        }
        self.inner.get(key)
    }

    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's> {
        self.inner.range(from, to)
    }

    fn fetch(
        &self,
        key: &[u8],
        from: Position,
        to: Position,
        visit: &mut dyn FnMut(Position, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.inner.fetch(key, from, to, visit)
    }

    fn oldest(
        &self,
        from: Option<(&[u8], Position)>,
        visit: &mut dyn FnMut(&[u8], Position) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.inner.oldest(from, visit)
    }

    fn has_time_order(&self) -> bool {
        self.inner.has_time_order()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change<'_>>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        self.trusted = None;
        let mut checkpoint = checkpoint;
        if self.is_active
            && let Some(later) = self.shared.later_ends.lock().unwrap().remove(&self.changelog)
        {
            checkpoint.offset = later;
        }
        let written = self.take_written();
        let written = written.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
        self.inner.write(&mut written.chain(changes.map(shorten)), checkpoint)
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        let checkpoint = self.inner.checkpoint()?;
        Some(match self.trusted {
            Some(_) => Checkpoint { incarnation: self.trusted, ..checkpoint },
            None => checkpoint,
        })
    }

    fn clear(&mut self) -> Result<(), StateError> {
        self.trusted = None;
        drop(self.take_written());
        self.inner.clear()
    }

    fn is_held(&self) -> bool {
        let is_kept = self.bug == Bug::CopyKeptAfterTakeover && !self.is_active;
        is_kept || self.inner.is_held()
    }
}

/// [`Bug::MergeByRecordTime`]: has the inputs merged by the timestamps of their records. Stream time follows event times
/// all the same.
pub(super) fn merge_by_record_time(topology: &mut Topology) {
    for source in &topology.sources {
        let spec = topology.nodes.remove(source.node);
        let NodeSpec { name, kind, stores, make } = spec;
        assert!(matches!(kind, NodeKind::Source(_)), "a source reads a topic");
        let make = Box::new(move || Box::new(TimedByRecord(make())) as Box<dyn Node>);
        topology.nodes.insert(source.node, NodeSpec { name, kind, stores, make });
    }
}

struct TimedByRecord(Box<dyn Node>);

impl Node for TimedByRecord {
    fn start(&mut self, scope: &mut Scope, index: usize) {
        self.0.start(scope, index);
    }

    fn extract(&mut self, raw: &InputRecord, now: WallTime) -> Result<EventTime, ProcessError> {
        self.0.extract(raw, now)?;
        Ok(raw.timestamp)
    }

    fn process(
        &mut self,
        record: &dyn Any,
        scope: &mut Scope,
        index: usize,
    ) -> Result<(), ProcessError> {
        self.0.process(record, scope, index)
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        scope: &mut Scope,
        index: usize,
    ) -> Result<(), ProcessError> {
        self.0.punctuate(punctuation, scope, index)
    }
}
