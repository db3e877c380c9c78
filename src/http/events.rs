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
use tokio::{sync::oneshot, time::timeout};

use crate::{
    events::{
        prediction::Prediction,
        questionnaire::{AnswerRef, QuestionnaireSchema},
        reply::ReplyResult,
    },
    http::{
        HttpState,
        api::{idempotency_key, stopping, write, write_each},
        body,
        error::HttpError,
        parameters::{Named, Parameters},
    },
    processors::gateway::{Answer, EventEntry},
};

/// Default and maximum of `timeout_ms`.
const WAIT_MS: u64 = 10_000;
const WAIT_MS_MAX: u64 = 60_000;

pub(super) const PARAMETERS: &[Named] = &[
    (
        "wait",
        "`true`: answer when the result of the event is known (not for arrays). Default: `false`.",
    ),
    ("timeout_ms", "Maximum time that `wait=true` waits, from 1 to 60000 ms. Default: 10000."),
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
    let at_most = Duration::from_millis(parameters.number("timeout_ms", WAIT_MS, WAIT_MS_MAX)?);
    let key = idempotency_key(request.headers())?;
    let json = body::json(request, state.read_timeout).await?;
    if let Json::Array(items) = &json {
        if is_waited_for {
            let message = "wait=true is for one event, and this is an array; nothing was written: send it without wait=true, \
                           or each event in its own request";
            return Err(HttpError::new(StatusCode::BAD_REQUEST, message));
        }
        return write_each(&state.gateway, items, key.as_deref(), |json, key| {
            let entry = state.gateway.event(json, key)?;
            let accepted = accepted(&entry);
            Ok((entry.record, Json::Object(accepted)))
        })
        .await;
    }
    let entry = state.gateway.event(&json, key.as_deref())?;
    if is_waited_for {
        return wait_for(&state, entry, at_most).await;
    }
    let accepted = accepted(&entry);
    write(&state.gateway, entry.record)?.await?;
    Ok((StatusCode::ACCEPTED, JsonBody(accepted)).into_response())
}

/// Writes the event, and waits for its result.
async fn wait_for(
    state: &HttpState,
    mut entry: EventEntry,
    at_most: Duration,
) -> Result<Response, HttpError> {
    let (open, opened) = oneshot::channel();
    let (answer, answered) = oneshot::channel();
    let gateway = &state.gateway;
    // Dropped at the end of this future, also when the client disconnects.
    let wait = gateway.wait(
        &mut entry,
        Box::new(move |result| drop(open.send(result))),
        Box::new(move |what| drop(answer.send(what))),
    );
    let _wait = wait.inspect_err(|_| state.metrics.wait_refused())?;
    let _counted = state.metrics.wait();
    let accepted = accepted(&entry);
    let mut is_written = false;
    let result = async {
        opened.await.map_err(|_| stopping())??;
        write(gateway, entry.record)?.await?;
        is_written = true;
        answered.await.map_err(|_| stopping())
    };
    match timeout(at_most, result).await {
        Ok(answer) => answer.map(|answer| response(answer, accepted, gateway.event_schema())),
        Err(_) => {
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

fn response(
    answer: Answer,
    mut accepted: Map<String, Json>,
    events: &QuestionnaireSchema,
) -> Response {
    match answer {
        Answer::Replied(ReplyResult::Predicted(prediction)) => {
            JsonBody(prediction_json(&prediction, events)).into_response()
        }
        Answer::Replied(ReplyResult::Duplicate(Some(prediction))) => {
            ([(REPLAYED, "true")], JsonBody(prediction_json(&prediction, events))).into_response()
        }
        Answer::Replied(ReplyResult::Duplicate(None)) => {
            (StatusCode::ACCEPTED, [(REPLAYED, "true")], JsonBody(accepted)).into_response()
        }
        Answer::Replied(ReplyResult::Incomplete { missing }) => {
            accepted.insert("missing".to_owned(), json!(missing));
            (StatusCode::ACCEPTED, JsonBody(accepted)).into_response()
        }
        Answer::DeadLettered { class, message } => {
            let error = HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, message);
            let error = error.with("class", class);
            error.with("event_id", accepted.remove("event_id").unwrap_or_default()).into_response()
        }
    }
}

/// A prediction as JSON, with features and probabilities by name.
fn prediction_json(prediction: &Prediction, events: &QuestionnaireSchema) -> Json {
    let probabilities = prediction.probabilities.iter();
    let probabilities =
        probabilities.map(|class| (class.label.to_owned(), json!(class.probability)));
    let answers = events.layout().answers(&prediction.answers);
    let features = events.questions().iter().zip(answers).map(|(question, answer)| {
        let value = match answer {
            AnswerRef::Missing => Json::Null,
            AnswerRef::Number(number) => json!(number),
            AnswerRef::Whole(whole) => json!(whole),
            // A category: beyond 2^53, a number in JSON is not exact everywhere.
            AnswerRef::Id(id) => json!(id.to_string()),
            AnswerRef::Text(text) => json!(text),
            AnswerRef::Flag(flag) => json!(if flag { "true" } else { "false" }),
        };
        (question.name.clone(), value)
    });
    json!({
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
    })
}
