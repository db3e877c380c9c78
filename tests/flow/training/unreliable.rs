//! A broker and a codec that fail in the middle of a read, as a cluster and a registry may.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
    mpsc::{Receiver, Sender, channel},
};

use foretell::events::labelled_example::LabelledExample;
use foretell_streams::{
    codec::{Codec, CodecError},
    local::LocalBroker,
    record::{InputRecord, Offset, Topic, TopicPartition},
    runtime::broker::{
        Broker, BrokerError, Follower, Isolation, Member, Membership, Publisher, ReadFrom, ReadTo,
        Reader, TopicSpec,
    },
};

use std::time::Duration;

/// The number of records that a read returns, so that reads go beyond the requested offset.
const RECORDS_AT_ONCE: usize = 7;

/// The behaviour of readers, apart from failures.
struct Pace {
    records_at_once: AtomicUsize,
    is_silent: AtomicBool,
}

/// A [`LocalBroker`] whose readers can fail.
#[derive(Clone)]
pub(super) struct UnreliableBroker {
    local: LocalBroker,
    faults: Arc<Countdown>,
    pace: Arc<Pace>,
    opened: Arc<AtomicUsize>,
}

impl UnreliableBroker {
    pub(super) fn new(local: LocalBroker) -> Self {
        let records_at_once = AtomicUsize::new(RECORDS_AT_ONCE);
        let pace = Arc::new(Pace { records_at_once, is_silent: AtomicBool::new(false) });
        Self { local, faults: Arc::default(), pace, opened: Arc::default() }
    }

    /// The same broker without failures.
    pub(super) fn local(&self) -> LocalBroker {
        self.local.clone()
    }

    /// Readers return one record at a time.
    pub(super) fn read_one_by_one(&self) {
        self.pace.records_at_once.store(1, Ordering::SeqCst);
    }

    /// Readers return nothing, at once.
    pub(super) fn be_silent(&self, is_silent: bool) {
        self.pace.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// The read after `calls` others returns its records and an error, as librdkafka may.
    pub(super) fn fail_read_after(&self, calls: usize) {
        self.faults.set(calls);
    }

    /// The number of readers that were opened.
    pub(super) fn readers(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

/// Fails once, after a number of calls that succeed.
#[derive(Default)]
struct Countdown(Mutex<Option<usize>>);

impl Countdown {
    fn set(&self, calls: usize) {
        *self.0.lock().unwrap() = Some(calls);
    }

    fn fails_now(&self) -> bool {
        let mut left = self.0.lock().unwrap();
        let fails = *left == Some(0);
        *left = left.and_then(|left| left.checked_sub(1));
        fails
    }
}

struct UnreliableReader {
    reader: Box<dyn Reader>,
    fetched: Vec<InputRecord>,
    faults: Arc<Countdown>,
    pace: Arc<Pace>,
}

impl Reader for UnreliableReader {
    fn read(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError> {
        if self.pace.is_silent.load(Ordering::SeqCst) {
            return Ok(ReadTo::More);
        }
        if self.fetched.is_empty() {
            self.reader.read(wait, &mut self.fetched)?;
        }
        let count = self.fetched.len().min(self.pace.records_at_once.load(Ordering::SeqCst));
        records.extend(self.fetched.drain(..count));
        if self.faults.fails_now() {
            return Err(BrokerError::Retry("the connection was reset".to_owned()));
        }
        Ok(if self.fetched.is_empty() { ReadTo::End } else { ReadTo::More })
    }
}

impl Broker for UnreliableBroker {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        self.local.join(membership)
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let reader = self.local.read(source, from)?;
        let (faults, pace) = (Arc::clone(&self.faults), Arc::clone(&self.pace));
        Ok(Box::new(UnreliableReader { reader, fetched: Vec::new(), faults, pace }))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, BrokerError> {
        self.local.follow()
    }

    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        self.local.publish()
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        self.local.create_topics(topics)
    }

    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError> {
        self.local.end(source, isolation)
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.local.partitions(topic)
    }
}

/// A codec whose registry fails on demand, and that can be blocked.
#[derive(Clone)]
pub(super) struct UnreliableCodec {
    codec: Arc<dyn Codec<LabelledExample>>,
    faults: Arc<Countdown>,
    panics: Arc<Countdown>,
    held: Arc<Mutex<Option<Hold>>>,
}

/// The decoder's end of a [`Held`].
struct Hold {
    has_come: Sender<()>,
    go_on: Receiver<()>,
}

/// The next decoding blocks until this is dropped.
pub(super) struct Held {
    has_come: Receiver<()>,
    _go_on: Sender<()>,
}

impl Held {
    /// Waits until a decoding is blocked.
    pub(super) fn wait(&self, patience: Duration) {
        self.has_come.recv_timeout(patience).expect("nothing was decoded");
    }
}

impl UnreliableCodec {
    pub(super) fn new(codec: Arc<dyn Codec<LabelledExample>>) -> Self {
        let (faults, panics, held) = (Arc::default(), Arc::default(), Arc::default());
        Self { codec, faults, panics, held }
    }

    /// The decoding after `records` others fails because the registry is unavailable.
    pub(super) fn fail_after(&self, records: usize) {
        self.faults.set(records);
    }

    /// The decoding after `records` others panics.
    pub(super) fn panic_after(&self, records: usize) {
        self.panics.set(records);
    }

    pub(super) fn hold(&self) -> Held {
        let ((has_come, came), (release, go_on)) = (channel(), channel());
        *self.held.lock().unwrap() = Some(Hold { has_come, go_on });
        Held { has_come: came, _go_on: release }
    }
}

impl Codec<LabelledExample> for UnreliableCodec {
    fn encode(&self, value: &LabelledExample, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.codec.encode(value, bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<LabelledExample, CodecError> {
        let hold = self.held.lock().unwrap().take();
        if let Some(Hold { has_come, go_on }) = hold {
            has_come.send(()).unwrap();
            // Nothing is sent; this returns when the other end is dropped.
            go_on.recv().unwrap_err();
        }
        assert!(!self.panics.fails_now(), "a panic that a test has asked for");
        if self.faults.fails_now() {
            return Err(CodecError::Unavailable { message: "the registry is away".to_owned() });
        }
        self.codec.decode(bytes)
    }
}
