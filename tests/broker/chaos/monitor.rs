//! Reads the topics as another consumer does: when committed predictions arrive, during the test, and everything committed,
//! at its end.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use foretell::{
    app::cluster::Cluster,
    config::Config,
    events::{
        labelled_example::{ExampleOrigin, LabelledExample},
        prediction::Prediction,
        questionnaire::{Answer, AnswerRef},
    },
    processors::{
        gather::StoredSession,
        learning::state::LearningState,
        outcome_join::{Pending, PendingCodec, PredictionState},
    },
};
use foretell_streams::{
    codec::Codec as _,
    record::{InputRecord, Partition, Topic, TopicPartition},
    runtime::broker::{BrokerError, ReadFrom},
    time::{Clock, SystemClock},
};

use crate::chaos::model::Topics;

/// Timeout of one read of one partition.
const READ_TIMEOUT: Duration = Duration::from_millis(10);

/// Arrival times of the predictions of each partition, on the monitor's clock.
type Arrivals = Arc<Mutex<Vec<Vec<Duration>>>>;

/// Records the arrival times of committed predictions, on its own thread.
pub(super) struct PredictionMonitor {
    arrivals: Arrivals,
    clock: Arc<SystemClock>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl PredictionMonitor {
    pub(super) fn start(config: &Config) -> Self {
        let cluster = Cluster::connect(config, &foretell::app::clock()).unwrap();
        let topic = config.topics.predictions.clone();
        let partitions = config.partitions;
        let (clock, stop) = (Arc::new(SystemClock::new()), Arc::<AtomicBool>::default());
        let arrivals: Arrivals = Arrivals::default();
        arrivals.lock().unwrap().resize(usize::try_from(partitions).unwrap(), Vec::new());
        let (list, elapsing, stopped) =
            (Arc::clone(&arrivals), Arc::clone(&clock), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let numbers = 0..i32::try_from(partitions).unwrap();
            let sources = numbers.map(|number| TopicPartition {
                topic: topic.clone(),
                partition: Partition(number),
            });
            let mut readers: Vec<_> = sources
                .map(|source| cluster.broker.read(&source, ReadFrom::Beginning).unwrap())
                .collect();
            while !stopped.load(Ordering::SeqCst) {
                for (index, reader) in readers.iter_mut().enumerate() {
                    let mut records = Vec::new();
                    match reader.read(READ_TIMEOUT, &mut records) {
                        Ok(_) | Err(BrokerError::Retry(_)) => {}
                        Err(error) => panic!("cannot read the predictions: {error}"),
                    }
                    let now = elapsing.elapsed();
                    list.lock().unwrap()[index].extend(records.iter().map(|_| now));
                }
            }
        });
        Self { arrivals, clock, stop, thread }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Number of predictions committed so far.
    pub(super) fn predictions(&self) -> usize {
        assert!(!self.thread.is_finished(), "the monitor has ended");
        self.arrivals.lock().unwrap().iter().map(Vec::len).sum()
    }

    /// Longest time between two predictions of one partition, of the pauses that overlap `from..to`.
    pub(super) fn pause(&self, from: Duration, to: Duration) -> Duration {
        longest_pause(&self.arrivals.lock().unwrap(), from, to)
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the monitor thread does not panic");
    }
}

fn longest_pause(arrivals: &[Vec<Duration>], from: Duration, to: Duration) -> Duration {
    let pairs = arrivals.iter().flat_map(|partition| partition.windows(2));
    let overlapping = pairs.filter(|pair| pair[1] >= from && pair[0] <= to);
    overlapping.map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
}

/// Reads everything committed on the topics and changelogs of `config`.
pub(super) fn read(config: &Config) -> Topics {
    let cluster = Cluster::connect(config, &foretell::app::clock()).unwrap();
    let (names, mut topics) = (&config.topics, Topics::default());
    let mut events = BTreeMap::new();
    let visit = |prediction: Prediction| {
        events.insert(prediction.prediction_id.clone(), prediction.event_id.clone());
        let scored = topics.predictions.entry(prediction.respondent_id.clone()).or_default();
        scored.push((prediction.event_id.clone(), age_of(&prediction, config)));
        ControlFlow::Continue(())
    };
    cluster.read_values(config, &names.predictions, visit).unwrap();
    let name = |id: &str| events.get(id).cloned().unwrap_or_else(|| format!("unknown {id}"));
    let visit = |example: LabelledExample| {
        if example.origin == ExampleOrigin::Stream {
            let examples = topics.examples.entry(example.respondent_id).or_default();
            examples.push((name(&example.example_id), example.label));
        }
        ControlFlow::Continue(())
    };
    cluster.read_values(config, &names.labelled_examples, visit).unwrap();
    let letters = cluster.read_to_end(&names.dead_letters, |record| {
        topics.dead_letters.push(text(record.key.as_deref().unwrap_or_default()));
        Ok(ControlFlow::Continue(()))
    });
    letters.unwrap();

    let changelog = |store: &str| {
        let application = config.application();
        compacted(&cluster, &Topic::new(&format!("{application}-scoring-{store}-changelog")))
    };
    let pending = PendingCodec { predictions: cluster.codecs(config).unwrap().prediction };
    for (key, value) in changelog("outcomes") {
        let entry = match pending.decode(&value).unwrap() {
            Pending::Prediction(Some(prediction), PredictionState::Waiting) => {
                format!("{} waiting", prediction.event_id)
            }
            Pending::Prediction(Some(prediction), PredictionState::PassedOver) => {
                format!("{} passed over", prediction.event_id)
            }
            Pending::Prediction(None, PredictionState::Learned(label)) => {
                format!("learned {label}")
            }
            unexpected @ Pending::Prediction(..) => format!("{unexpected:?}"),
            Pending::Outcome(outcome, _) => format!("outcome {} waiting", outcome.label),
        };
        topics.outcome_store.entry(respondent_of(&key)).or_default().push(entry);
    }
    let learning = Topic::new(&format!("{}-learning-learning-changelog", config.application()));
    for value in compacted(&cluster, &learning).values() {
        topics.learned += LearningState::codec().decode(value).unwrap().examples;
    }
    topics.outcome_store.values_mut().for_each(|entries| entries.sort_unstable());
    for (key, value) in changelog("observations") {
        let session = StoredSession::codec().decode(&value).unwrap();
        let age = session.answers.first().and_then(|first| match first.answer {
            Some(Answer::Number(number)) => Some(number),
            Some(Answer::Text(_) | Answer::Whole(_)) | None => None,
        });
        let before = topics.observation_store.insert(respondent_of(&key), age.map(whole));
        assert!(before.is_none(), "two observations of one respondent");
    }
    topics
}

/// Reads a changelog to its end and keeps the last value of every key.
fn compacted(cluster: &Cluster, changelog: &Topic) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut entries = BTreeMap::new();
    let read = cluster.read_to_end(changelog, |InputRecord { key, value, .. }| {
        let key = key.clone().unwrap_or_default();
        // Keys that begin with 0xff are markers about the changelog itself; no store has them.
        if key.first() == Some(&0xff) {
            return Ok(ControlFlow::Continue(()));
        }
        match value {
            Some(value) => entries.insert(key, value.clone()),
            None => entries.remove(&key),
        };
        Ok(ControlFlow::Continue(()))
    });
    read.unwrap();
    entries
}

/// Takes the respondent from a key in the layout of `crates/foretell-streams/src/state/window.rs`: the byte 1, the key's length
/// in four bytes, the key, and the rest.
fn respondent_of(key: &[u8]) -> String {
    let (length, rest) = key[1..].split_first_chunk::<4>().unwrap();
    text(&rest[..usize::try_from(u32::from_be_bytes(*length)).unwrap()])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn age_of(prediction: &Prediction, config: &Config) -> Option<u32> {
    let questions = &config.gather.questions;
    let index = questions.iter().position(|question| question.name == "age").unwrap();
    match config.gather.layout.answers(&prediction.answers).at(index) {
        AnswerRef::Whole(age) => Some(u32::try_from(age).unwrap()),
        AnswerRef::Missing => None,
        other @ (AnswerRef::Number(_)
        | AnswerRef::Id(_)
        | AnswerRef::Text(_)
        | AnswerRef::Flag(_)) => panic!("{other:?}"),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the load sends ages below 100"
)]
fn whole(age: f64) -> u32 {
    age as u32
}

#[test]
fn a_pause_is_the_longest_of_any_partition() {
    let seconds = |all: &[u64]| all.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
    let arrivals = [seconds(&[1, 2, 3, 9, 10]), seconds(&[1, 5, 6, 7]), seconds(&[])];
    let check = |from, to, expected| {
        let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
        assert_eq!(longest_pause(&arrivals, from, to), Duration::from_secs(expected));
    };
    check(4, 5, 6);
    check(1, 2, 4);
    check(10, 20, 1);
    check(11, 20, 0);
}
