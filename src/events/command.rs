//! A request to the learner: `schemas/command/v1.avsc`.

use serde::{Deserialize, Serialize};

use crate::events::questionnaire::uuid;
use foretell_avro::codec::AvroRecord;
use foretell_streams::time::WallTime;

/// A request to the learner, from the command line or over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The id; a repeated id is the same command.
    pub command_id: String,
    /// The action.
    pub kind: CommandKind,
    /// The model, for [`CommandKind::Promote`] and [`CommandKind::Challenge`].
    pub model_version: Option<String>,
    /// The reason, which is stored with the decision.
    pub reason: Option<String>,
    /// The person or the program that requests it.
    pub requested_by: Option<String>,
    /// The time of the request.
    pub requested_at: WallTime,
}

/// The action of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandKind {
    /// Train a model now.
    Retrain,
    /// Make a model the champion.
    Promote,
    /// Make the champion's predecessor the champion again.
    RollBack,
    /// Make a model the challenger.
    Challenge,
}

impl Command {
    /// A new id: a UUID of version 7 from the time and a unique `name`.
    #[must_use]
    pub fn new_id(now: WallTime, name: &str) -> String {
        uuid::of_time(now.0, name)
    }

    /// The id for an idempotency key, always the same.
    #[must_use]
    pub fn id_of_key(key: &str) -> String {
        uuid::of_name(key)
    }
}

impl CommandKind {
    /// The name in messages and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Retrain => "retrain",
            Self::Promote => "promote",
            Self::RollBack => "rollback",
            Self::Challenge => "challenge",
        }
    }
}

impl AvroRecord for Command {
    const SCHEMA: &'static str = include_str!("../../schemas/command/v1.avsc");
}
