//! The routes of the serving protocols, rows of the table of routes.

use axum::{
    http::Method,
    routing::{get, post},
};

use crate::http::{
    answers::{
        BODY_TOO_LARGE, INFER, INVALID_ROWS, JOURNAL_FAILED, JOURNAL_UNUSABLE, NO_MODEL, OFF,
        SCORED,
    },
    openapi::schemas::{JSON, Shape},
    route::{Access, Content, Route},
    serving::{self, invocations, open_inference},
};

pub(in crate::http) const INVOCATIONS: Route = Route {
    method: Method::POST,
    path: "/invocations",
    access: Access::Write,
    purpose: "Scores rows as MLflow's scoring server and SageMaker do, see [Serving protocols](serving.md#invocations). The body is JSON with one of \
              `dataframe_split`, `dataframe_records`, `instances` and `inputs`, or CSV with a header; `params.reasons` adds reasons.",
    parameters: &[],
    answers: &[
        SCORED,
        INVALID_ROWS,
        OFF,
        BODY_TOO_LARGE,
        JOURNAL_UNUSABLE,
        JOURNAL_FAILED,
        NO_MODEL,
    ],
    content: Content::taking(
        &[(JSON, Shape::Invocations), ("text/csv", Shape::Csv)],
        &[(200, Shape::Predictions)],
    ),
    handler: || post(invocations::invocations),
};

pub(in crate::http) const PING: Route = Route {
    method: Method::GET,
    path: "/ping",
    access: Access::Open,
    purpose: "SageMaker's and MLflow's health check: a model serves.",
    parameters: &[],
    answers: &[(200, "A model serves."), OFF, NO_MODEL],
    content: Content::of(&[(200, Shape::Ping)]),
    handler: || get(serving::ping),
};

pub(in crate::http) const HEALTH: Route = Route {
    method: Method::GET,
    path: "/health",
    access: Access::Open,
    purpose: "As `/ping`.",
    parameters: &[],
    answers: &[(200, "A model serves."), OFF, NO_MODEL],
    content: Content::of(&[(200, Shape::Ping)]),
    handler: || get(serving::ping),
};

pub(in crate::http) const VERSION: Route = Route {
    method: Method::GET,
    path: "/version",
    access: Access::Open,
    purpose: "The release of Foretell.",
    parameters: &[],
    answers: &[(200, "The version."), OFF],
    content: Content::of(&[(200, Shape::Text)]),
    handler: || get(serving::version),
};

pub(in crate::http) const V2: Route = Route {
    method: Method::GET,
    path: "/v2",
    access: Access::Read,
    purpose: "The name and the extensions of the server, in the Open Inference Protocol.",
    parameters: &[],
    answers: &[(200, "`{\"name\": \"foretell\", …}`"), OFF],
    content: Content::of(&[(200, Shape::InferenceServer)]),
    handler: || get(open_inference::server),
};

pub(in crate::http) const V2_HEALTH_LIVE: Route = Route {
    method: Method::GET,
    path: "/v2/health/live",
    access: Access::Open,
    purpose: "Liveness in the Open Inference Protocol.",
    parameters: &[],
    answers: &[(200, "`{\"live\": true}`"), OFF],
    content: Content::of(&[(200, Shape::InferenceLive)]),
    handler: || get(open_inference::live),
};

pub(in crate::http) const V2_HEALTH_READY: Route = Route {
    method: Method::GET,
    path: "/v2/health/ready",
    access: Access::Open,
    purpose: "Readiness in the Open Inference Protocol: a model serves.",
    parameters: &[],
    answers: &[(200, "`{\"ready\": true}`"), OFF, NO_MODEL],
    content: Content::of(&[(200, Shape::Ping)]),
    handler: || get(serving::ping),
};

pub(in crate::http) const V2_MODEL: Route = Route {
    method: Method::GET,
    path: "/v2/models/{model}",
    access: Access::Read,
    purpose: "The inputs and outputs of the model. `model` is the name of the application.",
    parameters: &[],
    answers: &[(200, "The metadata."), OFF, NO_MODEL],
    content: Content::of(&[(200, Shape::InferenceModel)]),
    handler: || get(open_inference::model),
};

pub(in crate::http) const V2_MODEL_READY: Route = Route {
    method: Method::GET,
    path: "/v2/models/{model}/ready",
    access: Access::Read,
    purpose: "Whether this model serves.",
    parameters: &[],
    answers: &[(200, "It serves."), OFF, NO_MODEL],
    content: Content::of(&[(200, Shape::InferenceModelReady)]),
    handler: || get(open_inference::model_ready),
};

pub(in crate::http) const V2_MODEL_INFER: Route = Route {
    method: Method::POST,
    path: "/v2/models/{model}/infer",
    access: Access::Write,
    purpose: INFER,
    parameters: &[],
    answers: &[
        SCORED,
        INVALID_ROWS,
        OFF,
        BODY_TOO_LARGE,
        JOURNAL_UNUSABLE,
        JOURNAL_FAILED,
        NO_MODEL,
    ],
    content: Content::taking(
        &[(JSON, Shape::InferenceRequest)],
        &[(200, Shape::InferenceResponse)],
    ),
    handler: || post(open_inference::infer),
};

pub(in crate::http) const V2_MODEL_VERSION: Route = Route {
    method: Method::GET,
    path: "/v2/models/{model}/versions/{version}",
    access: Access::Read,
    purpose: "The inputs and outputs of the model. `model` is the name of the application; `version` is a version that serves, or `champion` or `challenger`.",
    parameters: &[],
    answers: &[(200, "The metadata."), OFF, NO_MODEL],
    content: Content::of(&[(200, Shape::InferenceModel)]),
    handler: || get(open_inference::model),
};

pub(in crate::http) const V2_MODEL_VERSION_READY: Route = Route {
    method: Method::GET,
    path: "/v2/models/{model}/versions/{version}/ready",
    access: Access::Read,
    purpose: "Whether this model serves.",
    parameters: &[],
    answers: &[(200, "It serves."), OFF, NO_MODEL],
    content: Content::of(&[(200, Shape::InferenceModelReady)]),
    handler: || get(open_inference::model_ready),
};

pub(in crate::http) const V2_MODEL_VERSION_INFER: Route = Route {
    method: Method::POST,
    path: "/v2/models/{model}/versions/{version}/infer",
    access: Access::Write,
    purpose: INFER,
    parameters: &[],
    answers: &[
        SCORED,
        INVALID_ROWS,
        OFF,
        BODY_TOO_LARGE,
        JOURNAL_UNUSABLE,
        JOURNAL_FAILED,
        NO_MODEL,
    ],
    content: Content::taking(
        &[(JSON, Shape::InferenceRequest)],
        &[(200, Shape::InferenceResponse)],
    ),
    handler: || post(open_inference::infer),
};
