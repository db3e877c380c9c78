//! `POST /api/v1/events`: one event, whose request may wait for the result, or an array. Metadata and answers have the
//! names of the event schema.

use std::time::Duration;

use axum::{
    Json as JsonBody,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value as Json, json};

use crate::{
    events::{
        prediction::Prediction,
        questionnaire::QuestionnaireSchema,
        reply::{Predicted, ReplyResult},
        respondent::RespondentAction,
    },
    http::{
        HttpState,
        api::{idempotency_key, write, write_each},
        body,
        error::HttpError,
        exchange::{Exchanged, exchange, timeout_of},
        parameters::{Named, Parameters},
        reasons::{ReasonsRequest, json_of_answer},
    },
    processors::gateway::{Answer, EventEntry},
};

pub(super) const PARAMETERS: &[Named] = &[
    (
        "wait",
        "`true`: answer when the result of the event is known (not for arrays). Default: `false`.",
    ),
    ("timeout_ms", "Maximum time that `wait=true` waits, from 1 to 60000 ms. Default: 10000."),
    (
        "source",
        "Topic of the events: `questionnaire-events`, or that of a companion in `[[events.companions]]`, whose schema the \
         events then have. Default: `questionnaire-events`.",
    ),
    (
        "reasons",
        "With `wait=true`: adds the reasons of the prediction, the features that contribute most to it, at most \
         this many, from 1 to 100. Default: no reasons.",
    ),
];

/// Header that is `true` if the event is a repeat: the response is the one to the first event.
const REPLAYED: &str = "idempotent-replayed";

/// Writes events. With `?wait=true` the response is the result of the event, if it is known within `timeout_ms`.
pub(super) async fn events(
    State(state): State<HttpState>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    parameters.check(PARAMETERS)?;
    let is_waited_for = parameters.flag("wait")?;
    let at_most = timeout_of(&parameters)?;
    let source = parameters.text("source");
    let reasons = ReasonsRequest::read(&parameters, is_waited_for, &state)?;
    let key = idempotency_key(request.headers())?;
    let json = body::json(request, state.read_timeout).await?;
    if let Json::Array(items) = &json {
        if is_waited_for {
            let message = "wait=true is for one event, and this is an array; nothing was written: send it without wait=true, \
                           or each event in its own request";
            return Err(HttpError::new(StatusCode::BAD_REQUEST, message));
        }
        return write_each(&state.gateway, items, key.as_deref(), |json, key| {
            let entry = state.gateway.event(json, key, source)?;
            let accepted = accepted(&entry);
            Ok((entry.record, Json::Object(accepted)))
        })
        .await;
    }
    let entry = state.gateway.event(&json, key.as_deref(), source)?;
    if is_waited_for {
        return wait_for(&state, entry, at_most, reasons).await;
    }
    let accepted = accepted(&entry);
    write(&state.gateway, entry.record)?.await?;
    Ok((StatusCode::ACCEPTED, JsonBody(accepted)).into_response())
}

/// Writes the event, and waits for its result.
async fn wait_for(
    state: &HttpState,
    entry: EventEntry,
    at_most: Duration,
    reasons: Option<ReasonsRequest>,
) -> Result<Response, HttpError> {
    let accepted = accepted(&entry);
    match exchange(state, entry.record, at_most).await? {
        Exchanged::Answered(answer) => {
            let reasons = match (reasons, prediction_of(&answer)) {
                (Some(reasons), Some(prediction)) => reasons.answer(state, prediction).await,
                (Some(_) | None, _) => Map::new(),
            };
            Ok(response(answer, accepted, reasons, state.gateway.event_schema()))
        }
        Exchanged::TimedOut { is_written } => {
            let state = if is_written {
                "was written, but its result is not known yet"
            } else {
                "may not have been written"
            };
            let id = accepted["event_id"].as_str().unwrap_or_default();
            let message = format!(
                "event {id} {state} after {} ms; send it again with the same id to wait again",
                at_most.as_millis()
            );
            let error = HttpError::new(StatusCode::GATEWAY_TIMEOUT, message);
            Err(error.with("event_id", accepted["event_id"].clone()))
        }
    }
}

/// The ids of the event.
fn accepted(entry: &EventEntry) -> Map<String, Json> {
    Map::from_iter([
        ("event_id".to_owned(), Json::String(entry.id.clone())),
        ("respondent_id".to_owned(), Json::String(entry.event.respondent_id.clone())),
    ])
}

/// The prediction in the answer.
fn prediction_of(answer: &Answer) -> Option<&Prediction> {
    let Answer::Replied(reply) = answer else { return None };
    match reply.as_ref() {
        ReplyResult::Predicted(predicted) | ReplyResult::Duplicate(Some(predicted)) => {
            Some(&predicted.prediction)
        }
        ReplyResult::Duplicate(None)
        | ReplyResult::Incomplete { .. }
        | ReplyResult::Respondent(_) => None,
    }
}

fn response(
    answer: Answer,
    mut accepted: Map<String, Json>,
    reasons: Map<String, Json>,
    events: &QuestionnaireSchema,
) -> Response {
    let reply = match answer {
        Answer::Replied(reply) => *reply,
        Answer::DeadLettered { class, message } => {
            let error = HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, message);
            let error = error.with("class", class);
            let event_id = accepted.remove("event_id").unwrap_or_default();
            return error.with("event_id", event_id).into_response();
        }
    };
    match reply {
        ReplyResult::Predicted(predicted) => {
            JsonBody(predicted_json(&predicted, reasons, events)).into_response()
        }
        ReplyResult::Duplicate(Some(predicted)) => {
            let body = JsonBody(predicted_json(&predicted, reasons, events));
            ([(REPLAYED, "true")], body).into_response()
        }
        ReplyResult::Duplicate(None) => {
            (StatusCode::ACCEPTED, [(REPLAYED, "true")], JsonBody(accepted)).into_response()
        }
        ReplyResult::Incomplete { missing } => {
            accepted.insert("missing".to_owned(), json!(missing));
            (StatusCode::ACCEPTED, JsonBody(accepted)).into_response()
        }
        ReplyResult::Respondent(_) => {
            HttpError::new(StatusCode::BAD_GATEWAY, "the reply is about a respondent")
                .into_response()
        }
    }
}

/// A prediction with its actions and its reasons as JSON.
fn predicted_json(
    Predicted { prediction, actions }: &Predicted,
    mut reasons: Map<String, Json>,
    events: &QuestionnaireSchema,
) -> Json {
    reasons.insert("actions".to_owned(), actions.iter().map(action_json).collect());
    prediction_json(prediction, reasons, events)
}

/// An action as JSON.
pub(super) fn action_json(action: &RespondentAction) -> Json {
    json!({
        "action_id": action.action_id,
        "rule": action.rule,
        "rule_version": action.rule_version,
        "state": action.state(),
        "control": action.is_control,
        "due": action.due,
        "reason": action.cancelled,
    })
}

/// A prediction as JSON, with features and probabilities by name, and `more` members.
pub(super) fn prediction_json(
    prediction: &Prediction,
    more: Map<String, Json>,
    events: &QuestionnaireSchema,
) -> Json {
    let probabilities = prediction.probabilities.iter();
    let probabilities =
        probabilities.map(|class| (class.label.to_owned(), json!(class.probability)));
    let answers = events.layout().answers(&prediction.answers);
    let features = events.questions().iter().zip(answers);
    let features =
        features.map(|(question, answer)| (question.name.clone(), json_of_answer(answer)));
    let mut json = json!({
        "prediction_id": prediction.prediction_id,
        "respondent_id": prediction.respondent_id,
        "event_id": prediction.event_id,
        "event_time": prediction.event_time,
        "received_at": prediction.received_at,
        "predicted_at": prediction.predicted_at,
        "model_version": prediction.model_version,
        "label": prediction.label,
        "probabilities": probabilities.collect::<Map<_, _>>(),
        "features": features.collect::<Map<_, _>>(),
    });
    if let Json::Object(members) = &mut json {
        members.extend(more);
    }
    json
}
