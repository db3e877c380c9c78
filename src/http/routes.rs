//! The table of routes. The router, the metrics and `docs/http-api.md` derive from it.

use axum::{
    http::Method,
    routing::{MethodRouter, get, post},
};

use crate::http::{
    HttpState, api, dashboard, dead_letters, events, health, metrics, models, parameters::Named,
    respondents,
};

/// One route.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    /// Whether it writes, and so requires the token.
    pub is_guarded: bool,
    pub purpose: &'static str,
    /// Query parameters.
    pub parameters: &'static [Named],
    /// Responses by status, without those of every route.
    pub answers: &'static [(u16, &'static str)],
    pub(super) handler: fn() -> MethodRouter<HttpState>,
}

// Responses that several routes share.
const TOO_LARGE: (u16, &str) =
    (413, "The body is larger than 1 MiB, or the record is larger than its topic allows.");
const CANNOT_WRITE: (u16, &str) = (
    502,
    "The broker is unavailable, and it is not known whether the record was written: send it again with the same id.",
);
const INVALID: &str = "The body is not JSON, repeats a key, or is not an event or outcome of the schema. `error` names the field, its value and what \
     is expected. Nothing was written.";
const UNUSABLE: &str = "The record would go to the dead letters. `class` is `missing_field`, \
     `invalid_value`, `future_time`, `past_time` or `unknown_label`. It was not written. With `wait=true` it may also be \
     the class with which the event was dead-lettered, with `event_id`.";
const REQUESTED: (u16, &str) = (
    202,
    "Written: `command_id`. The learner carries the command out when it runs; \
     `GET /api/v1/decisions?command_id=…` has the result. The same `Idempotency-Key` gives the same command.",
);
const INVALID_COMMAND: (u16, &str) = (
    400,
    "The body is not a JSON object with `reason` and optionally `requested_by`. Nothing was written.",
);
const NOT_WRITTEN: (u16, &str) = (
    503,
    "Too many records wait to be written, the models cannot be read now, or the instance is stopping; with \
     `Retry-After`.",
);
const NOT_READ: (u16, &str) = (
    503,
    "The topics cannot be read now, or were not read within 10 s because another request reads them; with `Retry-After`.",
);
const UNKNOWN_MODEL: (u16, &str) =
    (404, "No model, or more than one, begins so; `near` has similar versions.");
const ACCEPTED_SOME: &str = "Some items of the array were refused. `results` has the answer to each item, in order; a refused one has \
     `error`, and `class` where 422 has it.";

/// Every route, in the order of the docs.
pub const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "/",
        is_guarded: false,
        purpose: "The [dashboard](dashboard.md). Its files are in the binary; it requests nothing from other hosts.",
        parameters: &[],
        answers: &[
            (200, "The page, compressed with gzip if the client accepts it."),
            (304, "The client has it (`If-None-Match`)."),
        ],
        handler: || get(dashboard::page),
    },
    Route {
        method: Method::GET,
        path: "/assets/{version}/{file}",
        is_guarded: false,
        purpose: "A file of the dashboard. `version` is a hash of all of them, so a client may keep them for ever.",
        parameters: &[],
        answers: &[
            (200, "The file, compressed with gzip if the client accepts it."),
            (304, "The client has it (`If-None-Match`)."),
            (404, "There is no such file, or it is one of another release."),
        ],
        handler: || get(dashboard::asset),
    },
    Route {
        method: Method::GET,
        path: "/livez",
        is_guarded: false,
        purpose: "Liveness probe: the process answers.",
        parameters: &[],
        answers: &[(200, "`ok`")],
        handler: || get(health::livez),
    },
    Route {
        method: Method::GET,
        path: "/readyz",
        is_guarded: false,
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
        handler: || get(health::readyz),
    },
    Route {
        method: Method::GET,
        path: "/startupz",
        is_guarded: false,
        purpose: "Startup probe: every worker has its first assignment.",
        parameters: &[],
        answers: &[(200, "`{\"started\": true}`"), (503, "`{\"started\": false}`")],
        handler: || get(health::startupz),
    },
    Route {
        method: Method::GET,
        path: "/metrics",
        is_guarded: false,
        purpose: "Metrics in Prometheus' text format: see [Metrics](metrics.md).",
        parameters: &[],
        answers: &[(200, "The metrics.")],
        handler: || get(metrics::metrics),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/status",
        is_guarded: false,
        purpose: "Tasks, stores, the champion (`model`), the challenger and the training that is running, as of the last commit. A task that \
                  is blocked by a record has `blocked_by` and `blocked_since`; a task that restores says \
                  how much is left.",
        parameters: &[],
        answers: &[(200, "The status as JSON.")],
        handler: || get(api::status),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/dashboard",
        is_guarded: false,
        purpose: "What the dashboard shows: the whole application, as this instance knows it from the reports that every \
                  instance writes every 3 s. `live` has rates, latencies and the counts since the start of each instance, \
                  `instances` their status, `quality` and `uplift` what the learning task knows, and `history` the numbers of \
                  the last 15 minutes.",
        parameters: &[],
        answers: &[(200, "The application as JSON; without `live` in the first second.")],
        handler: || get(dashboard::snapshot),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/stream",
        is_guarded: false,
        purpose: "The same as server-sent events. The first event, of type `snapshot`, has everything; after it there is one \
                  every second, with the fields that have changed. A client that does not read for some seconds is disconnected.",
        parameters: &[],
        answers: &[
            (200, "`text/event-stream`. It ends when the instance stops."),
            (503, "`http.streams_max` streams are open; with `Retry-After`."),
        ],
        handler: || get(dashboard::stream),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/events",
        is_guarded: true,
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
        handler: || post(events::events),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/outcomes",
        is_guarded: true,
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
        handler: || post(api::outcomes),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/respondents/{id}",
        is_guarded: true,
        purpose: "What is stored about a respondent: the answers so far (`open`), the newest 20 predictions with their state \
                  (`waiting` for an outcome, `learned`, or `passed_over` because another one was learned from), outcomes that \
                  wait for a prediction, and the newest 100 actions: `pending`, `requested`, or `held_out`. Any instance answers: the question goes through the topic `queries` to the one that has \
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
        handler: || get(respondents::respondent),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/models",
        is_guarded: false,
        purpose: "The newest 1000 models, newest first, with their metrics and aliases, and the target of each alias. It is \
                  read from the topic `models`, by one request at a time; what was read stays in memory without \
                  the bundles, so only the first request of an instance reads all of it.",
        parameters: &[],
        answers: &[(200, "`{\"models\": […], \"aliases\": {…}}`"), NOT_READ],
        handler: || get(models::list),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/models/{version}",
        is_guarded: false,
        purpose: "Everything about a model: evaluation, parameters with their defaults, lineage, columns, feature \
                  importance, and the decisions about it. `version` may also be the first characters of a version, or an alias, \
                  such as `champion`.",
        parameters: &[],
        answers: &[(200, "The model as JSON."), UNKNOWN_MODEL, NOT_READ],
        handler: || get(models::show),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/decisions",
        is_guarded: false,
        purpose: "The newest decisions of the learner, newest first: what it promoted, refused and rolled back, with \
                  the numbers and the reason.",
        parameters: models::DECISION_PARAMETERS,
        answers: &[(200, "`{\"decisions\": […]}`"), NOT_READ],
        handler: || get(models::decisions),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/models/{version}/promote",
        is_guarded: true,
        purpose: "Requests that a model becomes the champion. `version` as above. The body is a JSON object with the `reason`, \
                  which is stored with the decision, and optionally `requested_by`.",
        parameters: &[],
        answers: &[REQUESTED, INVALID_COMMAND, UNKNOWN_MODEL, TOO_LARGE, CANNOT_WRITE, NOT_WRITTEN],
        handler: || post(models::promote),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/models/rollback",
        is_guarded: true,
        purpose: "Requests that the champion's predecessor becomes the champion again. The body is as for a promotion.",
        parameters: &[],
        answers: &[REQUESTED, INVALID_COMMAND, TOO_LARGE, CANNOT_WRITE, NOT_WRITTEN],
        handler: || post(models::roll_back),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/trainings",
        is_guarded: true,
        purpose: "Requests a training on the labelled examples so far. The body is as for a promotion.",
        parameters: &[],
        answers: &[REQUESTED, INVALID_COMMAND, TOO_LARGE, CANNOT_WRITE, NOT_WRITTEN],
        handler: || post(models::train),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/dead-letters",
        is_guarded: true,
        purpose: "The newest [dead letters](operations.md#dead-letters), newest first, with the beginnings of their values. \
                  With `class`, `topic` or `since`, the whole topic is read, by one request at a time, and `classes` has the \
                  numbers of those that match.",
        parameters: dead_letters::PARAMETERS,
        answers: &[(200, "`{\"dead_letters\": […]}`, and `classes`"), NOT_READ],
        handler: || get(dead_letters::list),
    },
    Route {
        method: Method::GET,
        path: "/api/v1/dead-letters/{id}",
        is_guarded: true,
        purpose: "One dead letter, its value decoded by its own schema. `id` is `partition:offset`.",
        parameters: &[],
        answers: &[
            (200, "The dead letter as JSON."),
            (404, "There is no dead letter of this id."),
            NOT_READ,
        ],
        handler: || get(dead_letters::show),
    },
    Route {
        method: Method::POST,
        path: "/api/v1/dead-letters/replay",
        is_guarded: true,
        purpose: "Sends the records of dead letters to their topics again, with their own keys, headers and partitions, each \
                  once. The body is a JSON object with `ids`, `classes`, `topics` (arrays) and `since` (milliseconds since \
                  1970), which narrow them down, or `\"all\": true`; with `\"dry_run\": true`, it only counts.",
        parameters: &[],
        answers: &[
            (
                200,
                "`replayed` by topic, `before`: the number of those replayed before, `kept`: those that cannot be replayed, \
                 by reason, and `more` if one replay does not take all.",
            ),
            (400, "The body is not such an object. Nothing was replayed."),
            TOO_LARGE,
            (
                503,
                "The topic cannot be read now, or it was not done within 10 s; with `Retry-After`. A replay goes on: repeat \
                 it to see what is left.",
            ),
        ],
        handler: || post(dead_letters::replay),
    },
];
