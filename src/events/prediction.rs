//! A prediction: `schemas/prediction/v1.avsc`.

use serde::{Deserialize, Serialize};

use foretell_avro::codec::AvroRecord;
use foretell_streams::time::{EventTime, WallTime};

/// A model's prediction for the answers of a respondent so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The id of the prediction.
    pub prediction_id: String,
    /// The respondent.
    pub respondent_id: String,
    /// The id of the event that made the observation due.
    pub event_id: String,
    /// The time of that event.
    pub event_time: EventTime,
    /// The timestamp of the event's record.
    pub received_at: WallTime,
    /// The time of scoring.
    pub predicted_at: WallTime,
    /// The version of the model.
    pub model_version: String,
    /// The predicted class, by the decision threshold of the model.
    pub label: String,
    /// The probability of every class, in the model's order.
    pub probabilities: Vec<ClassProbability>,
    /// The features as scored, in the order of the questions.
    pub features: Vec<Feature>,
}

impl AvroRecord for Prediction {
    const SCHEMA: &'static str = include_str!("../../schemas/prediction/v1.avsc");
}

/// The probability of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassProbability {
    /// The class.
    pub label: String,
    /// From 0 to 1.
    pub probability: f64,
}

/// One feature as it was scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// The name of the question.
    pub name: String,
    /// The answer.
    pub value: FeatureValue,
}

/// The value of a feature. The variants have the names that serde_avro_fast gives the branches of the union, and their order,
/// because postcard, the format of the stores, writes the index of a variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FeatureValue {
    /// No answer.
    #[serde(rename = "Null", with = "null")]
    Missing,
    /// A number.
    #[serde(rename = "Double")]
    Number(f64),
    /// A text.
    #[serde(rename = "String")]
    Text(String),
}

/// Writes [`FeatureValue::Missing`] as a null. serde_avro_fast would write a unit variant as a string with its name, because the
/// union has a string branch.
mod null {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        <()>::deserialize(deserializer)
    }
}
