//! `POST /invocations`, the request of MLflow's scoring server and of SageMaker.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};

use crate::http::{
    ServingState, body,
    error::HttpError,
    parameters::Parameters,
    serving::{
        AT_ONCE_BYTES_MAX, AT_ONCE_MAX, ScoreRequest, champion,
        formats::{AnswerFormat, BodyFormat},
        headers, perhaps_elsewhere,
    },
};

/// Scores the rows of the body. `params.reasons` adds the reasons of each.
pub(in crate::http) async fn invocations(
    State(state): State<ServingState>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    let scorer = champion(&state)?;
    let (given, wanted) =
        (BodyFormat::of(request.headers())?, AnswerFormat::of(request.headers())?);
    let _permit = state.large.enter(request.headers()).await;
    let bytes = body::bytes(request, state.read_timeout, state.settings.body_bytes_max).await?;
    let (is_long, schema) = (bytes.len() > AT_ONCE_BYTES_MAX, Arc::clone(&state.schema));
    let (rows, reasons) = perhaps_elsewhere(is_long, move || given.rows(&bytes, &schema)).await?;
    let is_long = rows.len() > AT_ONCE_MAX || reasons.is_some();
    let request = ScoreRequest { rows, scorer, reasons, protocol: "invocations" };
    let scored = request.answer(&state).await?;
    let version = headers(&scored.scorer);
    let body = perhaps_elsewhere(is_long, move || wanted.write(scored)).await?;
    Ok((version, [(header::CONTENT_TYPE, wanted.media_type())], body).into_response())
}

/// The same for clients of SageMaker, which read the member `message` of an error.
pub(in crate::http) async fn endpoint_invocations(
    state: State<ServingState>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    let answered = invocations(state, parameters, request).await;
    answered.map_err(|error| error.with_detail_as("message"))
}
