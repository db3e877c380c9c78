//! The scoring topology on a driver: events and outcomes are sent as their senders would, and what comes out is
//! told a line a record.

use std::time::Duration;

use foretell::{
    events::{
        labelled_example::LabelledExample,
        outcome::Outcome,
        prediction::{Feature, FeatureValue, Prediction},
        reply::Reply,
    },
    processors::{
        contract::{ContractBoard, ContractPolicy, ContractSettings},
        event_time::TimeBounds,
        gather::{GatherSettings, ScoreWhen},
        metrics::ApplicationMetrics,
        model_table::{ModelTable, Serving},
        outcome_join::{ConflictPolicy, JoinSettings, LearnFrom, UnlabelledPolicy},
        retrain_trigger::records_of,
        topology::{ScoringParts, scoring},
    },
};
use foretell_ml::ModelBundle;
use foretell_streams::{
    codec::Codec,
    local::TopologyDriver,
    metrics::StreamsMetrics,
    record::{Header, OutputRecord, Topic},
    time::EventTime,
    topology::Topology,
};
use prometheus::Registry;
use serde_json::{Value as Json, json};

use crate::world::{EPOCH_MS, NOW, World, classes, first_model};

/// What a user would set.
pub(crate) struct Settings {
    pub(crate) when: ScoreWhen,
    pub(crate) conflict: ConflictPolicy,
    pub(crate) learn_from: LearnFrom,
    pub(crate) unlabelled: UnlabelledPolicy,
    pub(crate) classes: Vec<String>,
    pub(crate) policy: ContractPolicy,
    pub(crate) behind_max: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            when: ScoreWhen::Complete,
            conflict: ConflictPolicy::First,
            learn_from: LearnFrom::First,
            unlabelled: UnlabelledPolicy::Drop,
            classes: classes(&["no", "yes"]),
            policy: ContractPolicy::GoOn,
            behind_max: None,
        }
    }
}

/// In seconds of event time.
pub(crate) const RETENTION: i64 = 1_000;
pub(crate) const DUPLICATES_WITHIN: i64 = 500;
/// Of one respondent.
pub(crate) const PREDICTIONS_MAX: usize = 10;
pub(crate) const WINDOW: i64 = 100;
pub(crate) const GRACE: i64 = 20;
/// In observations.
pub(crate) const CONTRACT_WINDOW: u64 = 20;
pub(crate) const AHEAD_MAX: Duration = Duration::from_secs(3_600);
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

/// Something that happens to the system. Times are in seconds.
#[derive(Clone, Debug)]
pub(crate) enum Happens {
    /// An event: who, when, and the rest of its fields.
    Event(&'static str, i64, Json),
    /// An outcome: of whom, when, and its label.
    Outcome(&'static str, i64, &'static str),
    /// Bytes on a topic, under a key.
    Raw(Topic, &'static str, Option<Vec<u8>>),
    Commit,
    /// A commit that fails.
    Abort,
    /// Another instance takes over.
    Restart,
}

/// A whole questionnaire at once.
pub(crate) fn visit(who: &'static str, at: i64) -> Happens {
    Happens::Event(who, at, json!({"visits": 3, "plan": "gold", "minutes": 1.5}))
}

pub(crate) fn outcome(who: &'static str, at: i64, label: &'static str) -> Happens {
    Happens::Outcome(who, at, label)
}

/// Somebody else begins a questionnaire: stream time moves, and nothing comes out.
pub(crate) fn time_is(at: i64) -> Happens {
    Happens::Event("somebody-else", at, json!({"minutes": 1.0}))
}

pub(crate) struct Scored {
    pub(crate) world: World,
    pub(crate) driver: TopologyDriver,
    pub(crate) table: ModelTable,
    pub(crate) contract: ContractBoard,
    registry: Registry,
    serving: Serving,
    metrics: ApplicationMetrics,
}

impl Scored {
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut scored = Self::without_model(settings);
        scored.serve(first_model());
        scored
    }

    pub(crate) fn without_model(settings: &Settings) -> Self {
        let (world, registry) = (World::new(), Registry::new());
        let metrics = ApplicationMetrics::register(&registry).unwrap();
        let serving = Serving::default();
        let table = ModelTable::new(serving.clone(), metrics.clone());
        let contract = ContractBoard::new(settings.policy, metrics.clone());
        let topology =
            topology(&world, settings, (serving.clone(), contract.clone(), metrics.clone()));
        let streams_metrics = StreamsMetrics::register(&registry).unwrap();
        let driver = TopologyDriver::new(topology, NOW, &streams_metrics);
        Self { world, driver, table, contract, registry, serving, metrics }
    }

    /// Another task of the same instance, whose configuration names this version of the schema.
    pub(crate) fn sharing(settings: &Settings, instance: &Self, schema: &str) -> Self {
        let mut other = Self::new(settings);
        other.serving = instance.serving.clone();
        other.contract = instance.contract.clone();
        other.metrics = instance.metrics.clone();
        other.evolve(settings, schema);
        other
    }

    /// An instance with another version of the schema takes the task over.
    pub(crate) fn evolve(&mut self, settings: &Settings, schema: &str) {
        self.world = self.world.evolved(schema);
        let shared = (self.serving.clone(), self.contract.clone(), self.metrics.clone());
        self.driver.commit();
        self.driver.restart_with(topology(&self.world, settings, shared));
    }

    /// A gauge by its labels' values.
    pub(crate) fn gauge(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let wanted = |label: &&str, metric: &prometheus::proto::Metric| {
            metric.get_label().iter().any(|pair| pair.value() == *label)
        };
        let mut metrics = family.get_metric().iter();
        let found = metrics.find(|metric| labels.iter().all(|label| wanted(label, metric)))?;
        Some(found.get_gauge().get_value())
    }

    /// The model is announced, and the alias moved to it.
    pub(crate) fn serve(&mut self, bundle: &ModelBundle) {
        for record in records_of(bundle, "test", NOW).unwrap() {
            self.table.apply(&record).unwrap();
        }
    }

    pub(crate) fn event(&self, who: &str, at: i64, fields: &Json) -> Vec<u8> {
        let mut event = fields.clone();
        event["who"] = json!(who);
        let at = EventTime(EPOCH_MS + at * 1_000);
        let event = self.world.schema.from_json(&event, "", at).unwrap();
        encoded(self.world.codecs.questionnaire.as_ref(), &event)
    }

    pub(crate) fn outcome(&self, who: &str, at: i64, label: &str) -> Vec<u8> {
        let outcome = Outcome {
            respondent_id: who.to_owned(),
            outcome_time: EventTime(EPOCH_MS + at * 1_000),
            label: label.to_owned(),
            outcome_id: None,
        };
        encoded(self.world.codecs.outcome.as_ref(), &outcome)
    }

    pub(crate) fn happen(&mut self, what: &Happens) {
        let (topic, key, value) = match what {
            Happens::Event(who, at, fields) => {
                let topic = self.world.topics.questionnaire_events.clone();
                (topic, *who, Some(self.event(who, *at, fields)))
            }
            Happens::Outcome(who, at, label) => {
                (self.world.topics.outcomes.clone(), *who, Some(self.outcome(who, *at, label)))
            }
            Happens::Raw(topic, key, value) => (topic.clone(), *key, value.clone()),
            Happens::Commit => return self.driver.commit(),
            Happens::Abort => return self.driver.abort(),
            Happens::Restart => return self.driver.restart(),
        };
        // The broker's time is not the event's, and nothing may go by it.
        let timestamp = EventTime(NOW.0 - 5);
        self.driver.pipe(&topic, Some(key.as_bytes()), value.as_deref(), timestamp).unwrap();
    }

    /// An event whose record has headers.
    pub(crate) fn event_with_headers(
        &mut self,
        who: &str,
        at: i64,
        fields: &Json,
        headers: Vec<Header>,
    ) {
        let topic = self.world.topics.questionnaire_events.clone();
        let value = Some(self.event(who, at, fields));
        let timestamp = EventTime(NOW.0 - 5);
        let (partition, key) = (None, Some(who.as_bytes().to_vec()));
        let record = OutputRecord { topic, partition, timestamp, key, value, headers };
        self.driver.pipe_record(record).unwrap();
    }

    /// An outcome whose record has headers.
    pub(crate) fn outcome_with_headers(
        &mut self,
        who: &str,
        at: i64,
        label: &str,
        headers: Vec<Header>,
    ) {
        let topic = self.world.topics.outcomes.clone();
        let value = Some(self.outcome(who, at, label));
        let timestamp = EventTime(NOW.0 - 5);
        let (partition, key) = (None, Some(who.as_bytes().to_vec()));
        let record = OutputRecord { topic, partition, timestamp, key, value, headers };
        self.driver.pipe_record(record).unwrap();
    }

    pub(crate) fn replies(&mut self) -> Vec<Reply> {
        self.driver.commit();
        let records = self.driver.read(&self.world.topics.replies);
        records.iter().map(|record| decoded(&Reply::codec(), record)).collect()
    }

    /// Commits, and tells what came out since the last time.
    pub(crate) fn told(&mut self) -> Vec<String> {
        self.driver.commit();
        let records = self.driver.read_all();
        records.iter().map(|record| self.line(record)).collect()
    }

    pub(crate) fn predictions(&mut self) -> Vec<Prediction> {
        self.driver.commit();
        let records = self.driver.read(&self.world.topics.predictions);
        let codec = &self.world.codecs.prediction;
        records.iter().map(|record| decoded(codec.as_ref(), record)).collect()
    }

    pub(crate) fn dead_letters(&mut self) -> Vec<OutputRecord> {
        self.driver.commit();
        self.driver.read(&self.world.topics.dead_letters)
    }

    fn line(&self, record: &OutputRecord) -> String {
        let (topics, codecs) = (&self.world.topics, &self.world.codecs);
        if record.topic == topics.predictions {
            let prediction: Prediction = decoded(codecs.prediction.as_ref(), record);
            let answers = answers(&prediction.features);
            format!("scored {}", name(&prediction.respondent_id, prediction.event_time) + &answers)
        } else if record.topic == topics.labelled_examples {
            labelled_line(&decoded(codecs.labelled_example.as_ref(), record))
        } else {
            let header = |name: &str| header(record, name);
            let class = header("foretell.error.class");
            let place = [header("foretell.topic"), header("foretell.offset")].join("@");
            format!("dead-lettered {place}: {class}")
        }
    }

    /// A counter by its name, all labels added up, or those whose value is `label`.
    pub(crate) fn counter(&self, name: &str, label: Option<&str>) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map_or(&[][..], |family| family.get_metric());
        let counted = metrics.iter().filter(|metric| {
            label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label))
        });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it counts")]
        counted.map(|metric| metric.get_counter().get_value() as u64).sum()
    }
}

fn topology(
    world: &World,
    settings: &Settings,
    (serving, board, metrics): (Serving, ContractBoard, ApplicationMetrics),
) -> Topology {
    let seconds = |seconds: i64| Duration::from_secs(seconds.cast_unsigned());
    scoring(ScoringParts {
        application: "shop-scoring".to_owned(),
        topics: world.topics.clone(),
        codecs: world.codecs.clone(),
        gather: GatherSettings {
            when: settings.when,
            retention: seconds(RETENTION),
            questions: world.schema.questions().into(),
        },
        join: JoinSettings {
            window: seconds(WINDOW),
            grace: seconds(GRACE),
            conflict: settings.conflict,
            learn_from: settings.learn_from,
            predictions_max: PREDICTIONS_MAX,
            unlabelled: settings.unlabelled.clone(),
            classes: settings.classes.clone(),
        },
        partitions: 1,
        times: TimeBounds {
            ahead_max: AHEAD_MAX,
            behind_max: settings.behind_max,
            clock_tolerance: CLOCK_TOLERANCE,
        },
        duplicates_within: seconds(DUPLICATES_WITHIN),
        serving,
        contract: ContractSettings {
            policy: settings.policy,
            mostly_missing: 0.9,
            window: CONTRACT_WINDOW,
            columns: world.columns(),
        },
        board,
        metrics,
    })
}

pub(crate) fn drawing() -> String {
    let metrics = ApplicationMetrics::register(&Registry::new()).unwrap();
    let settings = Settings::default();
    let board = ContractBoard::new(settings.policy, metrics.clone());
    topology(&World::new(), &settings, (Serving::default(), board, metrics)).describe()
}

pub(crate) fn encoded<T>(codec: &dyn Codec<T>, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.encode(value, &mut bytes).unwrap();
    bytes
}

pub(crate) fn decoded<T>(codec: &dyn Codec<T>, record: &OutputRecord) -> T {
    codec.decode(record.value.as_deref().unwrap()).unwrap()
}

pub(crate) fn header(record: &OutputRecord, name: &str) -> String {
    let header = record.headers.iter().find(|header| header.name == name);
    header.map_or(String::new(), |header| String::from_utf8(header.value.clone()).unwrap())
}

/// Who, and the second of the event.
fn name(who: &str, at: EventTime) -> String {
    format!("{who}@{}", (at.0 - EPOCH_MS) / 1_000)
}

fn answers(features: &[Feature]) -> String {
    let answer = |feature: &Feature| match &feature.value {
        FeatureValue::Missing => " -".to_owned(),
        FeatureValue::Number(number) => format!(" {number}"),
        FeatureValue::Text(text) => format!(" {text}"),
    };
    features.iter().map(answer).collect()
}

/// What was learned, and how many seconds after the event it became true.
fn labelled_line(example: &LabelledExample) -> String {
    let what = if example.correction { "corrected" } else { "learned" };
    let name = name(&example.respondent_id, example.event_time);
    let when = match example.outcome_time {
        Some(time) => format!("after {} s", (time.0 - example.event_time.0) / 1_000),
        None => "by policy".to_owned(),
    };
    format!("{what} {name} {} {when}{}", example.label, answers(&example.features))
}

/// Lets all of it happen, and expects these lines.
pub(crate) fn check(settings: &Settings, happens: &[Happens], expected: &[&str]) -> Scored {
    let mut scored = Scored::new(settings);
    for what in happens {
        scored.happen(what);
    }
    assert_eq!(scored.told(), expected, "{happens:?}");
    scored
}
