//! A steady load drawn from a seed, and the list of all records sent, in order.

use std::{
    collections::VecDeque,
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
        codecs::Codecs,
        outcome::Outcome,
        questionnaire::{Answer, EventSource, QuestionnaireEvent},
    },
};
use foretell_streams::{
    record::{OutputRecord, Topic},
    runtime::broker::{BrokerError, Publisher},
    time::{Clock, EventTime, SystemClock},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::chaos::model::SentRecord;

/// Interval between two records. 100 a second are enough for every fault to interrupt work in progress, and leave CPU time
/// to three brokers and three instances.
const SEND_INTERVAL: Duration = Duration::from_millis(10);

/// Respondents whose records are interleaved.
const CONCURRENT_RESPONDENTS: usize = 50;

/// A load on its own thread.
pub(super) struct Load {
    sent: Arc<Mutex<Vec<SentRecord>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Load {
    pub(super) fn start(config: Config, seed: u64) -> Self {
        let sent = Arc::<Mutex<Vec<SentRecord>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (list, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut sender = Sender::open(config);
            let mut respondents = Respondents::new(seed);
            let mut send = |record: SentRecord| {
                list.lock().unwrap().push(record.clone());
                sender.send(&record);
            };
            while !stopped.load(Ordering::SeqCst) {
                send(respondents.next());
                thread::park_timeout(SEND_INTERVAL);
            }
            send(respondents.unmatched_outcome());
            sender.publisher.flush().unwrap();
        });
        Self { sent, stop, thread }
    }

    /// Number of predictions that the records sent so far must lead to.
    pub(super) fn to_be_scored(&self) -> usize {
        let is_scored =
            |record: &&SentRecord| matches!(record, SentRecord::Piece { completed: true, .. });
        self.sent.lock().unwrap().iter().filter(is_scored).count()
    }

    /// Stops the load, waits until all records are on the topics, and returns them.
    pub(super) fn stop(self) -> Vec<SentRecord> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the load thread does not panic");
        let sent = self.sent.lock().unwrap();
        sent.clone()
    }
}

/// Generates the sequence of records.
struct Respondents {
    rng: StdRng,
    next_number: usize,
    respondents: Vec<Respondent>,
}

struct Respondent {
    name: String,
    /// Records still to be sent, in order.
    pending: VecDeque<SentRecord>,
}

impl Respondents {
    fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let mut respondents = Self { rng, next_number: 0, respondents: Vec::new() };
        for _ in 0..CONCURRENT_RESPONDENTS {
            let respondent = respondents.respondent();
            respondents.respondents.push(respondent);
        }
        respondents
    }

    /// Generates a respondent: one to four questionnaires, each in one piece or two, and at most one outcome at any position.
    fn respondent(&mut self) -> Respondent {
        let name = format!("r{}", self.next_number);
        self.next_number += 1;
        let mut pending = VecDeque::new();
        let mut push = |age, completed| {
            let event = format!("{name}-{}", pending.len());
            pending.push_back(SentRecord::Piece {
                respondent: name.clone(),
                event,
                age,
                completed,
            });
        };
        for _ in 0..self.rng.random_range(1..5) {
            let age = Some(self.rng.random_range(17..90));
            let is_split = self.rng.random_ratio(1, 3);
            push(age, !is_split);
            if is_split {
                push(None, true);
            }
        }
        if self.rng.random_ratio(1, 10) {
            push(Some(18), false); // Never completed.
        }
        if self.rng.random_ratio(9, 10) {
            let label = ["<=50K", ">50K"][self.rng.random_range(0..2_usize)].to_owned();
            let position = self.rng.random_range(0..=pending.len());
            pending.insert(position, SentRecord::Outcome { respondent: name.clone(), label });
        }
        Respondent { name, pending }
    }

    fn next(&mut self) -> SentRecord {
        if self.rng.random_ratio(1, 100) {
            self.next_number += 1;
            return SentRecord::Garbage { key: format!("garbage-{}", self.next_number) };
        }
        let index = self.rng.random_range(0..CONCURRENT_RESPONDENTS);
        loop {
            if let Some(next) = self.respondents[index].pending.pop_front() {
                return next;
            }
            self.respondents[index] = self.respondent();
        }
    }

    /// An outcome of a respondent without events, which must still be waiting in the store at the end.
    fn unmatched_outcome(&mut self) -> SentRecord {
        let respondent = self.respondent().name;
        SentRecord::Outcome { respondent, label: ">50K".to_owned() }
    }
}

struct Sender {
    config: Config,
    codecs: Codecs,
    publisher: Box<dyn Publisher>,
    clock: SystemClock,
}

impl Sender {
    fn open(config: Config) -> Self {
        let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
        let codecs = cluster.codecs(&config).unwrap();
        let publisher = cluster.broker.publish().unwrap();
        Self { config, codecs, publisher, clock: SystemClock::new() }
    }

    fn send(&mut self, record: &SentRecord) {
        let (mut value, topics) = (Vec::new(), &self.config.topics);
        let now = EventTime(self.clock.now().0);
        let (topic, key): (&Topic, &str) = match record {
            SentRecord::Piece { respondent, event, age, completed } => {
                let schema = &self.config.event_schema;
                let answer = |name: &str| {
                    age.filter(|_| name == "age").map(|age| Answer::Number(f64::from(age)))
                };
                let answers = schema.questions().iter().map(|question| answer(&question.name));
                let event = QuestionnaireEvent {
                    source: EventSource::Lead,
                    event_id: event.clone(),
                    respondent_id: respondent.clone(),
                    event_time: now,
                    completed: *completed,
                    answers: schema.layout().row_of(&answers.collect::<Vec<_>>()),
                };
                self.codecs.questionnaire.encode(&event, &mut value).unwrap();
                (&topics.questionnaire_events, respondent)
            }
            SentRecord::Outcome { respondent, label } => {
                let outcome = Outcome {
                    respondent_id: respondent.clone(),
                    outcome_time: now,
                    label: label.clone(),
                    outcome_id: None,
                };
                self.codecs.outcome.encode(&outcome, &mut value).unwrap();
                (&topics.outcomes, respondent)
            }
            SentRecord::Garbage { key } => {
                value.extend_from_slice(b"garbage");
                (&topics.questionnaire_events, key)
            }
        };
        let record = OutputRecord {
            topic: topic.clone(),
            partition: None,
            timestamp: now,
            key: Some(key.as_bytes().to_vec()),
            value: Some(value),
            headers: Vec::new(),
        };
        // Retries while a node is down: the load itself is not under test.
        for _ in 0..100 {
            match self.publisher.send(record.clone()) {
                Err(BrokerError::Retry(_)) => thread::park_timeout(Duration::from_millis(100)),
                result => return result.unwrap(),
            }
        }
        panic!("the load could not be sent");
    }
}
