//! An action as channels see it: its id, and its JSON, which is the body of a webhook and the values of a template.

use serde_json::{Map, Value as Json, json};

use crate::{
    events::{
        action::{Action, ActionReasonRef, ActionReasons, ActionState},
        answered::ClassProbability,
        questionnaire::QuestionnaireSchema,
    },
    http::json_of_answer,
};
use foretell_streams::{
    record::InputRecord,
    time::{EventTime, WallTime},
};

/// An action that is to be done.
#[derive(Debug)]
pub(super) struct DueAction {
    /// The idempotency key.
    pub(super) action_id: String,
    pub(super) respondent_id: String,
    pub(super) rule: String,
    pub(super) due: WallTime,
    pub(super) payload: Json,
    /// The record, for a dead letter.
    pub(super) record: InputRecord,
}

impl DueAction {
    pub(super) fn new(action: Action, record: InputRecord, schema: &QuestionnaireSchema) -> Self {
        let payload = payload(&action, schema);
        let Action { action_id, respondent_id, rule, due, .. } = action;
        Self { action_id, respondent_id, rule, due: WallTime(due.0), payload, record }
    }

    /// The body of a webhook.
    pub(super) fn body(&self) -> Vec<u8> {
        self.payload.to_string().into_bytes()
    }

    /// A text answer; `None` if it is missing.
    pub(super) fn answer(&self, name: &str) -> Option<&str> {
        self.payload["answers"][name].as_str()
    }
}

fn payload(action: &Action, schema: &QuestionnaireSchema) -> Json {
    let probabilities = action.probabilities.iter();
    let probabilities =
        probabilities.map(|class| (class.label.to_owned(), json!(class.probability)));
    let reasons = action
        .reasons
        .iter()
        .map(|reason| json!({ "feature": reason.feature, "contribution": reason.contribution }));
    let answers = schema.questions().iter().zip(schema.layout().answers(&action.answers));
    let answers = answers.map(|(question, answer)| (question.name.clone(), json_of_answer(answer)));
    json!({
        "action_id": action.action_id,
        "rule": action.rule,
        "rule_version": action.rule_version,
        "reason": action.reason,
        "respondent_id": action.respondent_id,
        "prediction_id": action.prediction_id,
        "model_version": action.model_version,
        "label": action.label,
        "probabilities": probabilities.collect::<Map<_, _>>(),
        "propensity": action.propensity,
        "reasons": reasons.collect::<Json>(),
        "answers": answers.collect::<Map<_, _>>(),
        "event_time": action.event_time,
        "due": action.due,
        "decided_at": action.decided_at,
    })
}

/// The payload of a made-up action, with every name that a template may use.
pub(super) fn sample_payload(schema: &QuestionnaireSchema, classes: &[String]) -> Json {
    const TEXT: &str = "sample";
    let text = || TEXT.to_owned();
    let probabilities = classes.iter().map(|label| ClassProbability { label, probability: 0.5 });
    let reason = ActionReasonRef { feature: TEXT, contribution: 0.5 };
    let mut payload = payload(
        &Action {
            action_id: text(),
            state: ActionState::Requested,
            respondent_id: text(),
            prediction_id: text(),
            rule: text(),
            rule_version: text(),
            reason: text(),
            due: EventTime(0),
            event_time: EventTime(0),
            decided_at: WallTime(0),
            model_version: text(),
            label: classes.first().cloned().unwrap_or_default(),
            probabilities: probabilities.collect(),
            propensity: 1.0,
            reasons: ActionReasons::of([reason].into_iter()),
            answers: schema.layout().row_of(&[]),
        },
        schema,
    );
    if let Some(answers) = payload["answers"].as_object_mut() {
        answers.values_mut().for_each(|answer| *answer = json!(TEXT));
    }
    payload
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use foretell_streams::record::{Offset, Partition, Topic, TopicPartition};

    /// An action without answers.
    pub(in crate::app::deliver) fn due_action(
        action_id: &str,
        respondent_id: &str,
        rule: &str,
        due: WallTime,
    ) -> Arc<DueAction> {
        let payload = json!({ "action_id": action_id, "answers": { "email": "ann@example.com" } });
        Arc::new(DueAction {
            action_id: action_id.to_owned(),
            respondent_id: respondent_id.to_owned(),
            rule: rule.to_owned(),
            due,
            payload,
            record: InputRecord {
                source: TopicPartition { topic: Topic::new("actions"), partition: Partition(0) },
                offset: Offset(0),
                timestamp: EventTime(0),
                key: None,
                value: None,
                headers: Vec::new(),
            },
        })
    }
}
