//! Answers that several routes share, for the table of routes.

pub(super) const TOO_LARGE: (u16, &str) =
    (413, "The body is larger than 1 MiB, or the record is larger than its topic allows.");
pub(super) const BODY_TOO_LARGE: (u16, &str) =
    (413, "The body is larger than `serving.body_bytes_max`.");
pub(super) const CANNOT_WRITE: (u16, &str) = (
    502,
    "The broker is unavailable, and it is not known whether the record was written: send it again with the same id.",
);
pub(super) const INVALID: &str = "The body is not JSON, repeats a key, or is not an event or outcome of the schema. `detail` names the field, its value and what \
     is expected. Nothing was written.";
pub(super) const UNUSABLE: &str = "The record would go to the dead letters. `class` is `missing_field`, \
     `invalid_value`, `future_time`, `past_time` or `unknown_label`. It was not written. With `wait=true` it may also be \
     the class with which the event was dead-lettered, with `event_id`.";
pub(super) const REQUESTED: (u16, &str) = (
    202,
    "Written: `command_id`. The learner carries the command out when it runs; \
     `GET /api/v1/decisions?command_id=…` has the result. The same `Idempotency-Key` gives the same command.",
);
pub(super) const INVALID_COMMAND: (u16, &str) = (
    400,
    "The body is not a JSON object with `reason` and optionally `requested_by`. Nothing was written.",
);
pub(super) const NOT_WRITTEN: (u16, &str) = (
    503,
    "Too many records wait to be written, the models cannot be read now, or the instance is stopping; with \
     `Retry-After`.",
);
pub(super) const NOT_READ: (u16, &str) = (
    503,
    "The topics cannot be read now, or were not read within 10 s because another request reads them; with `Retry-After`.",
);
pub(super) const UNKNOWN_MODEL: (u16, &str) =
    (404, "No model, or more than one, begins so; `near` has similar versions.");
pub(super) const ACCEPTED_SOME: &str = "Some items of the array were refused. `results` has the answer to each item, in order; a refused one is \
     a problem as an error response has it.";

pub(super) const OFF: (u16, &str) =
    (404, "`serving.enabled` is false, or there is no such model or version.");
pub(super) const NOT_ACCEPTABLE: (u16, &str) =
    (406, "`Accept` has none of `application/json`, `application/jsonlines` and `text/csv`.");
pub(super) const NO_MODEL: (u16, &str) = (503, "No model serves yet.");
pub(super) const SCORED: (u16, &str) =
    (200, "The scores, with the header `Foretell-Model-Version`.");
pub(super) const INVALID_ROWS: (u16, &str) = (
    400,
    "The body is not of the protocol, has no rows or more than `serving.rows_max`, or `row` has a value that its question does \
     not take.",
);
pub(super) const JOURNAL_FAILED: (u16, &str) =
    (502, "With `serving.journal`: the broker is unavailable. Some rows may have been written.");
pub(super) const JOURNAL_UNUSABLE: (u16, &str) = (
    422,
    "With `serving.journal`: `row` would go to the dead letters as an event. None was written.",
);
pub(super) const INFER: &str = "Scores rows by the Open Inference Protocol, see [Serving protocols](serving.md#open-inference-protocol): each \
     input is a tensor with the answers to one question, in JSON or binary.";
