//! The requests that wait for the result of an event. One thread reads replies and dead letters for all of them, and only the
//! partitions with a waiting request.
//!
//! ```text
//!   wait ──▶ partition not followed? ──▶ open at its end ──▶ opened: the event may be written
//!              followed ──────────────────────────────────▶ opened
//!   record ──▶ request id ──▶ answered
//!   no request for LINGER ──▶ close
//!   the reader fails ──▶ another one continues from its position
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    events::{
        reply::{REQUEST_HEADER, ReplyCodec, ReplyResult},
        topics::Topics,
    },
    processors::gateway::GatewayError,
};
use foretell_streams::{
    codec::Codec,
    record::{InputRecord, Offset, Partition, Topic, TopicPartition},
    runtime::broker::{Broker, BrokerError, Follower, ReadFrom},
    time::Clock,
};

/// The result of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The reply of the scoring topology.
    Replied(Box<ReplyResult>),
    /// The event was dead-lettered.
    DeadLettered {
        /// The class of the dead letter.
        class: String,
        /// The problem.
        message: String,
    },
}

/// Called once, when the event may be written, or with an error if its reply could not be read.
pub type Opened = Box<dyn FnOnce(Result<(), GatewayError>) + Send>;
/// Called once, with the result of the event.
pub type Answered = Box<dyn FnOnce(Answer) + Send>;

/// A waiting request. Dropping it ends the wait.
pub struct Wait {
    shared: Arc<Shared>,
    request_id: String,
}

/// The waiting requests.
pub(super) struct Waits {
    shared: Arc<Shared>,
    waits_max: usize,
}

/// The reader thread.
pub(super) struct WaitsThread {
    shared: Arc<Shared>,
    broker: Arc<dyn Broker>,
    sources: [Topic; 2],
    codec: ReplyCodec,
    clock: Arc<dyn Clock>,
    follower: Option<Box<dyn Follower>>,
    /// The next record of each partition that is followed.
    positions: BTreeMap<TopicPartition, Offset>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waits: HashMap<String, Waiting>,
    partitions: BTreeMap<Partition, Followed>,
    is_stopped: bool,
}

struct Waiting {
    partition: Partition,
    answered: Answered,
}

/// A partition of both topics that is read.
#[derive(Default)]
struct Followed {
    is_open: bool,
    waits: usize,
    opened: Vec<Opened>,
    /// The time since which no request waits.
    idle_since: Option<Duration>,
}

/// Time that a partition stays open after its last wait, so that the next one need not open it.
const LINGER: Duration = Duration::from_secs(30);
/// Timeout of one read, which bounds the time until a new partition is opened.
const READ_TIMEOUT: Duration = Duration::from_millis(10);
/// Interval of reads while no request waits.
const IDLE_INTERVAL: Duration = Duration::from_millis(100);
/// Back-off after the reader has failed.
const RETRY_BACKOFF: Duration = Duration::from_millis(200);

pub(super) fn open(
    broker: Arc<dyn Broker>,
    topics: &Topics,
    codec: ReplyCodec,
    waits_max: usize,
    clock: Arc<dyn Clock>,
) -> (Waits, WaitsThread) {
    let shared = Arc::new(Shared::default());
    let thread = WaitsThread {
        shared: Arc::clone(&shared),
        broker,
        sources: [topics.replies.clone(), topics.dead_letters.clone()],
        codec,
        clock,
        follower: None,
        positions: BTreeMap::new(),
    };
    (Waits { shared, waits_max }, thread)
}

impl Waits {
    /// Waits for the result of the event whose record has `request_id` in its header, and whose key is in `partition`.
    ///
    /// # Errors
    /// [`GatewayError::Busy`] if too many wait.
    pub(super) fn wait(
        &self,
        request_id: String,
        partition: Partition,
        opened: Opened,
        answered: Answered,
    ) -> Result<Wait, GatewayError> {
        let mut state = self.shared.lock();
        if state.waits.len() >= self.waits_max {
            return Err(GatewayError::Busy(
                "too many requests wait for predictions: try again, or raise [http] waits_max",
            ));
        }
        state.waits.insert(request_id.clone(), Waiting { partition, answered });
        let followed = state.partitions.entry(partition).or_default();
        followed.waits += 1;
        followed.idle_since = None;
        if followed.is_open {
            drop(state);
            opened(Ok(()));
        } else {
            followed.opened.push(opened);
            drop(state);
        }
        self.shared.changed.notify_one();
        Ok(Wait { shared: Arc::clone(&self.shared), request_id })
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.shared.lock().is_stopped = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        drop(self.shared.lock().end(&self.request_id));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, request_id: &str) -> Option<Answered> {
        let Waiting { partition, answered } = self.waits.remove(request_id)?;
        if let Some(followed) = self.partitions.get_mut(&partition) {
            followed.waits -= 1;
        }
        Some(answered)
    }

    fn is_idle(&self) -> bool {
        self.waits.is_empty() && self.partitions.values().all(|followed| followed.opened.is_empty())
    }
}

impl WaitsThread {
    /// Runs until [`Waits`] is dropped.
    pub(super) fn run(mut self) {
        while self.run_once() {}
    }

    /// One iteration; false at the end.
    fn run_once(&mut self) -> bool {
        let Some(to_open) = self.next() else { return false };
        if let Err(error) = self.open(&to_open).and_then(|()| self.read()) {
            tracing::warn!(%error, "cannot read replies; retrying");
            self.start_over();
        }
        true
    }

    /// Waits for work, and returns the partitions to open; none at the end.
    fn next(&mut self) -> Option<Vec<Partition>> {
        let now = self.clock.elapsed();
        let mut state = self.shared.lock();
        let nothing_to_do = |state: &mut State| !state.is_stopped && state.is_idle();
        // While partitions are open without a wait, their records are read and dropped from time to time.
        let at_most = if state.partitions.is_empty() { LINGER } else { IDLE_INTERVAL };
        state = self
            .shared
            .changed
            .wait_timeout_while(state, at_most, nothing_to_do)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        if state.is_stopped {
            return None;
        }
        let mut closed = Vec::new();
        state.partitions.retain(|partition, followed| {
            if followed.waits > 0 || !followed.opened.is_empty() {
                return true;
            }
            let idle_since = *followed.idle_since.get_or_insert(now);
            let stays = now.saturating_sub(idle_since) < LINGER;
            if !stays {
                closed.push(*partition);
            }
            stays
        });
        let to_open = state.partitions.iter().filter(|(_, followed)| !followed.is_open);
        let to_open = to_open.map(|(partition, _)| *partition).collect();
        let is_empty = state.partitions.is_empty();
        drop(state);
        if let Err(error) = self.close(&closed) {
            tracing::warn!(%error, "cannot close a partition of replies; reopening the others");
            self.start_over();
            return Some(Vec::new());
        }
        if is_empty {
            // This ends the follower's threads too.
            self.follower = None;
        }
        Some(to_open)
    }

    fn sources(&self, partition: Partition) -> [TopicPartition; 2] {
        self.sources.clone().map(|topic| TopicPartition { topic, partition })
    }

    fn open(&mut self, partitions: &[Partition]) -> Result<(), BrokerError> {
        for partition in partitions {
            let opened = self.open_one(*partition);
            let mut state = self.shared.lock();
            let Some(followed) = state.partitions.get_mut(partition) else { continue };
            followed.is_open = opened.is_ok();
            let callbacks = std::mem::take(&mut followed.opened);
            drop(state);
            let result = match &opened {
                Ok(()) => Ok(()),
                Err(error) => Err(GatewayError::NotFollowed(error.to_string())),
            };
            for opened in callbacks {
                opened(result.clone());
            }
            opened?;
        }
        Ok(())
    }

    fn open_one(&mut self, partition: Partition) -> Result<(), BrokerError> {
        for source in self.sources(partition) {
            let from =
                self.positions.get(&source).map_or(ReadFrom::End, |next| ReadFrom::Offset(*next));
            let follower = match &mut self.follower {
                Some(follower) => follower,
                none => none.insert(self.broker.follow()?),
            };
            let start = match follower.open(&source, from) {
                Err(BrokerError::OutOfRange(_)) => follower.open(&source, ReadFrom::End)?,
                other => other?,
            };
            self.positions.insert(source, start);
        }
        Ok(())
    }

    fn close(&mut self, partitions: &[Partition]) -> Result<(), BrokerError> {
        let sources = partitions.iter().flat_map(|partition| self.sources(*partition));
        for source in sources.collect::<Vec<_>>() {
            if self.positions.remove(&source).is_some()
                && let Some(follower) = &mut self.follower
            {
                follower.close(&source)?;
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), BrokerError> {
        let Some(follower) = &mut self.follower else { return Ok(()) };
        let timeout = if self.shared.lock().is_idle() { Duration::ZERO } else { READ_TIMEOUT };
        let mut records = Vec::new();
        let read = follower.read(timeout, &mut records);
        for record in &records {
            self.positions.insert(record.source.clone(), record.offset.next());
            if let Some((request_id, answer)) = self.answer_in(record) {
                let answered = self.shared.lock().end(&request_id);
                if let Some(answered) = answered {
                    answered(answer);
                }
            }
        }
        read
    }

    fn answer_in(&self, record: &InputRecord) -> Option<(String, Answer)> {
        if record.source.topic == self.sources[0] {
            // A reply that cannot be decoded is of another release, whose instances wait for it. Those that nobody waits for
            // here are not decoded, because the prediction of an instance with another event schema needs the registry.
            let bytes = record.value.as_deref()?;
            let request_id = ReplyCodec::request_id(bytes).ok()?;
            if !self.shared.lock().waits.contains_key(&request_id) {
                return None;
            }
            let reply = self.codec.decode(bytes).ok()?;
            return Some((reply.request_id, Answer::Replied(Box::new(reply.result))));
        }
        let header = |name: &str| {
            let header = record.headers.iter().rfind(|header| header.name == name)?;
            Some(String::from_utf8_lossy(&header.value).into_owned())
        };
        let class = header("foretell.error.class").unwrap_or_default();
        let message = header("foretell.error.message").unwrap_or_default();
        Some((header(REQUEST_HEADER)?, Answer::DeadLettered { class, message }))
    }

    /// Replaces the reader. The new one continues from the same positions, so no reply is lost.
    fn start_over(&mut self) {
        self.follower = None;
        let mut state = self.shared.lock();
        for followed in state.partitions.values_mut() {
            followed.is_open = false;
        }
        let goes_on = |state: &mut State| !state.is_stopped;
        let waited = self.shared.changed.wait_timeout_while(state, RETRY_BACKOFF, goes_on);
        drop(waited);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        thread::JoinHandle,
    };

    use super::*;
    use crate::events::{
        reply::Reply,
        small_schema::{codec_of, schema_of},
    };
    use foretell_streams::{
        local::LocalBroker,
        record::{Header, OutputRecord},
        runtime::broker::{Isolation, Member, Membership, Publisher, Reader, TopicSpec},
        time::{EventTime, ManualClock, SystemClock, WallTime},
    };

    const PARTITIONS: u32 = 4;
    /// Longer than any step of a test takes.
    const SOON: Duration = Duration::from_secs(60);

    /// A local broker whose followers fail on demand, and which counts the open partitions.
    #[derive(Clone)]
    struct Failing {
        broker: LocalBroker,
        reads_fail: Arc<AtomicUsize>,
        opens_fail: Arc<AtomicUsize>,
        followers: Arc<AtomicUsize>,
        open: Arc<AtomicUsize>,
    }

    struct FailingFollower {
        broker: Failing,
        follower: Box<dyn Follower>,
        open: usize,
    }

    fn takes_one(count: &AtomicUsize) -> bool {
        count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    fn failed() -> BrokerError {
        BrokerError::Retry("no answer".to_owned())
    }

    impl Follower for FailingFollower {
        fn open(&mut self, source: &TopicPartition, from: ReadFrom) -> Result<Offset, BrokerError> {
            if takes_one(&self.broker.opens_fail) {
                return Err(failed());
            }
            let start = self.follower.open(source, from)?;
            self.open += 1;
            self.broker.open.fetch_add(1, Ordering::SeqCst);
            Ok(start)
        }

        fn close(&mut self, source: &TopicPartition) -> Result<(), BrokerError> {
            self.open -= 1;
            self.broker.open.fetch_sub(1, Ordering::SeqCst);
            self.follower.close(source)
        }

        fn read(
            &mut self,
            wait: Duration,
            records: &mut Vec<InputRecord>,
        ) -> Result<(), BrokerError> {
            if takes_one(&self.broker.reads_fail) {
                return Err(failed());
            }
            self.follower.read(wait, records)
        }
    }

    impl Drop for FailingFollower {
        fn drop(&mut self) {
            self.broker.open.fetch_sub(self.open, Ordering::SeqCst);
            self.broker.followers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Broker for Failing {
        fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
            self.broker.join(membership)
        }

        fn read(
            &self,
            source: &TopicPartition,
            from: ReadFrom,
        ) -> Result<Box<dyn Reader>, BrokerError> {
            self.broker.read(source, from)
        }

        fn follow(&self) -> Result<Box<dyn Follower>, BrokerError> {
            self.followers.fetch_add(1, Ordering::SeqCst);
            let follower = self.broker.follow()?;
            Ok(Box::new(FailingFollower { broker: self.clone(), follower, open: 0 }))
        }

        fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError> {
            self.broker.publish()
        }

        fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
            self.broker.create_topics(topics)
        }

        fn end(
            &self,
            source: &TopicPartition,
            isolation: Isolation,
        ) -> Result<Offset, BrokerError> {
            self.broker.end(source, isolation)
        }

        fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
            self.broker.partitions(topic)
        }
    }

    struct Fixture {
        broker: Failing,
        topics: Topics,
        clock: Arc<ManualClock>,
        waits: Option<Waits>,
        thread: Option<JoinHandle<()>>,
    }

    fn replies() -> ReplyCodec {
        ReplyCodec(Arc::new(codec_of(schema_of(r#"{"name":"age","type":"int"}"#))))
    }

    impl Fixture {
        fn new(waits_max: usize) -> Self {
            let topics = Topics::with_prefix("");
            let local = LocalBroker::new(Arc::new(SystemClock::new()));
            local.create_topics(&topics.specs(PARTITIONS)).unwrap();
            let none = || Arc::new(AtomicUsize::new(0));
            let broker = Failing {
                broker: local,
                reads_fail: none(),
                opens_fail: none(),
                followers: none(),
                open: none(),
            };
            let clock = Arc::new(ManualClock::at(WallTime(0)));
            let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
            let broker_port = Arc::new(broker.clone());
            let (waits, thread) = open(broker_port, &topics, replies(), waits_max, time);
            let thread = std::thread::spawn(move || thread.run());
            Self { broker, topics, clock, waits: Some(waits), thread: Some(thread) }
        }

        /// Starts a wait, and waits until its event may be written.
        fn wait(&self, id: &str, partition: i32) -> (Wait, mpsc::Receiver<Answer>) {
            let (wait, opened, answers) = self.try_wait(id, partition).unwrap();
            assert_eq!(opened.recv_timeout(SOON).unwrap(), Ok(()));
            (wait, answers)
        }

        #[expect(clippy::type_complexity, reason = "a wait and both of its channels")]
        fn try_wait(
            &self,
            id: &str,
            partition: i32,
        ) -> Result<
            (Wait, mpsc::Receiver<Result<(), GatewayError>>, mpsc::Receiver<Answer>),
            GatewayError,
        > {
            let ((open, opened), (answer, answers)) = (mpsc::channel(), mpsc::channel());
            let waits = self.waits.as_ref().unwrap();
            let wait = waits.wait(
                id.to_owned(),
                Partition(partition),
                Box::new(move |result| drop(open.send(result))),
                Box::new(move |what| drop(answer.send(what))),
            )?;
            Ok((wait, opened, answers))
        }

        fn reply(&self, id: &str, partition: i32) {
            let reply = Reply {
                request_id: id.to_owned(),
                respondent_id: "r".to_owned(),
                event_id: format!("event of {id}"),
                result: ReplyResult::Incomplete { missing: vec![id.to_owned()] },
            };
            let mut value = Vec::new();
            replies().encode(&reply, &mut value).unwrap();
            self.write(&self.topics.replies, partition, value, &[]);
        }

        fn write(&self, topic: &Topic, partition: i32, value: Vec<u8>, headers: &[(&str, &str)]) {
            let header = |(name, value): &(&str, &str)| Header {
                name: (*name).to_owned(),
                value: value.as_bytes().to_vec(),
            };
            let record = OutputRecord {
                topic: topic.clone(),
                partition: Some(Partition(partition)),
                timestamp: EventTime(0),
                key: None,
                value: Some(value),
                headers: headers.iter().map(header).collect(),
            };
            self.broker.publish().unwrap().send(record).unwrap();
        }

        fn until(what: &str, mut condition: impl FnMut() -> bool) {
            let clock = SystemClock::new();
            while !condition() {
                assert!(clock.elapsed() < SOON, "{what}");
                std::thread::yield_now();
            }
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            drop(self.waits.take());
            self.thread.take().unwrap().join().unwrap();
        }
    }

    fn missing(id: &str) -> Answer {
        Answer::Replied(Box::new(ReplyResult::Incomplete { missing: vec![id.to_owned()] }))
    }

    #[test]
    fn each_wait_gets_the_result_of_its_own_request() {
        let fixture = Fixture::new(10);
        let (_a, of_a) = fixture.wait("a", 0);
        let (_b, of_b) = fixture.wait("b", 0);
        let (_c, of_c) = fixture.wait("c", 3);
        fixture.reply("another instance's", 0);
        fixture.write(&fixture.topics.replies, 0, b"no reply".to_vec(), &[]);
        let headers = [
            ("foretell.request", "c"),
            ("foretell.error.class", "future_time"),
            ("foretell.error.message", "too far ahead"),
        ];
        fixture.write(&fixture.topics.dead_letters, 3, Vec::new(), &headers);
        fixture.write(&fixture.topics.dead_letters, 3, Vec::new(), &headers[1..]);
        fixture.reply("b", 0);
        fixture.reply("a", 0);
        assert_eq!(of_b.recv_timeout(SOON).unwrap(), missing("b"));
        assert_eq!(of_a.recv_timeout(SOON).unwrap(), missing("a"));
        let dead = Answer::DeadLettered {
            class: "future_time".to_owned(),
            message: "too far ahead".to_owned(),
        };
        assert_eq!(of_c.recv_timeout(SOON).unwrap(), dead);
        assert_eq!(fixture.broker.followers.load(Ordering::SeqCst), 1, "one reader for all");
        assert_eq!(
            fixture.broker.open.load(Ordering::SeqCst),
            4,
            "of two partitions of two topics"
        );
    }

    #[test]
    fn waits_above_the_limit_are_rejected_until_another_ends() {
        let fixture = Fixture::new(2);
        let (a, _) = fixture.wait("a", 0);
        let _b = fixture.wait("b", 1);
        assert!(matches!(fixture.try_wait("c", 1).err(), Some(GatewayError::Busy(_))));
        drop(a);
        fixture.wait("c", 1);
    }

    #[test]
    fn a_failed_reader_is_replaced_and_no_reply_is_lost() {
        let fixture = Fixture::new(1000);
        for round in 0..20 {
            let id = format!("{round}");
            let (_wait, answers) = fixture.wait(&id, 1);
            fixture.broker.reads_fail.store(2, Ordering::SeqCst);
            fixture.reply(&id, 1);
            assert_eq!(answers.recv_timeout(SOON).unwrap(), missing(&id), "round {round}");
        }
    }

    #[test]
    fn a_wait_whose_partition_cannot_be_opened_fails_and_the_next_one_succeeds() {
        let fixture = Fixture::new(10);
        fixture.broker.opens_fail.store(1, Ordering::SeqCst);
        let (_a, opened, _) = fixture.try_wait("a", 2).unwrap();
        let refused = opened.recv_timeout(SOON).unwrap();
        assert!(matches!(refused, Err(GatewayError::NotFollowed(_))), "{refused:?}");
        let (_b, answers) = fixture.wait("b", 2);
        fixture.reply("b", 2);
        assert_eq!(answers.recv_timeout(SOON).unwrap(), missing("b"));
    }

    #[test]
    fn a_partition_is_closed_some_time_after_its_last_wait() {
        let fixture = Fixture::new(10);
        let open = || fixture.broker.open.load(Ordering::SeqCst);
        let (wait, _) = fixture.wait("a", 2);
        let (other, _) = fixture.wait("b", 3);
        assert_eq!(open(), 4);
        drop(wait);
        // The partition is still open.
        drop(fixture.wait("c", 2));
        assert_eq!(open(), 4);
        Fixture::until("the first of them closes", || {
            fixture.clock.advance(LINGER / 4);
            open() == 2
        });
        drop(other);
        Fixture::until("the reader goes with the last", || {
            fixture.clock.advance(LINGER / 4);
            fixture.broker.followers.load(Ordering::SeqCst) == 0
        });
        let (_again, answers) = fixture.wait("d", 2);
        fixture.reply("d", 2);
        assert_eq!(answers.recv_timeout(SOON).unwrap(), missing("d"));
    }
}
