//! The routes of the serving protocols, rows of the table of routes.

use axum::{
    http::Method,
    routing::{get, post},
};

use crate::http::{
    answers::{
        BODY_TOO_LARGE, INFER, INVALID_ROWS, JOURNAL_FAILED, JOURNAL_UNUSABLE, NO_MODEL,
        NOT_ACCEPTABLE, OFF, SCORED,
    },
    openapi::schemas::{JSON, Shape},
    route::{Access, Content, Handler, Route},
    serving::{self, formats, invocations, open_inference},
};

pub(in crate::http) const INVOCATIONS: Route = invocations_at(
    "/invocations",
    Handler::Serving(|| post(invocations::invocations)),
    "Scores rows as MLflow's scoring server and SageMaker do, see [Serving protocols](serving.md#invocations). The body is JSON with one of \
     `dataframe_split`, `dataframe_records`, `instances` and `inputs`, or CSV, or JSON lines; `params.reasons` adds reasons. `Accept` \
     chooses the form of the answer.",
);

pub(in crate::http) const ENDPOINT_INVOCATIONS: Route = invocations_at(
    "/endpoints/{endpoint}/invocations",
    Handler::Serving(|| post(invocations::endpoint_invocations)),
    "As `/invocations`, at the path that SageMaker's clients request. Any name of an endpoint is accepted.",
);

const fn invocations_at(path: &'static str, handler: Handler, purpose: &'static str) -> Route {
    Route {
        method: Method::POST,
        path,
        access: Access::Write,
        purpose,
        parameters: &[],
        answers: &[
            SCORED,
            INVALID_ROWS,
            OFF,
            NOT_ACCEPTABLE,
            BODY_TOO_LARGE,
            JOURNAL_UNUSABLE,
            JOURNAL_FAILED,
            NO_MODEL,
        ],
        content: Content::taking(
            &[
                (JSON, Shape::Invocations),
                (formats::CSV, Shape::Csv),
                (formats::JSON_LINES, Shape::JsonLines),
            ],
            &[(200, Shape::Predictions)],
        ),
        handler,
    }
}

pub(in crate::http) const PING: Route =
    ready_at("/ping", "SageMaker's and MLflow's health check: a model serves.");

pub(in crate::http) const HEALTH: Route = ready_at("/health", "As `/ping`.");

pub(in crate::http) const V2_HEALTH_READY: Route =
    ready_at("/v2/health/ready", "Readiness in the Open Inference Protocol: a model serves.");

const fn ready_at(path: &'static str, purpose: &'static str) -> Route {
    Route {
        method: Method::GET,
        path,
        access: Access::Open,
        purpose,
        parameters: &[],
        answers: &[(200, "A model serves: `{\"ready\": true}`"), OFF, NO_MODEL],
        content: Content::of(&[(200, Shape::Ping)]),
        handler: Handler::Serving(|| get(serving::ping)),
    }
}

pub(in crate::http) const EXECUTION_PARAMETERS: Route = Route {
    method: Method::GET,
    path: "/execution-parameters",
    access: Access::Open,
    purpose: "What SageMaker's batch transform may send: requests at a time, and the size of each.",
    parameters: &[],
    answers: &[
        (
            200,
            "`MaxConcurrentTransforms`, `MaxPayloadInMB` (`serving.body_bytes_max`) and `BatchStrategy`.",
        ),
        OFF,
    ],
    content: Content::of(&[(200, Shape::ExecutionParameters)]),
    handler: Handler::Serving(|| get(serving::execution_parameters)),
};

pub(in crate::http) const VERSION: Route = Route {
    method: Method::GET,
    path: "/version",
    access: Access::Open,
    purpose: "The release of Foretell.",
    parameters: &[],
    answers: &[(200, "The version."), OFF],
    content: Content::of(&[(200, Shape::Text)]),
    handler: Handler::Serving(|| get(serving::version)),
};

pub(in crate::http) const V2: Route = Route {
    method: Method::GET,
    path: "/v2",
    access: Access::Read,
    purpose: "The name and the extensions of the server, in the Open Inference Protocol.",
    parameters: &[],
    answers: &[(200, "`{\"name\": \"foretell\", …}`"), OFF],
    content: Content::of(&[(200, Shape::InferenceServer)]),
    handler: Handler::Serving(|| get(open_inference::server)),
};

pub(in crate::http) const V2_HEALTH_LIVE: Route = Route {
    method: Method::GET,
    path: "/v2/health/live",
    access: Access::Open,
    purpose: "Liveness in the Open Inference Protocol.",
    parameters: &[],
    answers: &[(200, "`{\"live\": true}`"), OFF],
    content: Content::of(&[(200, Shape::InferenceLive)]),
    handler: Handler::Serving(|| get(open_inference::live)),
};

pub(in crate::http) const V2_MODEL: Route = model_at("/v2/models/{model}");

pub(in crate::http) const V2_MODEL_VERSION: Route =
    model_at("/v2/models/{model}/versions/{version}");

const fn model_at(path: &'static str) -> Route {
    Route {
        method: Method::GET,
        path,
        access: Access::Read,
        purpose: "The inputs and outputs of the model. `model` is the name of the application; a `version` is one that serves, or \
                  `champion` or `challenger`.",
        parameters: &[],
        answers: &[(200, "The metadata."), OFF, NO_MODEL],
        content: Content::of(&[(200, Shape::InferenceModel)]),
        handler: Handler::Serving(|| get(open_inference::model)),
    }
}

pub(in crate::http) const V2_MODEL_READY: Route = model_ready_at("/v2/models/{model}/ready");

pub(in crate::http) const V2_MODEL_VERSION_READY: Route =
    model_ready_at("/v2/models/{model}/versions/{version}/ready");

const fn model_ready_at(path: &'static str) -> Route {
    Route {
        method: Method::GET,
        path,
        access: Access::Read,
        purpose: "Whether this model serves.",
        parameters: &[],
        answers: &[(200, "It serves."), OFF, NO_MODEL],
        content: Content::of(&[(200, Shape::InferenceModelReady)]),
        handler: Handler::Serving(|| get(open_inference::model_ready)),
    }
}

pub(in crate::http) const V2_MODEL_INFER: Route = infer_at("/v2/models/{model}/infer");

pub(in crate::http) const V2_MODEL_VERSION_INFER: Route =
    infer_at("/v2/models/{model}/versions/{version}/infer");

const fn infer_at(path: &'static str) -> Route {
    Route {
        method: Method::POST,
        path,
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
        handler: Handler::Serving(|| post(open_inference::infer)),
    }
}
