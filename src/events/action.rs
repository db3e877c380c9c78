//! An action about a prediction: `schemas/action/v1.avsc`; and what a labelled example says about it.

use crate::events::{
    answered::{AnsweredRecord, ClassProbabilities, ClassProbabilitiesRef, Features},
    items::{Item, Items, ItemsRef},
    questionnaire::{AnswerRow, AnswersRef, RowLayout},
};
use foretell_avro::wire::{self, Cursor, Malformed};
use foretell_streams::time::{EventTime, WallTime};

/// What a rule says about a prediction: do something now, or do not.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// The idempotency key: the same prediction and version of the rule have the same.
    pub action_id: String,
    /// What to do.
    pub state: ActionState,
    /// The respondent.
    pub respondent_id: String,
    /// The prediction that the rule applies to.
    pub prediction_id: String,
    /// The name of the rule.
    pub rule: String,
    /// A digest of the rule's settings.
    pub rule_version: String,
    /// Why, in words.
    pub reason: String,
    /// When it is due: event time, or wall time if the rule says so.
    pub due: EventTime,
    /// The event time of the prediction.
    pub event_time: EventTime,
    /// When this record was made.
    pub decided_at: WallTime,
    /// The model that made the prediction.
    pub model_version: String,
    /// The predicted class.
    pub label: String,
    /// The probability of every class, in the model's order.
    pub probabilities: ClassProbabilities,
    /// The probability that the rule acts when its condition holds: 1 without a control share.
    pub propensity: f64,
    /// The features that contribute most to the prediction, largest first.
    pub reasons: ActionReasons,
    /// The answers as scored.
    pub answers: AnswerRow,
}

/// A borrowed [`Action`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "they are the fields of Action")]
pub struct ActionRef<'a> {
    pub action_id: &'a str,
    pub state: ActionState,
    pub respondent_id: &'a str,
    pub prediction_id: &'a str,
    pub rule: &'a str,
    pub rule_version: &'a str,
    pub reason: &'a str,
    pub due: EventTime,
    pub event_time: EventTime,
    pub decided_at: WallTime,
    pub model_version: &'a str,
    pub label: &'a str,
    pub probabilities: ClassProbabilitiesRef<'a>,
    pub propensity: f64,
    pub reasons: ActionReasonsRef<'a>,
    pub answers: AnswersRef<'a>,
}

/// The state of an action. The order is that of the symbols in the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionState {
    /// It is due: do it now.
    Requested,
    /// It was pending, and will not be done.
    Cancelled,
    /// It is due, and the respondent is in the control share of the rule: it is not done.
    HeldOut,
}

/// The reasons of an action.
pub type ActionReasons = Items<ActionReason>;

/// Borrowed [`ActionReasons`].
pub type ActionReasonsRef<'a> = ItemsRef<'a, ActionReason>;

/// The items of [`ActionReasons`].
#[derive(Debug)]
pub enum ActionReason {}

/// The contribution of a feature to the prediction of an action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActionReasonRef<'a> {
    /// The name of the question, or of the cross.
    pub feature: &'a str,
    /// By how much its answer changes the log-odds of the predicted class.
    pub contribution: f64,
}

/// The actions of a labelled example.
pub type ExampleActions = Items<ExampleAction>;

/// Borrowed [`ExampleActions`].
pub type ExampleActionsRef<'a> = ItemsRef<'a, ExampleAction>;

/// The items of [`ExampleActions`].
#[derive(Debug)]
pub enum ExampleAction {}

/// An action that came due before the outcome of a labelled example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExampleActionRef<'a> {
    /// The id of the action.
    pub action_id: &'a str,
    /// The name of the rule.
    pub rule: &'a str,
    /// A digest of the rule's settings.
    pub rule_version: &'a str,
    /// Whether it was requested; false if the respondent is in the control share of the rule.
    pub acted: bool,
    /// The probability that it is requested.
    pub propensity: f64,
    /// The event time at which it was due.
    pub acted_at: EventTime,
}

impl ActionState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Requested, Self::Cancelled, Self::HeldOut];

    /// The name in metrics and over HTTP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Cancelled => "cancelled",
            Self::HeldOut => "held_out",
        }
    }
}

impl Item for ActionReason {
    type Ref<'a> = ActionReasonRef<'a>;

    fn write(reason: ActionReasonRef<'_>, out: &mut Vec<u8>) {
        wire::write_blob(reason.feature.as_bytes(), out);
        out.extend_from_slice(&reason.contribution.to_le_bytes());
    }

    fn read<'a>(cursor: &mut Cursor<'a>) -> Result<ActionReasonRef<'a>, Malformed> {
        Ok(ActionReasonRef { feature: cursor.text()?, contribution: cursor.double()? })
    }
}

impl Item for ExampleAction {
    type Ref<'a> = ExampleActionRef<'a>;

    fn write(action: ExampleActionRef<'_>, out: &mut Vec<u8>) {
        for text in [action.action_id, action.rule, action.rule_version] {
            wire::write_blob(text.as_bytes(), out);
        }
        out.push(u8::from(action.acted));
        out.extend_from_slice(&action.propensity.to_le_bytes());
        wire::write_long(action.acted_at.0, out);
    }

    fn read<'a>(cursor: &mut Cursor<'a>) -> Result<ExampleActionRef<'a>, Malformed> {
        Ok(ExampleActionRef {
            action_id: cursor.text()?,
            rule: cursor.text()?,
            rule_version: cursor.text()?,
            acted: cursor.boolean()?,
            propensity: cursor.double()?,
            acted_at: EventTime(cursor.long()?),
        })
    }
}

impl AnsweredRecord for Action {
    const TEMPLATE: &'static str = include_str!("../../schemas/action/v1.avsc");

    type Ref<'a> = ActionRef<'a>;

    fn borrow(&self) -> ActionRef<'_> {
        ActionRef {
            action_id: &self.action_id,
            state: self.state,
            respondent_id: &self.respondent_id,
            prediction_id: &self.prediction_id,
            rule: &self.rule,
            rule_version: &self.rule_version,
            reason: &self.reason,
            due: self.due,
            event_time: self.event_time,
            decided_at: self.decided_at,
            model_version: &self.model_version,
            label: &self.label,
            probabilities: self.probabilities.borrow(),
            propensity: self.propensity,
            reasons: self.reasons.borrow(),
            answers: (&self.answers).into(),
        }
    }

    fn of(record: ActionRef<'_>) -> Self {
        Self {
            action_id: record.action_id.to_owned(),
            state: record.state,
            respondent_id: record.respondent_id.to_owned(),
            prediction_id: record.prediction_id.to_owned(),
            rule: record.rule.to_owned(),
            rule_version: record.rule_version.to_owned(),
            reason: record.reason.to_owned(),
            due: record.due,
            event_time: record.event_time,
            decided_at: record.decided_at,
            model_version: record.model_version.to_owned(),
            label: record.label.to_owned(),
            probabilities: record.probabilities.to_owned(),
            propensity: record.propensity,
            reasons: record.reasons.to_owned(),
            answers: record.answers.to_row(),
        }
    }

    fn write(record: ActionRef<'_>, out: &mut Vec<u8>) {
        wire::write_blob(record.action_id.as_bytes(), out);
        wire::write_count(record.state as usize, out);
        for text in [
            record.respondent_id,
            record.prediction_id,
            record.rule,
            record.rule_version,
            record.reason,
        ] {
            wire::write_blob(text.as_bytes(), out);
        }
        for time in [record.due.0, record.event_time.0, record.decided_at.0] {
            wire::write_long(time, out);
        }
        for text in [record.model_version, record.label] {
            wire::write_blob(text.as_bytes(), out);
        }
        record.probabilities.write(out);
        out.extend_from_slice(&record.propensity.to_le_bytes());
        record.reasons.write(out);
        out.extend_from_slice(record.answers.as_bytes());
    }

    fn read(datum: &[u8]) -> Result<(ActionRef<'_>, Features<'_>), Malformed> {
        let mut cursor = Cursor::new(datum);
        let record = ActionRef {
            action_id: cursor.text()?,
            state: ActionState::ALL[cursor.choice(ActionState::ALL.len())?],
            respondent_id: cursor.text()?,
            prediction_id: cursor.text()?,
            rule: cursor.text()?,
            rule_version: cursor.text()?,
            reason: cursor.text()?,
            due: EventTime(cursor.long()?),
            event_time: EventTime(cursor.long()?),
            decided_at: WallTime(cursor.long()?),
            model_version: cursor.text()?,
            label: cursor.text()?,
            probabilities: ClassProbabilitiesRef::read(&mut cursor)?,
            propensity: cursor.double()?,
            reasons: ActionReasonsRef::read(&mut cursor)?,
            answers: AnswersRef::of_bytes(cursor.rest()),
        };
        Ok((record, Features::NONE))
    }

    fn check_answers(record: ActionRef<'_>, layout: &RowLayout) -> Result<(), Malformed> {
        layout.check(record.answers)
    }

    fn with_answers<'a>(record: ActionRef<'a>, answers: AnswersRef<'a>) -> ActionRef<'a> {
        ActionRef { answers, ..record }
    }
}
