//! The JSON schemas of bodies and answers.

use serde_json::{Value as Json, json};

use crate::{
    http::{
        PROBLEMS,
        openapi::{
            json_schema::{OBJECT, TEXT, WHOLE, list, object, or_null},
            serving,
        },
    },
    processors::gateway::Gateway,
};

/// The media type of JSON.
pub(in crate::http) const JSON: &str = "application/json";

/// A named schema of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Problem,
    Text,
    Readiness,
    Started,
    OpenApi,
    Status,
    Event,
    Events,
    AcceptedEvent,
    Results,
    AcceptedEvents,
    Prediction,
    Action,
    Outcome,
    Outcomes,
    AcceptedOutcome,
    AcceptedOutcomes,
    Respondent,
    Models,
    Model,
    Decisions,
    Command,
    AcceptedCommand,
    Page,
    Asset,
    Nothing,
    Dashboard,
    Stream,
    DeadLetters,
    DeadLetter,
    ReplayOrder,
    Replayed,
    Ping,
    Invocations,
    Csv,
    JsonLines,
    Predictions,
    ExecutionParameters,
    InferenceServer,
    InferenceLive,
    InferenceModel,
    InferenceModelReady,
    InferenceRequest,
    InferenceResponse,
}

impl Shape {
    pub(super) const ALL: &[Self] = &[
        Self::Problem,
        Self::Text,
        Self::Readiness,
        Self::Started,
        Self::OpenApi,
        Self::Status,
        Self::Event,
        Self::Events,
        Self::AcceptedEvent,
        Self::Results,
        Self::AcceptedEvents,
        Self::Prediction,
        Self::Action,
        Self::Outcome,
        Self::Outcomes,
        Self::AcceptedOutcome,
        Self::AcceptedOutcomes,
        Self::Respondent,
        Self::Models,
        Self::Model,
        Self::Decisions,
        Self::Command,
        Self::AcceptedCommand,
        Self::Page,
        Self::Asset,
        Self::Nothing,
        Self::Dashboard,
        Self::Stream,
        Self::DeadLetters,
        Self::DeadLetter,
        Self::ReplayOrder,
        Self::Replayed,
        Self::Ping,
        Self::Invocations,
        Self::Csv,
        Self::JsonLines,
        Self::Predictions,
        Self::ExecutionParameters,
        Self::InferenceServer,
        Self::InferenceLive,
        Self::InferenceModel,
        Self::InferenceModelReady,
        Self::InferenceRequest,
        Self::InferenceResponse,
    ];

    pub(super) fn name(self) -> String {
        format!("{self:?}")
    }

    /// The media type of an answer of this shape.
    pub(super) fn media_type(self) -> &'static str {
        const OTHERS: [(Shape, &str); 4] = [
            (Shape::Text, "text/plain"),
            (Shape::Page, "text/html"),
            (Shape::Asset, "*/*"),
            (Shape::Stream, "text/event-stream"),
        ];
        let other = OTHERS.iter().find(|(shape, _)| *shape == self);
        other.map_or(JSON, |(_, media_type)| media_type)
    }

    pub(super) fn schema(self, gateway: &Gateway) -> Json {
        match self {
            Self::Problem => problem(),
            Self::Text => json!({ "type": "string" }),
            Self::Readiness => readiness(),
            Self::Started => object(&[("started", json!({ "type": "boolean" }))]),
            Self::OpenApi => object(&[("openapi", TEXT()), ("paths", OBJECT())]),
            Self::Status => status(),
            Self::Event => gateway.event_schema().json_schema(),
            Self::Events => one_or_many(Self::Event),
            Self::AcceptedEvent => accepted_event(),
            Self::Results => results(),
            Self::AcceptedEvents => any_of(&[Self::AcceptedEvent, Self::Results]),
            Self::Prediction => prediction(gateway),
            Self::Action => action(),
            Self::Outcome => outcome(gateway),
            Self::Outcomes => one_or_many(Self::Outcome),
            Self::AcceptedOutcome => accepted_outcome(gateway),
            Self::AcceptedOutcomes => any_of(&[Self::AcceptedOutcome, Self::Results]),
            Self::Respondent => respondent(),
            Self::Models => object(&[("models", list(OBJECT())), ("aliases", OBJECT())]),
            Self::Model => model(),
            Self::Decisions => object(&[("decisions", list(OBJECT()))]),
            Self::Command => command(),
            Self::AcceptedCommand => object(&[
                ("command_id", TEXT()),
                ("command", TEXT()),
                ("model_version", or_null("string")),
            ]),
            Self::Page | Self::Asset | Self::Nothing => json!({ "type": "string" }),
            Self::Stream => stream(),
            Self::Dashboard => object(&[("history", OBJECT())]),
            Self::DeadLetters => object(&[("dead_letters", list(Self::DeadLetter.reference()))]),
            Self::DeadLetter => dead_letter(),
            Self::ReplayOrder => replay_order(),
            Self::Replayed => replayed(),
            Self::Ping => object(&[("ready", json!({ "type": "boolean" }))]),
            Self::Invocations => serving::invocations(gateway),
            Self::Csv | Self::JsonLines => json!({ "type": "string" }),
            Self::ExecutionParameters => object(&[
                ("MaxConcurrentTransforms", WHOLE()),
                ("MaxPayloadInMB", WHOLE()),
                ("BatchStrategy", TEXT()),
            ]),
            Self::Predictions => object(&[
                ("predictions", list(serving::scored(probabilities(gateway)))),
                ("model_version", TEXT()),
            ]),
            Self::InferenceServer => {
                object(&[("name", TEXT()), ("version", TEXT()), ("extensions", list(TEXT()))])
            }
            Self::InferenceLive => object(&[("live", json!({ "type": "boolean" }))]),
            Self::InferenceModel => object(&[
                ("name", TEXT()),
                ("versions", list(TEXT())),
                ("platform", TEXT()),
                ("inputs", list(serving::tensor(false))),
                ("outputs", list(serving::tensor(false))),
            ]),
            Self::InferenceModelReady => {
                object(&[("name", TEXT()), ("ready", json!({ "type": "boolean" }))])
            }
            Self::InferenceRequest => serving::inference_request(),
            Self::InferenceResponse => object(&[
                ("model_name", TEXT()),
                ("model_version", TEXT()),
                ("outputs", list(serving::tensor(true))),
            ]),
        }
    }

    fn reference(self) -> Json {
        json!({ "$ref": format!("#/components/schemas/{}", self.name()) })
    }
}

fn any_of(shapes: &[Shape]) -> Json {
    let shapes = shapes.iter().map(|shape| shape.reference());
    json!({ "anyOf": shapes.collect::<Vec<Json>>() })
}

fn one_or_many(of: Shape) -> Json {
    let many = json!({ "type": "array", "items": of.reference(), "minItems": 1, "maxItems": 1000 });
    json!({ "anyOf": [of.reference(), many] })
}

fn problem() -> Json {
    let kinds = PROBLEMS.iter().map(|problem| json!(problem.uri()));
    let kinds: Vec<Json> = kinds.chain([json!("about:blank")]).collect();
    let mut schema = object(&[
        ("type", json!({ "type": "string", "enum": kinds })),
        ("title", TEXT()),
        ("status", WHOLE()),
        ("detail", TEXT()),
    ]);
    schema["description"] = json!("Problem details (RFC 9457).");
    schema["properties"]["class"] = json!({ "type": "string", "description": "The class that the record has, or would have, among the dead letters." });
    schema
}

fn readiness() -> Json {
    object(&[
        ("ready", json!({ "type": "boolean" })),
        ("model", or_null("string")),
        ("challenger", or_null("string")),
        ("contract", list(OBJECT())),
    ])
}

fn status() -> Json {
    object(&[
        ("application", TEXT()),
        ("instance", TEXT()),
        ("ready", json!({ "type": "boolean" })),
        ("contract", list(OBJECT())),
        ("model", or_null("object")),
        ("challenger", or_null("object")),
        ("training", or_null("object")),
        ("quality", or_null("object")),
        ("uplift", list(OBJECT())),
        ("outcomes", OBJECT()),
        ("examples", OBJECT()),
        ("waiting", OBJECT()),
        ("mlflow", or_null("object")),
        ("topics", OBJECT()),
        ("workers", OBJECT()),
    ])
}

fn accepted_event() -> Json {
    let mut schema = object(&[("event_id", TEXT()), ("respondent_id", TEXT())]);
    let description =
        "With wait=true: the answers that are needed before the observation is scored.";
    schema["properties"]["missing"] =
        json!({ "type": "array", "items": TEXT(), "description": description });
    schema
}

fn results() -> Json {
    let mut item = OBJECT();
    item["description"] = json!("What one item would get as an answer of its own.");
    object(&[("results", list(item))])
}

fn probabilities(gateway: &Gateway) -> Json {
    let share = || json!({ "type": "number", "minimum": 0, "maximum": 1 });
    let labels = gateway.labels().iter().map(|label| (label.clone(), share()));
    json!({
        "type": "object",
        "properties": labels.collect::<serde_json::Map<_, _>>(),
        "additionalProperties": share(),
    })
}

fn prediction(gateway: &Gateway) -> Json {
    let features = gateway.event_schema().questions().iter();
    let features = features
        .map(|question| (question.name.clone(), json!({ "type": ["number", "string", "null"] })));
    let features = features.collect::<serde_json::Map<_, _>>();
    let mut schema = object(&[
        ("prediction_id", TEXT()),
        ("respondent_id", TEXT()),
        ("event_id", TEXT()),
        ("event_time", WHOLE()),
        ("received_at", WHOLE()),
        ("predicted_at", WHOLE()),
        ("model_version", TEXT()),
        ("label", TEXT()),
        ("probabilities", probabilities(gateway)),
        ("features", json!({ "type": "object", "properties": features })),
        ("actions", list(Shape::Action.reference())),
    ]);
    schema["properties"]["reasons"] = or_null("object");
    schema["properties"]["reasons_error"] = TEXT();
    schema
}

fn action() -> Json {
    object(&[
        ("action_id", TEXT()),
        ("rule", TEXT()),
        ("rule_version", TEXT()),
        ("state", TEXT()),
        ("control", json!({ "type": "boolean" })),
        ("due", or_null("integer")),
    ])
}

fn outcome(gateway: &Gateway) -> Json {
    json!({
        "type": "object",
        "properties": {
            "respondent_id": gateway.event_schema().json_schema()["properties"]
                [&gateway.event_schema().metadata().respondent_id],
            "label": { "type": "string", "enum": gateway.labels() },
            "outcome_time": {
                "type": ["integer", "string", "null"],
                "description": "Milliseconds since 1970, or ISO 8601. Default: now.",
            },
            "outcome_id": { "type": ["string", "null"] },
        },
        "required": ["respondent_id", "label"],
        "additionalProperties": false,
    })
}

fn accepted_outcome(gateway: &Gateway) -> Json {
    object(&[
        ("respondent_id", TEXT()),
        ("label", json!({ "type": "string", "enum": gateway.labels() })),
        ("outcome_time", WHOLE()),
        ("outcome_id", or_null("string")),
    ])
}

fn respondent() -> Json {
    object(&[
        ("respondent_id", TEXT()),
        ("stream_time", or_null("integer")),
        ("open", or_null("object")),
        ("predictions", list(OBJECT())),
        ("outcomes", list(OBJECT())),
        ("actions", list(OBJECT())),
    ])
}

fn model() -> Json {
    object(&[
        ("version", TEXT()),
        ("aliases", list(TEXT())),
        ("metrics", OBJECT()),
        ("classes", list(TEXT())),
        ("evaluation", OBJECT()),
        ("lineage", OBJECT()),
        ("columns", list(OBJECT())),
        ("decisions", list(OBJECT())),
    ])
}

fn stream() -> Json {
    json!({
        "type": "string",
        "description": "Server-sent events. The first, of type status, is a Dashboard; each of those after it, of type change, has the fields of Dashboard that have changed.",
    })
}

fn replayed() -> Json {
    object(&[
        ("replayed", OBJECT()),
        ("before", WHOLE()),
        ("kept", OBJECT()),
        ("missing", list(TEXT())),
        ("dry_run", json!({ "type": "boolean" })),
        ("more", json!({ "type": "boolean" })),
    ])
}

fn dead_letter() -> Json {
    let mut schema = object(&[
        ("id", TEXT()),
        ("written_at", WHOLE()),
        ("class", TEXT()),
        ("message", TEXT()),
        ("topic", TEXT()),
        ("partition", WHOLE()),
        ("offset", WHOLE()),
        ("schema_id", or_null("integer")),
        ("key", or_null("string")),
        ("replayed", json!({ "type": "boolean" })),
    ]);
    let bytes = "The length of the value.";
    schema["properties"]["value_bytes"] =
        json!({ "type": ["integer", "null"], "description": bytes });
    let value = "In a list its beginning as text; alone it is decoded by its schema, or `value_error` says why not.";
    schema["properties"]["value"] = json!({ "description": value });
    for name in ["value_error", "value_raw"] {
        schema["properties"][name] = TEXT();
    }
    schema["properties"]["headers"] = list(json!({ "type": "array", "items": TEXT() }));
    schema
}

fn replay_order() -> Json {
    let texts = || list(TEXT());
    json!({
        "type": "object",
        "properties": {
            "ids": list(json!({ "type": "string", "pattern": "^[0-9]{1,9}:[0-9]{1,18}$" })),
            "classes": texts(),
            "topics": texts(),
            "since": { "type": ["integer", "null"], "description": "Milliseconds since 1970." },
            "all": { "type": "boolean" },
            "dry_run": { "type": "boolean" },
        },
        "additionalProperties": false,
    })
}

fn command() -> Json {
    json!({
        "type": "object",
        "properties": {
            "reason": { "type": "string", "minLength": 1, "description": "It is stored with the decision." },
            "requested_by": { "type": ["string", "null"] },
        },
        "required": ["reason"],
        "additionalProperties": false,
    })
}
