//! Checks and encodes commands to the learner, from the command line and over HTTP.

use serde_json::Value as Json;

use crate::{
    events::{
        command::{Command, CommandKind},
        similar_name::hint,
    },
    processors::gateway::{GatewayError, entry},
};
use foretell_streams::{
    codec::Codec,
    record::{OutputRecord, Topic},
    time::WallTime,
};

/// Maximum length of a reason, which is stored with the decision: some sentences.
const REASON_BYTES_MAX: usize = 1_000;
/// Maximum length of the name of the person or the program.
const NAME_BYTES_MAX: usize = 200;

/// A command before it has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRequest {
    /// The action.
    pub kind: CommandKind,
    /// The model, if the action is about one.
    pub model_version: Option<String>,
    /// The reason.
    pub reason: String,
    /// The person or the program that requests it.
    pub requested_by: Option<String>,
}

const FIELDS: [&str; 2] = ["reason", "requested_by"];

impl CommandRequest {
    /// Reads the reason and the requester from JSON.
    ///
    /// # Errors
    /// [`GatewayError::Refused`], naming the field.
    pub fn from_json(
        kind: CommandKind,
        model_version: Option<String>,
        json: &Json,
    ) -> Result<Self, GatewayError> {
        let refuse = |message: String| Err(GatewayError::Refused(message));
        let Json::Object(fields) = json else {
            return refuse(format!("a command is a JSON object with {}", FIELDS.join(", ")));
        };
        if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return refuse(format!(
                "there is no field `{unknown}`{}; there are {}",
                hint(unknown, &FIELDS),
                FIELDS.join(", ")
            ));
        }
        let text = |name: &str| match fields.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(other) => {
                Err(GatewayError::Refused(format!("`{name}` is {other}: it must be a text")))
            }
        };
        let reason = text("reason")?.unwrap_or_default();
        Ok(Self { kind, model_version, reason, requested_by: text("requested_by")? })
    }

    /// The command.
    ///
    /// # Errors
    /// [`GatewayError::Refused`] if the reason is missing, or a text is too long.
    pub fn into_command(self, command_id: String, now: WallTime) -> Result<Command, GatewayError> {
        let reason = self.reason.trim();
        if reason.is_empty() {
            let message = "`reason` is missing: it is stored with the decision";
            return Err(GatewayError::Refused(message.to_owned()));
        }
        let requested_by = self.requested_by.as_deref().map(str::trim);
        let requested_by = requested_by.filter(|name| !name.is_empty());
        for (name, text, max) in [
            ("reason", reason, REASON_BYTES_MAX),
            ("requested_by", requested_by.unwrap_or_default(), NAME_BYTES_MAX),
        ] {
            if text.len() > max {
                let message = format!("`{name}` is longer than {max} bytes");
                return Err(GatewayError::Refused(message));
            }
        }
        // The decision about several requests joins their names by semicolons, in one line.
        if requested_by.is_some_and(|name| name.contains(|c: char| c == ';' || c.is_control())) {
            let message = "`requested_by` contains a semicolon or a control character";
            return Err(GatewayError::Refused(message.to_owned()));
        }
        Ok(Command {
            command_id,
            kind: self.kind,
            model_version: self.model_version,
            reason: Some(reason.to_owned()),
            requested_by: requested_by.map(ToOwned::to_owned),
            requested_at: now,
        })
    }
}

/// Encodes the record of a command.
///
/// # Errors
/// [`GatewayError`] if the schema registry does not answer.
pub fn record_of(
    command: &Command,
    topic: &Topic,
    codec: &dyn Codec<Command>,
) -> Result<OutputRecord, GatewayError> {
    entry::record(topic, &command.command_id, codec, command, command.requested_at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn command(json: &Json) -> Result<Command, String> {
        let version = Some("v".to_owned());
        let request = CommandRequest::from_json(CommandKind::Promote, version, json);
        let command = request.and_then(|request| request.into_command("id".into(), WallTime(5)));
        command.map_err(|error| error.to_string())
    }

    #[test]
    fn a_command_has_a_reason_and_may_name_who_requests_it() {
        let made = command(&json!({"reason": " worse \n", "requested_by": "ann"})).unwrap();
        let expected = Command {
            command_id: "id".to_owned(),
            kind: CommandKind::Promote,
            model_version: Some("v".to_owned()),
            reason: Some("worse".to_owned()),
            requested_by: Some("ann".to_owned()),
            requested_at: WallTime(5),
        };
        assert_eq!(made, expected);
        let anonymous = command(&json!({"reason": "x", "requested_by": " "})).unwrap();
        assert_eq!(anonymous.requested_by, None);
    }

    #[test]
    fn an_invalid_command_is_refused_with_the_field() {
        let check = |json: Json, words: &str| {
            let message = command(&json).unwrap_err();
            assert!(message.contains(words), "{words:?} in {message:?}");
        };
        check(json!([]), "JSON object");
        check(json!({}), "`reason` is missing");
        check(json!({"reason": "  "}), "`reason` is missing");
        check(json!({"reason": 5}), "`reason` is 5");
        check(json!({"reason": "x", "why": "y"}), "no field `why`");
        check(json!({"reason": "x".repeat(1_001)}), "longer than 1000 bytes");
        check(json!({"reason": "x", "requested_by": "x".repeat(201)}), "longer than 200 bytes");
        for name in ["ann; bob", "ann\nbob"] {
            check(json!({"reason": "x", "requested_by": name}), "a semicolon or a control");
        }
    }
}
