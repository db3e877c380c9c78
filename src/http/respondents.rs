//! `GET /api/v1/respondents/{id}`: what the stores have about a respondent. The question goes through the topic `queries` to the
//! instance whose task has them.

use axum::{
    Json as JsonBody,
    extract::{Path, State},
    http::StatusCode,
};
use serde_json::{Map, Value as Json, json};

use crate::{
    events::{
        questionnaire::QuestionnaireSchema,
        reply::ReplyResult,
        respondent::{KeptPrediction, OpenObservation, Respondent},
    },
    http::{
        HttpState,
        error::HttpError,
        events::{action_json, prediction_json},
        exchange::{Exchanged, TIMEOUT, exchange, timeout_of},
        parameters::{Named, Parameters},
        reasons::{ReasonsRequest, json_of_answer},
    },
    processors::gateway::Answer,
};

pub(super) const PARAMETERS: &[Named] = &[
    (
        "reasons",
        "Adds the [reasons](reasons.md) of each prediction whose model still serves, at most this many features, from 1 to \
         100. Default: no reasons.",
    ),
    TIMEOUT,
];

/// What the stores have about a respondent, as of the commit of the answer.
pub(super) async fn respondent(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Result<JsonBody<Json>, HttpError> {
    parameters.check(PARAMETERS)?;
    let at_most = timeout_of(&parameters)?;
    let reasons = ReasonsRequest::read(&parameters, true, &state)?;
    let (id, record) = state.gateway.query(&id)?;
    let answer = match exchange(&state, record, at_most).await? {
        Exchanged::Answered(answer) => answer,
        Exchanged::TimedOut { .. } => {
            let message = format!(
                "the task of respondent {id:?} did not answer within {} ms: it is being moved, restores its stores, or \
                 is blocked; GET /api/v1/status of each instance says which. Try again",
                at_most.as_millis()
            );
            return Err(HttpError::new(StatusCode::GATEWAY_TIMEOUT, message));
        }
    };
    let reply = match answer {
        Answer::Replied(reply) => *reply,
        Answer::DeadLettered { class, message } => {
            let error = HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, message);
            return Err(error.with("class", class));
        }
    };
    match reply {
        ReplyResult::Respondent(found) if found.is_unknown() => {
            let message = format!(
                "nothing is stored about respondent {id:?}: it never sent an event, or the windows of all its \
                 predictions have passed"
            );
            Err(HttpError::new(StatusCode::NOT_FOUND, message))
        }
        ReplyResult::Respondent(found) => {
            let mut explained = Vec::new();
            for kept in &found.predictions {
                explained.push(match (&reasons, &kept.prediction) {
                    (Some(reasons), Some(prediction)) => reasons.answer(&state, prediction).await,
                    (None | Some(_), _) => Map::new(),
                });
            }
            Ok(JsonBody(json_of(&id, &found, explained, state.gateway.event_schema())))
        }
        ReplyResult::Predicted(_) | ReplyResult::Incomplete { .. } | ReplyResult::Duplicate(_) => {
            Err(HttpError::new(StatusCode::BAD_GATEWAY, "the reply is about an event"))
        }
    }
}

/// `reasons` are the members that each prediction has more.
fn json_of(
    id: &str,
    respondent: &Respondent,
    reasons: Vec<Map<String, Json>>,
    events: &QuestionnaireSchema,
) -> Json {
    let predictions = respondent.predictions.iter().zip(reasons);
    let predictions = predictions.map(|(kept, reasons)| kept_json(kept, reasons, events));
    let outcomes = respondent.outcomes.iter().map(|outcome| {
        json!({
            "label": outcome.label,
            "outcome_time": outcome.outcome_time,
            "outcome_id": outcome.outcome_id,
        })
    });
    let actions = respondent.actions.iter().map(|action| {
        let mut json = action_json(action);
        json["prediction_id"] = json!(action.prediction_id);
        json
    });
    json!({
        "respondent_id": id,
        "stream_time": respondent.stream_time,
        "open": respondent.open.as_ref().map(|open| open_json(open, events)),
        "predictions": predictions.collect::<Vec<Json>>(),
        "outcomes": outcomes.collect::<Vec<Json>>(),
        "actions": actions.collect::<Vec<Json>>(),
    })
}

/// The answers so far, in the types of the event schema, as those of a prediction are shown.
fn open_json(open: &OpenObservation, events: &QuestionnaireSchema) -> Json {
    let row = events.row_by_name(open.answers.iter().cloned());
    let answers = events.questions().iter().zip(events.layout().answers(&row));
    let is_given = |name: &str| open.answers.iter().any(|(given, _)| given == name);
    let answers = answers.filter(|(question, _)| is_given(&question.name));
    let answers = answers.map(|(question, answer)| (question.name.clone(), json_of_answer(answer)));
    json!({
        "event_time": open.event_time,
        "scored": open.is_scored,
        "answers": answers.collect::<Map<_, _>>(),
    })
}

fn kept_json(
    kept: &KeptPrediction,
    reasons: Map<String, Json>,
    events: &QuestionnaireSchema,
) -> Json {
    let state = match kept.outcome {
        Some(_) => "learned",
        None if kept.is_passed_over => "passed_over",
        None => "waiting",
    };
    let prediction = kept.prediction.as_ref();
    let not_stored = match (prediction, &kept.outcome) {
        (Some(_), _) => None,
        (None, Some(_)) => Some(
            "they are not kept after a prediction was learned from, unless outcomes.conflict allows a correction; the \
             topic labelled-examples has them",
        ),
        (None, None) => {
            Some("the registry does not have the schema any more that they were written with")
        }
    };
    json!({
        "event_time": kept.event_time,
        "state": state,
        "outcome": kept.outcome,
        "prediction": prediction.map(|prediction| prediction_json(prediction, reasons, events)),
        "not_stored": not_stored,
    })
}
