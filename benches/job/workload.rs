//! Events and outcomes made from the rows of the worked example, and the model that scores them.

use std::ops::ControlFlow;

use anyhow::Context;
use foretell::{
    app::{
        cluster::Cluster,
        table::{self, Row},
    },
    config::{Config, TableSettings},
    events::{
        codecs::Codecs,
        model::Model,
        outcome::Outcome,
        questionnaire::{EventSource, QuestionnaireEvent},
        topics::Topics,
    },
    processors::{convert, gather::GatherSettings, learning::outputs::records_of},
};
use foretell_ml::{
    Calibration, Example, ModelBundle, Origin, Params, Recipe, Seed, Threshold, TrainingSet,
    training::train,
};
use foretell_streams::{
    record::{OutputRecord, Topic},
    time::{EventTime, WallTime},
};

use crate::process::example;

/// Between two events of a backlog.
const EVENT_GAP_MS: i64 = 1;
/// From an event of a backlog to its outcome: 3,000 predictions wait.
const OUTCOME_DELAY_MS: i64 = 3_000;

/// Makes the records that are sent.
pub(crate) struct Workload {
    topics: Topics,
    codecs: Codecs,
    rows: Vec<Row>,
}

impl Workload {
    pub(crate) fn new(config: &Config, cluster: &Cluster) -> anyhow::Result<Self> {
        let table = config.data.play.as_ref().context("the worked example has a table")?;
        let rows = table::read(table, &config.event_schema)?;
        Ok(Self { topics: config.topics.clone(), codecs: cluster.codecs(config)?, rows })
    }

    /// The event with this number, and its outcome; the same number gives the same answers.
    pub(crate) fn pair(&self, number: usize, at: EventTime) -> (QuestionnaireEvent, Outcome) {
        let row = &self.rows[number % self.rows.len()];
        let event = QuestionnaireEvent {
            source: EventSource::Lead,
            event_id: format!("event-{number}"),
            respondent_id: format!("respondent-{number}"),
            event_time: at,
            completed: true,
            answers: row.answers.clone(),
        };
        let outcome = Outcome {
            respondent_id: event.respondent_id.clone(),
            outcome_time: at,
            label: row.label.clone(),
            outcome_id: None,
        };
        (event, outcome)
    }

    /// Both as records.
    pub(crate) fn encode(
        &self,
        event: &QuestionnaireEvent,
        outcome: &Outcome,
    ) -> anyhow::Result<[OutputRecord; 2]> {
        Ok([self.encode_event(event)?, self.encode_outcome(outcome)?])
    }

    pub(crate) fn encode_event(&self, event: &QuestionnaireEvent) -> anyhow::Result<OutputRecord> {
        let mut value = Vec::new();
        self.codecs.questionnaire.encode(event, &mut value)?;
        let topic = &self.topics.questionnaire_events;
        Ok(record(topic, &event.respondent_id, event.event_time, value))
    }

    pub(crate) fn encode_outcome(&self, outcome: &Outcome) -> anyhow::Result<OutputRecord> {
        let mut value = Vec::new();
        self.codecs.outcome.encode(outcome, &mut value)?;
        let topic = &self.topics.outcomes;
        Ok(record(topic, &outcome.respondent_id, outcome.outcome_time, value))
    }

    /// The records with this number of a backlog that begins at `start`.
    pub(crate) fn backlog(
        &self,
        number: usize,
        start: EventTime,
    ) -> anyhow::Result<[OutputRecord; 2]> {
        let at = start.0 + i64::try_from(number)? * EVENT_GAP_MS;
        let (event, mut outcome) = self.pair(number, EventTime(at));
        outcome.outcome_time = EventTime(at + OUTCOME_DELAY_MS);
        self.encode(&event, &outcome)
    }
}

fn record(topic: &Topic, respondent: &str, timestamp: EventTime, value: Vec<u8>) -> OutputRecord {
    OutputRecord {
        topic: topic.clone(),
        partition: None,
        timestamp,
        key: Some(respondent.as_bytes().to_vec()),
        value: Some(value),
        headers: Vec::new(),
    }
}

/// The event time of the first event: an hour ago, so that no event is ahead of the clock.
pub(crate) fn start() -> EventTime {
    EventTime(foretell::app::clock().now().0 - 3_600_000)
}

/// A model of 200 trees with 63 leaves, trained on the initial data of the worked example.
pub(crate) fn model() -> anyhow::Result<ModelBundle> {
    let config = &Config::load(example().as_ref(), &[])?;
    let learned = examples(config, config.data.initial.as_ref())?;
    let learned = TrainingSet::of(config.pipeline.columns(), &learned);
    let recipe = Recipe {
        spec: config.pipeline.clone(),
        classes: config.classes.clone(),
        threshold: Threshold::Fixed(0.5),
        calibration: Calibration::None,
        intervals: false,
        profile: true,
        params: Params { iterations: 200, num_leaves: 63, ..Params::default() },
        seed: Seed(1),
        origin: Origin::default(),
    };
    Ok(train(&learned.sample(), &recipe, &mut |_, _| ControlFlow::Continue(()))?)
}

/// The records that announce a model and make it the champion.
pub(crate) fn announcements(bundle: &ModelBundle) -> anyhow::Result<Vec<Model>> {
    Ok(records_of(bundle, "benchmark", WallTime(0))?.into_iter().collect())
}

fn examples(config: &Config, table: Option<&TableSettings>) -> anyhow::Result<Vec<Example>> {
    let table = table.context("the worked example has a table")?;
    let rows = table::read(table, &config.event_schema)?;
    rows.iter()
        .map(|row| {
            let GatherSettings { questions, layout, .. } = &config.gather;
            let columns = config.pipeline.columns();
            let label = convert::label_of(&row.label, &config.classes).context("a known label")?;
            Ok(Example {
                values: convert::values_in_order(columns, questions, layout, &row.answers),
                label,
            })
        })
        .collect()
}
