//! Training: the real training log, trigger, trainer and model table, with a local broker.
//!
//! `log.rs` tests the training log alone, request by request; `restart.rs` its copy on disk; `cycle.rs` the whole learning loop; `judged.rs` what the loop
//! decides about its models.

mod cycle;
mod judged;
mod log;
mod restart;
mod unreliable;

use std::{ops::Range, sync::Arc, time::Duration};

use foretell::{
    events::{
        action::ExampleActions,
        answered::AnsweredCodec,
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
        questionnaire::{Answer, AnswerRow},
    },
    processors::{
        initial_data::Manifest,
        learning::{
            job::{Cause, Job, JobFailure, JobOutput, TrainingRequest},
            outputs::records_of,
            trainer::{Phase, Work as _},
            training_log::{ReadLog, TrainingLog},
            work::{HoldoutRule, LearningWork, TuningPlan, WorkSettings},
        },
        metrics::ApplicationMetrics,
        model_archive::ModelArchive,
        model_table::{ModelTable, Serving},
        topic_reader::TopicReader,
    },
};
use foretell_ml::{
    DataPolicy, Label, ModelBundle, PipelineSpec, Scaling, Scorer, Scratch, Seed, Value, judge,
    training::{Calibration, Threshold, TuningSettings},
};
use foretell_streams::{
    local::LocalBroker,
    record::{OutputRecord, Partition, Topic, TopicPartition},
    runtime::broker::Broker as _,
    time::{Clock, EventTime, ManualClock},
};
use prometheus::Registry;

use self::unreliable::{UnreliableBroker, UnreliableCodec};
use crate::{
    fixture::{EPOCH_MS, Fixture, NOW, classes, first_model},
    scored::encoded,
};

/// One application on its own broker: the training log and the models.
struct Application {
    fixture: Fixture,
    broker: UnreliableBroker,
    codec: UnreliableCodec,
    clock: Arc<ManualClock>,
    registry: Registry,
    metrics: ApplicationMetrics,
    serving: Serving,
    table: ModelTable,
    policy: DataPolicy,
    /// The manifest of the initial data.
    manifest: Manifest,
}

impl Application {
    /// An application with a first model, which was not trained on the log.
    fn new() -> Self {
        let fixture = Fixture::new();
        let clock = Arc::new(ManualClock::at(NOW));
        let local = LocalBroker::new(Arc::<ManualClock>::clone(&clock) as Arc<dyn Clock>);
        local.create_topics(&fixture.topics.specs(1)).unwrap();
        let registry = Registry::new();
        let metrics = ApplicationMetrics::register(&registry).unwrap();
        let serving = Serving::default();
        let table = ModelTable::new(serving.clone(), metrics.clone());
        let mut application = Self {
            broker: UnreliableBroker::new(local),
            codec: UnreliableCodec::new(Arc::<AnsweredCodec<_>>::clone(
                &fixture.codecs.labelled_example,
            )),
            fixture,
            clock,
            registry,
            metrics,
            serving,
            table,
            policy: DataPolicy::default(),
            manifest: Manifest {
                generation: 1,
                table: "0123456789abcdef".repeat(4),
                examples: INITIAL,
            },
        };
        application.serve(first_model());
        application
    }

    /// Writes a model to its topic, and lets it serve.
    fn serve(&mut self, bundle: &ModelBundle) {
        self.announce(&records_of(bundle, "test", NOW).unwrap());
    }

    /// Writes a model to its topic. It does not serve.
    fn store(&mut self, bundle: &ModelBundle) {
        let [model, _] = records_of(bundle, "test", NOW).unwrap();
        self.announce(&[model]);
    }

    /// Writes records of models to their topic, and applies them.
    fn announce(&mut self, models: &[Model]) {
        let mut publisher = self.broker.publish().unwrap();
        for model in models {
            let record = OutputRecord {
                topic: self.fixture.topics.models.clone(),
                partition: Some(Partition(0)),
                timestamp: EventTime(NOW.0),
                key: Some(model.alias.as_ref().unwrap_or(&model.version).clone().into_bytes()),
                value: Some(encoded(self.fixture.codecs.model.as_ref(), model)),
                headers: Vec::new(),
            };
            publisher.send(record).unwrap();
            self.table.apply(model).unwrap();
        }
        publisher.flush().unwrap();
    }

    /// The work of a process that starts.
    fn work(&self) -> LearningWork {
        let topics = &self.fixture.topics;
        let codecs = &self.fixture.codecs;
        LearningWork {
            log: TrainingLog {
                broker: Arc::new(self.broker.clone()),
                source: self.source(),
                codec: Arc::new(self.codec.clone()),
                events: Arc::clone(&self.fixture.schema),
                spec: PipelineSpec::new(self.fixture.columns(), Scaling::MinMax, Vec::new())
                    .unwrap(),
                classes: classes(&["no", "yes"]),
                policy: self.policy,
                metrics: self.metrics.clone(),
                seed: Seed(1),
                read: ReadLog::default(),
                disk: None,
            },
            models: ModelArchive {
                broker: Arc::new(self.broker.local()),
                source: only_partition(&topics.models),
                codec: Arc::clone(&codecs.model),
                metrics: self.metrics.clone(),
            },
            trials: TopicReader {
                broker: Arc::new(self.broker.local()),
                source: only_partition(&topics.trials),
                codec: Arc::clone(&codecs.trial),
                metrics: self.metrics.clone(),
            },
            settings: WorkSettings {
                threshold: Threshold::Fixed(0.5),
                calibration: Calibration::None,
                seed: Seed(1),
                judge: judge::Settings::default(),
                holdout: HoldoutRule { share: 0.3, retrain_after: 100 },
                tuning: TuningPlan {
                    study: TuningSettings { trials: 0, ..TuningSettings::default() },
                    time: Duration::from_secs(60),
                    every: 1,
                },
            },
            clock: Arc::<ManualClock>::clone(&self.clock) as Arc<dyn Clock>,
            recent: Vec::new(),
        }
    }

    /// The trainings of a process that starts, with the serving model as their champion.
    fn log(&self) -> Trainings {
        Trainings { work: self.work(), serving: self.serving.clone() }
    }

    fn source(&self) -> TopicPartition {
        only_partition(&self.fixture.topics.labelled_examples)
    }

    /// Appends examples to the log, and returns their records.
    fn append(&mut self, examples: &[LabelledExample]) -> Vec<OutputRecord> {
        let record = |example: &LabelledExample| OutputRecord {
            topic: self.fixture.topics.labelled_examples.clone(),
            partition: Some(Partition(0)),
            timestamp: EventTime(NOW.0),
            key: Some(example.respondent_id.clone().into_bytes()),
            value: Some(encoded(self.fixture.codecs.labelled_example.as_ref(), example)),
            headers: match example.origin {
                ExampleOrigin::Initial => vec![self.manifest.header()],
                ExampleOrigin::Stream => Vec::new(),
            },
        };
        let records: Vec<_> = examples.iter().map(record).collect();
        let mut publisher = self.broker.publish().unwrap();
        for record in &records {
            publisher.send(record.clone()).unwrap();
        }
        publisher.flush().unwrap();
        records
    }

    /// Rows of the initial data.
    fn initial(&self, rows: Range<u32>, concept: Concept) -> Vec<LabelledExample> {
        let named = |row: u32| {
            let id = self.manifest.example_id(row.into());
            example(ExampleOrigin::Initial, &id, row, concept)
        };
        rows.map(named).collect()
    }

    /// A counter by its name and the value of its label.
    fn counter(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let has_label = |metric: &&prometheus::proto::Metric| {
            label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label)
        };
        family.get_metric().iter().find(has_label).unwrap().get_counter().get_value()
    }

    /// A gauge by its name and the value of its label, if it has one.
    fn gauge(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let has_label = |metric: &&prometheus::proto::Metric| {
            label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label)
        };
        family.get_metric().iter().find(has_label).unwrap().get_gauge().get_value()
    }
}

fn only_partition(topic: &Topic) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: Partition(0) }
}

/// Trainings without a topology.
struct Trainings {
    work: LearningWork,
    serving: Serving,
}

impl Trainings {
    /// Runs a training on the records before `through`. `progress` returns false to cancel it.
    fn train(
        &mut self,
        training: u64,
        through: i64,
        progress: &(dyn Fn(Phase, u32, u32) -> bool + Sync),
    ) -> Result<ModelBundle, JobFailure> {
        let parent = self.serving.scorer().map(|scorer| scorer.version().clone());
        let cause = Cause::examples();
        let job = Job::Train(TrainingRequest { training, through, parent, cause });
        match self.work.run(&job, progress)? {
            JobOutput::Trained(trained) => Ok(trained.bundle),
            other @ (JobOutput::Judged(_) | JobOutput::Checked(_)) => panic!("{other:?}"),
        }
    }
}

/// The number of rows of the initial data.
const INITIAL: u64 = 40;

/// The rule by which visitors become customers; tests change it.
type Concept = fn(u32) -> bool;

const OFTEN: Concept = |visits| visits >= 10;
const SELDOM: Concept = |visits| visits < 10;

/// Examples from the stream; their ids are their numbers.
fn stream(numbers: Range<u32>, concept: Concept) -> Vec<LabelledExample> {
    let named = |number| example(ExampleOrigin::Stream, &format!("p-{number}"), number, concept);
    numbers.map(named).collect()
}

fn example(origin: ExampleOrigin, id: &str, number: u32, concept: Concept) -> LabelledExample {
    // 7 and 20 are coprime, so any 20 consecutive examples have each number of visits once.
    let visits = number * 7 % 20;
    LabelledExample {
        example_id: id.to_owned(),
        respondent_id: "ann".to_owned(),
        origin,
        event_time: EventTime(EPOCH_MS),
        outcome_time: None,
        label: if concept(visits) { "yes" } else { "no" }.to_owned(),
        prediction: None,
        challenger: None,
        correction: false,
        replaced: None,
        actions: ExampleActions::default(),
        answers: answers(visits, "gold", f64::from(number) / 8.0),
    }
}

fn answers(visits: u32, plan: &str, minutes: f64) -> AnswerRow {
    Fixture::new().row(&[
        Some(Answer::Number(visits.into())),
        Some(Answer::Text(plan.to_owned())),
        Some(Answer::Number(minutes)),
    ])
}

/// A correction of an example to the other label.
fn correction(example: &LabelledExample) -> LabelledExample {
    let label = if example.label == "yes" { "no" } else { "yes" }.to_owned();
    LabelledExample { label, correction: true, ..example.clone() }
}

/// The probability that a visitor becomes a customer.
fn probability(bundle: &ModelBundle, visits: u32) -> f64 {
    let values = [Value::Number(visits.into()), Value::Text("gold".to_owned()), Value::Number(2.0)];
    let scores = Scorer::new(bundle).unwrap().score(&values, &mut Scratch::default());
    scores.of(Label(1)).unwrap()
}

/// Checks that a model was trained on examples of `concept`.
#[track_caller]
fn expect_concept(bundle: &ModelBundle, concept: Concept) {
    for visits in [2, 17] {
        let probability = probability(bundle, visits);
        assert_eq!(probability > 0.5, concept(visits), "{visits} visits: {probability}");
    }
}
