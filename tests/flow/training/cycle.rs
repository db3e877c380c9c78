//! The whole learning loop from examples to models, with crashes.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use foretell::{
    events::{labelled_example::LabelledExample, model::Model},
    processors::{
        learning::{rules::Rules, trainer::Trainer},
        topology::{LearningParts, learning},
    },
};
use foretell_ml::ModelBundle;
use foretell_streams::{
    local::TopologyDriver,
    metrics::StreamsMetrics,
    time::{Clock, ManualClock},
    topology::Topology,
};
use prometheus::Registry;

use super::{Application, OFTEN, correction, expect_concept, stream};
use crate::{
    fixture::{NOW, first_model},
    scored::decoded,
};

/// Every model is promoted.
const RULES: Rules =
    Rules { retrain_after: 20, check_after: 0, always: true, margin: 0.0, confidence: 0.95 };
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Real time before the test fails. A training of some dozens of examples takes milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The learning topology of an application, and its training thread.
pub(super) struct Learning {
    pub(super) application: Application,
    pub(super) driver: TopologyDriver,
    trainer: Trainer,
    rules: Rules,
}

fn topology(application: &Application, rules: &Rules) -> (Topology, Trainer) {
    let clock = Arc::<ManualClock>::clone(&application.clock) as Arc<dyn Clock>;
    // The thread ends with its last handle.
    let (trainer, _thread) =
        Trainer::spawn(application.work(), clock, application.metrics.clone(), Duration::MAX)
            .unwrap();
    let topology = learning(LearningParts {
        application: "shop-learning".to_owned(),
        topics: application.fixture.topics.clone(),
        codecs: application.fixture.codecs.clone(),
        rules: rules.clone(),
        schedule: None,
        metrics: application.metrics.clone(),
        serving: application.serving.clone(),
        trainer: trainer.clone(),
        quality: crate::quality_instance::settings(),
        quality_board: foretell::processors::quality::QualityBoard::default(),
        uplift: crate::quality_instance::no_rules(),
        uplift_board: foretell::processors::uplift::UpliftBoard::default(),
    });
    (topology, trainer)
}

impl Learning {
    fn new() -> Self {
        Self::with_rules(RULES)
    }

    pub(super) fn with_rules(rules: Rules) -> Self {
        let application = Application::new();
        let (topology, trainer) = topology(&application, &rules);
        let metrics = StreamsMetrics::register(&Registry::new()).unwrap();
        let mut driver = TopologyDriver::new(topology, NOW, &metrics);
        // The first punctuation starts the interval.
        driver.advance(Duration::ZERO).unwrap();
        Self { application, driver, trainer, rules }
    }

    /// Writes examples to the log and pipes them to the task, which commits.
    pub(super) fn send(&mut self, examples: &[LabelledExample]) {
        for record in self.application.append(examples) {
            self.driver.pipe_record(record).unwrap();
        }
        self.driver.commit();
    }

    pub(super) fn tick(&mut self) {
        self.driver.advance(ASK_EVERY).unwrap();
    }

    /// The next published model, which serves then.
    pub(super) fn announced(&mut self) -> Vec<Model> {
        // A channel without a sender, to wait a little for the other thread.
        let (_sender, silence) = mpsc::channel::<()>();
        for _ in 0..PATIENCE.as_millis() {
            self.tick();
            self.driver.commit();
            let records = self.driver.read(&self.application.fixture.topics.models);
            if !records.is_empty() {
                let codec = &self.application.fixture.codecs.model;
                let models: Vec<Model> =
                    records.iter().map(|record| decoded(codec.as_ref(), record)).collect();
                self.application.announce(&models);
                return models;
            }
            assert!(silence.recv_timeout(Duration::from_millis(1)).is_err());
        }
        panic!("no model was announced");
    }

    /// The bytes of the next published bundle.
    fn bytes(&mut self) -> Vec<u8> {
        self.announced().remove(0).bundle.unwrap()
    }

    /// A crash: another process takes over.
    pub(super) fn crash(&mut self) {
        self.trainer.stop();
        let (topology, trainer) = topology(&self.application, &self.rules);
        self.driver.restart_with(topology);
        self.trainer = trainer;
        self.driver.advance(Duration::ZERO).unwrap();
    }

    fn trainings(&self, result: &str) -> f64 {
        self.application.counter("foretell_trainings_total", result)
    }

    #[track_caller]
    fn expect_trainings(&self, expected: [(&str, f64); 4]) {
        assert_eq!(expected.map(|(result, _)| (result, self.trainings(result))), expected);
    }
}

#[test]
fn each_model_has_the_parameters_of_its_parent() {
    let mut learning = Learning::new();
    let mut parent = first_model().version();
    for training in 1..=3_u32 {
        learning.send(&stream((training - 1) * 20..training * 20, OFTEN));
        let models = learning.announced();
        let bundle = ModelBundle::from_bytes(models[0].bundle.as_deref().unwrap()).unwrap();
        let lineage = &bundle.lineage;
        assert_eq!(lineage.params, first_model().lineage.params);
        assert_eq!(lineage.origin.training, u64::from(training));
        assert_eq!(lineage.origin.stream_examples, u64::from(training) * 20);
        assert_eq!(lineage.origin.examples_through, i64::from(training) * 20);
        assert_eq!(lineage.origin.parent.as_ref(), Some(&parent));
        let of_new = |model: &&Model| model.version == models[0].version;
        for model in models.iter().filter(of_new) {
            assert_eq!(model.parent.as_deref(), Some(parent.as_str()));
            assert_eq!(
                (model.training, model.end_offset),
                (training, Some(i64::from(training) * 20))
            );
            assert_eq!(model.example_count, Some(i64::from(training) * 20));
        }
        expect_concept(&bundle, OFTEN);
        parent = bundle.version();
        assert_eq!(learning.application.serving.scorer().unwrap().version(), &parent);
        // Also in a process that has trained nothing yet.
        learning.crash();
    }
}

#[test]
fn a_training_after_a_crash_gives_the_same_bytes() {
    let mut undisturbed = Learning::new();
    undisturbed.send(&stream(0..20, OFTEN));
    let first = undisturbed.bytes();
    undisturbed.send(&stream(20..40, OFTEN));
    let second = undisturbed.bytes();
    assert_ne!(first, second);

    // A crash while it reads the log, and more examples before it starts again.
    let mut learning = Learning::new();
    learning.send(&stream(0..20, OFTEN));
    let held = learning.application.codec.hold();
    learning.tick();
    held.wait(PATIENCE);
    learning.send(&[correction(&stream(3..4, OFTEN)[0])]);
    learning.send(&stream(20..35, OFTEN));
    learning.crash();
    drop(held);
    assert_eq!(learning.bytes(), first);

    // A crash between training and commit, in a process that has read the log before or not.
    let mut learning = Learning::new();
    learning.send(&stream(0..20, OFTEN));
    assert_eq!(learning.bytes(), first);
    learning.send(&stream(20..40, OFTEN));
    let (_sender, silence) = mpsc::channel::<()>();
    let is_announced = |learning: &mut Learning| {
        assert!(silence.recv_timeout(Duration::from_millis(1)).is_err());
        learning.tick();
        learning.trainings("succeeded") > 1.5
    };
    assert!((0..PATIENCE.as_millis()).any(|_| is_announced(&mut learning)));
    learning.tick();
    learning.driver.abort();
    learning.crash();
    assert_eq!(learning.bytes(), second);
}

#[test]
fn an_unavailable_registry_is_retried_and_not_a_failure() {
    let mut learning = Learning::new();
    learning.application.codec.fail_after(5);
    learning.send(&stream(0..20, OFTEN));
    let models = learning.announced();
    assert_eq!(models[0].training, 1, "the same training");
    learning.expect_trainings([
        ("succeeded", 1.0),
        ("retried", 1.0),
        ("failed", 0.0),
        ("incomplete", 0.0),
    ]);
    let mut undisturbed = Learning::new();
    undisturbed.send(&stream(0..20, OFTEN));
    assert_eq!(models[0].bundle, Some(undisturbed.bytes()));
}

#[test]
fn a_panic_fails_one_training_and_not_the_next() {
    let mut learning = Learning::new();
    learning.application.codec.panic_after(5);
    learning.send(&stream(0..20, OFTEN));
    let (_sender, silence) = mpsc::channel::<()>();
    let has_failed = |learning: &mut Learning| {
        assert!(silence.recv_timeout(Duration::from_millis(1)).is_err());
        learning.tick();
        learning.trainings("failed") > 0.5
    };
    assert!((0..PATIENCE.as_millis()).any(|_| has_failed(&mut learning)));
    learning.send(&stream(20..40, OFTEN));
    let models = learning.announced();
    assert_eq!((models[0].training, models[0].end_offset), (2, Some(40)));
    assert_eq!(models[0].parent.as_deref(), Some(first_model().version().as_str()));
    learning.expect_trainings([
        ("succeeded", 1.0),
        ("retried", 0.0),
        ("failed", 1.0),
        ("incomplete", 0.0),
    ]);
}
