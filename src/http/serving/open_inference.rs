//! The Open Inference Protocol (version 2), which Triton, KServe and their clients speak. Each input is a tensor with the answers
//! to one question. <https://github.com/open-inference/open-inference-protocol>
//!
//! | output | datatype | shape | |
//! |---|---|---|---|
//! | `label` | `BYTES` | rows | the class that is decided on |
//! | `probabilities` | `FP64` | rows, classes | in the order of `classes` |
//! | `classes` | `BYTES` | classes | |
//! | `reasons` | `BYTES` | rows | JSON, if the parameter `reasons` asks for them |

use std::sync::Arc;

use axum::{
    Json as JsonBody,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::{
    events::{questionnaire::Primitive, similar_name::hint},
    http::{
        ServingState, body,
        error::HttpError,
        json,
        parameters::Parameters,
        serving::{
            AT_ONCE_BYTES_MAX, AT_ONCE_MAX, Row, ScoreRequest, Scored, champion, columns, enabled,
            headers, invalid, perhaps_elsewhere, tensors::Tensor,
        },
    },
    processors::row_scorer::RowScorer,
};

/// `GET /v2`
pub(in crate::http) async fn server(
    State(state): State<ServingState>,
) -> Result<Response, HttpError> {
    enabled(&state).map_err(with_error)?;
    let server = json!({
        "name": "foretell",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data"],
    });
    Ok(JsonBody(server).into_response())
}

/// `GET /v2/health/live`
pub(in crate::http) async fn live(
    State(state): State<ServingState>,
) -> Result<Response, HttpError> {
    enabled(&state).map_err(with_error)?;
    Ok(JsonBody(json!({ "live": true })).into_response())
}

/// `GET /v2/models/{model}` and `GET /v2/models/{model}/versions/{version}`
pub(in crate::http) async fn model(
    State(state): State<ServingState>,
    Path(path): Path<ModelPath>,
) -> Result<Response, HttpError> {
    let scorer = path.scorer(&state).map_err(with_error)?;
    let inputs = state.schema.primitives().map(|(name, primitive)| {
        let datatype = match primitive {
            Primitive::Int => "INT32",
            Primitive::Long => "INT64",
            Primitive::Float => "FP32",
            Primitive::Double => "FP64",
            Primitive::Boolean => "BOOL",
            Primitive::Text => "BYTES",
        };
        json!({ "name": name, "datatype": datatype, "shape": [-1] })
    });
    let classes = scorer.classes().len();
    let metadata = json!({
        "name": path.model,
        "versions": [scorer.version()],
        "platform": "foretell_lightgbm",
        "inputs": inputs.collect::<Vec<Json>>(),
        "outputs": [
            { "name": "label", "datatype": "BYTES", "shape": [-1] },
            { "name": "probabilities", "datatype": "FP64", "shape": [-1, classes] },
            { "name": "classes", "datatype": "BYTES", "shape": [classes] },
        ],
    });
    Ok((headers(&scorer), JsonBody(metadata)).into_response())
}

/// `GET …/ready` of a model.
pub(in crate::http) async fn model_ready(
    State(state): State<ServingState>,
    Path(path): Path<ModelPath>,
) -> Result<Response, HttpError> {
    let scorer = path.scorer(&state).map_err(with_error)?;
    let ready = json!({ "name": path.model, "ready": true });
    Ok((headers(&scorer), JsonBody(ready)).into_response())
}

/// `POST …/infer`
pub(in crate::http) async fn infer(
    State(state): State<ServingState>,
    Path(path): Path<ModelPath>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    let answered = answer(&state, path, &parameters, request).await;
    answered.map_err(with_error)
}

/// The protocol's clients read the member `error`.
fn with_error(error: HttpError) -> HttpError {
    error.with_detail_as("error")
}

/// The model of a path.
#[derive(Deserialize)]
pub(in crate::http) struct ModelPath {
    model: String,
    /// A version, or an alias.
    #[serde(default)]
    version: Option<String>,
}

impl ModelPath {
    fn scorer(&self, state: &ServingState) -> Result<RowScorer, HttpError> {
        let champion = champion(state)?;
        let application = &state.application;
        if self.model != **application {
            let message = format!("there is no model {:?}; there is {application}", self.model);
            return Err(HttpError::new(StatusCode::NOT_FOUND, message));
        }
        let models = state.models.models();
        let found = match self.version.as_deref() {
            None | Some("champion") => return Ok(champion),
            Some("challenger") => models.challenger.as_ref(),
            Some(version) => models.scorer(version),
        };
        found.map(|scorer| RowScorer::new(Arc::clone(scorer))).ok_or_else(|| {
            let version = self.version.as_deref().unwrap_or_default();
            let message = format!(
                "version {version:?} does not serve; {} does, as champion",
                champion.version()
            );
            HttpError::new(StatusCode::NOT_FOUND, message)
        })
    }
}

/// A request of the protocol.
#[derive(Deserialize)]
struct InferRequest {
    #[serde(default)]
    id: Option<Json>,
    #[serde(default)]
    parameters: Map<String, Json>,
    inputs: Vec<Tensor>,
    #[serde(default)]
    outputs: Vec<RequestedOutput>,
}

#[derive(Deserialize)]
struct RequestedOutput {
    name: String,
}

async fn answer(
    state: &ServingState,
    path: ModelPath,
    parameters: &Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    let scorer = path.scorer(state)?;
    let split = split_of(request.headers())?;
    let _permit = state.large.enter(request.headers()).await;
    let bytes = body::bytes(request, state.read_timeout, state.settings.body_bytes_max).await?;
    let is_long = bytes.len() > AT_ONCE_BYTES_MAX;
    let asked = perhaps_elsewhere(is_long, move || InferCall::read(&bytes, split)).await?;
    let InferCall { id, rows, reasons, wanted } = asked;
    let is_long = rows.len() > AT_ONCE_MAX || reasons.is_some();
    let score = ScoreRequest { rows, scorer, reasons, protocol: "open_inference" };
    let scored = score.answer(state).await?;
    let version = headers(&scored.scorer);
    let body = perhaps_elsewhere(is_long, move || {
        let mut answer = json!({
            "model_name": path.model,
            "model_version": scored.scorer.version(),
            "outputs": outputs_of(&scored, &wanted),
        });
        if let Some(id) = id {
            answer["id"] = id;
        }
        Ok(answer.to_string())
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((version, kind, body.await?).into_response())
}

/// A request that was read.
struct InferCall {
    id: Option<Json>,
    rows: Vec<Row>,
    reasons: Option<usize>,
    /// The names of the outputs that are wanted; empty for all.
    wanted: Vec<String>,
}

impl InferCall {
    /// Reads a body whose first `split` bytes are JSON, or all of it.
    fn read(bytes: &[u8], split: Option<usize>) -> Result<Self, HttpError> {
        let (text, binary) = match split {
            None => (bytes, &[][..]),
            Some(at) => bytes.split_at_checked(at).ok_or_else(|| {
                invalid("Inference-Header-Content-Length is larger than the body")
            })?,
        };
        let json = json::parse(text).map_err(invalid)?;
        let request: InferRequest = serde_json::from_value(json).map_err(|error| {
            invalid(format!("not a request of the Open Inference Protocol: {error}"))
        })?;
        let reasons = reasons_of(&request.parameters)?;
        let wanted: Vec<String> = request.outputs.into_iter().map(|output| output.name).collect();
        if let Some(unknown) = wanted.iter().find(|name| !OUTPUTS.contains(&name.as_str())) {
            return Err(invalid(format!(
                "there is no output `{unknown}`{}; there are {}",
                hint(unknown, &OUTPUTS),
                OUTPUTS.join(", ")
            )));
        }
        Ok(Self { id: request.id, rows: rows_of(request.inputs, binary)?, reasons, wanted })
    }
}

/// The length of the JSON before binary tensors, if there are any. Checks the type of the body: clients of the protocol send none,
/// or that of bytes.
fn split_of(headers: &HeaderMap) -> Result<Option<usize>, HttpError> {
    let is_known =
        |kind: &str| body::is_json(kind) || body::essence(kind) == "application/octet-stream";
    if !body::is_of_type(headers, is_known) {
        let message =
            "send the header `Content-Type: application/json`, or application/octet-stream";
        return Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
            .with_header(header::ACCEPT, "application/json, application/octet-stream"));
    }
    let Some(length) = headers.get("inference-header-content-length") else { return Ok(None) };
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    length.map(Some).ok_or_else(|| invalid("Inference-Header-Content-Length is not a number"))
}

const OUTPUTS: [&str; 4] = ["label", "probabilities", "classes", "reasons"];

fn reasons_of(parameters: &Map<String, Json>) -> Result<Option<usize>, HttpError> {
    let most = parameters.get("reasons");
    most.map(|most| columns::reasons_of("parameter `reasons`", most)).transpose()
}

fn rows_of(inputs: Vec<Tensor>, mut binary: &[u8]) -> Result<Vec<Row>, HttpError> {
    let columns = inputs.into_iter().map(|tensor| {
        let name = tensor.name.clone();
        Ok((name, tensor.values(&mut binary).map_err(invalid)?))
    });
    let rows = columns::rows_of_columns("input", columns)?;
    if !binary.is_empty() {
        return Err(invalid("the body has more bytes than its inputs name"));
    }
    Ok(rows)
}

/// The outputs that are wanted, or all.
fn outputs_of(Scored { scorer, scores, reasons }: &Scored, wanted: &[String]) -> Vec<Json> {
    let (rows, classes) = (scores.len(), scorer.classes());
    let tensor = |name: &str, datatype: &str, shape: &[usize], data: Vec<Json>| json!({ "name": name, "datatype": datatype, "shape": shape, "data": data });
    let labels = scores.iter().map(|score| json!(classes[score.class()]));
    let probabilities = scores.iter().flat_map(|score| score.probabilities());
    let mut outputs = vec![
        tensor("label", "BYTES", &[rows], labels.collect()),
        tensor(
            "probabilities",
            "FP64",
            &[rows, classes.len()],
            probabilities.map(|probability| json!(probability)).collect(),
        ),
        tensor(
            "classes",
            "BYTES",
            &[classes.len()],
            classes.iter().map(|class| json!(class)).collect(),
        ),
    ];
    if let Some(reasons) = reasons {
        let texts = reasons.iter().map(|reasons| Json::String(reasons.to_string()));
        outputs.push(tensor("reasons", "BYTES", &[rows], texts.collect()));
    }
    outputs.retain(|output| {
        wanted.is_empty() || wanted.iter().any(|name| output["name"] == name.as_str())
    });
    outputs
}
