//! The scoring topology on a `TopologyDriver`: events and outcomes are piped in as producers write them, and each output
//! record is a line of text.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use foretell::{
    events::{
        action::Action,
        labelled_example::LabelledExample,
        model::Model,
        outcome::Outcome,
        prediction::Prediction,
        questionnaire::{Answer, AnswerRow, EventSource},
        reply::{Reply, ReplyCodec},
    },
    processors::{
        actions::{ActionRule, ActionSettings, RuleSettings, Rules, Variables},
        contract::{ContractBoard, ContractPolicy, ContractSettings},
        event_time::TimeBounds,
        gather::{GatherSettings, ScoreWhen, session::SessionRules},
        learning::outputs::records_of,
        metrics::ApplicationMetrics,
        model_table::{CHALLENGER, CHAMPION, ModelTable, ModelTableError, Serving},
        outcome_join::{ConflictPolicy, Emit, JoinSettings, LearnFrom, UnlabelledPolicy},
        topology::{ScoringParts, scoring},
        waiting::WaitingNow,
    },
};
use foretell_ml::ModelBundle;
use foretell_rules::Condition;
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

use crate::fixture::{EPOCH_MS, Fixture, NOW, ORDERS_TOPIC, classes, first_model};

/// The settings that a test varies.
pub(crate) struct Settings {
    pub(crate) when: ScoreWhen,
    pub(crate) at_session_end: bool,
    pub(crate) sessions: SessionRules,
    pub(crate) conflict: ConflictPolicy,
    pub(crate) learn_from: LearnFrom,
    pub(crate) unlabelled: UnlabelledPolicy,
    pub(crate) emit: Emit,
    pub(crate) classes: Vec<String>,
    pub(crate) policy: ContractPolicy,
    pub(crate) behind_max: Option<Duration>,
    pub(crate) rules: Vec<RuleSettings>,
    /// Whether the answers come from two topics.
    pub(crate) two_sources: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            when: ScoreWhen::Complete,
            at_session_end: false,
            sessions: SESSIONS,
            conflict: ConflictPolicy::First,
            learn_from: LearnFrom::First,
            unlabelled: UnlabelledPolicy::Drop,
            emit: Emit::OnUpdate,
            classes: classes(&["no", "yes"]),
            policy: ContractPolicy::GoOn,
            behind_max: None,
            rules: Vec::new(),
            two_sources: false,
        }
    }
}

impl Settings {
    /// The settings of the outcome join.
    pub(crate) fn join(&self) -> JoinSettings {
        JoinSettings {
            window: seconds(WINDOW),
            grace: seconds(GRACE),
            conflict: self.conflict,
            learn_from: self.learn_from,
            predictions_max: PREDICTIONS_MAX,
            unlabelled: self.unlabelled.clone(),
            emit: self.emit,
            classes: self.classes.clone(),
        }
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.cast_unsigned())
}

/// Seconds of event time.
pub(crate) const GAP: i64 = 1_000;
pub(crate) const SESSIONS: SessionRules = SessionRules {
    gap: Duration::from_secs(GAP.cast_unsigned()),
    grace: Duration::ZERO,
    max: None,
    events_max: None,
};
pub(crate) const DUPLICATES_WITHIN: i64 = 500;
/// The maximum per respondent.
pub(crate) const PREDICTIONS_MAX: usize = 10;
pub(crate) const WINDOW: i64 = 100;
pub(crate) const GRACE: i64 = 20;
/// Observations.
pub(crate) const CONTRACT_WINDOW: u64 = 20;
/// Seconds of event time.
pub(crate) const QUALITY_WINDOW: i64 = 60;
pub(crate) const AHEAD_MAX: Duration = Duration::from_secs(3_600);
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

/// One operation on the system under test. Times are in seconds.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// An event: respondent, time and the other fields.
    Event(&'static str, i64, Json),
    /// An event of the companion: respondent, time and the other fields.
    Order(&'static str, i64, Json),
    /// An outcome: respondent, time and label.
    Outcome(&'static str, i64, &'static str),
    /// A record with these bytes: topic, key and value.
    Raw(Topic, &'static str, Option<Vec<u8>>),
    Commit,
    /// A commit that fails.
    Abort,
    /// Another instance takes the task over.
    Restart,
}

/// An event with every answer.
pub(crate) fn visit(who: &'static str, at: i64) -> Operation {
    Operation::Event(who, at, json!({"visits": 3, "plan": "gold", "minutes": 1.5}))
}

pub(crate) fn outcome(who: &'static str, at: i64, label: &'static str) -> Operation {
    Operation::Outcome(who, at, label)
}

/// Advances stream time: an incomplete event of another respondent, which has no output.
pub(crate) fn time_is(at: i64) -> Operation {
    Operation::Event("another-respondent", at, json!({"minutes": 1.0}))
}

pub(crate) struct Scored {
    pub(crate) fixture: Fixture,
    pub(crate) driver: TopologyDriver,
    pub(crate) table: ModelTable,
    pub(crate) contract: ContractBoard,
    registry: Registry,
    serving: Serving,
    metrics: ApplicationMetrics,
}

impl Scored {
    pub(crate) fn new(settings: &Settings) -> Self {
        // Made once: a property test makes thousands of instances.
        static MODEL: OnceLock<[Model; 2]> = OnceLock::new();
        let [bundle, champion] =
            MODEL.get_or_init(|| records_of(first_model(), "test", NOW).unwrap());
        let mut scored = Self::without_model(settings);
        scored.table.apply(bundle).unwrap();
        scored.table.apply(champion).unwrap();
        scored
    }

    pub(crate) fn without_model(settings: &Settings) -> Self {
        let (fixture, registry) = (fixture_of(settings), Registry::new());
        let metrics = ApplicationMetrics::register(&registry).unwrap();
        let serving = Serving::default();
        let table = ModelTable::new(serving.clone(), metrics.clone());
        let contract = ContractBoard::new(settings.policy, metrics.clone());
        let topology =
            topology(&fixture, settings, (serving.clone(), contract.clone(), metrics.clone()));
        let streams_metrics = StreamsMetrics::register(&registry).unwrap();
        let driver = TopologyDriver::new(topology, NOW, &streams_metrics);
        Self { fixture, driver, table, contract, registry, serving, metrics }
    }

    /// Another task of the same instance, configured with `schema`.
    pub(crate) fn sharing(settings: &Settings, instance: &Self, schema: &str) -> Self {
        let mut other = Self::new(settings);
        other.serving = instance.serving.clone();
        other.contract = instance.contract.clone();
        other.metrics = instance.metrics.clone();
        other.evolve(settings, schema);
        other
    }

    /// An instance configured with `schema` takes the task over.
    pub(crate) fn evolve(&mut self, settings: &Settings, schema: &str) {
        self.fixture = self.fixture.evolved(schema);
        let shared = (self.serving.clone(), self.contract.clone(), self.metrics.clone());
        self.driver.commit();
        self.driver.restart_with(topology(&self.fixture, settings, shared));
    }

    /// The value of a gauge with these label values.
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

    /// Publishes the model and moves the alias of the champion to it.
    pub(crate) fn serve(&mut self, bundle: &ModelBundle) {
        self.announce(bundle, CHAMPION).unwrap();
    }

    /// Publishes the model and moves the alias of the challenger to it.
    pub(crate) fn challenge(&mut self, bundle: &ModelBundle) {
        self.announce(bundle, CHALLENGER).unwrap();
    }

    /// Publishes the model and moves an alias to it.
    pub(crate) fn announce(
        &mut self,
        bundle: &ModelBundle,
        alias: &str,
    ) -> Result<bool, ModelTableError> {
        let [bundle, champion] = records_of(bundle, "test", NOW).unwrap();
        self.table.apply(&bundle)?;
        self.table.apply(&Model { alias: Some(alias.to_owned()), ..champion })
    }

    /// Clears the alias of the challenger.
    pub(crate) fn clear_challenger(&mut self) {
        let [_, champion] = records_of(first_model(), "test", NOW).unwrap();
        let alias = Some(CHALLENGER.to_owned());
        self.table.apply(&Model { alias, version: String::new(), ..champion }).unwrap();
    }

    pub(crate) fn event(&self, who: &str, at: i64, fields: &Json) -> Vec<u8> {
        let mut event = fields.clone();
        event["who"] = json!(who);
        let at = EventTime(EPOCH_MS + at * 1_000);
        let event = self.fixture.schema.from_json(&event, "", at).unwrap();
        encoded(self.fixture.codecs.questionnaire.as_ref(), &event)
    }

    /// An event of the companion.
    pub(crate) fn order(&self, who: &str, at: i64, fields: &Json) -> Vec<u8> {
        let mut event = fields.clone();
        event["customer"] = json!(who);
        let at = EventTime(EPOCH_MS + at * 1_000);
        let source = EventSource::companion(ORDERS_TOPIC);
        let schema = self.fixture.schemas.of_source(&source).unwrap();
        let event = schema.from_json(&event, "", at).unwrap();
        encoded(self.fixture.codecs.companions[0].as_ref(), &event)
    }

    pub(crate) fn outcome(&self, who: &str, at: i64, label: &str) -> Vec<u8> {
        let outcome = Outcome {
            respondent_id: who.to_owned(),
            outcome_time: EventTime(EPOCH_MS + at * 1_000),
            label: label.to_owned(),
            outcome_id: None,
        };
        encoded(self.fixture.codecs.outcome.as_ref(), &outcome)
    }

    pub(crate) fn apply(&mut self, operation: &Operation) {
        let (topic, key, value) = match operation {
            Operation::Event(who, at, fields) => {
                let topic = self.fixture.topics.questionnaire_events.clone();
                (topic, *who, Some(self.event(who, *at, fields)))
            }
            Operation::Order(who, at, fields) => {
                let topic = self.fixture.topics.companions[0].clone();
                (topic, *who, Some(self.order(who, *at, fields)))
            }
            Operation::Outcome(who, at, label) => {
                (self.fixture.topics.outcomes.clone(), *who, Some(self.outcome(who, *at, label)))
            }
            Operation::Raw(topic, key, value) => (topic.clone(), *key, value.clone()),
            Operation::Commit => return self.driver.commit(),
            Operation::Abort => return self.driver.abort(),
            Operation::Restart => return self.driver.restart(),
        };
        // The record timestamp differs from the event time, and must not be used.
        let timestamp = EventTime(NOW.0 - 5);
        self.driver.pipe(&topic, Some(key.as_bytes()), value.as_deref(), timestamp).unwrap();
    }

    /// Pipes in an event with record headers.
    pub(crate) fn event_with_headers(
        &mut self,
        who: &str,
        at: i64,
        fields: &Json,
        headers: Vec<Header>,
    ) {
        let topic = self.fixture.topics.questionnaire_events.clone();
        let value = Some(self.event(who, at, fields));
        let timestamp = EventTime(NOW.0 - 5);
        let (partition, key) = (None, Some(who.as_bytes().to_vec()));
        let record = OutputRecord { topic, partition, timestamp, key, value, headers };
        self.driver.pipe_record(record).unwrap();
    }

    /// Pipes in an outcome with record headers.
    pub(crate) fn outcome_with_headers(
        &mut self,
        who: &str,
        at: i64,
        label: &str,
        headers: Vec<Header>,
    ) {
        let topic = self.fixture.topics.outcomes.clone();
        let value = Some(self.outcome(who, at, label));
        let timestamp = EventTime(NOW.0 - 5);
        let (partition, key) = (None, Some(who.as_bytes().to_vec()));
        let record = OutputRecord { topic, partition, timestamp, key, value, headers };
        self.driver.pipe_record(record).unwrap();
    }

    pub(crate) fn replies(&mut self) -> Vec<Reply> {
        self.driver.commit();
        let records = self.driver.read(&self.fixture.topics.replies);
        let codec = ReplyCodec(Arc::clone(&self.fixture.codecs.prediction));
        records.iter().map(|record| decoded(&codec, record)).collect()
    }

    /// Commits, and returns a line for each output record since the last call.
    pub(crate) fn outputs(&mut self) -> Vec<String> {
        self.driver.commit();
        let mut records = self.driver.read_all();
        records.retain(|record| record.topic != self.fixture.topics.window_summaries);
        records.iter().map(|record| self.line(record)).collect()
    }

    pub(crate) fn predictions(&mut self) -> Vec<Prediction> {
        self.driver.commit();
        let records = self.driver.read(&self.fixture.topics.predictions);
        let codec = &self.fixture.codecs.prediction;
        records.iter().map(|record| decoded(codec.as_ref(), record)).collect()
    }

    pub(crate) fn examples(&mut self) -> Vec<LabelledExample> {
        self.driver.commit();
        let records = self.driver.read(&self.fixture.topics.labelled_examples);
        let codec = &self.fixture.codecs.labelled_example;
        records.iter().map(|record| decoded(codec.as_ref(), record)).collect()
    }

    pub(crate) fn actions(&mut self) -> Vec<Action> {
        self.driver.commit();
        let records = self.driver.read(&self.fixture.topics.actions);
        let codec = &self.fixture.codecs.action;
        records.iter().map(|record| decoded(codec.as_ref(), record)).collect()
    }

    pub(crate) fn dead_letters(&mut self) -> Vec<OutputRecord> {
        self.driver.commit();
        self.driver.read(&self.fixture.topics.dead_letters)
    }

    fn line(&self, record: &OutputRecord) -> String {
        let (topics, codecs) = (&self.fixture.topics, &self.fixture.codecs);
        if record.topic == topics.predictions {
            let prediction: Prediction = decoded(codecs.prediction.as_ref(), record);
            let answers = self.answers(&prediction.answers);
            format!("scored {}", name(&prediction.respondent_id, prediction.event_time) + &answers)
        } else if record.topic == topics.labelled_examples {
            self.labelled_line(&decoded(codecs.labelled_example.as_ref(), record))
        } else {
            let header = |name: &str| header(record, name);
            let class = header("foretell.error.class");
            let place = [header("foretell.topic"), header("foretell.offset")].join("@");
            format!("dead-lettered {place}: {class}")
        }
    }

    fn answers(&self, row: &AnswerRow) -> String {
        let answers = self.fixture.named_answers(row);
        let shown = answers.into_iter().map(|(_, answer)| match answer {
            None => " -".to_owned(),
            Some(Answer::Number(number)) => format!(" {number}"),
            Some(Answer::Whole(whole)) => format!(" {whole}"),
            Some(Answer::Text(text)) => format!(" {text}"),
        });
        shown.collect()
    }

    /// The label, and the seconds between the event and its outcome.
    fn labelled_line(&self, example: &LabelledExample) -> String {
        let what = if example.correction { "corrected" } else { "learned" };
        let name = name(&example.respondent_id, example.event_time);
        let when = match example.outcome_time {
            Some(time) => format!("after {} s", (time.0 - example.event_time.0) / 1_000),
            None => "by policy".to_owned(),
        };
        format!("{what} {name} {} {when}{}", example.label, self.answers(&example.answers))
    }

    /// The number of observations in a histogram.
    pub(crate) fn observed(&self, name: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map_or(&[][..], |family| family.get_metric());
        metrics.iter().map(|metric| metric.get_histogram().get_sample_count()).sum()
    }

    /// What waits in the outcome store.
    pub(crate) fn waiting(&self) -> WaitingNow {
        self.metrics.waiting().read()
    }

    /// The sum of a counter's series: all of them, or those with the label value `label`.
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

fn fixture_of(settings: &Settings) -> Fixture {
    if settings.two_sources { Fixture::of_two_sources() } else { Fixture::new() }
}

/// The rules of the settings, with conditions on the answers of the fixture.
fn rules(fixture: &Fixture, settings: &Settings) -> ActionSettings {
    let variables = Variables::new(&fixture.schema, &settings.classes);
    let rule = |rule: &RuleSettings| {
        let condition = Condition::compile(&rule.when, variables.scope()).unwrap();
        ActionRule::new(rule.clone(), condition)
    };
    let rules = Rules::new(settings.rules.iter().map(rule).collect());
    ActionSettings { rules, variables: Arc::new(variables) }
}

fn topology(
    fixture: &Fixture,
    settings: &Settings,
    (serving, board, metrics): (Serving, ContractBoard, ApplicationMetrics),
) -> Topology {
    scoring(ScoringParts {
        application: "shop-scoring".to_owned(),
        topics: fixture.topics.clone(),
        codecs: fixture.codecs.clone(),
        gather: GatherSettings {
            when: settings.when,
            at_session_end: settings.at_session_end,
            sessions: settings.sessions,
            questions: fixture.schema.questions().into(),
            layout: fixture.schema.layout().clone(),
        },
        events: fixture.schemas.clone(),
        join: settings.join(),
        actions: rules(fixture, settings),
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
            columns: fixture.columns(),
        },
        board,
        quality_window: seconds(QUALITY_WINDOW),
        metrics,
    })
}

pub(crate) fn default_topology() -> Topology {
    topology_of(&Settings::default())
}

pub(crate) fn topology_of(settings: &Settings) -> Topology {
    let metrics = ApplicationMetrics::register(&Registry::new()).unwrap();
    let board = ContractBoard::new(settings.policy, metrics.clone());
    topology(&fixture_of(settings), settings, (Serving::default(), board, metrics))
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

/// The respondent and the second of the event.
fn name(who: &str, at: EventTime) -> String {
    format!("{who}@{}", (at.0 - EPOCH_MS) / 1_000)
}

/// Applies the operations, and expects these lines.
pub(crate) fn check(settings: &Settings, operations: &[Operation], expected: &[&str]) -> Scored {
    let mut scored = Scored::new(settings);
    for operation in operations {
        scored.apply(operation);
    }
    assert_eq!(scored.outputs(), expected, "{operations:?}");
    scored
}
