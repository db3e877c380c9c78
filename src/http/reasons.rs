//! The reasons of a prediction as JSON, for `POST /api/v1/events?wait=true&reasons=…`.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Map, Value as Json, json};

use crate::{
    events::{
        prediction::Prediction,
        questionnaire::{AnswerRef, AnswerRow, QuestionnaireSchema},
    },
    http::{HttpState, error::HttpError, parameters::Parameters},
    processors::{
        model_table::ServedModels,
        reasons::{NoReasons, Reason, Reasons},
    },
};

/// Maximum of `reasons`.
pub(super) const REASONS_MAX: u64 = 100;

/// A request for the reasons of the prediction that is waited for.
pub(super) struct ReasonsRequest {
    most: usize,
    /// The models when the request arrived: a swap while it waits does not lose the model of its prediction.
    before: Arc<ServedModels>,
}

impl ReasonsRequest {
    /// Reads the parameter `reasons`; `None` if it is not given.
    pub(super) fn read(
        parameters: &Parameters,
        is_waited_for: bool,
        state: &HttpState,
    ) -> Result<Option<Self>, HttpError> {
        if parameters.text("reasons").is_none() {
            return Ok(None);
        }
        let most = parameters.number("reasons", REASONS_MAX, REASONS_MAX)?;
        if !is_waited_for {
            let message = "parameter `reasons` is for a prediction that is waited for; nothing was written: add wait=true";
            return Err(HttpError::new(StatusCode::BAD_REQUEST, message));
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(Some(Self { most, before: state.overview.serving.models() }))
    }

    /// The members of the response: `reasons`, which is null if there are none, and then `reasons_error`.
    pub(super) async fn answer(
        &self,
        state: &HttpState,
        prediction: &Prediction,
    ) -> Map<String, Json> {
        let (prediction, gateway) = (prediction.clone(), Arc::clone(&state.gateway));
        let (most, before) = (self.most, Arc::clone(&self.before));
        let now = state.overview.serving.models();
        // On a thread that may block: the first one of a model takes a millisecond, and a large model several for each.
        let explained = tokio::task::spawn_blocking(move || {
            let events = gateway.event_schema();
            let reasons = Reasons::of(&prediction, &[&now, &before], events, most)?;
            Ok::<Json, NoReasons>(json_of(&reasons, &prediction.answers, events))
        });
        let reasons = match explained.await {
            Ok(reasons) => reasons.map_err(|error| error.to_string()),
            Err(_) => Err("the reasons could not be computed; the log has the details".to_owned()),
        };
        match reasons {
            Ok(reasons) => Map::from_iter([("reasons".to_owned(), reasons)]),
            Err(error) => Map::from_iter([
                ("reasons".to_owned(), Json::Null),
                ("reasons_error".to_owned(), Json::String(error)),
            ]),
        }
    }
}

/// The reasons of a prediction from `answers`.
pub(super) fn json_of(
    reasons: &Reasons,
    answers: &AnswerRow,
    events: &QuestionnaireSchema,
) -> Json {
    let values: Vec<Json> = events.layout().answers(answers).map(json_of_answer).collect();
    let value = |question: &Option<usize>| {
        question.and_then(|question| values.get(question).cloned()).unwrap_or_default()
    };
    let features = reasons.largest.iter().map(|Reason { feature, questions, contribution }| {
        let value = match questions.as_slice() {
            [question] => value(question),
            questions => questions.iter().map(value).collect(),
        };
        json!({ "feature": feature, "value": value, "contribution": contribution })
    });
    json!({
        "base": reasons.base,
        "features": features.collect::<Vec<Json>>(),
        // Plus 0, for no others are -0.
        "others": reasons.others + 0.0,
    })
}

/// An answer as JSON.
#[must_use]
pub fn json_of_answer(answer: AnswerRef<'_>) -> Json {
    match answer {
        AnswerRef::Missing => Json::Null,
        AnswerRef::Number(number) => json!(number),
        AnswerRef::Whole(whole) => json!(whole),
        // A category: beyond 2^53, a number in JSON is not exact everywhere.
        AnswerRef::Id(id) => json!(id.to_string()),
        AnswerRef::Text(text) => json!(text),
        AnswerRef::Flag(flag) => json!(if flag { "true" } else { "false" }),
    }
}
