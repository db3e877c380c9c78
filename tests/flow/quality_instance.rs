//! An instance for the tests of drift and live quality: predictions, labels and summaries of its scoring topology are passed to its
//! learning topology.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use foretell::{
    events::{command::Command, quality::Quality},
    processors::{
        learning::{
            job::{Job, JobFailure, JobResult},
            outputs::records_of,
            rules::Rules,
            trainer::{Progress, Trainer, Work},
        },
        metrics::ApplicationMetrics,
        model_table::{ModelTable, Serving},
        quality::{AlertCause, QualityBoard, QualitySettings, QualityStatus},
        topology::{LearningParts, learning},
        uplift::{UpliftBoard, UpliftSettings},
    },
};
use foretell_ml::{Example, ModelBundle, Value};
use foretell_streams::{
    local::TopologyDriver,
    metrics::StreamsMetrics,
    record::Topic,
    time::{EventTime, ManualClock},
    topology::Topology,
};
use prometheus::Registry;
use serde_json::{Value as Json, json};

use crate::{
    fixture::NOW,
    scored::{GRACE, QUALITY_WINDOW, Scored, Settings, WINDOW, decoded},
};

/// Labels and predictions from which the tests judge.
pub(crate) const ENOUGH: u64 = 300;
/// Events of a second.
const EVENTS_A_SECOND: i64 = 10;

pub(crate) fn settings() -> QualitySettings {
    QualitySettings {
        window: Duration::from_secs(QUALITY_WINDOW.unsigned_abs()),
        labels_within: Duration::from_secs((WINDOW + GRACE).unsigned_abs()),
        psi_alert: 0.25,
        log_loss_alert: 0.1,
        labels_min: ENOUGH,
        predictions_min: ENOUGH,
        retrain_on_drift: false,
    }
}

/// The settings of uplift without rules.
pub(crate) fn no_rules() -> UpliftSettings {
    UpliftSettings { rules: Vec::new(), classes: crate::fixture::classes(&["no", "yes"]) }
}

/// Never trains.
struct NoTraining;

impl Work for NoTraining {
    fn run(&mut self, _job: &Job, _progress: Progress<'_>) -> JobResult {
        Err(JobFailure::Failed("of a test".to_owned()))
    }
}

/// An instance with both tasks.
pub(crate) struct Live {
    pub(crate) scored: Scored,
    pub(crate) learner: TopologyDriver,
    settings: QualitySettings,
    serving: Serving,
    table: ModelTable,
    pub(crate) board: QualityBoard,
    registry: Registry,
    pub(crate) respondents: i64,
}

impl Live {
    pub(crate) fn new(settings: QualitySettings, model: &ModelBundle) -> Self {
        let mut scored = Scored::without_model(&Settings::default());
        scored.serve(model);
        let (serving, registry) = (Serving::default(), Registry::new());
        let metrics = ApplicationMetrics::register(&registry).unwrap();
        let mut table = ModelTable::new(serving.clone(), metrics.clone());
        for record in records_of(model, "test", NOW).unwrap() {
            table.apply(&record).unwrap();
        }
        let board = QualityBoard::default();
        let topology = topology(&scored, &settings, (&serving, metrics, &board));
        let mut learner = TopologyDriver::new(
            topology,
            NOW,
            &StreamsMetrics::register(&Registry::new()).unwrap(),
        );
        learner.advance(Duration::ZERO).unwrap();
        scored.driver.advance(Duration::ZERO).unwrap();
        Self { scored, learner, settings, serving, table, board, registry, respondents: 0 }
    }

    /// A crash of the learner: another process takes its task over.
    pub(crate) fn crash_of_the_learner(&mut self) {
        self.registry = Registry::new();
        let metrics = ApplicationMetrics::register(&self.registry).unwrap();
        let parts = (&self.serving, metrics, &self.board);
        self.learner.restart_with(topology(&self.scored, &self.settings, parts));
        self.learner.advance(Duration::ZERO).unwrap();
    }

    pub(crate) fn serve(&mut self, model: &ModelBundle) {
        self.scored.serve(model);
        for record in records_of(model, "test", NOW).unwrap() {
            self.table.apply(&record).unwrap();
        }
    }

    /// Events from second `from` on, each with the label that `label_of` makes of the true one, if any.
    pub(crate) fn play(
        &mut self,
        from: i64,
        examples: &[Example],
        label_of: impl Fn(usize, &'static str) -> Option<&'static str>,
    ) {
        for (number, example) in examples.iter().enumerate() {
            let at = from + i64::try_from(number).unwrap() / EVENTS_A_SECOND;
            let who = format!("r{}", self.respondents);
            self.respondents += 1;
            let truth = if example.label.index() == 1 { "yes" } else { "no" };
            let topics = self.scored.fixture.topics.clone();
            let event = self.scored.event(&who, at, &answers_of(example));
            self.pipe(&topics.questionnaire_events, &who, &event);
            if let Some(label) = label_of(number, truth) {
                let outcome = self.scored.outcome(&who, at + 1, label);
                self.pipe(&topics.outcomes, &who, &outcome);
            }
        }
        self.pass_on();
    }

    pub(crate) fn pipe(&mut self, topic: &Topic, who: &str, value: &[u8]) {
        let driver = &mut self.scored.driver;
        driver.pipe(topic, Some(who.as_bytes()), Some(value), EventTime(NOW.0)).unwrap();
    }

    /// Lets a second pass for the scoring task, commits, and passes what the learner reads to it.
    pub(crate) fn pass_on(&mut self) {
        self.scored.driver.advance(Duration::from_secs(1)).unwrap();
        self.scored.driver.commit();
        for record in self.scored.driver.read_all() {
            let topics = &self.scored.fixture.topics;
            if record.topic == topics.labelled_examples || record.topic == topics.window_summaries {
                self.learner.pipe_record(record).unwrap();
            }
        }
        self.learner.advance(Duration::from_secs(5)).unwrap();
        self.learner.commit();
    }

    pub(crate) fn status(&self) -> QualityStatus {
        self.board.read().expect("the learner has reported")
    }

    pub(crate) fn causes(&self) -> Vec<AlertCause> {
        self.status().alerts.iter().map(|alert| alert.cause).collect()
    }

    /// The newest records of `quality`, by key.
    pub(crate) fn records(&mut self) -> BTreeMap<String, Quality> {
        let topics = self.scored.fixture.topics.clone();
        let records = self.learner.read(&topics.quality).into_iter();
        let codec = &self.scored.fixture.codecs.quality;
        let keyed = records.map(|record| {
            let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
            (key, decoded(codec.as_ref(), &record))
        });
        keyed.collect()
    }

    pub(crate) fn commands(&mut self) -> Vec<Command> {
        let topic = self.scored.fixture.topics.commands.clone();
        let records = self.learner.read(&topic);
        let codec = &self.scored.fixture.codecs.command;
        records.iter().map(|record| decoded(codec.as_ref(), record)).collect()
    }

    /// The value of a metric with these label values.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let has = |metric: &prometheus::proto::Metric, label: &str| {
            metric.get_label().iter().any(|pair| pair.value() == label)
        };
        let mut metrics = family.get_metric().iter();
        let found = metrics.find(|metric| labels.iter().all(|label| has(metric, label)))?;
        Some(found.get_gauge().get_value() + found.get_counter().get_value())
    }
}

fn topology(
    scored: &Scored,
    settings: &QualitySettings,
    (serving, metrics, board): (&Serving, ApplicationMetrics, &QualityBoard),
) -> Topology {
    let clock = Arc::new(ManualClock::at(NOW));
    let (trainer, _thread) =
        Trainer::spawn(NoTraining, clock, metrics.clone(), Duration::MAX).unwrap();
    learning(LearningParts {
        application: "shop-learning".to_owned(),
        topics: scored.fixture.topics.clone(),
        codecs: scored.fixture.codecs.clone(),
        rules: Rules {
            retrain_after: u64::MAX,
            check_after: 0,
            always: true,
            margin: 0.0,
            confidence: 0.95,
        },
        schedule: None,
        metrics,
        serving: serving.clone(),
        trainer,
        quality: settings.clone(),
        quality_board: board.clone(),
        uplift: no_rules(),
        uplift_board: UpliftBoard::default(),
    })
}

/// The fields of an event that is scored at once.
pub(crate) fn answers_of(example: &Example) -> Json {
    let json_of = |value: &Value| match value {
        Value::Missing => Json::Null,
        Value::Number(number) => json!(number),
        Value::Text(text) => json!(text),
    };
    let [visits, plan, minutes] = example.values.as_slice() else { panic!("{example:?}") };
    let visits = json_of(visits).as_f64().map(|visits| visits.round() as i32);
    json!({"visits": visits, "plan": json_of(plan), "minutes": json_of(minutes), "done": true})
}

pub(crate) fn true_label(_number: usize, truth: &'static str) -> Option<&'static str> {
    Some(truth)
}

pub(crate) fn unlabelled(_number: usize, _truth: &'static str) -> Option<&'static str> {
    None
}
