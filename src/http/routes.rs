//! The table of routes. The router, the metrics and `docs/http-api.md` derive from it.

use axum::{
    http::Method,
    routing::{get, post},
};

use crate::http::{
    answers::{
        ACCEPTED_SOME, CANNOT_WRITE, INVALID, INVALID_COMMAND, NOT_READ, NOT_WRITTEN, REQUESTED,
        TOO_LARGE, UNKNOWN_MODEL, UNUSABLE,
    },
    api, dashboard, dead_letters, events, health, metrics, models,
    openapi::{
        self,
        schemas::{JSON, Shape},
    },
    respondents,
    route::{Access, Content, Handler, Route},
    serving,
};

/// Every route, in the order of the docs.
pub const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "/",
        access: Access::Open,
        purpose: "The [dashboard](dashboard.md). Its files are in the binary; it requests nothing from other hosts.",
        parameters: &[],
        answers: &[
            (200, "The page, compressed with gzip if the client accepts it."),
            (304, "The client has it (`If-None-Match`)."),
        ],
        content: Content::of(&[(200, Shape::Page), (304, Shape::Nothing)]),
        handler: Handler::Instance(|| get(dashboard::page)),
    },
    Route {
        method: Method::GET,
        path: "/assets/{version}/{file}",
        access: Access::Open,
        purpose: "A file of the dashboard. `version` is a hash of all of them, so a client may keep them for ever.",
        parameters: &[],
        answers: &[
            (200, "The file, compressed with gzip if the client accepts it."),
            (304, "The client has it (`If-None-Match`)."),
            (404, "There is no such file, or it is one of another release."),
        ],
        content: Content::of(&[(200, Shape::Asset), (304, Shape::Nothing)]),
        handler: Handler::Instance(|| get(dashboard::asset)),
    },
    Route {
        method: Method::GET,
        path: "/livez",
        access: Access::Open,
        purpose: "Liveness probe: the process answers.",
        parameters: &[],
        answers: &[(200, "`ok`")],
        content: Content::of(&[(200, Shape::Text)]),
        handler: Handler::Instance(|| get(health::livez)),
    },
    Route {
        method: Method::GET,
        path: "/readyz",
        access: Access::Open,
        purpose: "Readiness probe: every task assigned to this instance is running (there may be none, if other \
                  instances have them), and a model serves. `contract` lists the features that differ from the training \
                  data of the model. Without a challenger, `challenger` is null; readiness does not depend on it.",
        parameters: &[],
        answers: &[
            (
                200,
                "Ready: `{\"ready\": true, \"model\": \"…\", \"challenger\": null, \"contract\": […]}`.",
            ),
            (503, "Not ready, with the same fields."),
        ],
        content: Content::of(&[(200, Shape::Readiness), (503, Shape::Readiness)]),
        handler: Handler::Instance(|| get(health::readyz)),
    },
    Route {
        method: Method::GET,
        path: "/startupz",
        access: Access::Open,
        purpose: "Startup probe: every worker has its first assignment.",
        parameters: &[],
        answers: &[(200, "`{\"started\": true}`"), (503, "`{\"started\": false}`")],
        content: Content::of(&[(200, Shape::Started), (503, Shape::Started)]),
        handler: Handler::Instance(|| get(health::startupz)),
    },
    Route {
        method: Method::GET,
        path: "/metrics",
        access: Access::Open,
        purpose: "Metrics in Prometheus' text format: see [Metrics](metrics.md).",
        parameters: &[],
        answers: &[(200, "The metrics.")],
        content: Content::of(&[(200, Shape::Text)]),
        handler: Handler::Instance(|| get(metrics::metrics)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/status",
        access: Access::Read,
        purpose: "Tasks, stores, the champion (`model`), the challenger and the training that is running, as of the last commit. A task that \
                  is blocked by a record has `blocked_by` and `blocked_since`; a task that restores says \
                  how much is left. `mlflow` is null without a server; `unavailable_since` and `reason` are set while the \
                  server does not answer this instance, which sends if `sends` is true. `topics` has the names of the topics, \
                  those of further events in `companions`. `outcomes` has the outcomes since the start by state, `examples` the \
                  labelled examples by the source of their label, and `waiting` what waits in the stores now: see \
                  [Dashboard](dashboard.md#what-the-numbers-are).",
        parameters: &[],
        answers: &[(200, "The status as JSON.")],
        content: Content::of(&[(200, Shape::Status)]),
        handler: Handler::Instance(|| get(api::status)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/openapi.json",
        access: Access::Read,
        purpose: "This API as an OpenAPI 3.1 document, from which tools generate clients. It has the questions of the event schema \
                  and the labels of this application.",
        parameters: &[],
        answers: &[(200, "The document.")],
        content: Content::of(&[(200, Shape::OpenApi)]),
        handler: Handler::Instance(|| get(openapi::openapi)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/dashboard",
        access: Access::Read,
        purpose: "What the dashboard shows: the whole application, as this instance knows it from the reports that every \
                  instance writes every 3 s. `live` has rates, latencies and the counts since the start of each instance, \
                  `instances` their status, `quality` and `uplift` what the learning task knows, and `history` the numbers of \
                  the last 15 minutes.",
        parameters: &[],
        answers: &[(200, "The application as JSON; without `live` in the first second.")],
        content: Content::of(&[(200, Shape::Dashboard)]),
        handler: Handler::Instance(|| get(dashboard::snapshot)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/stream",
        access: Access::Read,
        purpose: "The same as server-sent events. The first event, of type `status`, has everything, and replaces what a client \
                  has. After it there is one of type `change` every second, with the fields that have changed: each replaces the \
                  one of its name; `history` is in the first event only. A client that does not read for some seconds is \
                  disconnected.",
        parameters: &[],
        answers: &[
            (200, "`text/event-stream`. It ends when the instance stops."),
            (503, "`http.streams_max` streams are open; with `Retry-After`."),
        ],
        content: Content::of(&[(200, Shape::Stream)]),
        handler: Handler::Instance(|| get(dashboard::stream)),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/events",
        access: Access::Write,
        purpose: "Writes one event, or an array of 1 to 1000. An event is a JSON object with the names of the event \
                  schema; how values are written is in [Values](schemas.md#values). `null` takes an earlier \
                  answer back. An event without an id gets one: a UUID of version 7 where ids are UUIDs, a random number \
                  where they are numbers.",
        parameters: events::PARAMETERS,
        answers: &[
            (
                200,
                "With `wait=true`: the event was scored. The champion's prediction as JSON, with the answers as scored in \
                 `features`, by the names of the questions; if the event is a repeat, the first prediction, with the header \
                 `Idempotent-Replayed: true`. `actions` are those that the event caused by the [rules](actions.md#in-a-page), \
                 pending ones too. With `reasons`, it has [`reasons`](reasons.md); they are null if there are none, \
                 and `reasons_error` says why.",
            ),
            (
                202,
                "Written: `event_id` and `respondent_id`. With `wait=true`: not scored yet, `missing` names the answers \
                 that are needed; or a repeat of an event that made no prediction, or whose prediction is no longer \
                 stored with its answers (its window has passed, or `outcomes.conflict` is `first` and it was learned from), \
                 with `Idempotent-Replayed: true`.",
            ),
            (207, ACCEPTED_SOME),
            (400, INVALID),
            TOO_LARGE,
            (422, UNUSABLE),
            CANNOT_WRITE,
            (
                503,
                "With `wait=true`: `http.waits_max` requests wait already, or replies cannot be read. It was not \
                 written. Or too many records wait to be written, or the instance is stopping. `Retry-After` says when \
                 to try again.",
            ),
            (
                504,
                "With `wait=true`: the result was not known in time. Send it again with the same id to wait again.",
            ),
        ],
        content: Content::writing(
            &[(JSON, Shape::Events)],
            &[(200, Shape::Prediction), (202, Shape::AcceptedEvents), (207, Shape::Results)],
        ),
        handler: Handler::Instance(|| post(events::events)),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/outcomes",
        access: Access::Write,
        purpose: "Writes one outcome, or an array of 1 to 1000. An outcome has `respondent_id`, `label` (one of \
                  `outcomes.labels`; a number or a boolean stands for its text) and optionally `outcome_time` \
                  (milliseconds since 1970, or ISO 8601; the default is now) and `outcome_id`.",
        parameters: &[],
        answers: &[
            (202, "Written: the outcome with the time and the id that it was given."),
            (207, ACCEPTED_SOME),
            (400, INVALID),
            TOO_LARGE,
            (422, UNUSABLE),
            CANNOT_WRITE,
            (
                503,
                "Too many records wait to be written, or the instance is stopping; with `Retry-After`.",
            ),
        ],
        content: Content::writing(
            &[(JSON, Shape::Outcomes)],
            &[(202, Shape::AcceptedOutcomes), (207, Shape::Results)],
        ),
        handler: Handler::Instance(|| post(api::outcomes)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/respondents/{id}",
        access: Access::Respondents,
        purpose: "What is stored about a respondent: the answers so far (`open`), the newest 20 predictions with their state \
                  (`waiting` for an outcome, `learned`, or `passed_over` because another one was learned from), outcomes that \
                  wait for a prediction, and the newest 100 actions: `pending`, `requested`, `held_out`, or `cancelled` with \
                  the `reason`. If the answers of a prediction are not stored any more, `prediction` is null, and `not_stored` \
                  says why. Any instance answers: the question goes through the topic `queries` to the one that has \
                  the respondent's partition, and the answer is as of its commit, so it takes about `streams.commit_interval`.",
        parameters: respondents::PARAMETERS,
        answers: &[
            (200, "The respondent as JSON."),
            (400, "The id is not one of the event schema."),
            (404, "Nothing is stored about the respondent."),
            (500, "The question was dead-lettered: `class`."),
            CANNOT_WRITE,
            (
                503,
                "`http.waits_max` requests wait already, replies cannot be read, or the instance is stopping; with `Retry-After`.",
            ),
            (
                504,
                "The task did not answer in time: it is being moved, restores its stores, or is blocked.",
            ),
        ],
        content: Content::of(&[(200, Shape::Respondent)]),
        handler: Handler::Instance(|| get(respondents::respondent)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/models",
        access: Access::Read,
        purpose: "The newest 1000 models, newest first, with their metrics and aliases, and the target of each alias. It is \
                  read from the topic `models`, by one request at a time; what was read stays in memory without \
                  the bundles, so only the first request of an instance reads all of it.",
        parameters: &[],
        answers: &[(200, "`{\"models\": […], \"aliases\": {…}}`"), NOT_READ],
        content: Content::of(&[(200, Shape::Models)]),
        handler: Handler::Instance(|| get(models::list)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/models/{version}",
        access: Access::Read,
        purpose: "Everything about a model: evaluation, parameters with their defaults, lineage, columns, feature \
                  importance, and the decisions about it. `version` may also be the first characters of a version, or an alias, \
                  such as `champion`.",
        parameters: &[],
        answers: &[(200, "The model as JSON."), UNKNOWN_MODEL, NOT_READ],
        content: Content::of(&[(200, Shape::Model)]),
        handler: Handler::Instance(|| get(models::show)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/decisions",
        access: Access::Read,
        purpose: "The newest decisions of the learner, newest first: what it promoted, refused and rolled back, with \
                  the numbers and the reason.",
        parameters: models::DECISION_PARAMETERS,
        answers: &[(200, "`{\"decisions\": […]}`"), NOT_READ],
        content: Content::of(&[(200, Shape::Decisions)]),
        handler: Handler::Instance(|| get(models::decisions)),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/models/{version}/promote",
        access: Access::Write,
        purpose: "Requests that a model becomes the champion. `version` as above. The body is a JSON object with the `reason`, \
                  which is stored with the decision, and optionally `requested_by`.",
        parameters: &[],
        answers: &[REQUESTED, INVALID_COMMAND, UNKNOWN_MODEL, TOO_LARGE, CANNOT_WRITE, NOT_WRITTEN],
        content: Content::writing(&[(JSON, Shape::Command)], &[(202, Shape::AcceptedCommand)]),
        handler: Handler::Instance(|| post(models::promote)),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/models/rollback",
        access: Access::Write,
        purpose: "Requests that the champion's predecessor becomes the champion again. The body is as for a promotion.",
        parameters: &[],
        answers: &[REQUESTED, INVALID_COMMAND, TOO_LARGE, CANNOT_WRITE, NOT_WRITTEN],
        content: Content::writing(&[(JSON, Shape::Command)], &[(202, Shape::AcceptedCommand)]),
        handler: Handler::Instance(|| post(models::roll_back)),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/trainings",
        access: Access::Write,
        purpose: "Requests a training on the labelled examples so far. The body is as for a promotion.",
        parameters: &[],
        answers: &[REQUESTED, INVALID_COMMAND, TOO_LARGE, CANNOT_WRITE, NOT_WRITTEN],
        content: Content::writing(&[(JSON, Shape::Command)], &[(202, Shape::AcceptedCommand)]),
        handler: Handler::Instance(|| post(models::train)),
    },
    serving::routes::INVOCATIONS,
    serving::routes::ENDPOINT_INVOCATIONS,
    serving::routes::PING,
    serving::routes::EXECUTION_PARAMETERS,
    serving::routes::HEALTH,
    serving::routes::VERSION,
    serving::routes::V2,
    serving::routes::V2_HEALTH_LIVE,
    serving::routes::V2_HEALTH_READY,
    serving::routes::V2_MODEL,
    serving::routes::V2_MODEL_READY,
    serving::routes::V2_MODEL_INFER,
    serving::routes::V2_MODEL_VERSION,
    serving::routes::V2_MODEL_VERSION_READY,
    serving::routes::V2_MODEL_VERSION_INFER,
    Route {
        method: Method::GET,
        path: "/api/v1/dead-letters",
        access: Access::Respondents,
        purpose: "The newest [dead letters](operations.md#dead-letters), newest first, with the beginnings of their values. \
                  With `class`, `topic` or `since`, the whole topic is read, by one request at a time, and `classes` has the \
                  numbers of those that match.",
        parameters: dead_letters::PARAMETERS,
        answers: &[
            (200, "`{\"dead_letters\": […]}`, and `classes`"),
            (400, "There is no such class or topic."),
            NOT_READ,
        ],
        content: Content::of(&[(200, Shape::DeadLetters)]),
        handler: Handler::Instance(|| get(dead_letters::list)),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/dead-letters/{id}",
        access: Access::Respondents,
        purpose: "One dead letter, its value decoded by its own schema. `id` is `partition:offset`.",
        parameters: &[],
        answers: &[
            (200, "The dead letter as JSON."),
            (404, "There is no dead letter of this id."),
            NOT_READ,
        ],
        content: Content::of(&[(200, Shape::DeadLetter)]),
        handler: Handler::Instance(|| get(dead_letters::show)),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/dead-letters/replay",
        access: Access::Write,
        purpose: "Sends the records of dead letters to their topics again, with their own keys, headers and partitions, each \
                  once. The body is a JSON object with `ids`, `classes`, `topics` (arrays) and `since` (milliseconds since \
                  1970), which narrow them down, or `\"all\": true`; with `\"dry_run\": true`, it only counts.",
        parameters: &[],
        answers: &[
            (
                200,
                "`replayed` by topic, `before`: the number of those replayed before, `kept`: those that cannot be replayed, \
                 by reason, `missing`: named ids that are those of no letter, and `more` if one replay does not take all. With \
                 `dry_run`, the numbers are what it would do.",
            ),
            (
                400,
                "The body is not such an object, or there is no such class or topic. Nothing was replayed.",
            ),
            TOO_LARGE,
            (
                503,
                "The topic cannot be read now, or it was not done within 10 s; with `Retry-After`. A replay goes on: repeat \
                 it to see what is left.",
            ),
        ],
        content: Content::taking(&[(JSON, Shape::ReplayOrder)], &[(200, Shape::Replayed)]),
        handler: Handler::Instance(|| post(dead_letters::replay)),
    },
];
