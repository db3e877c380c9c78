//! A record of the training log: `schemas/labelled-example/v1.avsc`.

use serde::{Deserialize, Serialize};

use crate::events::prediction::{ClassProbability, Feature};
use foretell_avro::codec::AvroRecord;
use foretell_streams::time::{EventTime, WallTime};

/// An observation as it was scored, its prediction and its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelledExample {
    /// The prediction's id, or `initial-<digest of the table>-<row>`.
    pub example_id: String,
    /// The respondent.
    pub respondent_id: String,
    /// The source of the example.
    pub origin: ExampleOrigin,
    /// The event time of the observation.
    pub event_time: EventTime,
    /// The time of the outcome; none if the label is from the policy for unlabelled predictions.
    pub outcome_time: Option<EventTime>,
    /// The true class.
    pub label: String,
    /// The features as scored, in order.
    pub features: Vec<Feature>,
    /// The prediction; none in the initial data.
    pub prediction: Option<ExamplePrediction>,
    /// Whether it replaces an earlier example with the same id.
    pub correction: bool,
}

impl AvroRecord for LabelledExample {
    const SCHEMA: &'static str = include_str!("../../schemas/labelled-example/v1.avsc");
}

/// The source of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExampleOrigin {
    /// The initial data, which the first model is trained on.
    Initial,
    /// A prediction of the stream and its outcome.
    Stream,
}

/// The prediction of an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExamplePrediction {
    /// The id of the prediction.
    pub prediction_id: String,
    /// The model that made it.
    pub model_version: String,
    /// The time of the prediction.
    pub predicted_at: WallTime,
    /// The probability of every class, in the model's order.
    pub probabilities: Vec<ClassProbability>,
}
