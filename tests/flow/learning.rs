//! The learning topology with a real training thread, whose job waits until the test hands it a model.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use foretell::{
    events::{
        action::ExampleActions,
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
    },
    processors::{
        learning::{
            job::{Cause, Job, JobFailure, JobOutput, JobResult, Trained, TrainingRequest},
            rules::Rules,
            trainer::{Progress, Trainer, Work},
        },
        metrics::ApplicationMetrics,
        model_table::{CHAMPION, PREDECESSOR, Serving},
        quality::QualityBoard,
        topology::{LearningParts, learning},
        uplift::UpliftBoard,
    },
};
use foretell_ml::ModelBundle;
use foretell_streams::{
    local::TopologyDriver,
    metrics::StreamsMetrics,
    time::{EventTime, ManualClock},
    topology::Topology,
};
use prometheus::Registry;

use crate::{
    fixture::{EPOCH_MS, Fixture, NOW, first_model, second_model},
    formats::{leave, left},
    quality_instance,
    scored::{decoded, encoded},
};

/// Work that passes each job to the test, and returns the result that the test sends.
struct RemoteWork {
    asked: Sender<Job>,
    results: Receiver<JobResult>,
}

impl Work for RemoteWork {
    fn run(&mut self, job: &Job, _progress: Progress<'_>) -> JobResult {
        self.asked.send(job.clone()).map_err(channel_closed)?;
        self.results.recv().map_err(channel_closed)?
    }
}

/// The channel is closed: the test has ended.
fn channel_closed(error: impl std::fmt::Display) -> JobFailure {
    JobFailure::Failed(error.to_string())
}

/// The test's end of the channels of [`RemoteWork`], and the handle of its thread.
struct JobChannels {
    trainer: Trainer,
    asked: Receiver<Job>,
    results: Sender<JobResult>,
}

struct Learning {
    fixture: Fixture,
    driver: TopologyDriver,
    channels: JobChannels,
    registry: Registry,
    sent: i64,
    /// The job has received a request, and has no result yet.
    is_training: bool,
}

const RETRAIN_AFTER: u64 = 3;
/// The interval at which the trigger polls the trainer.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Real time to wait for the other thread before the test fails.
const WAIT_MAX: Duration = Duration::from_secs(30);

fn topology(fixture: &Fixture, registry: &Registry) -> (Topology, JobChannels) {
    let (asked_of_job, asked) = mpsc::channel();
    let (results, results_of_job) = mpsc::channel();
    let work = RemoteWork { asked: asked_of_job, results: results_of_job };
    let metrics = ApplicationMetrics::register(registry).unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    // The thread ends when the channels or the last handle is dropped.
    let (trainer, _thread) = Trainer::spawn(work, clock, metrics.clone(), Duration::MAX).unwrap();
    let topology = learning(LearningParts {
        application: "shop-learning".to_owned(),
        topics: fixture.topics.clone(),
        codecs: fixture.codecs.clone(),
        rules: Rules {
            retrain_after: RETRAIN_AFTER,
            check_after: 0,
            always: true,
            margin: 0.0,
            confidence: 0.95,
        },
        schedule: None,
        metrics,
        serving: Serving::default(),
        trainer: trainer.clone(),
        quality: quality_instance::settings(),
        quality_board: QualityBoard::default(),
        uplift: quality_instance::no_rules(),
        uplift_board: UpliftBoard::default(),
    });
    (topology, JobChannels { trainer, asked, results })
}

pub(crate) fn default_topology() -> Topology {
    topology(&Fixture::new(), &Registry::new()).0
}

impl Learning {
    fn new() -> Self {
        let fixture = Fixture::new();
        let registry = Registry::new();
        let (topology, channels) = topology(&fixture, &registry);
        let metrics = StreamsMetrics::register(&Registry::new()).unwrap();
        let mut driver = TopologyDriver::new(topology, NOW, &metrics);
        // The first punctuation starts the interval.
        driver.advance(Duration::ZERO).unwrap();
        Self { fixture, driver, channels, registry, sent: 0, is_training: false }
    }

    fn send(&mut self, origin: ExampleOrigin, correction: bool) {
        let example = LabelledExample {
            example_id: self.sent.to_string(),
            respondent_id: "ann".to_owned(),
            origin,
            event_time: EventTime(EPOCH_MS),
            outcome_time: None,
            label: "yes".to_owned(),
            prediction: None,
            challenger: None,
            correction,
            replaced: None,
            actions: ExampleActions::default(),
            answers: self.fixture.row(&[]),
        };
        self.sent += 1;
        let bytes = encoded(self.fixture.codecs.labelled_example.as_ref(), &example);
        let topic = self.fixture.topics.labelled_examples.clone();
        self.driver.pipe(&topic, Some(b"ann"), Some(&bytes), EventTime(0)).unwrap();
    }

    fn examples(&mut self, number: usize) {
        for _ in 0..number {
            self.send(ExampleOrigin::Stream, false);
        }
    }

    /// Advances the clock, so that the trigger polls the trainer.
    fn tick(&mut self) {
        self.driver.advance(ASK_EVERY).unwrap();
    }

    /// The number and the offset of the next requested training, if there is one.
    fn asked(&mut self, wait: Duration) -> Option<(u64, i64)> {
        self.tick();
        match self.channels.asked.recv_timeout(wait) {
            Ok(Job::Train(request)) => {
                self.is_training = true;
                Some((request.training, request.through))
            }
            Ok(other) => panic!("{other:?}"),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the training thread has ended"),
        }
    }

    fn expect_asked(&mut self, training: u64, through: i64) {
        assert_eq!(self.asked(WAIT_MAX), Some((training, through)));
    }

    /// Ticks until a training is requested. The trainer may not have stored its last result yet.
    fn expect_asked_again(&mut self, training: u64, through: i64) {
        assert_eq!(soon(|| self.asked(Duration::ZERO)), Some((training, through)));
    }

    /// Checks that no training is requested. The thread runs requests in order, and the test sends one of its own: if it
    /// arrives first, no other was pending. While a training runs, the trainer accepts no other; a request is then found
    /// after it.
    fn expect_nothing_asked(&mut self) {
        self.tick();
        if self.is_training {
            return;
        }
        let cause = Cause::default();
        let own = TrainingRequest { training: u64::MAX, through: -1, parent: None, cause };
        let own = Job::Train(own);
        assert_eq!(self.channels.trainer.poll(&own), None);
        assert_eq!(self.channels.asked.recv_timeout(WAIT_MAX).as_ref(), Ok(&own));
        self.channels.results.send(Err(JobFailure::Failed("of a test".to_owned()))).unwrap();
        let taken = soon(|| self.channels.trainer.poll(&own));
        assert!(taken.is_some_and(|result| result.is_err()), "the thread is free again");
    }

    /// Sends the result to the trainer.
    fn finish(&mut self, result: Result<ModelBundle, JobFailure>) {
        self.is_training = false;
        let trained = |bundle| JobOutput::Trained(Box::new(Trained::new(bundle)));
        self.channels.results.send(result.map(trained)).unwrap();
    }

    /// Ticks until the models are published and committed.
    fn announced(&mut self) -> Vec<(String, Model)> {
        let records = soon(|| {
            self.tick();
            self.driver.commit();
            let records = self.driver.read(&self.fixture.topics.models);
            (!records.is_empty()).then_some(records)
        });
        let records = records.expect("a model is announced");
        let codec = &self.fixture.codecs.model;
        let key = |key: Option<Vec<u8>>| String::from_utf8(key.unwrap()).unwrap();
        let keyed = records.iter();
        keyed.map(|record| (key(record.key.clone()), decoded(codec.as_ref(), record))).collect()
    }

    /// A crash: another process with a new training thread takes over.
    fn crash(&mut self) {
        self.registry = Registry::new();
        let (topology, channels) = topology(&self.fixture, &self.registry);
        self.driver.restart_with(topology);
        self.channels = channels;
        self.is_training = false;
        self.driver.advance(Duration::ZERO).unwrap();
    }
}

/// Repeats `look` until it finds something that another thread has to do first.
fn soon<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    // A channel without a sender, to wait a little for the other thread.
    let (_sender, silence) = mpsc::channel::<()>();
    (0..WAIT_MAX.as_millis()).find_map(|_| {
        let found = look();
        if found.is_none() {
            assert!(silence.recv_timeout(Duration::from_millis(1)).is_err());
        }
        found
    })
}

fn expect_models(models: &[(String, Model)], bundle: &ModelBundle) {
    let version = bundle.version().as_str().to_owned();
    let [(bundle_key, model), (alias_key, alias), others @ ..] = models else {
        panic!("{}", models.len())
    };
    assert_eq!((bundle_key, &model.version), (&version, &version));
    assert_eq!(model.alias, None);
    assert_eq!(model.bundle, Some(bundle.to_bytes().unwrap()));
    assert_eq!(alias_key, CHAMPION);
    assert_eq!(alias.alias.as_deref(), Some(CHAMPION));
    assert_eq!((&alias.version, &alias.bundle), (&version, &None));
    // The champion before, if there was one.
    for (key, other) in others {
        assert_eq!((key.as_str(), other.alias.as_deref()), (PREDECESSOR, Some(PREDECESSOR)));
        assert_ne!(other.version, version);
    }
}

#[test]
fn a_model_is_trained_and_published_after_exactly_n_examples() {
    let mut learning = Learning::new();
    learning.examples(2);
    learning.expect_nothing_asked();
    learning.examples(1);
    learning.expect_asked(1, 3);
    learning.expect_nothing_asked();
    learning.finish(Ok(second_model().clone()));
    expect_models(&learning.announced(), second_model());
    learning.expect_nothing_asked();
    learning.examples(2);
    learning.expect_nothing_asked();
    learning.examples(1);
    learning.expect_asked(2, 6);
}

/// The time since which a training is due.
fn pending_in(registry: &Registry) -> f64 {
    let families = registry.gather();
    let name = "foretell_training_pending_seconds";
    let found = families.iter().find(|family| family.name() == name).unwrap();
    found.get_metric()[0].get_gauge().get_value()
}

fn pending(learning: &Learning) -> f64 {
    pending_in(&learning.registry)
}

#[test]
fn each_training_is_due_for_a_time_of_its_own() {
    let mut learning = Learning::new();
    learning.examples(3);
    learning.expect_asked(1, 3);
    learning.driver.advance(Duration::from_secs(90)).unwrap();
    // A retried training is due since its first request.
    learning.finish(Err(JobFailure::Retry("the registry is away".to_owned())));
    learning.expect_asked_again(1, 3);
    assert!(pending(&learning) >= 90.0, "{}", pending(&learning));
    // The next one is due as soon as this one ends.
    learning.examples(3);
    learning.finish(Ok(second_model().clone()));
    learning.announced();
    learning.expect_asked(2, 6);
    assert!(pending(&learning) < 90.0, "{}", pending(&learning));
    // A task that has moved away resets the gauge.
    learning.driver.advance(Duration::from_secs(90)).unwrap();
    let registry = learning.registry.clone();
    assert!(pending_in(&registry) >= 90.0);
    learning.driver.commit();
    learning.crash();
    assert!(pending_in(&registry).abs() < f64::EPSILON);
}

#[test]
fn how_long_a_training_is_due_is_reported() {
    let mut learning = Learning::new();
    learning.tick();
    assert!(pending(&learning).abs() < f64::EPSILON);
    learning.examples(3);
    learning.expect_asked(1, 3);
    learning.driver.advance(Duration::from_secs(90)).unwrap();
    assert!(pending(&learning) >= 90.0, "{}", pending(&learning));
    learning.finish(Ok(second_model().clone()));
    learning.announced();
    learning.tick();
    assert!(pending(&learning).abs() < f64::EPSILON);
}

#[test]
fn a_training_on_an_incomplete_log_keeps_the_champion() {
    let mut learning = Learning::new();
    learning.examples(3);
    learning.expect_asked(1, 3);
    learning.finish(Err(JobFailure::Incomplete("records were deleted".to_owned())));
    // It is not requested again; the next one that becomes due is.
    learning.examples(3);
    learning.expect_asked_again(2, 6);
    assert!(learning.driver.read(&learning.fixture.topics.models).is_empty());
}

#[test]
fn initial_examples_and_corrections_do_not_count() {
    let mut learning = Learning::new();
    for _ in 0..5 {
        learning.send(ExampleOrigin::Initial, false);
        learning.send(ExampleOrigin::Stream, true);
    }
    learning.expect_nothing_asked();
    learning.examples(2);
    learning.expect_nothing_asked();
    learning.send(ExampleOrigin::Stream, true);
    learning.examples(1);
    // They are in the log, so the offset includes them.
    learning.expect_asked(1, 14);
}

#[test]
fn labels_that_come_during_a_training_count_towards_the_next() {
    let mut learning = Learning::new();
    learning.examples(3);
    learning.expect_asked(1, 3);
    learning.examples(2);
    learning.finish(Ok(first_model().clone()));
    learning.announced();
    learning.expect_nothing_asked();
    learning.examples(1);
    learning.expect_asked(2, 6);
    // Two become due meanwhile: one training covers the examples of both.
    learning.examples(7);
    learning.finish(Ok(second_model().clone()));
    learning.announced();
    learning.expect_asked(3, 12);
    learning.finish(Ok(first_model().clone()));
    learning.announced();
    learning.expect_nothing_asked();
}

#[test]
fn the_next_training_runs_after_a_failed_one() {
    let mut learning = Learning::new();
    learning.examples(3);
    learning.expect_asked(1, 3);
    learning.finish(Err(JobFailure::Failed("there was not enough memory".to_owned())));
    learning.examples(3);
    learning.expect_asked_again(2, 6);
    learning.finish(Ok(second_model().clone()));
    expect_models(&learning.announced(), second_model());
}

#[test]
fn after_a_crash_the_training_is_requested_again_and_the_count_is_kept() {
    let mut learning = Learning::new();
    learning.examples(2);
    learning.driver.commit();
    learning.crash();
    learning.examples(1);
    learning.driver.commit();
    learning.expect_asked(1, 3);
    learning.examples(1);
    learning.driver.commit();
    learning.crash();
    learning.expect_asked(1, 3);
    learning.finish(Ok(second_model().clone()));
    expect_models(&learning.announced(), second_model());
    // Published and committed: it is not trained again.
    learning.crash();
    learning.expect_nothing_asked();
    learning.examples(2);
    learning.expect_asked(2, 6);
}

#[test]
fn a_training_that_an_earlier_release_requested_is_run() {
    let mut learning = Learning::new();
    leave(&mut learning.driver, &left("learning-v1.txt"));
    learning.crash();
    learning.expect_asked(3, 1_234);
}

#[test]
fn a_model_whose_publication_was_not_committed_is_published_again() {
    let mut learning = Learning::new();
    learning.examples(3);
    learning.driver.commit();
    learning.expect_asked(1, 3);
    learning.finish(Ok(second_model().clone()));
    // The result is lost, whether or not the topology has received it.
    for _ in 0..20 {
        learning.tick();
    }
    learning.driver.abort();
    learning.crash();
    learning.expect_asked(1, 3);
    learning.finish(Ok(second_model().clone()));
    expect_models(&learning.announced(), second_model());
}
