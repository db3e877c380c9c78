//! What a model says: `schemas/prediction/v1.avsc`.

use serde::{Deserialize, Serialize};

use foretell_avro::codec::AvroRecord;
use foretell_streams::time::{EventTime, WallTime};

/// What a model says of a respondent, given the answers so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Names this prediction.
    pub prediction_id: String,
    /// Of whom.
    pub respondent_id: String,
    /// The event that asked for it.
    pub event_id: String,
    /// When that event happened.
    pub event_time: EventTime,
    /// The timestamp of the event's record.
    pub received_at: WallTime,
    /// When it was scored.
    pub predicted_at: WallTime,
    /// The model that scored it.
    pub model_version: String,
    /// The class decided for.
    pub label: String,
    /// The probability of every class, in the model's order.
    pub probabilities: Vec<ClassProbability>,
    /// The answers as they were scored, in the model's order.
    pub features: Vec<Feature>,
}

impl AvroRecord for Prediction {
    const SCHEMA: &'static str = include_str!("../../schemas/prediction/v1.avsc");
}

/// How probable one class is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassProbability {
    /// The class.
    pub label: String,
    /// Between 0 and 1.
    pub probability: f64,
}

/// One answer as it was scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// The question.
    pub name: String,
    /// The answer.
    pub value: FeatureValue,
}

/// An answer as it was scored. The variants are the branches of the schema's union, called by what serde_avro_fast calls
/// those, and in their order: postcard, in which stores keep them, writes the number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FeatureValue {
    /// There was none.
    #[serde(rename = "Null", with = "null")]
    Missing,
    /// A number.
    #[serde(rename = "Double")]
    Number(f64),
    /// A word.
    #[serde(rename = "String")]
    Text(String),
}

/// A variant with nothing in it would be written as a string of its name, since the union has one: this one has a null.
mod null {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        <()>::deserialize(deserializer)
    }
}
