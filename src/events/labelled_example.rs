//! A line of the training log: `schemas/labelled-example/v1.avsc`.

use serde::{Deserialize, Serialize};

use crate::events::prediction::{ClassProbability, Feature};
use foretell_avro::codec::AvroRecord;
use foretell_streams::time::{EventTime, WallTime};

/// An observation as it was scored, its prediction, and what turned out to be true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelledExample {
    /// The prediction's id, or `initial-<row>`.
    pub example_id: String,
    /// Of whom.
    pub respondent_id: String,
    /// Where it comes from.
    pub origin: ExampleOrigin,
    /// When the answers were given.
    pub event_time: EventTime,
    /// When the outcome became true; none where the policy supplied the label.
    pub outcome_time: Option<EventTime>,
    /// What turned out to be true.
    pub label: String,
    /// The answers as they were scored, in order.
    pub features: Vec<Feature>,
    /// What was predicted; none in the initial data.
    pub prediction: Option<ExamplePrediction>,
    /// It replaces an earlier example with the same id.
    pub correction: bool,
}

impl AvroRecord for LabelledExample {
    const SCHEMA: &'static str = include_str!("../../schemas/labelled-example/v1.avsc");
}

/// Where an example comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExampleOrigin {
    /// The data that the first model is made from.
    Initial,
    /// A prediction and its outcome.
    Stream,
}

/// What a model had said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExamplePrediction {
    /// Names the prediction.
    pub prediction_id: String,
    /// The model that made it.
    pub model_version: String,
    /// When it was made.
    pub predicted_at: WallTime,
    /// The probability of every class, in the model's order.
    pub probabilities: Vec<ClassProbability>,
}
