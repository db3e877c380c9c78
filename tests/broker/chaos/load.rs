//! A steady load from a seed, and the note of all that was sent, in order.

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
        questionnaire::{Answer, QuestionnaireEvent},
    },
};
use foretell_streams::{
    record::{OutputRecord, Topic},
    runtime::broker::{BrokerError, Publisher},
    time::{Clock, EventTime, SystemClock},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::chaos::model::Sent;

/// Between two records: 100 a second are enough to be in the middle of something whenever a fault comes, and
/// leave the machine to three brokers and three instances.
const GAP: Duration = Duration::from_millis(10);

/// Respondents who are at it at the same time.
const AT_ONCE: usize = 50;

/// A load on a thread of its own.
pub(super) struct Load {
    sent: Arc<Mutex<Vec<Sent>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Load {
    pub(super) fn start(config: Config, seed: u64) -> Self {
        let (sent, stop) = (Arc::<Mutex<Vec<Sent>>>::default(), Arc::<AtomicBool>::default());
        let (noted, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut sender = Sender::open(config);
            let mut load = Respondents::new(seed);
            while !stopped.load(Ordering::SeqCst) {
                let one = load.next();
                noted.lock().unwrap().push(one.clone());
                sender.send(&one);
                thread::park_timeout(GAP);
            }
            for one in load.last_words() {
                noted.lock().unwrap().push(one.clone());
                sender.send(&one);
            }
            sender.publisher.flush().unwrap();
        });
        Self { sent, stop, thread }
    }

    /// How many predictions must come of what was sent so far.
    pub(super) fn to_be_scored(&self) -> usize {
        let is_scored = |one: &&Sent| matches!(one, Sent::Piece { completed: true, .. });
        self.sent.lock().unwrap().iter().filter(is_scored).count()
    }

    /// Stops it; all that was sent is on the topics.
    pub(super) fn stop(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the load got through");
        let sent = self.sent.lock().unwrap();
        sent.clone()
    }
}

/// Who sends what next.
struct Respondents {
    dice: StdRng,
    next_number: usize,
    respondents: Vec<Respondent>,
}

struct Respondent {
    name: String,
    /// What is still to be sent, in order.
    script: VecDeque<Sent>,
}

impl Respondents {
    fn new(seed: u64) -> Self {
        let dice = StdRng::seed_from_u64(seed);
        let mut load = Self { dice, next_number: 0, respondents: Vec::new() };
        for _ in 0..AT_ONCE {
            let respondent = load.respondent();
            load.respondents.push(respondent);
        }
        load
    }

    /// One to four questionnaires, each in one piece or two; one outcome, anywhere, or none.
    fn respondent(&mut self) -> Respondent {
        let name = format!("r{}", self.next_number);
        self.next_number += 1;
        let mut script = VecDeque::new();
        let mut push = |age, completed| {
            let event = format!("{name}-{}", script.len());
            script.push_back(Sent::Piece { respondent: name.clone(), event, age, completed });
        };
        for _ in 0..self.dice.random_range(1..5) {
            let age = Some(self.dice.random_range(17..90));
            let is_split = self.dice.random_ratio(1, 3);
            push(age, !is_split);
            if is_split {
                push(None, true);
            }
        }
        if self.dice.random_ratio(1, 10) {
            push(Some(18), false); // Never completed.
        }
        if self.dice.random_ratio(9, 10) {
            let label = ["<=50K", ">50K"][self.dice.random_range(0..2_usize)].to_owned();
            let at = self.dice.random_range(0..=script.len());
            script.insert(at, Sent::Outcome { respondent: name.clone(), label });
        }
        Respondent { name, script }
    }

    fn next(&mut self) -> Sent {
        if self.dice.random_ratio(1, 100) {
            self.next_number += 1;
            return Sent::Garbage { key: format!("garbage-{}", self.next_number) };
        }
        let index = self.dice.random_range(0..AT_ONCE);
        loop {
            if let Some(next) = self.respondents[index].script.pop_front() {
                return next;
            }
            self.respondents[index] = self.respondent();
        }
    }

    /// Somebody has an outcome and was never scored: that must still be waiting in the end.
    fn last_words(&mut self) -> Vec<Sent> {
        let nobody = self.respondent().name;
        vec![Sent::Outcome { respondent: nobody, label: ">50K".to_owned() }]
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

    fn send(&mut self, one: &Sent) {
        let (mut value, topics) = (Vec::new(), &self.config.topics);
        let now = EventTime(self.clock.now().0);
        let (topic, key): (&Topic, &str) = match one {
            Sent::Piece { respondent, event, age, completed } => {
                let questions = self.config.event_schema.questions().iter();
                let answer = |name: &str| {
                    age.filter(|_| name == "age").map(|age| Answer::Number(f64::from(age)))
                };
                let event = QuestionnaireEvent {
                    event_id: event.clone(),
                    respondent_id: respondent.clone(),
                    event_time: now,
                    completed: *completed,
                    answers: questions.map(|question| answer(&question.name)).collect(),
                };
                self.codecs.questionnaire.encode(&event, &mut value).unwrap();
                (&topics.questionnaire_events, respondent)
            }
            Sent::Outcome { respondent, label } => {
                let outcome = Outcome {
                    respondent_id: respondent.clone(),
                    outcome_time: now,
                    label: label.clone(),
                    outcome_id: None,
                };
                self.codecs.outcome.encode(&outcome, &mut value).unwrap();
                (&topics.outcomes, respondent)
            }
            Sent::Garbage { key } => {
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
        // A broker that is away is waited for; the load is not what is under test.
        for _ in 0..100 {
            match self.publisher.send(record.clone()) {
                Err(BrokerError::Retry(_)) => thread::park_timeout(Duration::from_millis(100)),
                sent => return sent.unwrap(),
            }
        }
        panic!("the load could not be sent");
    }
}
