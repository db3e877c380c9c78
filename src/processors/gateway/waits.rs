//! Who waits for what becomes of an event: one thread reads replies and dead letters for all of them, and of those topics
//! only the partitions that somebody waits for.
//!
//! ```text
//!   wait ──▶ partition not followed? ──▶ open at its end ──▶ opened: the event may be written
//!              followed ──────────────────────────────────▶ opened
//!   record ──▶ whose request? ──▶ answered
//!   nobody waits for LINGER ──▶ close
//!   the reader fails ──▶ another one goes on where it was
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    events::{
        reply::{REQUEST_HEADER, Reply, ReplyResult},
        topics::Topics,
    },
    processors::gateway::GatewayError,
};
use foretell_streams::{
    codec::{Codec, Stored},
    record::{InputRecord, Offset, Partition, Topic, TopicPartition},
    runtime::broker::{Broker, BrokerError, Follower, ReadFrom},
    time::Clock,
};

/// What became of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The scoring topology has dealt with it.
    Replied(ReplyResult),
    /// It could not be used.
    DeadLettered {
        /// One word.
        class: String,
        /// What is wrong.
        message: String,
    },
}

/// Called once, when the event may be written, or when nobody would hear what becomes of it.
pub type Opened = Box<dyn FnOnce(Result<(), GatewayError>) + Send>;
/// Called once, with what became of the event.
pub type Answered = Box<dyn FnOnce(Answer) + Send>;

/// A wait; dropped, it is over.
pub struct Wait {
    shared: Arc<Shared>,
    request_id: String,
}

/// Where waits are kept.
pub(super) struct Waits {
    shared: Arc<Shared>,
    waits_max: usize,
}

/// The thread's side.
pub(super) struct WaitsThread {
    shared: Arc<Shared>,
    broker: Arc<dyn Broker>,
    sources: [Topic; 2],
    codec: Stored<Reply>,
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

/// A partition of both topics.
#[derive(Default)]
struct Followed {
    is_open: bool,
    waits: usize,
    opened: Vec<Opened>,
    /// Since when nobody waits.
    idle_since: Option<Duration>,
}

/// How long a partition is followed after the last wait for it, so that the next one need not open it.
const LINGER: Duration = Duration::from_secs(30);
/// One look for records, so that a new partition is opened soon.
const LOOK: Duration = Duration::from_millis(10);
/// One look while nobody waits.
const IDLE_LOOK: Duration = Duration::from_millis(100);
/// After the reader failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);

pub(super) fn open(
    broker: Arc<dyn Broker>,
    topics: &Topics,
    waits_max: usize,
    clock: Arc<dyn Clock>,
) -> (Waits, WaitsThread) {
    let shared = Arc::new(Shared::default());
    let thread = WaitsThread {
        shared: Arc::clone(&shared),
        broker,
        sources: [topics.replies.clone(), topics.dead_letters.clone()],
        codec: Reply::codec(),
        clock,
        follower: None,
        positions: BTreeMap::new(),
    };
    (Waits { shared, waits_max }, thread)
}

impl Waits {
    /// Waits for what becomes of the event whose record has `request_id` in its header and its key in `partition`.
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
    /// Until [`Waits`] is gone.
    pub(super) fn run(mut self) {
        while self.turn() {}
    }

    /// Returns false if it is over.
    fn turn(&mut self) -> bool {
        let Some(to_open) = self.next() else { return false };
        if let Err(error) = self.open(&to_open).and_then(|()| self.read()) {
            tracing::warn!(%error, "cannot read replies just now: trying again");
            self.start_over();
        }
        true
    }

    /// Waits for something to do: which partitions are to be opened; none if it is over.
    fn next(&mut self) -> Option<Vec<Partition>> {
        let now = self.clock.elapsed();
        let mut state = self.shared.lock();
        let nothing_to_do = |state: &mut State| !state.is_stopped && state.is_idle();
        // While some are still followed, what comes is looked at now and then, and thrown away.
        let at_most = if state.partitions.is_empty() { LINGER } else { IDLE_LOOK };
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
            tracing::warn!(%error, "a partition of replies was not closed: opening the others again");
            self.start_over();
            return Some(Vec::new());
        }
        if is_empty {
            // Its threads go too.
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
            let told = std::mem::take(&mut followed.opened);
            drop(state);
            let result = match &opened {
                Ok(()) => Ok(()),
                Err(error) => Err(GatewayError::NotFollowed(error.to_string())),
            };
            for opened in told {
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
        let look = if self.shared.lock().is_idle() { Duration::ZERO } else { LOOK };
        let mut records = Vec::new();
        let read = follower.read(look, &mut records);
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
            // Of another release, whose instances wait for it.
            let reply = self.codec.decode(record.value.as_deref()?).ok()?;
            return Some((reply.request_id, Answer::Replied(reply.result)));
        }
        let header = |name: &str| {
            let header = record.headers.iter().rfind(|header| header.name == name)?;
            Some(String::from_utf8_lossy(&header.value).into_owned())
        };
        let class = header("foretell.error.class").unwrap_or_default();
        let message = header("foretell.error.message").unwrap_or_default();
        Some((header(REQUEST_HEADER)?, Answer::DeadLettered { class, message }))
    }

    /// Another reader goes on where this one was: no wait is lost with it.
    fn start_over(&mut self) {
        self.follower = None;
        let mut state = self.shared.lock();
        for followed in state.partitions.values_mut() {
            followed.is_open = false;
        }
        let goes_on = |state: &mut State| !state.is_stopped;
        let waited = self.shared.changed.wait_timeout_while(state, TRY_AGAIN_AFTER, goes_on);
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
    use foretell_streams::{
        local::LocalBroker,
        record::{Header, OutputRecord},
        runtime::broker::{Isolation, Member, Membership, Publisher, Reader, TopicSpec},
        time::{EventTime, ManualClock, SystemClock, WallTime},
    };

    const PARTITIONS: u32 = 4;
    /// Longer than anything takes here.
    const SOON: Duration = Duration::from_secs(60);

    /// A local broker some of whose followers fail, and which counts what is followed.
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
        BrokerError::Retry("nobody answers".to_owned())
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

    struct World {
        broker: Failing,
        topics: Topics,
        clock: Arc<ManualClock>,
        waits: Option<Waits>,
        thread: Option<JoinHandle<()>>,
    }

    impl World {
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
            let (waits, thread) = open(Arc::new(broker.clone()), &topics, waits_max, time);
            let thread = std::thread::spawn(move || thread.run());
            Self { broker, topics, clock, waits: Some(waits), thread: Some(thread) }
        }

        /// A wait whose event may be written.
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
            Reply::codec().encode(&reply, &mut value).unwrap();
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

        fn until(what: &str, mut is_so: impl FnMut() -> bool) {
            let clock = SystemClock::new();
            while !is_so() {
                assert!(clock.elapsed() < SOON, "{what}");
                std::thread::yield_now();
            }
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            drop(self.waits.take());
            self.thread.take().unwrap().join().unwrap();
        }
    }

    fn missing(id: &str) -> Answer {
        Answer::Replied(ReplyResult::Incomplete { missing: vec![id.to_owned()] })
    }

    #[test]
    fn each_hears_of_its_own_request_alone() {
        let world = World::new(10);
        let (_a, of_a) = world.wait("a", 0);
        let (_b, of_b) = world.wait("b", 0);
        let (_c, of_c) = world.wait("c", 3);
        world.reply("another instance's", 0);
        world.write(&world.topics.replies, 0, b"no reply".to_vec(), &[]);
        let headers = [
            ("foretell.request", "c"),
            ("foretell.error.class", "future_time"),
            ("foretell.error.message", "too far ahead"),
        ];
        world.write(&world.topics.dead_letters, 3, Vec::new(), &headers);
        world.write(&world.topics.dead_letters, 3, Vec::new(), &headers[1..]);
        world.reply("b", 0);
        world.reply("a", 0);
        assert_eq!(of_b.recv_timeout(SOON).unwrap(), missing("b"));
        assert_eq!(of_a.recv_timeout(SOON).unwrap(), missing("a"));
        let dead = Answer::DeadLettered {
            class: "future_time".to_owned(),
            message: "too far ahead".to_owned(),
        };
        assert_eq!(of_c.recv_timeout(SOON).unwrap(), dead);
        assert_eq!(world.broker.followers.load(Ordering::SeqCst), 1, "one reader for all");
        assert_eq!(world.broker.open.load(Ordering::SeqCst), 4, "of two partitions of two topics");
    }

    #[test]
    fn beyond_the_bound_a_wait_is_refused_until_another_ends() {
        let world = World::new(2);
        let (a, _) = world.wait("a", 0);
        let _b = world.wait("b", 1);
        assert!(matches!(world.try_wait("c", 1).err(), Some(GatewayError::Busy(_))));
        drop(a);
        world.wait("c", 1);
    }

    #[test]
    fn a_reader_that_fails_is_replaced_and_no_reply_is_lost_meanwhile() {
        let world = World::new(1000);
        for round in 0..20 {
            let id = format!("{round}");
            let (_wait, answers) = world.wait(&id, 1);
            world.broker.reads_fail.store(2, Ordering::SeqCst);
            world.reply(&id, 1);
            assert_eq!(answers.recv_timeout(SOON).unwrap(), missing(&id), "round {round}");
        }
    }

    #[test]
    fn who_cannot_be_told_is_reported_so_and_the_next_one_can() {
        let world = World::new(10);
        world.broker.opens_fail.store(1, Ordering::SeqCst);
        let (_a, opened, _) = world.try_wait("a", 2).unwrap();
        let refused = opened.recv_timeout(SOON).unwrap();
        assert!(matches!(refused, Err(GatewayError::NotFollowed(_))), "{refused:?}");
        let (_b, answers) = world.wait("b", 2);
        world.reply("b", 2);
        assert_eq!(answers.recv_timeout(SOON).unwrap(), missing("b"));
    }

    #[test]
    fn a_partition_is_followed_for_a_while_after_the_last_wait_and_then_no_more() {
        let world = World::new(10);
        let open = || world.broker.open.load(Ordering::SeqCst);
        let (wait, _) = world.wait("a", 2);
        let (other, _) = world.wait("b", 3);
        assert_eq!(open(), 4);
        drop(wait);
        // A burst: the partition is open still.
        drop(world.wait("c", 2));
        assert_eq!(open(), 4);
        World::until("the first of them closes", || {
            world.clock.advance(LINGER / 4);
            open() == 2
        });
        drop(other);
        World::until("the reader goes with the last", || {
            world.clock.advance(LINGER / 4);
            world.broker.followers.load(Ordering::SeqCst) == 0
        });
        let (_again, answers) = world.wait("d", 2);
        world.reply("d", 2);
        assert_eq!(answers.recv_timeout(SOON).unwrap(), missing("d"));
    }
}
