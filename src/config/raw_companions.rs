//! The companions of the events in the configuration as written: see `raw.rs`. `companions.rs` checks them.

use std::path::PathBuf;

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

/// A further topic with events of the same respondents, with a schema of its own: see [Events from several topics](sources.md).
/// Each is in a section `[[events.companions]]`; there can be up to 8.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub struct CompanionSettings {
    /// Name of the topic without the prefix: letters, digits, `.`, `_` and `-`. `foretell init` creates it, with as many partitions as
    /// `questionnaire-events`.
    pub topic: String,
    /// File with the Avro schema of its events (`.avsc`), a path from the configuration's folder. An answer that another source has,
    /// too, needs the same type there.
    pub schema: PathBuf,
    /// Field that identifies the respondent, of the same type as in `[events]`. Unset: the name in `[events]`.
    #[serde(default)]
    pub respondent_id: Option<String>,
    /// Field with the event time. Unset: the name in `[events]`.
    #[serde(default)]
    pub event_time: Option<String>,
    /// Field that identifies the event among those of this topic. Unset: the name in `[events]`, if the schema has such a field.
    #[serde(default)]
    pub event_id: Option<String>,
    /// Boolean field that is true when the respondent has submitted. Unset: the name in `[events]`, if the schema has such a field.
    #[serde(default)]
    pub completed: Option<String>,
    /// Other fields that are not answers; they are not read.
    #[serde(default)]
    pub ignored: Vec<String>,
}
