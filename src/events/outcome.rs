//! What turned out to be true: `schemas/outcome/v1.avsc`.

use serde::{Deserialize, Serialize};

use crate::{avro::codec::AvroRecord, streams::time::EventTime};

/// What turned out to be true of a respondent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of whom.
    pub respondent_id: String,
    /// When it became true.
    pub outcome_time: EventTime,
    /// What became true: one of the configured classes.
    pub label: String,
    /// Its sender's name for it, if there is one.
    pub outcome_id: Option<String>,
}

impl AvroRecord for Outcome {
    const SCHEMA: &'static str = include_str!("../../schemas/outcome/v1.avsc");
}
