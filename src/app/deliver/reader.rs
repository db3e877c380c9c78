//! Decodes records of the topic of actions, and selects those that are to be done.

use std::sync::Arc;

use crate::{
    app::deliver::action::DueAction,
    events::{
        action::{Action, ActionState},
        questionnaire::QuestionnaireSchema,
    },
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::InputRecord,
};

/// The bound of the length of an action's id: it is a header of requests.
const ACTION_ID_BYTES_MAX: usize = 255;

/// A decoded record.
#[derive(Debug)]
pub(super) enum Read {
    /// An action to deliver.
    Due(Arc<DueAction>),
    /// An action that was cancelled or held out.
    NotDue,
    /// It can never be decoded.
    Unreadable { class: &'static str, schema_id: Option<u32>, message: String },
    /// The registry does not answer.
    Unavailable(String),
}

/// Reads records of the topic of actions.
pub(super) struct ActionReader {
    pub(super) codec: Arc<dyn Codec<Action>>,
    pub(super) schema: Arc<QuestionnaireSchema>,
}

impl ActionReader {
    pub(super) fn read(&self, record: &InputRecord) -> Read {
        let unreadable = |class, schema_id, message| Read::Unreadable { class, schema_id, message };
        let Some(bytes) = &record.value else {
            return unreadable("tombstone", None, "the record has no value".to_owned());
        };
        let action = match self.codec.decode(bytes) {
            Ok(action) => action,
            Err(CodecError::Unreadable { class, schema_id, message }) => {
                return unreadable(class, schema_id, message);
            }
            Err(error @ CodecError::OtherFormat { .. }) => {
                return unreadable("malformed", None, error.to_string());
            }
            Err(CodecError::Unavailable { message }) => return Read::Unavailable(message),
        };
        match action.state {
            ActionState::Cancelled | ActionState::HeldOut => Read::NotDue,
            ActionState::Requested => {
                if !is_usable(&action.action_id) {
                    let problem = format!(
                        "action_id must have 1 to {ACTION_ID_BYTES_MAX} letters, digits, '.', '_' and '-'"
                    );
                    return unreadable("malformed", None, problem);
                }
                Read::Due(Arc::new(DueAction::new(action, record.clone(), &self.schema)))
            }
        }
    }
}

/// Whether an id can be a header of a request, and a part of the id of a message.
fn is_usable(action_id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=ACTION_ID_BYTES_MAX).contains(&action_id.len()) && action_id.bytes().all(is_plain)
}
